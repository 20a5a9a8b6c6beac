"""The same numbers on every array namespace, and no step that edits its input."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from builders.truth_setup import calibrated, simulate_scan, steady
from fakes.strict_backend import read_only_backend, strict_backend, to_numpy

from gpucal import CalibrationConfig
from gpucal.simulate.setup import Kind

CASES: list[tuple[str, str, dict[str, Any]]] = [
    ("hera", "tp", {"pwv_scope": "per-pair"}),
    ("hera", "otf", {"reference": "per-dump", "pwv_scope": "per-pixel"}),
    ("hera", "otf-chopped", {"dbs_coupling": True}),
    ("hera", "nod", {"reference": "nearest"}),
    ("hera", "fsw", {"pwv": 3.0}),
    ("hera", "wsw-chopped", {"airmass": "spherical"}),
    ("chai", "tp", {"line_scale": "dsb", "dtype": "f32"}),
    ("argus", "fsw", {"pwv": 9.0, "cal_scheme": "vane-channel", "vane_sky": "sky"}),
    ("argus", "tp", {"pwv": 9.0, "cal_scheme": "vane", "vane_average": "median"}),
    ("argus", "nod", {"pwv": 9.0, "airmass": "gbt"}),
]


@pytest.mark.parametrize("make", [strict_backend, read_only_backend])
@pytest.mark.parametrize(("name", "kind", "options"), CASES)
def test_same_numbers_as_numpy(make: Any, name: str, kind: Kind, options: dict[str, Any]) -> None:
    setup = steady(name)
    bands = tuple(
        replace(b, channels=64, throw_hz=4.25 * b.bandwidth_hz / 64) for b in setup.bands[:1]
    )
    simulated = simulate_scan(replace(setup, bands=bands), kind, 7)
    config = CalibrationConfig(**options)
    ours = calibrated(simulated, config)
    theirs = calibrated(simulated, config, backend=make())
    assert np.array_equal(to_numpy(theirs.flags), ours.flags)
    assert np.array_equal(to_numpy(theirs.spectra), ours.spectra, equal_nan=True)
    assert np.array_equal(to_numpy(theirs.t_sys), ours.t_sys, equal_nan=True)
    assert np.array_equal(
        theirs.solution.atmosphere.pwv, ours.solution.atmosphere.pwv, equal_nan=True
    )


def test_gain_drift_on_strict_arrays() -> None:
    setup = steady("hera", gain_drift=0.4)
    first = simulate_scan(setup, "load", 1, start=60000.0)
    science = simulate_scan(setup, "tp", 2, start=60000.01, mjd0=60000.0, lloadsn=1)
    last = simulate_scan(setup, "load", 3, start=60000.03, mjd0=60000.0)
    loads: dict[str, Any] = {"load": first.scans[0], "later_load": last.scans[0]}
    config = CalibrationConfig(gain_interpolate=3)
    ours = calibrated(science, config, **loads)
    theirs = calibrated(science, config, backend=strict_backend(), **loads)
    assert np.array_equal(to_numpy(theirs.spectra), ours.spectra, equal_nan=True)
