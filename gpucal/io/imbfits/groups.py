"""The groups of one scan and band: small arrays, and the maker of the counts.

Shapes use C channels, D dumps, R receivers (1), A array pixels, S subscans.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gpucal.errors import ImportFormatError
from gpucal.io.imbfits.axis import Spectrum
from gpucal.io.imbfits.chunks import BackendLayout
from gpucal.io.imbfits.file import ImbFile
from gpucal.io.imbfits.modes import Observed
from gpucal.io.imbfits.pixels import is_array, sky_angle, turned, unturned
from gpucal.io.imbfits.pointing import Trace
from gpucal.io.imbfits.tuning import KELVIN
from gpucal.io.incoming.assumptions import Assumptions
from gpucal.io.l0.write import CountsMaker, GroupArrays

F64 = npt.NDArray[np.float64]
TORR_PER_HPA = 0.750062
HPA_AT_SITE = 718.0
"""Pressure at 2851 m in the standard atmosphere."""
PRESSURE_NEAR = 0.08


@dataclass(frozen=True, eq=False)
class Weather:
    """Temperature of the air, K, and pressure, Torr; NaN where they are not known."""

    tamb: float
    pamb: float


def group_of(
    file: ImbFile,
    layout: BackendLayout,
    spectrum: Spectrum,
    observed: Sequence[Observed],
    weather: Weather,
    assumed: Assumptions,
) -> GroupArrays:
    """``source/`` or ``calibration/``: subscans with fewer dumps than the longest are padded with NaN counts."""
    dumps = max(o.dumps.n for o in observed)
    loads = observed[0].mode in ("HOT", "COLD", "SKY")
    shape = (spectrum.channels, dumps, 1, len(spectrum.pixels), len(observed))
    places = tuple(layout.pixels.index(p) if layout.by_row else 0 for p in spectrum.pixels)

    def make(s: int) -> npt.NDArray[Any]:
        return _counts(file, spectrum, observed[s], places, dumps)

    arrays = _per_dump(observed, dumps) | _axis(spectrum, observed)
    n = len(observed)
    arrays |= {"tamb": np.full(n, weather.tamb), "pamb": np.full(n, weather.pamb)}
    if loads:
        arrays["thot"] = np.full(n, spectrum.tuning.t_hot)
        arrays["tcold"] = np.full(n, spectrum.tuning.t_cold)
        del arrays["otf_lon"], arrays["otf_lat"]
    if is_array(spectrum.tuning.name):
        arrays |= _pixel_offsets(file, spectrum, observed, assumed)
    modes = [o.mode for o in observed]
    return GroupArrays(CountsMaker(shape, np.dtype(np.float32), make), modes, arrays)


def _counts(
    file: ImbFile, spectrum: Spectrum, observed: Observed, places: Sequence[int], dumps: int
) -> npt.NDArray[np.float32]:
    """Counts f32 [C,D,1,A] of one subscan."""
    out = np.full((spectrum.channels, dumps, 1, len(places)), np.nan, np.float32)
    unit = observed.subscan.tables.data
    assert unit is not None
    name = unit.has("DATA")
    n = observed.dumps.n
    with unit.mapped() as table:
        data = table[name].reshape(unit.rows, -1)
        for a, place in enumerate(places):
            rows = observed.dumps.rows[:, place]
            there = np.flatnonzero(rows >= 0)
            at = 0
            for piece in spectrum.pieces[a]:
                block = np.asarray(data[rows[there], piece.columns], dtype=np.float32)
                part = slice(at, at + piece.count)
                out[part, there, 0, a] = block[:, :: piece.step].T
                at += piece.count
    assert n <= dumps
    return out


def _per_dump(observed: Sequence[Observed], dumps: int) -> dict[str, npt.NDArray[Any]]:
    """Times, pointing and phase [D, S]; padding repeats the last dump, or for phases the cycle."""
    columns: dict[str, list[npt.NDArray[Any]]] = {}
    for o in observed:
        at = np.minimum(np.arange(dumps), o.dumps.n - 1)
        seen = o.subscan.trace.at(o.dumps.mjd)
        values: dict[str, npt.NDArray[Any]] = {
            "mjd": o.dumps.mjd,
            "exptime": o.dumps.length,
            "elevation": seen["elevation"],
            "azimuth": seen["azimuth"],
            "otf_lon": seen["lon"] - o.origin[0],
            "otf_lat": seen["lat"] - o.origin[1],
        }
        for name, value in values.items():
            columns.setdefault(name, []).append(value[at])
        if o.chop is not None:
            columns.setdefault("chop_phase", []).append(np.resize(o.chop, dumps))
    return {name: np.stack(parts, axis=1) for name, parts in columns.items()}


def doppler_of(trace: Trace, number: int, assumed: Assumptions) -> float:
    """nu_sky / nu_rest of a subscan: DOPPLERC, or what a profile gives; ImportFormatError without either."""
    value = trace.doppler
    if np.isfinite(value):
        if not 0.9 < value < 1.1:
            raise ImportFormatError(
                f"DOPPLERC of subscan {number} is {value:g}, expected a factor near 1.",
                subscan=number,
            )
        return value
    given = assumed.set_or_noted("doppler_factor", "not known", "IMBF-antenna has no DOPPLERC")
    if given is None:
        raise ImportFormatError(
            f"the table IMBF-antenna of subscan {number} has no DOPPLERC, without which the frequencies on the sky are "
            "not known.",
            hint="Set doppler_factor in a --profile (1 for the rest frame).",
            subscan=number,
        )
    return float(given)


def _axis(spectrum: Spectrum, observed: Sequence[Observed]) -> dict[str, npt.NDArray[Any]]:
    """The frequency axis [R, S] of each subscan, and the throws of a frequency switch."""
    axes = np.array([spectrum.sky(o.subscan.trace.doppler) for o in observed])
    one = (1, len(observed))
    arrays = {
        "signal_freq": axes[:, 0].reshape(one),
        "image_freq": axes[:, 1].reshape(one),
        "freq_res": axes[:, 2].reshape(one),
        "ref_channel": np.zeros(one),
    }
    if any(o.phase for o in observed):
        throws = (0.0, *spectrum.tuning.throws)
        arrays["freq_throw"] = np.array([[throws[o.phase] for o in observed]])
    return arrays


def _pixel_offsets(
    file: ImbFile, spectrum: Spectrum, observed: Sequence[Observed], assumed: Assumptions
) -> dict[str, F64]:
    """Offsets of the pixels on the sky [R, A, S], deg."""
    base = unturned(spectrum.pixels, spectrum.tuning.name, assumed)
    sense = int(assumed.take("rotation_sign", 1, "the sense of the derotator was inferred"))
    turns = [
        turned(base, sky_angle(file, o.subscan.tables, o.dumps.mjd, assumed), sense)
        for o in observed
    ]
    both = np.stack(turns, axis=2)
    return {"pixel_offset_lon": both[None, :, 0, :], "pixel_offset_lat": both[None, :, 1, :]}


def weather_of(file: ImbFile, assumed: Assumptions) -> Weather:
    """Air of a scan: TAMBIENT in deg C or K by its size, PRESSURE in hPa or Torr by the height of the site."""
    value = file.scan.number("TAMBIENT", np.nan)
    kelvin = value + KELVIN if value < 100.0 else value
    tamb = np.nan
    if 220.0 <= kelvin <= 320.0 and value != 0.0:
        tamb = kelvin
        assumed.note("unit of TAMBIENT", "deg C" if value < 100.0 else "K", "by its size")
    pressure = file.scan.number("PRESSURE", np.nan)
    pamb = np.nan
    for unit, factor in (("hPa", TORR_PER_HPA), ("Torr", 1.0)):
        if abs(pressure * factor / (HPA_AT_SITE * TORR_PER_HPA) - 1.0) <= PRESSURE_NEAR:
            pamb = pressure * factor
            assumed.note("unit of PRESSURE", unit, f"{pressure:g} at 2851 m")
    return Weather(float(tamb), float(pamb))
