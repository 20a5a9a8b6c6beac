"""Stream one band of a scan into its staged store, and describe it there."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor

import numpy as np

from gpucal.config import CalibrationConfig
from gpucal.io.l1.writer import ScanWriter
from gpucal.physics.atm import AtmosphereTable
from gpucal.pipeline.scan.memory_budget import MemoryBudget
from gpucal.pipeline.scan.stream import stream_within_memory
from gpucal.pipeline.store.l1_arrays import L1Sink, band_attributes, write_band
from gpucal.pipeline.store.outcome import band_quality, band_summary
from gpucal.pipeline.store.provenance import Origin, provenance
from gpucal.pipeline.store.report import Observer, ScanSummary
from gpucal.pipeline.store.solver import BandSolution
from gpucal.steps.precision import precision_notes
from gpucal.steps.quality import QualitySums
from gpucal.steps.sky_diff import (
    SkyDifferences,
    SkyHistory,
    chop_differences,
    layout_key,
    sky_differences,
)
from gpucal.steps.solution import ScanSolution


class BandWriter:
    """Writer of the bands of one run, one after another.

    It remembers from band to band what the memory of the device sufficed for, and the last skies, from which the
    sky differences are made.
    """

    def __init__(
        self,
        config: CalibrationConfig,
        table: AtmosphereTable | None,
        observer: Observer,
        budget: MemoryBudget,
        cancel: threading.Event,
    ) -> None:
        self._config = config
        self._table = table
        self._observer = observer
        self._budget = budget
        self._cancel = cancel
        self._history = SkyHistory(config.skydiff)

    def write(
        self,
        band: BandSolution,
        writer: ScanWriter,
        origin: Origin,
        pool: Executor,
        alone: Callable[[], bool],
    ) -> ScanSummary:
        """Stream and describe one band; ``alone``: see ``stream_within_memory``. Raises what a step raises."""
        solution, timer, begin = band.solution, band.timer, time.perf_counter()
        scan = solution.scan
        total = int(np.prod(solution.output_shape)) * solution.group.counts.dtype.itemsize
        self._observer.scan_started(scan.number, scan.band, total)
        writer.group(scan.band)
        # Stream: spectra, flags and T_sys, tile by tile.
        sink = L1Sink(writer, solution)
        sums = timer.run("calibrate", lambda: self._tiles(solution, sink, pool, alone))
        # Describe: how good it is, how it was made, and from what.
        quality = band_quality(solution, sums, self._table)
        attributes = {
            **band_attributes(solution, precision_notes(sink.precision, sums)),
            "qa": quality,
            "provenance": provenance(solution, self._table, origin),
        }
        # Write what does not stream.
        timer.run(
            "write",
            lambda: write_band(writer, solution, attributes, self.remember_sky(solution)),
        )
        spent = time.perf_counter() - begin
        return band_summary(solution, quality, attributes["warnings"], timer, spent, total)

    def _tiles(
        self,
        solution: ScanSolution,
        sink: L1Sink,
        pool: Executor,
        alone: Callable[[], bool],
    ) -> QualitySums:
        """Stream all tiles, with less in flight where the device has no room, and so for the next bands."""
        scan = solution.scan
        streamed = stream_within_memory(
            solution,
            sink,
            self._budget,
            pool=pool,
            cancel=self._cancel,
            progress=lambda n: self._observer.tile_done(scan.number, scan.band, n),
            alone=alone,
            tell=lambda text: self._observer.message("warning", text),
        )
        self._budget = streamed.budget
        return streamed.sums

    def remember_sky(self, solution: ScanSolution) -> dict[str, SkyDifferences]:
        """Add the sky of a scan to the history, even if the scan was there already; return its differences by kind."""
        found: dict[str, SkyDifferences] = {}
        if self._config.skydiff and solution.loads.cold is not None:
            entries = self._history.of(layout_key(solution))
            result, newest = sky_differences(solution, list(entries), self._config.skydiff)
            entries.clear()
            entries.extend(newest)
            if result is not None:
                found["skydiff"] = result
        if self._config.skychopdiff:
            chopped = chop_differences(solution)
            if chopped is not None:
                found["skychopdiff"] = chopped
        return found
