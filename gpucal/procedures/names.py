"""Names that telescopes give to observing procedures, and the kinds that gpucal knows; offline and online alike."""

from __future__ import annotations

from collections.abc import Sequence

from gpucal.steps.pairing import detect_mode

KINDS = ("calibration", "pointing", "focus", "skydip", "on-off", "frequency-switch", "otf")
"""The procedures that are told apart."""

_SYNONYMS = {
    "calibration": "cal calibrate calib load vane hotcold",
    "pointing": "point cross crossscan peak",
    "focus": "foc",
    "skydip": "skydips tip tipping antennatip",
    "on-off": "offon nod tp totalpower track psw positionsw positionswitch "
    "wsw wswchopped wobbler wobblersw wobblerswitch",
    "frequency-switch": "fsw frequencysw frequencyswitching frequencyswitched",
    "otf": "otfmap map otfchopped onthefly raster otffsw fswotf",
}

_OF_MODE = {
    "tp": "on-off",
    "nod": "on-off",
    "wsw": "on-off",
    "fsw": "frequency-switch",
    "otf": "otf",
    "otf-chopped": "otf",
}
"""Observing mode -> what a scan without a known name was taken for."""


def plain(name: str) -> str:
    """Letters and digits of a name, in lower case: "On_Off" and "on-off" are the same."""
    return "".join(ch for ch in name.lower() if ch.isalnum())


_KNOWN = {plain(n): kind for kind, text in _SYNONYMS.items() for n in (kind, *text.split())}


def kind_of(name: str) -> str | None:
    """One of KINDS for an ``obs_procedure``; None when the name is not known."""
    return _KNOWN.get(plain(name))


def kind_of_mode(mode: str) -> str | None:
    """One of KINDS for an observing mode ("tp", "otf" ...); None when there is no such mode."""
    return _OF_MODE.get(mode)


def procedure_of(name: str, modes: Sequence[str], calibration_modes: Sequence[str] = ()) -> str:
    """One of KINDS for every scan: by the name that the telescope gives, else by the observing mode.

    ``modes``: sobsmode of its source subscans; ``calibration_modes``: the same of calibration/. A scan that
    holds loads alone is a calibration, also where the telescope names it by its motion (a vane is a "Track").
    """
    known = kind_of(name)
    if calibration_modes and not modes and known in _OF_MODE.values():
        return "calibration"
    if known is None and modes:
        known = kind_of_mode(detect_mode(modes))
    return known or ("calibration" if calibration_modes and not modes else "on-off")
