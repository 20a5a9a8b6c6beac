"""Averages made tile by tile are those of the spectra that are calibrated in memory."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from builders.truth_setup import steady

from gpucal import CalibrationConfig, calibrate_scan, select_backend, simulate_scan
from gpucal.pipeline.scan import work_units
from gpucal.pipeline.scan.averaging import average_scan
from gpucal.simulate.setup import Kind


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("kind", ["tp", "otf", "fsw", "wsw-chopped"])
def test_averages(kind: Kind, workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work_units, "L1_CHUNK_BYTES", 1 << 14)
    setup = replace(steady("hera"), fill_fraction=0.01)
    simulated = simulate_scan(setup, kind, 7)
    config = CalibrationConfig(pwv=3.0, workers=workers)
    backend = select_backend("cpu")
    found = average_scan(
        simulated.scans[0], config, load=None, table=simulated.table, backend=backend
    )
    whole = calibrate_scan(simulated.scans[0], config, table=simulated.table, backend=backend)
    spectra = np.asarray(whole.spectra)
    bad = np.isnan(spectra)
    assert bad.any()
    with np.errstate(invalid="ignore"):
        n = (~bad).sum(axis=(1, 4))
        mean = np.where(n > 0, np.nansum(spectra, axis=(1, 4)) / np.maximum(n, 1), np.nan)
        rows = np.nansum(spectra, axis=0) / (~bad).sum(axis=0)
    np.testing.assert_allclose(found.spectrum, mean, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(found.continuum, rows, rtol=1e-12, atol=1e-12)
    t_rec = np.asarray(whole.t_rec)
    np.testing.assert_allclose(found.t_rec, np.nanmedian(t_rec, axis=0), rtol=1e-14)
    t_sys = np.moveaxis(np.asarray(whole.t_sys), -1, 1)
    t_sys = t_sys.reshape(-1, *t_sys.shape[2:])
    np.testing.assert_allclose(found.t_sys, np.nanmedian(t_sys, axis=0), rtol=1e-14)
    assert found.quality["rms_ratio"] == whole.quality["rms_ratio"]
