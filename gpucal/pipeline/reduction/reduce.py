"""From a scan to the result of its procedure: pointing, focus, skydip, switched average.

Works on L1, and on L0, which is then calibrated in memory as it streams. What cannot be calibrated is still
fitted, against the loads or in counts, and a warning says so. Conventions: docs/reference/procedures.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from gpucal.backend import Backend, select_backend
from gpucal.backend.cpu import usable_cores
from gpucal.config import CalibrationConfig
from gpucal.errors import (
    AtmosphereError,
    ConfigError,
    GpucalError,
    L0Error,
    LoadError,
    TableError,
)
from gpucal.io.atmosphere.choice import site_table
from gpucal.io.atmosphere.tables import load_table
from gpucal.io.chunks.zarr_metadata import read_group
from gpucal.io.l0.store import L0Store, open_l0
from gpucal.io.l1.reader import open_l1
from gpucal.physics.atm import AtmosphereTable
from gpucal.pipeline.reduction.collect import Band, SolvedBand, StoredBand, averaged, continuum_of
from gpucal.pipeline.reduction.continuum import Continuum, off_subtracted, raw_continuum
from gpucal.pipeline.reduction.procedure_inputs import drifts_of, focus_series
from gpucal.pipeline.reduction.reduced import (
    Procedure,
    Reduced,
    ReduceOptions,
    Result,
    known_procedure,
    procedure_of,
)
from gpucal.pipeline.reduction.skydip_inputs import skydip_series
from gpucal.pipeline.scan.load_library import LoadLibrary
from gpucal.pipeline.scan.solve import solve_scan
from gpucal.procedures.focus import reduce_focus
from gpucal.procedures.pointing import reduce_pointing
from gpucal.procedures.results import (
    FocusResult,
    PointingResult,
    SwitchedResult,
)
from gpucal.procedures.skydip import reduce_skydip
from gpucal.procedures.switching import switched_result
from gpucal.scan import Scan
from gpucal.steps.loads import load_brightness, solve_loads, spectral_setup

F64 = npt.NDArray[np.float64]


def reduce_scan(
    store: str | Path,
    number: int,
    *,
    procedure: Procedure | Literal["auto"] = "auto",
    config: CalibrationConfig | None = None,
    options: ReduceOptions | None = None,
    backend: Backend | None = None,
) -> Reduced:
    """Reduce one scan of an L0 or an L1 store; all its bands together.

    config: how L0 is calibrated; incomplete scans are taken as far as they go. Raises ConfigError for an
    unknown procedure or a skydip from L1, and L0Error or L1Error for a scan that cannot be read. Data that do
    not give a result do not raise: the result says why.
    """
    options = options or ReduceOptions()
    document = read_group(Path(store)) if "://" not in str(store) else None
    if document is not None and str(document.get("format", "")).startswith("gpucal-l1"):
        return _reduce_l1(Path(store), number, procedure, options)
    given = config or CalibrationConfig()
    work = RawScan(open_l0(store), number, given.model_copy(update={"partial": True}), backend)
    return work.reduce(procedure, options)


def _reduce_l1(path: Path, number: int, procedure: str, options: ReduceOptions) -> Reduced:
    scan = open_l1(path).scan(number)
    bands: list[Band] = [StoredBand(scan.band_scan(b) if b else scan) for b in scan.bands or [""]]
    attrs = bands[0].attrs
    try:
        chosen = procedure_of(attrs) if procedure == "auto" else known_procedure(procedure)
    except GpucalError as error:
        raise error.locate(scan=number) from None
    if chosen == "skydip":
        raise ConfigError(
            "a skydip needs the raw counts, but this is a calibrated store.",
            hint="Give the L0 store.",
            scan=number,
        )
    if chosen == "on-off":
        return _described(number, chosen, _switched(bands, options), bands[0], attrs, ())
    continua = [continuum_of(band) for band in bands]
    return _described(number, chosen, _fitted(chosen, continua, attrs, options), continua[0], attrs)


def _switched(bands: Sequence[Band], options: ReduceOptions) -> dict[str, SwitchedResult]:
    return {
        band.label: switched_result(
            [averaged(band)],
            band.frequency,
            n_subscans=band.shape[4],
            mode=band.mode,
            window=options.window,
        )
        for band in bands
    }


def _fitted(
    procedure: Procedure,
    continua: Sequence[Continuum],
    attrs: Mapping[str, Any],
    options: ReduceOptions,
) -> PointingResult | FocusResult:
    if procedure == "pointing":
        drifts = [d for continuum in continua for d in drifts_of(continuum)]
        return reduce_pointing(drifts, options.pointing)
    series = [s for c in continua for s in focus_series(c, attrs, options.pointing)]
    return reduce_focus(series, min_snr=options.focus_snr)


def _described(
    number: int,
    procedure: Procedure,
    result: Result,
    where: Continuum | Band,
    attrs: Mapping[str, Any],
    warnings: Sequence[str] = (),
) -> Reduced:
    track = where.track
    middle = track.mjd.shape[0] // 2, track.mjd.shape[1] // 2
    return Reduced(
        scan=number,
        procedure=procedure,
        result=result,
        scale=getattr(where, "scale", "T_A*"),
        source=str(attrs.get("source") or ""),
        mjd=float(track.mjd[middle]),
        azimuth=float(track.azimuth[middle]),
        elevation=float(track.elevation[middle]),
        warnings=tuple(dict.fromkeys(warnings)),
    )


class RawScan:
    """One scan of an L0 store on its way to a result; ``warnings`` gathers what went wrong."""

    def __init__(
        self, store: L0Store, number: int, config: CalibrationConfig, backend: Backend | None
    ) -> None:
        self.config = config
        self.backend = backend or select_backend(config.backend)
        self.library = LoadLibrary(store, config, self.backend)
        self.scans = self.library.scan(number)
        self.number = number
        self.warnings: list[str] = [w for scan in self.scans for w in scan.warnings]
        self.warnings += [str(e) for e in self.library.broken_bands(number).values()]
        self._store = store
        self._workers = config.workers or usable_cores()

    def reduce(self, procedure: str, options: ReduceOptions) -> Reduced:
        """Do the procedure; see ``reduce_scan``."""
        first = self.scans[0]
        modes = first.source.sobsmode if first.source is not None else ()
        try:
            chosen = (
                procedure_of(first.attrs, modes)
                if procedure == "auto"
                else known_procedure(procedure)
            )
        except GpucalError as error:
            raise error.locate(scan=self.number) from None
        with ThreadPoolExecutor(self._workers) as pool:
            if chosen == "skydip":
                return self._skydip(options, pool)
            self._require_source()
            if chosen == "on-off":
                bands = [self._solved(scan, pool, exact=True) for scan in self.scans]
                found = _switched(bands, options)
                return self._described(chosen, found, bands[0])
            continua = [self._continuum(scan, pool) for scan in self.scans]
        return self._described(chosen, _fitted(chosen, continua, first.attrs, options), continua[0])

    def _described(self, procedure: Procedure, result: Result, where: Continuum | Band) -> Reduced:
        attrs = self.scans[0].attrs
        return _described(self.number, procedure, result, where, attrs, self.warnings)

    def _require_source(self) -> None:
        if any(scan.source is None for scan in self.scans):
            raise L0Error(
                "the scan has no source/ group: it is a load scan.",
                hint="Give the scan on the source, or --procedure skydip.",
                scan=self.number,
            )

    def _table(self, scan: Scan) -> AtmosphereTable | None:
        choice = self.config.atmosphere
        if choice == "none" or (choice == "auto" and self.config.tau is not None):
            return None
        return load_table(site_table(scan.store_attrs) if choice == "auto" else choice)

    def _solved(self, scan: Scan, pool: ThreadPoolExecutor, *, exact: bool = False) -> SolvedBand:
        """The calibrated band; without an atmosphere table that fits, its transmission is taken as 1.

        That is good enough for offsets, but refused where T_A* itself is the result (``exact``) and
        where the user chose the atmosphere.
        """
        choice = self.library.choose(scan, pool)

        def solve(table: AtmosphereTable | None, config: CalibrationConfig) -> SolvedBand:
            solution = solve_scan(scan, choice, table, config, self.backend, pool=pool)
            self.warnings += solution.warnings
            return SolvedBand(solution, pool, self._workers)

        try:
            return solve(self._table(scan), self.config)
        except (TableError, AtmosphereError) as error:
            if exact or self.config.atmosphere != "auto" or self.config.tau is not None:
                raise
            self.warnings.append(f"the atmosphere is not corrected for (tau = 0): {error.message}")
            clear = self.config.model_copy(update={"atmosphere": "none", "tau": 0.0, "pwv": "fit"})
            return solve(None, clear)

    def _continuum(self, scan: Scan, pool: ThreadPoolExecutor) -> Continuum:
        """T_A* per dump; else T against the loads; else counts."""
        group = scan.source
        assert group is not None
        every = list(range(group.shape[4]))
        ways: list[Callable[[], Continuum]] = [
            lambda: continuum_of(self._solved(scan, pool)),
            lambda: off_subtracted(
                raw_continuum(group, every, scan.band, self.load_scale(scan, pool)[0]),
                group.sobsmode,
            ),
        ]
        for way, what in zip(ways, ("T_A*", "kelvin against the loads"), strict=True):
            try:
                return way()
            except GpucalError as error:
                self.warnings.append(f"not calibrated to {what}: {error.message}")
        return off_subtracted(raw_continuum(group, every, scan.band), group.sobsmode)

    def load_scale(
        self, scan: Scan, pool: ThreadPoolExecutor
    ) -> tuple[tuple[F64, F64], Callable[[float], F64]]:
        """(offset, factor) [C,R,A] that turn counts into K at the receiver input, and J(T) -> f64 [R,A].

        T = J_cold + (C - C_cold) (J_hot - J_cold)/(C_hot - C_cold), bad channels NaN; J(T) is the mean
        over the same channels, both sidebands with their gains (physics sections 2 to 4). Raises LoadError
        without a hot and a cold load.
        """
        means = self.library.choose(scan, pool).first
        if means.cold is None or means.t_cold is None:
            raise LoadError(
                "the load scan has no COLD subscan.", hint="A sky temperature needs HOT and COLD."
            )
        setup = spectral_setup(scan, self.config, self.backend)
        loads = solve_loads(means, setup, self.config, self.backend)
        host = self.backend.to_host
        cold, span = (np.asarray(host(x), dtype=np.float64) for x in (means.cold, loads.span))
        bad = np.asarray(host(loads.bad))
        j_hot, j_cold = (
            np.broadcast_to(np.asarray(host(load_brightness(setup, t, self.backend))), cold.shape)
            for t in (means.t_hot, means.t_cold)
        )
        factor = np.where(bad, np.nan, (j_hot - j_cold) / np.where(bad, 1.0, span))

        def brightness(kelvin: float) -> F64:
            n_rec = cold.shape[1]
            j = host(load_brightness(setup, np.full(n_rec, kelvin), self.backend))
            wide = np.broadcast_to(np.asarray(j), cold.shape)
            n = np.maximum((~bad).sum(axis=0), 1)
            return np.asarray(np.where(bad, 0.0, wide).sum(axis=0) / n)

        return (j_cold - factor * cold, factor), brightness

    def _skydip(self, options: ReduceOptions, pool: ThreadPoolExecutor) -> Reduced:
        series, continua = [], []
        for scan in self.scans:
            scale = partial(self.load_scale, scan, pool)
            found, continuum = skydip_series(scan, scale, self.config, options.skydip)
            series += found
            continua.append(continuum)
        return self._described("skydip", reduce_skydip(series, options.skydip), continua[0])
