"""Scale of raw counts from the loads alone: K at the receiver input, without any atmosphere."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gpucal.backend.protocol import Backend
from gpucal.config import CalibrationConfig
from gpucal.errors import LoadError
from gpucal.products import LoadMeans, SpectralSetup
from gpucal.scan import Scan
from gpucal.steps.loads import load_brightness, solve_loads, spectral_setup

F64 = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class LoadScale:
    """T = offset + factor x counts, K at the receiver input.

    T = J_cold + (C - C_cold) (J_hot - J_cold)/(C_hot - C_cold); J of the loads: physics equation (4.1).

    offset, factor  f64 [C,R,A], K and K/count, NaN in bad channels
    bad             bool [C,R,A]
    setup           frequencies and sideband gains, on ``backend``
    t_hot           temperature of the hot load, f64 [R] or [2,C,R] K
    """

    offset: F64
    factor: F64
    bad: npt.NDArray[np.bool_]
    setup: SpectralSetup
    backend: Backend
    t_hot: F64

    def brightness(self, kelvin: float) -> F64:
        """J(T) of a black body, f64 [R,A] K: mean over the good channels, both sidebands with their gains."""
        n_rec = self.offset.shape[1]
        j = load_brightness(self.setup, np.full(n_rec, kelvin), self.backend)
        wide = np.broadcast_to(np.asarray(self.backend.to_host(j)), self.offset.shape)
        n = np.maximum((~self.bad).sum(axis=0), 1)
        return np.asarray(np.where(self.bad, 0.0, wide).sum(axis=0) / n)


def load_scale(
    scan: Scan, means: LoadMeans, config: CalibrationConfig, backend: Backend
) -> LoadScale:
    """The scale of one scan and band from the means of its loads; raises LoadError without a cold load."""
    if means.cold is None or means.t_cold is None:
        raise LoadError(
            "the load scan has no COLD subscan.", hint="A sky temperature needs HOT and COLD."
        )
    setup = spectral_setup(scan, config, backend)
    loads = solve_loads(means, setup, config, backend)
    host = backend.to_host
    cold, span = (np.asarray(host(x), dtype=np.float64) for x in (means.cold, loads.span))
    bad = np.asarray(host(loads.bad))
    j_hot, j_cold = (
        np.broadcast_to(np.asarray(host(j)), cold.shape) for j in (loads.j_hot, loads.j_cold)
    )
    factor = np.where(bad, np.nan, (j_hot - j_cold) / np.where(bad, 1.0, span))
    return LoadScale(j_cold - factor * cold, factor, bad, setup, backend, np.asarray(means.t_hot))
