"""Reduction of one scan of an L0 store."""

from __future__ import annotations

from concurrent.futures import Executor

import numpy as np

from gpucal.backend.cpu import usable_cores
from gpucal.backend.protocol import Backend
from gpucal.backend.select import select_backend
from gpucal.config import CalibrationConfig
from gpucal.errors import GpucalError, L0Error, LoadError, TableError
from gpucal.io.atmosphere.choice import atmosphere_for, atmosphere_text
from gpucal.io.l0.store import L0Store
from gpucal.physics.atm import AtmosphereTable
from gpucal.pipeline.reduction.collect import SolvedBand, continuum_of
from gpucal.pipeline.reduction.continuum import Continuum, Track, off_subtracted, raw_continuum
from gpucal.pipeline.reduction.fits import continuum_fit, described, switched_results
from gpucal.pipeline.reduction.load_scale import LoadScale, load_scale
from gpucal.pipeline.reduction.procedure_choice import Procedure, known_procedure, reduction_of
from gpucal.pipeline.reduction.products import Reduced, ReduceOptions, Result
from gpucal.pipeline.reduction.skydip_inputs import band_lapse, sky_of, skydip_series
from gpucal.pipeline.reduction.transparent_sky import with_atmosphere_or_without
from gpucal.pipeline.scan.alarms import alarms_of, with_alarms
from gpucal.pipeline.scan.load_library import LoadLibrary
from gpucal.pipeline.scan.ordered_pool import Threads
from gpucal.pipeline.scan.solve import solve_scan
from gpucal.procedures.results import SwitchedResult
from gpucal.procedures.skydip import Lapse, SkydipOptions, reduce_skydip
from gpucal.scan import Scan
from gpucal.steps.loads import spectral_setup
from gpucal.steps.quality import DECILE_OF_SQUARE, solution_quality
from gpucal.steps.sky_model import table_of_scan


