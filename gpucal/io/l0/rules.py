"""What the values of an L0 group must satisfy: one table of rules, each with its own sentence.

Beside ``schema``, which knows names, shapes and types; ``checks`` evaluates the table. Shapes use
C channels, D dumps, R receivers, A array pixels, S subscans.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gpucal.axes import OFF_MODES, ON_MODES
from gpucal.scan import F64, SubscanGroup

MJD_RANGE = (30000.0, 90000.0)
FREQ_RANGE_HZ = (1e9, 2e13)
T_HOT_POSSIBLE_K = (100.0, 400.0)
T_HOT_LIKELY_K = (200.0, 350.0)
REFERENCE_OF = {
    "ON": ("OFF", "OTF-OFF"),
    "OTF-ON": ("OTF-OFF", "OFF"),
    "OTFSWA-ON": ("OTFSWA-OFF",),
    "OTFSWB-ON": ("OTFSWB-OFF",),
    "FSW-SIG": ("FSW-REF",),
    "WSW-ON": ("WSW-OFF",),
    "NOD-1": ("NOD-2",),
}
"""Kind of ON -> the kinds of OFF that serve it."""

Index = tuple[int, ...]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Rule:
    """One thing that must hold in a group.

    looks_at: the array; the rule is skipped where the group has none. axes: letters of C, D, R, A,
    S and E (end of the band), as in what ``holds`` returns; "" for the group as a whole.
    ``says(group, index)``: the sentence about the first element for which it does not hold.
    """

    looks_at: str
    axes: str
    holds: Callable[[SubscanGroup], Any]
    says: Callable[[SubscanGroup, Index], str]
    hint: str = ""


def _within(values: F64, limits: tuple[float, float]) -> Bools:
    """False for NaN."""
    return (values >= limits[0]) & (values <= limits[1])


def _radians(name: str, limit: float) -> Rule:
    """An angle of the telescope; NaN is not judged."""
    return Rule(
        name,
        "DS",
        lambda g: ~(np.abs(getattr(g, name)) > limit),
        lambda g, at: (
            f"{name} of dump {at[0]} is {getattr(g, name)[at]:g}, expected radians of at most "
            f"{limit:.4g}; it looks like degrees."
        ),
    )


def _frequency(name: str) -> Rule:
    """The rule that a frequency [R,S] lies in a range possible in Hz; its sentence guesses the real unit."""
    return Rule(
        name,
        "RS",
        lambda g: _within(getattr(g, name), FREQ_RANGE_HZ),
        lambda g, at: (
            f"{name} is {getattr(g, name)[at]:g}, expected {FREQ_RANGE_HZ[0]:g}.."
            f"{FREQ_RANGE_HZ[1]:g} Hz{_frequency_unit(getattr(g, name)[at])}."
        ),
    )


def _band_ends(name: str, sign: int) -> Rule:
    """No channel lies at or below 0 Hz; the image axis runs the other way (sign -1)."""

    def ends(group: SubscanGroup) -> F64:
        channels = np.array([0.0, group.shape[0] - 1.0])[:, None, None]
        values: F64 = getattr(group, f"{name}_freq")
        return values + sign * (channels - group.ref_channel) * group.freq_res

    return Rule(
        f"{name}_freq",
        "ERS",
        lambda g: ~(ends(g) <= 0),
        lambda g, at: (
            f"the {name} frequency of channel {(0, g.shape[0] - 1)[at[0]]} would be "
            f"{ends(g)[at]:g} Hz; ref_channel {g.ref_channel[at[1:]]:g} or freq_res "
            f"{g.freq_res[at[1:]]:g} Hz cannot be right."
        ),
    )


def _finite(name: str, axes: str, expected: str) -> Rule:
    """The rule that an array holds no NaN and no infinity."""
    return Rule(
        name,
        axes,
        lambda g: np.isfinite(getattr(g, name)),
        lambda g, at: f"{name} is {getattr(g, name)[at]:g}, expected {expected}.",
    )


def _load_spectrum(name: str) -> Rule:
    """The rule that load temperatures per channel [C,S] are possible in K; NaN is not judged."""
    return Rule(
        name,
        "CS",
        lambda g: ~((getattr(g, name) <= 0) | (_is_mode(g, "HOT") & _impossible(getattr(g, name)))),
        lambda g, at: (
            f"{name} of channel {at[0]} is {getattr(g, name)[at]:g}, expected K"
            f"{_celsius(getattr(g, name)[at])}."
        ),
    )


TIMES = (
    Rule(
        "exptime",
        "DS",
        lambda g: (g.exptime > 0) & np.isfinite(g.exptime),
        lambda g, at: f"exptime of dump {at[0]} is {g.exptime[at]:g} s, expected more than 0.",
    ),
    Rule(
        "mjd",
        "DS",
        lambda g: _within(g.mjd, MJD_RANGE),
        lambda g, at: (
            f"mjd of dump {at[0]} is {g.mjd[at]:.10g}, expected {MJD_RANGE[0]:g}.."
            f"{MJD_RANGE[1]:g} days{_time_unit(float(g.mjd[at]))}."
        ),
    ),
    Rule(
        "mjd",
        "DS",
        lambda g: ~(np.diff(g.mjd, axis=0) < 0),
        lambda g, at: (
            f"mjd runs backwards from dump {at[0]} to dump {at[0] + 1}, "
            f"{g.mjd[at]:.8f} to {g.mjd[at[0] + 1, at[1]]:.8f}."
        ),
        "Dumps must be stored in the order of time.",
    ),
    Rule(
        "mjd",
        "S",
        lambda g: ~(np.diff(g.mjd_mid, prepend=-np.inf) < 0),
        lambda g, at: (
            f"mjd runs backwards: {g.mjd_mid[at[0]]:.8f} after {g.mjd_mid[at[0] - 1]:.8f} in the "
            "subscan before."
        ),
        "Subscans must be stored in the order of time.",
    ),
)

ANGLES = (_radians("elevation", np.pi / 2 + 0.01), _radians("azimuth", 4 * np.pi))

ABOVE_THE_HORIZON = (
    Rule(
        "elevation",
        "DS",
        # loads fill the beam: where the telescope points then does not matter
        lambda g: (g.elevation > 0) | _is_mode(g, "HOT", "COLD", "ZERO"),
        lambda g, at: (
            f"elevation of dump {at[0]} is {g.elevation[at]:g} rad, expected more than 0 for "
            f"{g.sobsmode[at[1]]}."
        ),
    ),
)

FREQUENCIES = (
    _frequency("signal_freq"),
    _frequency("image_freq"),
    Rule(
        "freq_res",
        "RS",
        lambda g: np.isfinite(g.freq_res) & (g.freq_res != 0),
        lambda g, at: f"freq_res is {g.freq_res[at]:g} Hz, expected a channel width other than 0.",
    ),
    _finite("ref_channel", "RS", "a channel number"),
    _band_ends("signal", +1),
    _band_ends("image", -1),
    _finite("freq_throw", "RS", "Hz"),
)

OFFSETS = (
    _finite("pixel_offset_lon", "RAS", "degrees"),
    _finite("pixel_offset_lat", "RAS", "degrees"),
)

HOT_IS_THERE = (
    Rule(
        "sobsmode",
        "",
        lambda g: "HOT" in g.sobsmode,
        lambda g, _: (
            f"there is no HOT subscan in calibration/, only {', '.join(sorted(set(g.sobsmode)))}."
        ),
    ),
)

LOADS = (
    _load_spectrum("load_temp_sig"),
    _load_spectrum("load_temp_img"),
    Rule(
        "tcold",
        "RS",
        lambda g: ~(_cold(g) <= 0),
        lambda g, at: f"tcold is {_cold(g)[at]:g}, expected K above 0{_celsius(_cold(g)[at])}.",
    ),
)

HOT_TEMPERATURE = (
    Rule(
        "thot",
        "RS",
        lambda g: ~(_impossible(_hot(g)) & _cold_could_be_hot(g)),
        lambda g, at: f"{_hot_expected(g, at)}, and tcold is {_cold_like_hot(g, at[0]):g} K.",
        "Are the two loads swapped?",
    ),
    Rule(
        "thot",
        "RS",
        lambda g: ~_impossible(_hot(g)),
        lambda g, at: f"{_hot_expected(g, at)}{_celsius(_hot(g)[at])}.",
        "Correct it in the raw store, or use --t-hot.",
    ),
    Rule(
        "thot",
        "RS",
        # the coldest HOT subscan of a receiver lies above its warmest COLD one
        lambda g: ~((_hot(g) == _lowest(_hot(g))) & (_hot(g) <= -_lowest(-_cold(g)))),
        lambda g, at: (
            f"thot is {_hot(g)[at]:g} K, not above tcold, {np.nanmax(_cold(g)[at[0]]):g} K."
        ),
        "Are the two loads swapped?",
    ),
)
"""Left out when the load temperature is given on the command line."""

REFERENCES = (
    Rule(
        "sobsmode",
        "",
        lambda g: not ON_MODES.isdisjoint(g.sobsmode),
        lambda g, _: f"there is no ON subscan, only {', '.join(sorted(set(g.sobsmode)))}.",
    ),
    Rule("sobsmode", "", lambda g: not _without_reference(g), lambda g, _: _lacking_reference(g)),
)


def _time_unit(value: float) -> str:
    """What a time that is not an MJD seems to be, and what to do about it."""
    for lo, hi, text in (
        (2.4e6, 2.5e6, "; it looks like a Julian date, subtract 2400000.5"),
        (2.5e9, 8e9, "; it looks like MJD in seconds, divide by 86400"),
        (1e8, 2.5e9, "; it looks like Unix seconds, divide by 86400 and add 40587"),
    ):
        if lo <= value <= hi:
            return text
    return ""


def _frequency_unit(value: float) -> str:
    """The unit in which a frequency that cannot be in Hz seems to be given."""
    for lo, hi, unit in ((1, 2e4, "GHz"), (2e4, 2e7, "MHz"), (2e7, 1e9, "kHz")):
        if lo <= value < hi:
            return f"; it looks like {unit}"
    return ""


def _is_mode(group: SubscanGroup, *modes: str) -> Bools:
    """Which subscans [S] are of one of the modes."""
    return np.isin(np.array(group.sobsmode), modes)


def _hot(group: SubscanGroup) -> F64:
    """K [R,S], NaN where not known or not HOT."""
    assert group.thot is not None
    return np.where(_is_mode(group, "HOT"), group.thot, np.nan)


def _cold(group: SubscanGroup) -> F64:
    """K [R,S], NaN where not known or not COLD."""
    assert group.tcold is not None
    return np.where(_is_mode(group, "COLD"), group.tcold, np.nan)


def _lowest(values: F64) -> F64:
    """Lowest value of each receiver [R,1], NaN where all are."""
    lowest = np.min(np.where(np.isnan(values), np.inf, values), axis=1, keepdims=True)
    return np.where(np.isinf(lowest), np.nan, lowest)


def _impossible(hot: F64) -> Bools:
    """Where a hot load is outside the range possible in K; False for NaN."""
    return (hot < T_HOT_POSSIBLE_K[0]) | (hot > T_HOT_POSSIBLE_K[1])


def _hot_expected(group: SubscanGroup, at: Index) -> str:
    lo, hi = T_HOT_LIKELY_K
    return f"thot is {_hot(group)[at]:g} K, expected {lo:g}..{hi:g} K"


def _celsius(value: float) -> str:
    is_like = -270 <= value < T_HOT_POSSIBLE_K[0]
    return "; it looks like deg C, add 273.15" if is_like else ""


def _cold_could_be_hot(group: SubscanGroup) -> Bools:
    """Which receivers [R,1] have a cold load at the temperature of a hot one."""
    likely: Bools = np.any(_within(_cold(group), T_HOT_LIKELY_K), axis=1, keepdims=True)
    return likely


def _cold_like_hot(group: SubscanGroup, receiver: int) -> float:
    """The first cold load of a receiver whose temperature is that of a hot one."""
    cold = _cold(group)[receiver]
    return float(cold[_within(cold, T_HOT_LIKELY_K)][0])


def _without_reference(group: SubscanGroup) -> list[str]:
    """Kinds of ON for which the group holds no OFF."""
    present = set(group.sobsmode)
    # a chopped wobbler scan has both phases in the dumps of one subscan
    chopped = group.chop_phase is not None and np.ptp(group.chop_phase) > 0
    return [
        mode
        for mode in sorted(present & ON_MODES)
        if present.isdisjoint(REFERENCE_OF[mode]) and not (mode == "WSW-ON" and chopped)
    ]


def _lacking_reference(group: SubscanGroup) -> str:
    """The sentence about the first kind of ON without its OFF."""
    mode = _without_reference(group)[0]
    found, other = sorted(set(group.sobsmode)), sorted(OFF_MODES.intersection(group.sobsmode))
    beside = f" beside {', '.join(other)}" if other else ""
    return (
        f"there is no OFF subscan for {mode}: found {', '.join(found)}, expected "
        f"{' or '.join(REFERENCE_OF[mode])}{beside}."
    )


def narrow_channels(group: SubscanGroup) -> str:
    """A warning, or "": a channel width that is probably not in Hz."""
    smallest = float(np.abs(group.freq_res).min())
    if smallest >= 10:
        return ""
    return f"freq_res is {smallest:g} Hz: it looks like MHz or kHz, expected Hz."


def unknown_positions(group: SubscanGroup) -> str:
    """A warning, or "": ON subscans without a position on the sky."""
    bad = ~np.isfinite(group.otf_lon) | ~np.isfinite(group.otf_lat)
    subscans = np.flatnonzero(bad.any(axis=0) & _is_mode(group, *ON_MODES))
    if not subscans.size:
        return ""
    return (
        f"otf_lon or otf_lat is not finite in {subscans.size} ON subscans "
        f"(first: subscan {subscans[0]})."
    )


def doubtful_hot_load(group: SubscanGroup) -> str:
    """A warning, or "": a hot load at an unlikely temperature, which is still possible."""
    hot = _hot(group)[np.isfinite(_hot(group))]
    doubtful = hot[~_within(hot, T_HOT_LIKELY_K)]
    if not doubtful.size:
        return ""
    lo, hi = T_HOT_LIKELY_K
    worst = doubtful[np.argmax(np.abs(doubtful - 295.0))]
    return (
        f"load temperature {worst:.1f} K cannot be right, expected {lo:g}..{hi:g} K; use --t-hot."
    )


def outside_the_track(group: SubscanGroup) -> str:
    """A warning, or "": bolometer samples whose azimuth and elevation are not known."""
    known = np.isfinite(group.azimuth) & np.isfinite(group.elevation)
    missing = int((~known).sum())
    if not missing:
        return ""
    return (
        f"azimuth and elevation are not known for {missing} of {known.size} samples: they lie "
        "outside the telescope's track, or were not recorded."
    )
