"""The settings of ``gpucal reduce --set KEY=VALUE``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from gpucal.errors import ConfigError
from gpucal.pipeline.reduction.products import ReduceOptions
from gpucal.procedures.switching import LineWindow


def _order(text: str) -> int:
    if text not in ("0", "1"):
        raise ValueError("expected 0 or 1")
    return int(text)


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise ValueError("expected more than 0")
    return value


def _efficiency(text: str) -> float:
    """More than 0, at most 1."""
    value = _positive(text)
    if value > 1:
        raise ValueError("expected at most 1")
    return value


def _yes(text: str) -> bool:
    if text.lower() not in ("yes", "no", "true", "false"):
        raise ValueError("expected yes or no")
    return text.lower() in ("yes", "true")


def _form(text: str) -> str:
    if text not in ("efficiency", "total-power"):
        raise ValueError("expected efficiency or total-power")
    return text


def _window(text: str) -> LineWindow:
    """``LOW:HIGH`` in GHz as a window in Hz, whose middle serves as rest frequency."""
    low, colon, high = text.partition(":")
    if not colon or not float(low) < float(high):
        raise ValueError("expected LOW:HIGH in GHz")
    rest = 0.5e9 * (float(low) + float(high))
    return LineWindow(1e9 * float(low), 1e9 * float(high), rest_hz=rest)


SETTINGS: dict[str, tuple[str, str, Callable[[str], Any]]] = {
    # key: (group of ReduceOptions or "", field, how the text is read)
    "order": ("pointing", "order", _order),
    "throw": ("pointing", "throw", float),
    "fit_throw": ("pointing", "fit_throw", _yes),
    "fwhm": ("pointing", "fwhm", _positive),
    "min_snr": ("pointing", "min_snr", _positive),
    "f_eff": ("skydip", "f_eff", _efficiency),
    "form": ("skydip", "form", _form),
    "free_gain": ("skydip", "free_gain", _yes),
    "focus_snr": ("", "focus_snr", _positive),
    "line_ghz": ("", "window", _window),
}


def reduce_options(given: Sequence[str]) -> ReduceOptions:
    """Read ``KEY=VALUE`` texts; raises ConfigError naming the key and what was expected.

    throw and fwhm are in arcsec.
    """
    options = ReduceOptions()
    for text in given:
        key, equals, value = text.partition("=")
        if key not in SETTINGS or not equals:
            raise ConfigError(
                f"--set {text!r} is unknown, expected KEY=VALUE with one of {', '.join(SETTINGS)}."
            )
        group, name, read = SETTINGS[key]
        try:
            found = read(value)
        except ValueError as error:
            raise ConfigError(f"--set {key} is {value!r}: {error}.") from None
        if group:
            inner = replace(getattr(options, group), **{name: found})
            options = replace(options, **{group: inner})
        else:
            options = replace(options, **{name: found})
    if options.skydip.free_gain and options.skydip.form != "total-power":
        raise ConfigError("free_gain is for form=total-power.", hint="Add --set form=total-power.")
    if options.skydip.f_eff is not None and options.skydip.form != "efficiency":
        raise ConfigError("f_eff is for form=efficiency.", hint="Leave one of the two out.")
    if options.pointing.fit_throw and options.pointing.throw is None:
        raise ConfigError("fit_throw needs a throw to start from.", hint="Add --set throw=ARCSEC.")
    return options
