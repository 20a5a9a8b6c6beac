"""Raw scans of a pointing, a focus and a skydip, made from the equations with known truth.

Independent of the simulator: a few channels, one receiver, three pixels in a row, no image gain tricks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gpucal import CalibrationConfig, GroupArrays, create_l0, write_l0_scan

F64 = npt.NDArray[np.float64]
CHANNELS, DUMPS, PIXELS = 24, 41, 3
HK = 6.62607015e-34 / 1.380649e-23
T_HOT, T_COLD, T_AMB, T_REC, F_EFF, TAU = 293.0, 78.0, 278.0, 90.0, 0.92, 0.12
ELEVATION = np.deg2rad(55.0)
FREQ, STEP, EXPTIME, MJD = 230.0e9, 2.0e6, 0.5, 61000.2
PITCH = 24.0
"""Distance of the pixels along longitude, arcsec; pixel 1 is in the middle."""

CONFIG = CalibrationConfig(atmosphere="none", tau=TAU, workers=1)
SKY_T_ATM = 0.94 * T_AMB


def j(kelvin: float) -> F64:
    """J(nu, T) of the signal sideband, f64 [C] K."""
    x = HK * (FREQ + STEP * np.arange(CHANNELS))
    return np.asarray(x / np.expm1(x / kelvin))


def sky(elevation: float, tau: float = TAU, t_atm: float = T_AMB, f_eff: float = F_EFF) -> F64:
    """J_sky at the receiver's input, single sideband, f64 [C] K."""
    t = np.exp(-tau / np.sin(elevation))
    return np.asarray(f_eff * (j(t_atm) * (1 - t) + j(2.725) * t) + (1 - f_eff) * j(T_AMB))


@dataclass(frozen=True, eq=False)
class Sub:
    """One subscan on the sky: mode, telescope position lon, lat f64 [D] arcsec, source strength K,
    elevation rad; late: seconds by which the recorded position runs ahead of the data."""

    mode: str
    lon: F64 = field(default_factory=lambda: np.zeros(DUMPS))
    lat: F64 = field(default_factory=lambda: np.zeros(DUMPS))
    strength: float = 0.0
    elevation: float = float(ELEVATION)
    late: float = 0.0


def drift(axis: str, sense: int, *, reach: float = 60.0, cross: float = 0.0, **given: Any) -> Sub:
    """A drift of +-reach arcsec along "az" or "el"."""
    along = sense * np.linspace(-reach, reach, DUMPS)
    across = np.full(DUMPS, cross)
    lon, lat = (along, across) if axis == "az" else (across, along)
    return Sub("OTF-ON", lon, lat, **given)


@dataclass(frozen=True)
class Scene:
    """The source: where it is seen (lon, lat arcsec), FWHM arcsec; relative noise per sample 0 or 1 (that of the
    radiometer equation); seed."""

    lon: float = 0.0
    lat: float = 0.0
    fwhm: float = 22.0
    noise: float = 0.0
    seed: int = 1


def pixel_offsets() -> F64:
    """arcsec, f64 [A]."""
    return np.asarray(PITCH * (np.arange(PIXELS) - 1.0), dtype=np.float64)


def footprint(sub: Sub, scene: Scene) -> F64:
    """Response to the source, f64 [D,A]."""
    step = np.gradient(sub.lon), np.gradient(sub.lat)
    shift = sub.late / EXPTIME
    lon = sub.lon - shift * step[0]
    lat = sub.lat - shift * step[1]
    x = lon[:, None] + pixel_offsets()[None, :] - scene.lon
    y = (lat - scene.lat)[:, None]
    return np.asarray(np.exp(-4 * np.log(2) * (x**2 + y**2) / scene.fwhm**2))