class RawScan:
    """One scan of an L0 store; ``warnings`` gathers what could not be done as it should.

    atmosphere: in words what the opacities came from, "" as long as none were needed.
    """

    def __init__(
        self, store: L0Store, number: int, config: CalibrationConfig, backend: Backend | None
    ) -> None:
        self.config = config
        self.backend = backend or select_backend(config.backend, kernels=config.kernels)
        self.library = LoadLibrary(store, config, self.backend)
        self.scans = self.library.scan(number)
        self.number = number
        self.atmosphere = ""
        self._noise_free = False
        self.warnings: list[str] = [w for scan in self.scans for w in scan.warnings]
        self.warnings += [str(e) for e in self.library.broken_bands(number).values()]

    def reduce(self, procedure: str, options: ReduceOptions) -> Reduced:
        """Run the procedure; see ``reduce_scan``."""
        chosen = self._procedure(procedure)
        attrs = self.scans[0].attrs
        workers = self.config.workers or usable_cores()
        with Threads(workers, "tile", self.backend.in_thread) as pool:
            if chosen == "skydip":
                return self._skydip(options.skydip, pool)
            self._require_source()
            if chosen == "on-off":
                bands = [self._solved(scan, pool, exact=True) for scan in self.scans]
                found = switched_results(bands, options)
                for result in found.values():
                    self._judge_noise(result)
                return self._described(chosen, found, "T_A*", bands[0].track)
            continua = [self._continuum(scan, pool) for scan in self.scans]
        fit = continuum_fit(chosen, continua, attrs, options)
        return self._described(chosen, fit, continua[0].scale, continua[0].track)

    def _judge_noise(self, result: SwitchedResult) -> None:
        """Warn of a scatter that cannot be right, in the quietest tenth of the channels too."""
        step = np.diff(result.spectrum, axis=0) ** 2
        some = np.isfinite(step).any(axis=0)
        tenth = np.nanquantile(np.where(some, step, 0.0), 0.1, axis=0) / (2 * DECILE_OF_SQUARE)
        quality = {
            "rms_ratio": result.ratio.tolist(),
            "rms_ratio_line_free": np.where(
                some, np.sqrt(tenth) / result.expected, np.nan
            ).tolist(),
            "noise_free": self._noise_free,
        }
        self.warnings += alarms_of(quality, self.config).values()

    def _procedure(self, asked: str) -> Procedure:
        """The procedure asked for; "auto": the one that the scan was taken for."""
        first = self.scans[0]
        modes = first.source.sobsmode if first.source is not None else ()
        try:
            return reduction_of(first.attrs, modes) if asked == "auto" else known_procedure(asked)
        except GpucalError as error:
            raise error.locate(scan=self.number) from None

    def _described(self, procedure: Procedure, result: Result, scale: str, track: Track) -> Reduced:
        """The result with what is known of this scan."""
        return described(
            self.number,
            procedure,
            result,
            scale=scale,
            track=track,
            attrs=self.scans[0].attrs,
            warnings=self.warnings,
            atmosphere=self.atmosphere,
        )

    def _require_source(self) -> None:
        if any(scan.source is None for scan in self.scans):
            raise L0Error(
                "the scan has no source/ group: it is a load scan.",
                hint="Give the scan on the source, or --procedure skydip.",
                scan=self.number,
            )

    def _solved(self, scan: Scan, pool: Executor, *, exact: bool) -> SolvedBand:
        """The solution of one band. exact: the atmosphere is needed, see ``transparent_sky``."""
        choice = self.library.choose(scan, pool)

        def solve(table: AtmosphereTable | None, config: CalibrationConfig) -> SolvedBand:
            solution = solve_scan(scan, choice, table, config, self.backend, pool=pool)
            self.warnings += solution.warnings
            quality = with_alarms(solution_quality(solution), solution, table)
            self.warnings += quality["alarms"].values()
            self._noise_free = bool(quality["noise_free"])
            self.atmosphere = atmosphere_text(table, config)
            return SolvedBand(solution, pool)

        return with_atmosphere_or_without(
            solve, self.config, scan, exact=exact, warn=self.warnings.append
        )

    def _continuum(self, scan: Scan, pool: Executor) -> Continuum:
        """Continuum per dump as T_A*; if that fails as T on the scale of the loads, else as counts."""
        group = scan.source
        assert group is not None
        every = list(range(group.shape[4]))
        try:
            return continuum_of(self._solved(scan, pool, exact=False))
        except GpucalError as error:
            self._warn_not_in("T_A*", error)
        scale = None
        try:
            scale = self._load_scale(scan, pool)
        except GpucalError as error:
            self._warn_not_in("kelvin against the loads", error)
        return off_subtracted(raw_continuum(group, every, scan.band, scale), group.sobsmode)

    def _warn_not_in(self, unit: str, error: GpucalError) -> None:
        """Note that ``unit``, the better scale, was not possible, and why."""
        self.warnings.append(f"not calibrated to {unit}: {error.message}")

    def _load_scale(self, scan: Scan, pool: Executor) -> LoadScale:
        """The scale of the counts against the loads of this scan; raises LoadError without hot and cold."""
        return load_scale(scan, self.library.choose(scan, pool).first, self.config, self.backend)

    def _skydip(self, options: SkydipOptions, pool: Executor) -> Reduced:
        """Opacity from the sky at several elevations, all bands together."""
        series, continua = [], []
        for scan in self.scans:
            sky = sky_of(scan)
            scale = self._skydip_scale(scan, options, pool)
            continuum = raw_continuum(sky.group, sky.subscans, scan.band, scale)
            lapses = self._lapses(scan)
            series += skydip_series(sky, continuum, scale, self.config, lapses)
            continua.append(continuum)
        first = continua[0]
        return self._described("skydip", reduce_skydip(series, options), first.scale, first.track)

    def _lapses(self, scan: Scan) -> list[Lapse | None]:
        """How the sky of each receiver departs from an isothermal one; no table, or one without: isothermal."""
        group = sky_of(scan).group
        n_rec = group.shape[2]
        try:
            table = atmosphere_for(self.config, scan.store_attrs, scan.path)
            here = table_of_scan(table, group, self.config)
            setup = spectral_setup(scan, self.config, self.backend)
            found = [band_lapse(here, setup, self.config, r, self.backend) for r in range(n_rec)]
        except TableError as error:
            self.atmosphere = f"isothermal sky ({error.message})"
            return [None] * n_rec
        self.atmosphere = atmosphere_text(table, self.config)
        return found

    def _skydip_scale(self, scan: Scan, options: SkydipOptions, pool: Executor) -> LoadScale | None:
        """The scale of the counts; None without loads, where the form of the model has a free gain."""
        try:
            return self._load_scale(scan, pool)
        except LoadError:
            if options.form != "total-power" or not options.free_gain:
                raise
            return None
