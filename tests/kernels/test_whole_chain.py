"""The whole chain with the CUDA source in place of the NumPy kernels, on a late device."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from builders.truth_setup import calibrated, simulate_scan, steady
from fakes.device import FakeDevice, fake_backend

from gpucal import CalibrationConfig
from gpucal.kernels import CudaKernels
from gpucal.simulate.setup import Kind


@pytest.mark.parametrize(
    ("name", "kind", "options"),
    [
        ("hera", "tp", {"pwv_scope": "per-pair"}),
        ("hera", "otf", {"reference": "per-dump", "dtype": "f32"}),
        ("hera", "otf-chopped", {"dbs_coupling": True}),
        ("hera", "fsw", {"pwv": 3.0}),
        ("chai", "wsw-chopped", {"pwv_scope": "per-pixel"}),
        ("argus", "nod", {"pwv": 9.0}),
    ],
)
def test_cuda_source_calibrates_like_numpy(
    device: Any, name: str, kind: Kind, options: dict[str, Any]
) -> None:
    setup = steady(name)
    bands = tuple(
        replace(b, channels=48, throw_hz=4.25 * b.bandwidth_hz / 48) for b in setup.bands[:1]
    )
    simulated = simulate_scan(replace(setup, bands=bands), kind, 7)
    config = CalibrationConfig(workers=1, **options)
    ours = calibrated(simulated, config)
    backend = fake_backend(FakeDevice(), CudaKernels(device))
    theirs = calibrated(simulated, config, backend=backend)
    assert np.array_equal(theirs.flags, ours.flags)
    blank = np.isnan(ours.spectra)
    assert np.array_equal(np.isnan(theirs.spectra), blank)
    peak = np.max(np.abs(ours.spectra[~blank]))
    limit = 1e-12 if config.dtype == "f64" else 1e-6
    assert np.max(np.abs(theirs.spectra - ours.spectra)[~blank]) < limit * max(peak, 1.0)
    assert np.allclose(
        theirs.solution.atmosphere.pwv, ours.solution.atmosphere.pwv, rtol=1e-12, equal_nan=True
    )
