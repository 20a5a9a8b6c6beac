"""Solve one scan and stream it into memory, without a store."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from gpucal.backend.protocol import Backend
from gpucal.config import CalibrationConfig
from gpucal.errors import LoadError
from gpucal.io.atmosphere.choice import atmosphere_for
from gpucal.physics.atm import AtmosphereTable
from gpucal.pipeline.scan.load_rules import load_blocks
from gpucal.pipeline.scan.memory_budget import MemoryBudget
from gpucal.pipeline.scan.ordered_pool import Threads
from gpucal.pipeline.scan.solve import LoadChoice, solve_scan
from gpucal.pipeline.scan.stream import stream_scan
from gpucal.pipeline.scan.tiles import TileSink
from gpucal.scan import Scan
from gpucal.steps.loads import load_means
from gpucal.steps.quality import QualitySums
from gpucal.steps.solution import ScanSolution

Sink = TypeVar("Sink", bound=TileSink)


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
    load: Scan | LoadChoice | None,
    later_load: Scan | None,
    table: AtmosphereTable | None,
    backend: Backend,
) -> StreamedInMemory[Sink]:
    """Solve one scan and hand its tiles to the sink that ``make_sink`` makes for it.

    load: the scan whose loads serve, or a choice of the library, None: its own; later_load: the one after it, for
    gain interpolation; table: None: what the configuration chooses for the store of the scan. Raises TableError
    when nothing fits, and the GpucalError of the step that fails.
    """
    if table is None:
        table = atmosphere_for(config, scan.store_attrs, scan.path)
    budget = MemoryBudget.of_config(config)
    with Threads(budget.workers, "tile", backend.in_thread) as pool:
        choice = load
        if not isinstance(choice, LoadChoice):
            first = load_means(_with_loads(choice or scan, scan), config, backend, pool)
            second = None if later_load is None else load_means(later_load, config, backend, pool)
            choice = LoadChoice(first, second)
            blocks = load_blocks(scan) if load is None and later_load is None else []
            if blocks and config.gain_interpolate:
                followed = tuple(load_means(b, config, backend, pool) for b in blocks)
                choice = LoadChoice(followed[0], blocks=followed)
        solution = solve_scan(scan, choice, table, config, backend, pool=pool)
        sink = make_sink(solution)
        sums = stream_scan(solution, sink, budget, pool=pool)
    return StreamedInMemory(table, solution, sums, sink)


def _with_loads(source: Scan, scan: Scan) -> Scan:
    """``source``, whose loads are to serve ``scan``; raises LoadError where it has none."""
    if source.calibration is None:
        raise LoadError(
            "the scan has no loads of its own.",
            hint="Give the load scan.",
            scan=scan.number,
            band=scan.band,
        )
    return source
