"""Solve one scan: from the scan and its loads to everything that its tiles need.

Stages: gain drift, loads, prepare (pairing and OFF means), atmosphere. Calibration itself is done
tile by tile by ``pipeline.scan.stream``. Stores, clusters, reductions and the online tasks all call this.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from gpucal.backend.protocol import Backend
from gpucal.config import CalibrationConfig
from gpucal.errors import AtmosphereError, ConfigError, GpucalError, LoadError
from gpucal.physics.atm import AtmosphereTable, pwv_grid
from gpucal.physics.radiometry import airmass as airmass_of
from gpucal.products import (
    Atmosphere,
    GainDrift,
    LoadMeans,
    LoadSolution,
    MeanKey,
    OzoneFit,
    SpectralSetup,
    SubscanMean,
)
from gpucal.scan import Scan
from gpucal.steps.atmosphere import (
    Skies,
    SkyView,
    airmass_seen,
    fit_atmosphere,
    given_atmosphere,
    on_airmass,
)
from gpucal.steps.error_budget.budget import error_budget
from gpucal.steps.hot_cold.gain_drift import drift_between, drift_through
from gpucal.steps.judge.pixels import Verdict, impossible_sky, judge_loads, judge_sky, nobody
from gpucal.steps.judge.references import Judge
from gpucal.steps.loads import moving_axis, solve_loads, spectral_setup
from gpucal.steps.means import dump_means
from gpucal.steps.pairing import Pairing, pair_subscans
from gpucal.steps.skies.joint import with_receivers
from gpucal.steps.skies.load_sky import (
    Compared,
    LoadSky,
    compare_skies,
    skies_of_fit,
    sky_of_loads,
)
from gpucal.steps.skies.ozone import fit_ozone
from gpucal.steps.skies.scan_model import model_of_scan, ozone_models
from gpucal.steps.sky_model import (
    ambient_temperatures,
    table_of_scan,
)
from gpucal.steps.solution import ScanSolution, VaneSky
from gpucal.steps.vane import ignored_by_vane, solve_vane, vane_temperatures

Array = Any
F64 = npt.NDArray[np.float64]
T = TypeVar("T")
Means = dict[MeanKey, SubscanMean]


@dataclass(frozen=True, eq=False)
class LoadChoice:
    """The load scan that serves a scan, the one after it (for gain drift), and whether it is too old.

    blocks: loads of the scan itself that were measured several times, for gain drift; ``first`` is then the first.
    """

    first: LoadMeans
    second: LoadMeans | None = None
    stale: bool = False
    warnings: tuple[str, ...] = ()
    blocks: tuple[LoadMeans, ...] = ()

    @property
    def numbers(self) -> tuple[int, ...]:
        """The numbers of all load scans that serve."""
        second = (self.second.scan,) if self.second is not None else ()
        return (self.first.scan, *self.first.others, *second)


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
    """Solve one scan and band: everything that its tiles need is decided here.

    ``table`` None means the opacity ``config.tau`` in every channel. Raises a GpucalError that names the
    scan, band and stage.
    """
    timer = timer or StageTimer()
    scheme = _scheme(choice.first, config)
    try:
        # Pair: which subscans make each output.
        pairing = timer.run("prepare", lambda: pair_subscans(scan, config))
        own = (*scan.warnings, *moving_axis(scan, pairing.on_index))
        # Average: the OFFs, with the gain drift between the loads taken out where it is wanted.
        setup = timer.run("resolve", lambda: spectral_setup(scan, config, backend))
        drift, warnings = _drift(choice, scheme, config)
        judge = Judge(config, backend, noise_free=scan.store_attrs.get("noise_free") is True)
        means: Means = timer.run(
            "prepare", lambda: _reference_means(scan, pairing, drift, judge, backend, pool)
        )
        # Solve the loads: counts per kelvin, receiver temperature, bad channels.
        loads = timer.run(
            "resolve", lambda: _loads(scheme, choice, setup, pairing, means, drift, config, backend)
        )
        # Solve the atmosphere: PWV, and the transmission of every output.
        sky = sky_of_loads(choice.first, loads, drift, config, backend)
        air = timer.run(
            "atm",
            lambda: _atmosphere(scan, table, setup, loads, pairing, means, sky, config, backend),
        )
        said = (
            *own,
            *judge.warnings(),
            *ignored_by_vane(scheme, config),
            *loads.warnings,
            *choice.warnings,
            *warnings,
            *air.warnings,
        )
        solution = ScanSolution(
            *(scan, config, backend, setup, loads, pairing, means, air.atmosphere, drift),
            verdict=air.verdict,
            water=air.compared.seen,
            ozone=air.ozone,
            warnings=said,
        )
        solution = timer.run("atm", lambda: _with_vane(solution, choice.first, air.t_atm))
        # Say how good that is.
        return timer.run("atm", lambda: _with_errors(solution, air.skies))
    except GpucalError as error:
        raise error.locate(scan=scan.number, band=scan.band, stage="resolve") from error.__cause__


def _reference_means(
    scan: Scan,
    pairing: Pairing,
    drift: GainDrift | None,
    judge: Judge,
    backend: Backend,
    pool: Executor | None,
) -> Means:
    """The means of all references of a scan, without the dumps and samples that the judge leaves out."""
    in_references = drift if drift is not None and drift.correct_off else None
    return dump_means(
        _source(scan), pairing.means, backend, pool=pool, drift=in_references, judge=judge
    )


def _with_errors(solution: ScanSolution, skies: Skies) -> ScanSolution:
    """Add the errors of the PWV and of the scale of T_A*, and whether the receivers agree."""
    return with_receivers(replace(solution, errors=error_budget(solution, skies)))


def _source(scan: Scan) -> Any:
    """The source group: a scan without one never comes here."""
    assert scan.source is not None
    return scan.source


def _scheme(load: LoadMeans, config: CalibrationConfig) -> str:
    """The calibration scheme: the one asked for, or what the loads allow."""
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
    """The gain drift between the two load scans; None, and why, where it cannot be determined."""
    if not config.gain_interpolate:
        return None, ()
    correct_off = config.gain_interpolate == 3
    if scheme == "hot-cold" and len(choice.blocks) > 1:
        return drift_through(choice.blocks, correct_off=correct_off), ()
    if scheme != "hot-cold" or choice.second is None or choice.second.cold is None:
        return None, (
            "the gain drift is not corrected: two hot/cold load scans are needed, one on each side",
        )
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
    """The loads solved by the scheme; a vane is compared with the sky of the first output."""
    if scheme == "hot-cold":
        solved = solve_loads(choice.first, setup, config, backend, drift=drift, stale=choice.stale)
        return replace(solved, scans=choice.numbers)
    if config.cal_bandwidth:
        raise ConfigError(
            f"--cal-bandwidth {config.cal_bandwidth} averages T_rec, which the scheme {scheme} does not have.",
            hint="Leave it out, or use loads with a COLD (--cal-scheme hot-cold).",
        )
    sky = means[pairing.recipes[0].sky_key()].mean
    solved = solve_vane(choice.first, sky, setup, scheme, config, backend, stale=choice.stale)
    return replace(solved, scans=choice.numbers)


class _Air(NamedTuple):
    """What ``_atmosphere`` finds; t_atm: its physical temperature, K; skies: of the fit; compared: SKY and OFFs."""

    atmosphere: Atmosphere
    t_atm: float
    verdict: Verdict
    skies: Skies
    compared: Compared = Compared()
    warnings: tuple[str, ...] = ()
    ozone: OzoneFit | None = None


def _atmosphere(
    scan: Scan,
    table: AtmosphereTable | None,
    setup: SpectralSetup,
    loads: LoadSolution,
    pairing: Pairing,
    means: Means,
    load_sky: LoadSky,
    config: CalibrationConfig,
    backend: Backend,
) -> _Air:
    """The atmosphere as the configuration wants it."""
    group = _source(scan)
    # Judge the pixels: a broken one must not move the others, nor be the reference of anything.
    verdict = judge_loads(loads, config, backend)
    verdict = verdict.also(_without_impossible(means, loads, backend))
    skies = _sky_views(scan, pairing, means, config, backend)
    verdict = verdict.also(judge_sky([v.counts for v in skies.views], loads, config, backend))
    temperatures = ambient_temperatures(group, config, backend.to_host(loads.t_hot))
    here = table_of_scan(table, group, config)
    model = model_of_scan(here, setup, temperatures, config, backend)
    airmass = on_airmass(group, pairing, config.airmass)
    t_atm = temperatures.effective
    if table is None:
        given = given_atmosphere(model, airmass, float("nan"), "none")
        return _Air(given, t_atm, verdict, skies, warnings=verdict.warnings())
    if config.pwv != "fit":
        given = given_atmosphere(model, airmass, float(config.pwv))
        return _Air(given, t_atm, verdict, skies, warnings=verdict.warnings())
    if loads.cold is None:
        raise AtmosphereError(
            "the PWV cannot be fitted without a COLD load.",
            hint="Use --pwv MM, or --tau NP with --t-atm K.",
        )
    seen, notes = skies_of_fit(skies, load_sky, config)
    grid, ozone = pwv_grid(table), None
    if config.ozone == "fit":
        models = ozone_models(here, setup, temperatures, config, backend)
        ozone = fit_ozone(models, seen.views, loads, setup, grid, verdict, config, backend)
        model = models.at(ozone.scale)
        notes = (*notes, ozone.why) if ozone.why else notes
    fitted, verdict = fit_atmosphere(
        seen, loads, setup, model, airmass, grid, config, verdict, backend
    )
    compared = Compared()
    if load_sky.view is not None:
        compared = compare_skies(
            load_sky.view, skies.views, fitted, loads, setup, grid, verdict, config, backend
        )
    notes = (*verdict.warnings(), *notes, *compared.warnings)
    return _Air(fitted, t_atm, verdict, seen, compared, notes, ozone)


def _without_impossible(means: Means, loads: LoadSolution, backend: Backend) -> Verdict:
    """Take what no sky can be out of the OFF ``means``: NaN, which blanks what it is the reference of."""
    verdict = nobody(loads.bad.shape[1:])
    for key, mean in means.items():
        found = impossible_sky(mean.mean, loads, backend)
        if found.complaints:
            hidden = backend.asarray(found.left_out)[None, ...]
            means[key] = mean._replace(mean=backend.xp.where(hidden, backend.xp.nan, mean.mean))
            verdict = verdict.also(found)
    return verdict


def _sky_views(
    scan: Scan,
    pairing: Pairing,
    means: Mapping[MeanKey, SubscanMean],
    config: CalibrationConfig,
    backend: Backend,
) -> Skies:
    """The distinct skies of a scan (one per OFF in use), and the index of the one that each output has."""
    group = _source(scan)
    views: list[SkyView] = []
    number: dict[Hashable, int] = {}
    of_output = []
    for recipe in pairing.recipes:
        for sky in recipe.skies(means, backend):
            if sky.key not in number:
                mass = airmass_seen(group, sky.subscan, config.airmass)
                number[sky.key] = len(views)
                views.append(SkyView(sky.counts, mass, sky.time))
        of_output.append(number[sky.key])
    return Skies(views, of_output)


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
        solution = replace(solution, load_sky=VaneSky(load.sky, mass))
    if solution.loads.scheme != "vane":
        return solution
    temperatures = [
        vane_temperatures(
            solution.loads,
            solution.vane_sky(j).counts,
            solution.atmosphere,
            j,
            solution.vane_airmass(j),
            t_atm,
            config.vane_average,
            solution.backend,
        )
        for j in range(len(solution.pairing.recipes))
    ]
    return replace(solution, vane_temperatures=temperatures)
