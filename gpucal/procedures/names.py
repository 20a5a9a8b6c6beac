"""What telescopes call their observing procedures, and what that means here; offline and online alike."""

from __future__ import annotations

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


def plain(name: str) -> str:
    """Letters and digits of a name, in lower case: "On_Off" and "on-off" are the same."""
    return "".join(ch for ch in name.lower() if ch.isalnum())


_KNOWN = {plain(n): kind for kind, text in _SYNONYMS.items() for n in (kind, *text.split())}


def kind_of(name: str) -> str | None:
    """One of KINDS for an ``obs_procedure``; None when the name is not known."""
    return _KNOWN.get(plain(name))
