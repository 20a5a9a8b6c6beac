"""The chain on one page: a scan and its loads in, everything that its tiles need out.

Stages: gain drift, loads, prepare (pairing and OFF means), atmosphere. Calibration itself is done
tile by tile by ``pipeline.stream``. Batch, cluster and online work all call this.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np

from gpucal.backend.protocol import Backend
from gpucal.config import CalibrationConfig
from gpucal.errors import AtmosphereError, GpucalError, LoadError
from gpucal.physics.atm import AtmosphereTable, ChannelOpacity, flat_opacity, pwv_grid
from gpucal.physics.radiometry import airmass as airmass_of
from gpucal.products import (
    Atmosphere,
    GainDrift,
    Interpolated,
    LoadMeans,
    LoadSolution,
    MeanKey,
    NodBeams,
    Pairing,
    SkyModel,
    SpectralSetup,
    SubscanMean,
)
from gpucal.scan import Scan
from gpucal.steps.atmosphere import SkyView, fit_atmosphere, given_atmosphere, on_airmass
from gpucal.steps.calibrate import ScanSolution
from gpucal.steps.gain_drift import drift_between
from gpucal.steps.loads import solve_loads, spectral_setup
from gpucal.steps.means import dump_means
from gpucal.steps.pairing import pair_subscans
from gpucal.steps.sky_model import ambient_temperatures, build_sky_model, stack_opacity
from gpucal.steps.vane import solve_vane, vane_temperatures

Array = Any
T = TypeVar("T")
Means = dict[MeanKey, SubscanMean]


@dataclass(frozen=True, eq=False)
class LoadChoice:
    """The load scan of a scan, the one after it (gain drift), and whether it is too old."""

    first: LoadMeans
    second: LoadMeans | None = None
    stale: bool = False
    warnings: tuple[str, ...] = ()


class StageTimer:
    """Milliseconds spent in each stage of one scan."""

    def __init__(self) -> None:
        self.milliseconds: dict[str, float] = {}

    def run(self, stage: str, work: Callable[[], T]) -> T:
        """Run ``work`` and add its time to ``stage``; errors learn the stage they came from."""
        start = time.perf_counter()
        try:
            return work()
        except GpucalError as error:
            raise error.locate(stage=stage) from error.__cause__
        finally:
            spent = 1e3 * (time.perf_counter() - start)
            self.milliseconds[stage] = self.milliseconds.get(stage, 0.0) + spent


def solve_scan(
    scan: Scan,
    choice: LoadChoice,
    table: AtmosphereTable | None,
    config: CalibrationConfig,
    backend: Backend,
    *,
    pool: Executor | None = None,
    timer: StageTimer | None = None,
) -> ScanSolution:
    """Everything about one scan and band but the tiles themselves.

    ``table`` None means the opacity ``config.tau`` in every channel. Raises a GpucalError that names the
    scan, band and stage.
    """
    timer = timer or StageTimer()
    scheme = _scheme(choice.first, config)
    try:
        pairing = timer.run("prepare", lambda: pair_subscans(scan, config))
        setup = timer.run("resolve", lambda: spectral_setup(scan, config, backend))
        drift, warnings = _drift(choice, scheme, config)
        means: Means = timer.run(
            "prepare",
            lambda: dump_means(
                _source(scan),
                pairing.means,
                backend,
                pool=pool,
                drift=drift if drift is not None and drift.correct_off else None,
            ),
        )
        loads = timer.run(
            "resolve", lambda: _loads(scheme, choice, setup, pairing, means, drift, config, backend)
        )
        atmosphere, t_atm = timer.run(
            "atm",
            lambda: _atmosphere(scan, table, setup, loads, pairing, means, config, backend),
        )
        solution = ScanSolution(
            scan=scan,
            config=config,
            backend=backend,
            setup=setup,
            loads=loads,
            pairing=pairing,
            means=means,
            atmosphere=atmosphere,
            drift=drift,
            warnings=(*scan.warnings, *loads.warnings, *choice.warnings, *warnings),
        )
        return timer.run("atm", lambda: _with_vane(solution, choice.first, t_atm))
    except GpucalError as error:
        raise error.locate(scan=scan.number, band=scan.band, stage="resolve") from error.__cause__


def _source(scan: Scan) -> Any:
    assert scan.source is not None
    return scan.source


def _scheme(load: LoadMeans, config: CalibrationConfig) -> str:
    if config.cal_scheme == "auto":
        return "vane" if load.cold is None else "hot-cold"
    if config.cal_scheme == "hot-cold" and load.cold is None:
        raise LoadError(
            "the hot-cold scheme was asked for, but the load scan has no COLD subscan.",
            hint="Use --cal-scheme vane.",
        )
    return config.cal_scheme


def _drift(
    choice: LoadChoice, scheme: str, config: CalibrationConfig
) -> tuple[GainDrift | None, tuple[str, ...]]:
    if not config.gain_interpolate:
        return None, ()
    if scheme != "hot-cold" or choice.second is None or choice.second.cold is None:
        return None, (
            "the gain drift is not corrected: two hot/cold load scans are needed, one on each side",
        )
    correct_off = config.gain_interpolate == 3
    return drift_between(choice.first, choice.second, correct_off=correct_off), ()


def _loads(
    scheme: str,
    choice: LoadChoice,
    setup: SpectralSetup,
    pairing: Pairing,
    means: Means,
    drift: GainDrift | None,
    config: CalibrationConfig,
    backend: Backend,
) -> LoadSolution:
    if scheme == "hot-cold":
        return solve_loads(choice.first, setup, config, backend, drift=drift, stale=choice.stale)
    sky = means[pairing.sky[0]].mean
    return solve_vane(choice.first, sky, setup, scheme, config, backend, stale=choice.stale)


def _opacity(
    table: AtmosphereTable | None, setup: SpectralSetup, config: CalibrationConfig, backend: Backend
) -> Array:
    nu_sig, nu_img = (np.asarray(backend.to_host(x)) for x in (setup.nu_sig, setup.nu_img))
    n_chan, n_axes = nu_sig.shape

    def columns(nu: Any) -> Sequence[ChannelOpacity]:
        if table is None:
            return [flat_opacity(config.tau or 0.0, n_chan)] * n_axes
        width = setup.channel_width
        return [table.channel_opacity(nu[:, f], width, config.ozone_scale) for f in range(n_axes)]

    signal = columns(nu_sig)
    # A single-sideband receiver never looks at its image: the table need not reach there.
    image = columns(nu_img) if bool(np.any(backend.to_host(setup.g_img) > 0)) else signal
    return stack_opacity([signal, image])


def _atmosphere(
    scan: Scan,
    table: AtmosphereTable | None,
    setup: SpectralSetup,
    loads: LoadSolution,
    pairing: Pairing,
    means: Means,
    config: CalibrationConfig,
    backend: Backend,
) -> tuple[Atmosphere, float]:
    group = _source(scan)
    temperatures = ambient_temperatures(group, config)
    opacity = _opacity(table, setup, config, backend)
    model: SkyModel = build_sky_model(setup, opacity, temperatures, backend)
    airmass = on_airmass(group, pairing, config.airmass)
    if table is None:
        return given_atmosphere(model, airmass, float("nan"), "none"), temperatures[1]
    if config.pwv != "fit":
        return given_atmosphere(model, airmass, float(config.pwv)), temperatures[1]
    if loads.cold is None:
        raise AtmosphereError(
            "the PWV cannot be fitted without a COLD load.",
            hint="Use --pwv MM, or --tau NP with --t-atm K.",
        )
    views, of_output = _sky_views(scan, pairing, means, config, backend)
    grid = pwv_grid(table)
    fitted = fit_atmosphere(views, of_output, loads, setup, model, airmass, grid, config, backend)
    return fitted, temperatures[1]


def _sky_views(
    scan: Scan, pairing: Pairing, means: Means, config: CalibrationConfig, backend: Backend
) -> tuple[list[SkyView], list[int]]:
    """The distinct skies of a scan (every OFF that is used), and which one each output has."""
    group = _source(scan)
    views: list[SkyView] = []
    known: dict[tuple[Any, ...], int] = {}

    def view(key: tuple[Any, ...], counts: Array, subscan: int, seconds: float) -> int:
        if key not in known:
            mass = float(airmass_of(np.asarray(group.elevation[:, subscan].mean()), config.airmass))
            known[key] = len(views)
            views.append(SkyView(counts, mass, seconds))
        return known[key]

    of_output = []
    for recipe, sky in zip(pairing.recipes, pairing.sky, strict=True):
        if isinstance(recipe, NodBeams):
            second = backend.asarray(recipe.second)[None, ...]
            here, there = (means[MeanKey(s)] for s in (recipe.on, recipe.other))
            counts = backend.xp.where(second, here.mean, there.mean)
            of_output.append(view(("nod", recipe.on), counts, recipe.other, there.time))
            continue
        keys = [recipe.off1, recipe.off2] if isinstance(recipe, Interpolated) else []
        for key in [*keys, sky]:
            mean = means[key]
            view(tuple(key), mean.mean, key.subscan, mean.time)
        of_output.append(known[tuple(sky)])
    return views, of_output


def _with_vane(solution: ScanSolution, load: LoadMeans, t_atm: float) -> ScanSolution:
    """Add the sky of the load scan, and T_cal and T_sys* where the scheme has one per pixel."""
    config = solution.config
    if solution.loads.cold is not None:
        return solution
    if config.vane_sky == "sky":
        if load.sky is None:
            raise LoadError(
                f"the load scan {load.scan} has no SKY subscan.", hint="Use --vane-sky off."
            )
        mass = float(airmass_of(np.asarray(load.sky_elevation), config.airmass))
        solution = replace(solution, load_sky=(load.sky, mass))
    if solution.loads.scheme != "vane":
        return solution
    temperatures = []
    for j in range(len(solution.pairing.recipes)):
        sky, mass = solution.vane_sky(j, float(solution.atmosphere.airmass[j]))
        temperatures.append(
            vane_temperatures(
                solution.loads,
                sky,
                solution.atmosphere,
                j,
                mass,
                t_atm,
                config.vane_average,
                solution.backend,
            )
        )
    return replace(solution, vane_temperatures=temperatures)
