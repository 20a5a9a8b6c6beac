"""Which arrays of a SAM45 log form which band, receiver and pixel, and their frequency axes.

Shapes use R receivers (polarisations), A array pixels (beams).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gpucal.errors import ImportFormatError
from gpucal.io.incoming.assumptions import Assumptions
from gpucal.io.sam45.log import Sam45Log
from gpucal.io.sam45.records import ARRAYS, CHANNELS, text_of
from gpucal.physics.doppler import LIGHT

SIDEBANDS = ("LSB", "USB", "DSB")
WIDTH_AGREES = 1e-3
"""The width by the two points of the axis and dbechwid may differ by this fraction."""


@dataclass(frozen=True)
class ArraySetup:
    """One array of the spectrometer: rest-frame axis nu(c) = rest + (c - ref) width, c from 0.

    rest Hz at channel ref, width Hz, signed; intermediate, tracked Hz: dflif and dtrk_freq
    """

    index: int
    channels: int
    sideband: str
    beam: int
    polarisation: str
    frontend: str
    attenuation_db: float
    load_k: float
    ref: float
    rest: float
    width: float
    centre: float
    intermediate: float
    tracked: float
    throw: float
    flipped: bool

    @property
    def name(self) -> str:
        """As the log calls it."""
        return f"A{self.index + 1}"


@dataclass(frozen=True)
class Band:
    """One band: the arrays [R][A], None where the band has none, all with the axis of ``lead``."""

    name: str
    arrays: tuple[tuple[ArraySetup | None, ...], ...]
    polarisations: tuple[str, ...]
    beams: tuple[int, ...]

    @property
    def lead(self) -> ArraySetup:
        """The first array."""
        return next(a for row in self.arrays for a in row if a is not None)

    @property
    def members(self) -> list[ArraySetup]:
        """All arrays of it."""
        return [a for row in self.arrays for a in row if a is not None]


def arrays_in_use(log: Sam45Log, present: Sequence[int], assumed: Assumptions) -> list[ArraySetup]:
    """The arrays that the log marks as used and that have records; ``present``: those that have.

    Raises ImportFormatError for one whose sideband, channels or axis cannot be right.
    """
    used = [n for n in range(ARRAYS) if int(log.obs["iary_usefg"][n]) == 1]
    if not used:
        raise ImportFormatError(
            f"{log.path} marks no array as used (iary_usefg), expected at least one."
        )
    both = [n for n in used if n in set(present)]
    if not both:
        names = ", ".join(f"A{n + 1}" for n in present)
        raise ImportFormatError(
            f"{log.path} holds records of {names}, but marks {', '.join(f'A{n + 1}' for n in used)} as used."
        )
    return [_setup(log, n, assumed) for n in both]


def _setup(log: Sam45Log, n: int, assumed: Assumptions) -> ArraySetup:
    obs = log.obs
    place = f"{log.path}: array A{n + 1}"
    sideband = text_of(bytes(obs["csid_type"][n])).upper()
    if sideband not in SIDEBANDS:
        raise ImportFormatError(
            f"{place} is of the sideband {sideband!r}, expected {', '.join(SIDEBANDS)}."
        )
    channels = int(obs["ichannel"][n])
    if not 1 < channels <= CHANNELS:
        raise ImportFormatError(f"{place} has {channels} channels, expected 2..{CHANNELS}.")
    base = int(assumed.take("channel_base", 1, "the log does not say from what it counts channels"))
    flip = str(
        assumed.take("flip_channels", "none", "whether channels are stored as counted is not said")
    )
    flipped = flip in ("all", sideband)
    ref, rest, width = _axis(log, n, place, base)
    if flipped:
        ref, width = channels - 1 - ref, -width
    return ArraySetup(
        index=n,
        channels=channels,
        sideband=sideband,
        beam=int(obs["imlt_no"][n]),
        polarisation=text_of(bytes(obs["chorn_typ"][n])) or text_of(bytes(obs["cpol_typ"][n])),
        frontend=text_of(bytes(obs["cfe_type"][n])),
        attenuation_db=float(obs["iary_ifatt"][n]),
        load_k=float(obs["iipint"][n]),
        ref=ref,
        rest=rest,
        width=width,
        centre=float(obs["dcent_freq"][n]),
        intermediate=float(obs["dflif"][n]),
        tracked=float(obs["dtrk_freq"][n]),
        throw=float(obs["dsw_freq"][n]),
        flipped=flipped,
    )


def _axis(log: Sam45Log, n: int, place: str, base: int) -> tuple[float, float, float]:
    """(channel from 0, rest frequency there, width), Hz, of the line through the two points of the axis."""
    channels, points = log.obs["dfqdat_ch"][n], log.obs["dfqdat_fq"][n]
    told = float(log.obs["dbechwid"][n])
    values = [*channels.tolist(), *points.tolist(), told]
    if not np.isfinite(values).all() or channels[0] == channels[1] or (points <= 0).any():
        said = f"channels {channels.tolist()} at {points.tolist()} Hz"
        raise ImportFormatError(
            f"{place} has no frequency axis: {said}, expected two channels and their frequencies "
            "(dfqdat_ch, dfqdat_fq)."
        )
    width = float((points[1] - points[0]) / (channels[1] - channels[0]))
    if width == 0 or abs(abs(width) - abs(told)) > WIDTH_AGREES * abs(width):
        raise ImportFormatError(
            f"{place} has a channel width of {width:.9g} Hz by the two points of its axis, but of {told:.9g} Hz by "
            "dbechwid, expected the same."
        )
    # the middle of the two points, so that an error of either counts half
    middle = float(0.5 * (channels[0] + channels[1])) - base
    ref = float(np.floor(middle))
    rest = float(0.5 * (points[0] + points[1])) + (ref - middle) * width
    return ref, rest, width


def bands_of(setups: Sequence[ArraySetup]) -> list[Band]:
    """The bands: arrays of one axis are the beams and polarisations of one band, in an array of beams.

    A receiver without beams (imlt_no 0 throughout) has a band for each array. Bands stand in the order of their
    frequencies.
    """
    multibeam = any(s.beam > 0 for s in setups)
    groups: dict[tuple[object, ...], list[ArraySetup]] = defaultdict(list)
    for s in setups:
        groups[_key(s) if multibeam else (s.index,)].append(s)
    parts = [part for group in groups.values() for part in _without_doubles(group)]
    parts.sort(key=lambda part: (part[0].rest, part[0].index))
    names = [f"band_{k}" for k in range(1, len(parts) + 1)] if len(parts) > 1 else [""]
    beams = tuple(sorted({s.beam for s in setups}))
    return [
        _band(name, part, beams if multibeam else (0,))
        for name, part in zip(names, parts, strict=True)
    ]


def _key(s: ArraySetup) -> tuple[object, ...]:
    """What arrays of one band share; frequencies to a hundredth of a channel."""
    step = abs(s.width) / 100
    return (s.sideband, s.channels, round(s.rest / step), round(s.ref), s.width > 0)


def _without_doubles(group: list[ArraySetup]) -> list[list[ArraySetup]]:
    """Arrays of one axis in as many parts as one beam and polarisation occurs."""
    parts: list[list[ArraySetup]] = []
    for s in group:
        place = (s.beam, s.polarisation)
        for part in parts:
            if all((o.beam, o.polarisation) != place for o in part):
                part.append(s)
                break
        else:
            parts.append([s])
    return parts


def _band(name: str, part: Sequence[ArraySetup], beams: tuple[int, ...]) -> Band:
    polarisations = tuple(sorted({s.polarisation for s in part}))
    at = {(s.polarisation, s.beam): s for s in part}
    if len(beams) == 1 and beams[0] == 0:
        at = {(s.polarisation, 0): s for s in part}
    grid = tuple(tuple(at.get((p, b)) for b in beams) for p in polarisations)
    return Band(name, grid, polarisations, beams)


@dataclass(frozen=True)
class SkyAxis:
    """Frequency axis of a band on the sky, Hz: signal and image at channel ``ref``, width, throw."""

    ref: float
    signal: float
    image: float
    width: float
    throw: float


def sky_axis(array: ArraySetup, velocity: float, throw_sign: int = 1) -> SkyAxis:
    """The axis as the telescope saw it, whose antenna moves at ``velocity`` m/s: nu_sky = nu_rest (1 - v/c).

    The local oscillator lies dflif below (USB) or above (LSB) the tracked frequency; the image mirrors the
    signal at it, and is the signal itself where dflif is not recorded. A DSB receiver is taken as USB.
    """
    factor = 1.0 - velocity / LIGHT
    side = -1.0 if array.sideband == "LSB" else 1.0
    signal = array.rest * factor
    tracked = (array.tracked if array.tracked > 0 else array.centre) * factor
    image = signal
    if array.intermediate > 0:
        image = 2 * (tracked - side * array.intermediate) - signal
    return SkyAxis(array.ref, signal, image, array.width * factor, throw_sign * array.throw)
