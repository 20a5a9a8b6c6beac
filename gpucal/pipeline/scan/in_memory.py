"""Calibrate one scan in memory, without a store."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy.typing as npt

from gpucal.backend.protocol import Backend
from gpucal.backend.select import select_backend
from gpucal.config import CalibrationConfig
from gpucal.errors import LoadError
from gpucal.io.atmosphere.choice import atmosphere_for
from gpucal.physics.atm import AtmosphereTable
from gpucal.pipeline.scan.alarms import with_alarms
from gpucal.pipeline.scan.memory_budget import MemoryBudget
from gpucal.pipeline.scan.solve import LoadChoice, solve_scan
from gpucal.pipeline.scan.stream import stream_scan
from gpucal.pipeline.scan.tiles import TileSink
from gpucal.scan import Scan
from gpucal.steps.loads import load_means, nan_median
from gpucal.steps.quality import QualitySums, quality_attributes
from gpucal.steps.scale import gamma_of_scan
from gpucal.steps.solution import ScanSolution

Array = Any
Host = npt.NDArray[Any]
Sink = TypeVar("Sink", bound=TileSink)


@dataclass(frozen=True, eq=False)
class CalibratedScan:
    """Result of ``calibrate_scan``; arrays of the backend.

    spectra [C,D,R,A,S_on] K (T_A*, NaN where flagged bit 0 or 1); flags u16, same shape; t_sys
    f64 [C,R,A,S_on] K (DSB; T_sys* for the vane schemes); t_rec, gamma f64 [C,R,A] K; quality: the ``qa``
    attribute of L1; solution: pairing, loads, atmosphere.
    """

    spectra: Array
    flags: Array
    t_sys: Array
    t_rec: Array
    gamma: Array
    quality: dict[str, Any]
    solution: ScanSolution

    def __repr__(self) -> str:
        pairing = self.solution.pairing
        return (
            f"CalibratedScan({self.solution.scan.label}, mode {pairing.mode}, spectra "
            f"{tuple(self.spectra.shape)} [C,D,R,A,S_on] K, PWV {self.quality['pwv']:.4g} mm)"
        )


class _ArraySink:
    """A TileSink that keeps the whole scan in arrays of the backend."""

    def __init__(self, solution: ScanSolution) -> None:
        c, d, r, a, s = solution.output_shape
        xp = solution.backend.xp
        self._asarray = solution.backend.asarray
        dtype = xp.float64 if solution.config.dtype == "f64" else xp.float32
        # Subscan first, so that a tile is written to one piece of memory.
        self.spectra = xp.empty((s, c, d, r, a), dtype=dtype)
        self.flags = xp.empty((s, c, d, r, a), dtype=xp.uint16)
        self.t_sys = xp.empty((s, c, r, a), dtype=xp.float64)

    def write_tile(
        self, output: int, channels: tuple[int, int], spectra: Host, flags: Host, n_own: int
    ) -> None:
        place = (output, slice(*channels), ...)
        self.spectra[place] = self._asarray(spectra)
        self.flags[place] = self._asarray(flags)

    def write_t_sys(self, output: int, channels: tuple[int, int], t_sys: Array) -> None:
        self.t_sys[output, channels[0] : channels[1], ...] = t_sys


@dataclass(frozen=True, eq=False)
class StreamedInMemory(Generic[Sink]):
    """Result of ``stream_in_memory``: what was solved, with which table, and the sink that holds the tiles."""

    table: AtmosphereTable | None
    solution: ScanSolution
    sums: QualitySums
    sink: Sink


def stream_in_memory(
    scan: Scan,
    config: CalibrationConfig,
    make_sink: Callable[[ScanSolution], Sink],
    *,
    load: Scan | None,
    later_load: Scan | None,
    table: AtmosphereTable | None,
    backend: Backend,
) -> StreamedInMemory[Sink]:
    """Solve one scan and hand its tiles to the sink that ``make_sink`` makes for it.

    load: the scan whose loads serve, None: its own; later_load: the one after it, for gain interpolation;
    table: None: what the configuration chooses for the store of the scan. Raises TableError when nothing
    fits, and the GpucalError of the step that fails.
    """
    if table is None:
        table = atmosphere_for(config, scan.store_attrs, scan.path)
    source = load or scan
    if source.calibration is None:
        raise LoadError(
            "the scan has no loads of its own.",
            hint="Give the load scan.",
            scan=scan.number,
            band=scan.band,
        )
    budget = MemoryBudget.of_config(config)
    with ThreadPoolExecutor(budget.workers) as pool:
        first = load_means(source, config, backend, pool)
        second = load_means(later_load, config, backend, pool) if later_load is not None else None
        solution = solve_scan(scan, LoadChoice(first, second), table, config, backend, pool=pool)
        sink = make_sink(solution)
        sums = stream_scan(solution, sink, budget, pool=pool)
    return StreamedInMemory(table, solution, sums, sink)


def calibrate_scan(
    scan: Scan,
    config: CalibrationConfig | None = None,
    *,
    load: Scan | None = None,
    later_load: Scan | None = None,
    table: AtmosphereTable | None = None,
    backend: Backend | None = None,
) -> CalibratedScan:
    """Calibrate one scan and band in memory.

    ``load``: the scan whose ``calibration`` serves (default: the scan itself); ``later_load``: the one after
    it, for gain interpolation; ``table``: the atmosphere, in place of what ``config`` chooses. That is as in
    ``calibrate_store``: by default the packaged table of the site in ``scan.store_attrs``. Raises TableError
    when none fits the site, and the GpucalError of the step that fails.
    """
    config = config or CalibrationConfig()
    backend = backend or select_backend(config.backend)
    streamed = stream_in_memory(
        scan,
        config,
        _ArraySink,
        load=load,
        later_load=later_load,
        table=table,
        backend=backend,
    )
    solution, sink = streamed.solution, streamed.sink
    xp = backend.xp
    t_sys = xp.moveaxis(sink.t_sys, 0, -1)
    median = float(nan_median(xp.reshape(sink.t_sys[sink.t_sys.shape[0] // 2, ...], (-1,)), xp))
    return CalibratedScan(
        spectra=xp.moveaxis(sink.spectra, 0, -1),
        flags=xp.moveaxis(sink.flags, 0, -1),
        t_sys=t_sys,
        t_rec=solution.loads.t_rec,
        gamma=gamma_of_scan(solution),
        quality=with_alarms(
            quality_attributes(solution, streamed.sums, median), solution, streamed.table
        ),
        solution=solution,
    )
