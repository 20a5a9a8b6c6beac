"""The frequency axis and the throws of a group: one axis must serve all subscans, but for the Doppler shift.

Shapes use E ends of the band, R receivers, S subscans.
"""

from __future__ import annotations

import itertools

import numpy as np

from gpucal.axes import ON_MODES
from gpucal.errors import L0Error
from gpucal.scan import F64, SubscanGroup

FAR_OFF = np.radians(10.0)
"""A map and its OFF lie within this distance."""

EARTH_ACCELERATION = 0.05
"""m/s^2: the Earth's rotation gives 0.034 at most."""

EARTH_SPEED = 31e3
"""m/s: of the Earth about the Sun, seen from two directions."""


def check_axis(group: SubscanGroup, notes: list[str], *, has_image: bool) -> None:
    """Refuse a frequency axis [R,S] that is another in one subscan: a quarter of the band away, or of another width.

    Telescopes that follow the Doppler shift move it by some channels.
    """
    n_chan, n_sub = group.shape[0], group.shape[4]
    if n_sub < 2:
        return
    width = np.median(np.abs(group.freq_res), axis=1)[:, None]
    if not (width > 0).all():
        return  # a width of 0 is refused with its own words
    odd = np.abs(np.abs(group.freq_res) / width - 1.0) * n_chan > 0.5
    if n_sub > 2 and odd.any():
        rec, at = (int(i) for i in np.argwhere(odd)[0])
        raise L0Error(
            f"freq_res is {group.freq_res[rec, at]:g} Hz, that of the other subscans {width[rec, 0]:g} Hz.",
            hint="One axis must serve all subscans of a scan.",
            subscan=at,
            receiver=rec,
        )
    names = ("signal_freq", "image_freq") if has_image else ("signal_freq",)
    phases = np.array(group.sobsmode)
    kinds = [phases == mode for mode in ("FSW-SIG", "FSW-REF")]
    chosen = [k for k in kinds if k.any()] or [np.ones(n_sub, dtype=np.bool_)]
    ends = [
        getattr(group, name) + sign * (channel - group.ref_channel) * group.freq_res
        for name, sign in zip(names, (1.0, -1.0), strict=False)
        for channel in (0.0, n_chan - 1.0)
    ]
    for end, same in itertools.product(ends, chosen):
        subscans = np.flatnonzero(same)
        if subscans.size < 2:
            continue
        part = end[:, subscans]
        middle = np.median(part, axis=1)[:, None] if subscans.size > 2 else part[:, 1:]
        off = np.abs(part - middle) / width
        if (off > max(0.25 * n_chan, 4.0)).any():
            rec, at = (int(i) for i in np.argwhere(off > max(0.25 * n_chan, 4.0))[0])
            raise L0Error(
                f"the frequency axis ({', '.join(names)}, freq_res, ref_channel) of this subscan is "
                f"{off[rec, at]:.4g} channels from that of the others.",
                hint="One axis must serve all subscans of a scan; write another tuning as a scan of its own.",
                subscan=int(subscans[at]),
                receiver=rec,
            )
    _axis_of_references(group, np.stack(ends), names, notes)


def _axis_of_references(
    group: SubscanGroup, ends: F64, names: tuple[str, ...], notes: list[str]
) -> None:
    """A warning where a reference is not on the axis [E,R,S] of the first subscan on the source, which is used.

    That of subscans on the source is compared when they are calibrated.
    """
    modes = np.array(group.sobsmode)
    ons = np.flatnonzero(np.isin(modes, sorted(ON_MODES)))
    if not ons.size:
        return
    first = int(ons[0])
    other = ~np.isin(modes, [*sorted(ON_MODES), "FSW-REF"])
    width = np.abs(group.freq_res)
    off = np.abs(ends - ends[:, :, first : first + 1]) / width
    far = (off > 0.5 + _doppler_shift(group, first) / width) & other
    if far.any():
        end, rec, s = (int(i) for i in np.argwhere(far)[0])
        notes.append(
            f"the frequency axis ({', '.join(names)}, freq_res, ref_channel) of subscan {s} ({modes[s]}), receiver "
            f"{rec} lies {off[end, rec, s]:.4g} channels from that of subscan {first} ({modes[first]}), which is used."
        )


def _doppler_shift(group: SubscanGroup, first: int) -> F64:
    """How far [R,S], Hz, the Doppler shift may move the sky frequency since ``first``, and off its position."""
    seconds = np.abs(group.mjd_mid - group.mjd_mid[first]) * 86400.0
    lon, lat = (
        np.array([np.mean(group.recorded_of(x, s)) for s in range(group.shape[4])])
        for x in (group.otf_lon, group.otf_lat)
    )
    away = np.nan_to_num(np.radians(np.hypot(lon - lon[first], lat - lat[first])))
    speed = EARTH_ACCELERATION * seconds + EARTH_SPEED * np.minimum(away, FAR_OFF)
    return np.asarray(np.abs(group.signal_freq) * speed / 299792458.0)


def check_throws(group: SubscanGroup) -> None:
    """Refuse throws [R,S] that differ within a phase; they may follow the Doppler shift."""
    phases = {mode: group.select(mode) for mode in ("FSW-SIG", "FSW-REF")}
    if group.freq_throw is None or not all(phases.values()):
        return
    width = np.abs(group.freq_res)
    for mode, subscans in phases.items():
        usual = np.median(group.freq_throw[:, subscans], axis=1)[:, None]
        off = np.abs(group.freq_throw[:, subscans] - usual)
        may = _doppler_shift(group, subscans[0]).max(axis=1)[:, None]
        far = off > 0.5 * width[:, subscans] + may
        if far.any():
            rec, at = (int(i) for i in np.argwhere(far)[0])
            raise L0Error(
                f"freq_throw is {group.freq_throw[rec, subscans[at]]:g} Hz, that of the other {mode} "
                f"subscans {usual[rec, 0]:g} Hz.",
                subscan=int(subscans[at]),
                receiver=rec,
            )