def counts(modes: Sequence[Sub], scene: Scene, gain: F64) -> F64:
    """f64 [C,D,1,A,S]: G (T_rec + J)."""
    rng = np.random.default_rng(scene.seed + len(modes))
    out = np.empty((CHANNELS, DUMPS, 1, PIXELS, len(modes)))
    for s, sub in enumerate(modes):
        if sub.mode in ("HOT", "COLD"):
            base = j(T_HOT if sub.mode == "HOT" else T_COLD)
        else:
            base = sky(sub.elevation, t_atm=SKY_T_ATM if sub.mode == "SKY" else T_AMB)
        t = np.exp(-TAU / np.sin(sub.elevation))
        source = F_EFF * t * sub.strength * footprint(sub, scene)
        kelvin = T_REC + base[:, None, None] + source[None]
        out[:, :, 0, :, s] = gain[:, None, None] * kelvin
    if scene.noise:
        relative = scene.noise / np.sqrt(STEP * EXPTIME)
        out *= 1.0 + relative * rng.standard_normal(out.shape)
    return out


def _group(modes: Sequence[Sub], scene: Scene, gain: F64, start: float) -> GroupArrays:
    s = len(modes)
    step = (DUMPS * EXPTIME + 2.0) / 86400.0
    arrays = {
        "mjd": start + step * np.arange(s),
        "exptime": np.full(s, EXPTIME),
        "elevation": np.array([sub.elevation for sub in modes]),
        "azimuth": np.full(s, 1.0),
        "tamb": np.full(s, T_AMB),
        "pamb": np.full(s, 520.0),
        "signal_freq": np.full(s, FREQ),
        "freq_res": np.full(s, STEP),
        "ref_channel": np.zeros(s),
        "otf_lon": np.stack([sub.lon for sub in modes], axis=1) / 3600.0,
        "otf_lat": np.stack([sub.lat for sub in modes], axis=1) / 3600.0,
        "pixel_offset_lon": pixel_offsets()[None, :] / 3600.0,
        "pixel_offset_lat": np.zeros((1, PIXELS)),
    }
    if modes[0].mode == "HOT":
        arrays |= {"thot": np.full(s, T_HOT), "tcold": np.full(s, T_COLD)}
    return GroupArrays(counts(modes, scene, gain), [sub.mode for sub in modes], arrays)


def write(
    path: Path,
    number: int,
    source: Sequence[Sub],
    scene: Scene,
    *,
    loads: Sequence[Sub] = (Sub("HOT"), Sub("COLD")),
    **attrs: Any,
) -> Path:
    """Add a scan to an L0 store (made when it is not there); no ``loads``: none in the scan."""
    create_l0(path, telescope="TEST", instrument="ROW", site={"lat_deg": 0.0, "alt_m": 3000.0})
    gain = 900.0 + 20.0 * np.cos(np.arange(CHANNELS))
    groups = {}
    if loads:
        groups["calibration"] = _group(loads, scene, gain, MJD)
    if source:
        groups["source"] = _group(source, scene, gain, MJD + 0.003)
    known = {"f_eff": F_EFF, "gain_image": 0.0, "source": "JUPITER"}
    write_l0_scan(path, number, attrs={**known, **attrs}, groups={"": groups})
    return path


def pointing(
    strength: float = 8.0, late: float = 0.0, axes: Sequence[str] = ("az", "el")
) -> list[Sub]:
    """OFF, forward and backward drifts along each axis, OFF."""
    off = Sub("OTF-OFF", np.full(DUMPS, 600.0))
    given = {"strength": strength, "late": late}
    drifts = [drift(axis, sense, **given) for axis in axes for sense in (1, -1)]
    return [off, *drifts, off]


def focus(strengths: Sequence[float]) -> list[Sub]:
    """ON at each focus position between OFFs."""
    subs = [Sub("OFF", np.full(DUMPS, 600.0))]
    for strength in strengths:
        subs += [Sub("ON", strength=strength), Sub("OFF", np.full(DUMPS, 600.0))]
    return subs


def skydip_loads(elevations_deg: Sequence[float]) -> list[Sub]:
    """HOT, COLD and SKY at each elevation."""
    tips = [Sub("SKY", elevation=float(np.deg2rad(el))) for el in elevations_deg]
    return [Sub("HOT"), Sub("COLD"), *tips]
