"""Raw nights under a layered sky of ``builders.layered.sky``: noise-free counts whose T_A* and PWV are known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr

from builders.layered.sky import T_CMB, LayeredAir, afgl_levels, air_over, planck
from gpucal import create_l0
from gpucal.simulate.counts import Recording, ScanCounts
from gpucal.simulate.night import write_scan
from gpucal.simulate.receiver import BandModel, build_band
from gpucal.simulate.schedule import plan_scan
from gpucal.simulate.setup import (
    BandSetup,
    InstrumentSetup,
    Kind,
    Line,
    Loads,
    Opacity,
    Receiver,
    Site,
    Timing,
    Weather,
)
from gpucal.simulate.sky import band_axes, line_spectrum, synthetic_table

F64 = npt.NDArray[np.float64]
CHANNELS, IF_HZ = 64, 6.0e9
SOURCE_K = 10.0
UNUSED = Opacity(0.1, 0.01, 0.01)
LEVELS = 40


@dataclass(frozen=True)
class Place:
    """A site with its packaged table and AFGL profile; ``image`` is the gain ratio of its receivers."""

    table: str
    telescope: str
    site: Site
    profile: str
    image: float


IRAM = Place("iram_30m", "IRAM-30M", Site(37.066, -3.393, 2850.0), "midlatitude winter", 0.0)
CHILE = Place("chile_5600m", "FYST", Site(-22.986, -67.740, 5600.0), "tropical", 1.0)
NIGHTS: tuple[tuple[Place, tuple[float, ...], float], ...] = (
    (IRAM, (110.0, 230.0, 345.0), 1.0),
    (IRAM, (110.0, 230.0, 345.0), 4.0),
    (CHILE, (345.0, 461.0, 691.0, 809.0), 0.5),
)
"""Place, signal frequencies in GHz and PWV in mm of the nights that the physics page shows."""


@dataclass(frozen=True, eq=False)
class LayeredBand(BandModel):
    """A band whose sky is the layers ``sides``, (signal, image | None), at the one PWV that they hold."""

    sides: tuple[Any, Any] = (None, None)

    def _columns(self, values: Callable[[Any], F64]) -> tuple[F64, F64]:
        signal = values(self.sides[0])[:, None]
        image = signal if self.sides[1] is None else values(self.sides[1])[:, None]
        return signal, image

    def transmission(self, pwv: float, airmass: float, throw: float = 0.0) -> tuple[F64, F64]:
        return self._columns(lambda air: air.transmission(airmass))

    def zenith_tau(self, pwv: float) -> tuple[F64, F64]:
        return self._columns(lambda air: air.zenith)

    def sky(self, pwv: float, airmass: float, throw: float = 0.0) -> F64:
        """Air, background and spillover at the temperature of the ground, f64 [C,1,1], K."""
        f_eff, ground = self.setup.f_eff, float(np.float32(self.setup.weather.t_amb))
        total: Any = 0.0
        for air, gain in zip(self.sides, (self.g_sig, self.g_img), strict=True):
            if air is not None:
                clear = air.emission(airmass) + planck(air.nu, T_CMB) * air.transmission(airmass)
                seen = f_eff * clear + (1.0 - f_eff) * planck(air.nu, ground)
                total = total + gain * seen[:, None, None]
        return np.asarray(total)


def layered_setup(
    place: Place,
    ghz: Sequence[float],
    t_ground: float,
    pwv_mm: float,
    *,
    width_hz: float = 1e9,
    torr: float = 550.0,
) -> InstrumentSetup:
    """One pixel and a band ``width_hz`` wide at each of ``ghz``; a source of ``SOURCE_K`` fills the signal band.

    ``torr``: pressure at the ground, that of the levels.
    """
    bands = []
    for number, centre in enumerate(ghz, 1):
        nu = centre * 1e9
        bands.append(
            BandSetup(
                f"band_{number}" if len(ghz) > 1 else "",
                (nu,),
                (nu + 2 * IF_HZ,),
                width_hz,
                CHANNELS,
                UNUSED,
                Receiver(100.0, gain_drift_per_h=0.0, gain_image=place.image, bad_per_pixel=0),
                (Line(nu, 3 * width_hz, SOURCE_K),),
            )
        )
    return InstrumentSetup(
        name="layered",
        telescope=place.telescope,
        site=place.site,
        bands=tuple(bands),
        receivers=1,
        pixels=1,
        pixel_spacing_deg=0.01,
        weather=Weather(pwv_mm, 0.0, t_ground, torr, 60.0, 0.0),
        timing=Timing(dumps=2, n_on=1, cal_dumps=1),
        loads=Loads(293.0, 77.0),
        f_eff=0.95,
        sky_drift="none",
        fill_fraction=0.0,
    )


@dataclass(frozen=True, eq=False)
class LayeredNight:
    """A store on disk: scan n + 1 at ``airmasses[n]``.

    ``quiet`` bool [C] of each band: channels off the ozone lines of both sidebands; ``t_sys`` f64 [C] of each scan and
    band: K, DSB.
    """

    path: Path
    setup: InstrumentSetup
    airmasses: tuple[float, ...]
    quiet: dict[str, npt.NDArray[np.bool_]]
    t_sys: dict[tuple[int, str], F64]


def write_layered_night(
    path: Path,
    setup: InstrumentSetup,
    airmasses: Sequence[float],
    air: Callable[[F64], LayeredAir],
    *,
    kind: Kind = "tp",
) -> LayeredNight:
    """Write scan 1, 2, .. of one kind into an L0 store at ``path``; ``air`` makes the layers over channels."""
    create_l0(
        path,
        telescope=setup.telescope,
        site=dict(setup.site.__dict__),
        instrument=setup.name,
        simulated=True,
        noise_free=True,
    )
    recording = Recording(dtype="f64", noise=False)
    models = [_layered_band(setup, index, air) for index in range(len(setup.bands))]
    t_sys = {}
    for number, airmass in enumerate(airmasses, 1):
        elevation = float(np.rad2deg(np.arcsin(1.0 / airmass)))
        here = replace(setup, weather=replace(setup.weather, elevation_deg=elevation))
        plan = plan_scan(here, kind, number, 61000.125 + 0.01 * number)
        makers = [
            ScanCounts(replace(model, setup=here), i, plan, recording)
            for i, model in enumerate(models)
        ]
        write_scan(path, makers)
        for model in models:
            sky = model.sky(setup.weather.pwv_mm, airmass)
            t_sys[number, model.band.name] = (model.t_rec + sky)[:, 0, 0]
    quiet = {}
    for model in models:
        sides = [side.quiet for side in model.sides if side is not None]
        quiet[model.band.name] = np.logical_and.reduce(sides)
    return LayeredNight(path, setup, tuple(airmasses), quiet, t_sys)


def _layered_band(
    setup: InstrumentSetup, index: int, air: Callable[[F64], LayeredAir]
) -> LayeredBand:
    signal, image = (axis[:, 0] for axis in band_axes(setup.bands[index]))
    plain = build_band(setup, index, synthetic_table(setup), 1)
    known = {f.name: getattr(plain, f.name) for f in fields(BandModel) if f.init}
    sides = (air(signal), air(image) if np.any(plain.g_img > 0) else None)
    return LayeredBand(**known, sides=sides)


@cache
def place_air(
    place: Place, pwv_mm: float, ozone: float, warmer: float, axis: tuple[float, float, int]
) -> LayeredAir:
    """The layers over a place; axis: first and last frequency in Hz, and how many."""
    levels = afgl_levels(place.profile, place.site.alt_m, LEVELS, warmer)
    return air_over(levels, np.linspace(*axis), pwv_mm, ozone=ozone)


def afgl_night(
    path: Path,
    place: Place,
    ghz: Sequence[float],
    pwv_mm: float,
    airmasses: Sequence[float],
    *,
    ozone: float = 1.0,
    warmer: float = 0.0,
    kind: Kind = "tp",
    loads: Loads | None = None,
) -> LayeredNight:
    """The night of a place under its AFGL profile, with ``ozone`` times its ozone and ``warmer`` K more everywhere."""
    levels = afgl_levels(place.profile, place.site.alt_m, LEVELS, warmer)
    torr = float(levels.p_hpa[0]) * 760.0 / 1013.25
    setup = layered_setup(place, ghz, levels.t_ground, pwv_mm, torr=torr)
    setup = setup if loads is None else replace(setup, loads=loads)

    def air(nu: F64) -> LayeredAir:
        return place_air(place, pwv_mm, ozone, warmer, (float(nu[0]), float(nu[-1]), nu.size))

    return write_layered_night(path, setup, airmasses, air, kind=kind)


@dataclass(frozen=True, eq=False)
class SkyErrors:
    """L1 over truth minus 1 of one scan and band: T_A* and T_sys f64 [C] off the ozone lines, and the PWV."""

    t_a_star: F64
    t_sys: F64
    pwv: float

    @property
    def worst(self) -> float:
        """The T_A* that is furthest from the truth."""
        return float(self.t_a_star[np.argmax(np.abs(self.t_a_star))])


def errors_of(l1: Path, night: LayeredNight, scan: int, band: str) -> SkyErrors:
    """Compare the store ``l1``, made of ``night``, with the truth; every channel must be there."""
    place = f"scan_{scan:06d}" + (f"/{band}" if band else "")
    group: Any = zarr.open_group(str(l1), mode="r")[place]
    kelvin = np.asarray(group["spectra"][...], dtype=np.float64)
    assert np.isfinite(kelvin).all()
    setup = next(b for b in night.setup.bands if b.name == band)
    truth = line_spectrum(setup.lines, band_axes(setup)[0][:, 0])
    quiet = night.quiet[band]
    ratio = kelvin.reshape(truth.size, -1).mean(axis=1) / truth - 1.0
    t_sys = group["t_sys"][...].reshape(truth.size, -1)[:, 0] / night.t_sys[scan, band] - 1.0
    pwv = float(np.ravel(group["pwv"][...])[0]) / night.setup.weather.pwv_mm - 1.0
    return SkyErrors(ratio[quiet], t_sys[quiet], pwv)
