"""Quality of a load scan by itself: receiver temperature and bad channels of each pixel."""

from __future__ import annotations

from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gpucal.backend.protocol import Backend
from gpucal.config import CalibrationConfig
from gpucal.products import LoadMeans
from gpucal.scan import Scan
from gpucal.steps.loads import (
    bad_channels,
    load_means,
    require_good,
    solve_loads,
    spectral_setup,
)

F64 = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class LoadQuality:
    """Receiver temperature and fraction of bad channels of each pixel.

    t_rec f64 [R,A] K, median over good channels, NaN without one and for a vane; bad f64 [R,A], fraction of the
    channels.
    """

    t_rec: F64
    bad: F64


def load_quality(
    scan: Scan, config: CalibrationConfig, backend: Backend, pool: Executor | None = None
) -> LoadQuality:
    """Solve the loads of one scan and band; physics section 4, equation (4.3).

    Without COLD the HOT is a vane, compared with the SKY of the same scan as section 9 asks: bad channels, and no
    T_rec. Raises LoadError for loads that cannot be used.
    """
    means = load_means(scan, config, backend, pool)
    if means.cold is None:
        return _vane_quality(means, config, backend)
    setup = spectral_setup(scan, config, backend)
    loads = solve_loads(means, setup, config, backend)
    t_rec = np.asarray(backend.to_host(loads.t_rec), dtype=np.float64)
    bad = np.asarray(backend.to_host(loads.bad)) | ~np.isfinite(t_rec)
    empty = bad.all(axis=0)
    median = np.nanmedian(np.where(bad & ~empty, np.nan, t_rec), axis=0)
    return LoadQuality(np.where(empty, np.nan, median), bad.mean(axis=0))


def _vane_quality(means: LoadMeans, config: CalibrationConfig, backend: Backend) -> LoadQuality:
    """Bad channels of a vane against its SKY; against nothing where the scan has no SKY."""
    sky = means.sky if means.sky is not None else backend.xp.zeros_like(means.hot)
    bad = bad_channels(means.hot - sky, None, config, backend)
    require_good(bad, "SKY", means.scan, backend)
    fraction = np.asarray(backend.to_host(bad)).mean(axis=0)
    return LoadQuality(np.full(fraction.shape, np.nan), fraction)
