"""Averages of one scan for quick looks; its spectra are never in memory as a whole."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gpucal.backend.protocol import Backend
from gpucal.config import CalibrationConfig
from gpucal.physics.atm import AtmosphereTable
from gpucal.pipeline.scan.in_memory import stream_in_memory
from gpucal.pipeline.scan.solve import LoadChoice
from gpucal.scan import Scan
from gpucal.steps.quality import quality_attributes
from gpucal.steps.scale import scale_of_output
from gpucal.steps.sky_model import zenith_opacity
from gpucal.steps.solution import ScanSolution

F64 = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class AveragedScan:
    """Means of T_A* and medians of a scan.

    spectrum   f64 [C,R,A] K, mean over dumps and subscans
    continuum  f64 [D,R,A,S_on] K, mean over channels
    t_sys, t_rec  f64 [R,A] K, medians over channels (and subscans); t_sys as L1 stores it
    t_sys_star f64 [R,A] K, median over channels, of the middle output
    tau        Np at the zenith, median over channels of the signal sideband; NaN where not known
    quality    the ``qa`` attribute of L1; solution: pairing, loads, atmosphere
    """

    spectrum: F64
    continuum: F64
    t_sys: F64
    t_sys_star: F64
    t_rec: F64
    tau: float
    quality: dict[str, Any]
    solution: ScanSolution


class _MeanSink:
    """Sums of tiles; blanked samples do not count."""

    def __init__(self, solution: ScanSolution) -> None:
        c, d, r, a, s = solution.output_shape
        self._solution = solution
        self._lock = threading.Lock()
        self.total, self.seen = np.zeros((c, r, a)), np.zeros((c, r, a))
        self.row, self.row_seen = np.zeros((d, r, a, s)), np.zeros((d, r, a, s))
        self.t_sys = np.full((c, r, a, s), np.nan)

    def write_tile(
        self,
        output: int,
        channels: tuple[int, int],
        spectra: npt.NDArray[Any],
        flags: npt.NDArray[Any],
        n_fill: int,
    ) -> None:
        """See ``TileSink``."""
        good = np.isfinite(spectra)
        values = np.where(good, spectra, 0.0)
        parts = values.sum(axis=1), good.sum(axis=1), values.sum(axis=0), good.sum(axis=0)
        c0, c1 = channels
        with self._lock:
            self.total[c0:c1] += parts[0]
            self.seen[c0:c1] += parts[1]
            self.row[..., output] += parts[2]
            self.row_seen[..., output] += parts[3]

    def write_t_sys(self, output: int, channels: tuple[int, int], t_sys: Any) -> None:
        """See ``TileSink``."""
        self.t_sys[channels[0] : channels[1], ..., output] = self._solution.backend.to_host(t_sys)


def average_scan(
    scan: Scan,
    config: CalibrationConfig,
    *,
    load: Scan | LoadChoice | None,
    table: AtmosphereTable | None = None,
    backend: Backend,
) -> AveragedScan:
    """Calibrate one scan and band as ``calibrate_scan`` does, and keep its averages only.

    ``load`` and ``table`` are those of ``stream_in_memory``. Raises the GpucalError of the step that fails.
    """
    streamed = stream_in_memory(
        scan, config, _MeanSink, load=load, later_load=None, table=table, backend=backend
    )
    solution, sink = streamed.solution, streamed.sink
    t_sys = _median(np.moveaxis(sink.t_sys, -1, 1).reshape(-1, *sink.total.shape[1:]))
    known = t_sys[np.isfinite(t_sys)]
    t_rec = np.asarray(backend.to_host(solution.loads.t_rec), dtype=np.float64)
    n_channels, *_, n_outputs = solution.output_shape
    star = scale_of_output(solution, n_outputs // 2, 0, n_channels).t_sys_star
    return AveragedScan(
        spectrum=_ratio(sink.total, sink.seen),
        continuum=_ratio(sink.row, sink.row_seen),
        t_sys=t_sys,
        t_sys_star=_median(np.asarray(backend.to_host(star), dtype=np.float64)),
        t_rec=_median(t_rec),
        tau=_opacity(solution),
        quality=quality_attributes(
            solution, streamed.sums, float(np.median(known)) if known.size else np.nan
        ),
        solution=solution,
    )


def _opacity(solution: ScanSolution) -> float:
    """Opacity of the signal sideband, Np at the zenith; NaN where neither a fit nor the user gave one."""
    atmosphere = solution.atmosphere
    pwv = atmosphere.pwv[np.isfinite(atmosphere.pwv)]
    water = float(pwv.mean()) if pwv.size else 0.0
    tau = np.asarray(solution.backend.to_host(zenith_opacity(atmosphere.model, 0, water)))
    middle = float(np.nanmedian(tau))
    return middle if pwv.size or middle > 0 else float("nan")


def _ratio(total: F64, n: F64) -> F64:
    """The mean from sum and count; NaN where nothing was counted."""
    return np.asarray(np.where(n > 0, total / np.where(n > 0, n, 1.0), np.nan))


def _median(values: F64) -> F64:
    """Median over the first axis without NaN, NaN where there is nothing."""
    empty = ~np.isfinite(values).any(axis=0)
    return np.asarray(np.where(empty, np.nan, np.nanmedian(np.where(empty, 0.0, values), axis=0)))
