"""Simulated scans whose truth must come back exactly: no noise, f64 counts, one steady sky."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from gpucal import CalibratedScan, CalibrationConfig, Flag, calibrate_scan, simulate_scan
from gpucal.simulate.night import SimulatedScan
from gpucal.simulate.presets import preset
from gpucal.simulate.setup import InstrumentSetup


def steady(
    name: str = "hera", *, gain_drift: float = 0.0, pwv_drift: float = 0.0, **changes: Any
) -> InstrumentSetup:
    """A preset made small, without drifts, its air at one temperature; ``changes`` replace fields of the setup."""
    setup = preset(name, channels=256, dumps=6, n_on=4, sky="isothermal")
    bands = tuple(
        replace(b, receiver=replace(b.receiver, gain_drift_per_h=gain_drift)) for b in setup.bands
    )
    weather = replace(setup.weather, pwv_drift_per_h=pwv_drift)
    changes = {"sky_drift": "none", **changes}
    return replace(setup, bands=bands, weather=weather, **changes)


def without_lines(setup: InstrumentSetup) -> InstrumentSetup:
    """No source at all: the reference phases see nothing but sky."""
    return replace(setup, bands=tuple(replace(b, lines=()) for b in setup.bands))


def calibrated(
    simulated: SimulatedScan, config: CalibrationConfig, band: int = 0, **kwargs: Any
) -> CalibratedScan:
    """Calibrate one band with the opacities it was made with."""
    return calibrate_scan(simulated.scans[band], config, table=simulated.table, **kwargs)


def spectra_error(
    result: CalibratedScan, simulated: SimulatedScan, band: int = 0, *, scheme: str = "hot-cold"
) -> float:
    """Largest |T_A* - truth| of the samples that are not blanked, K; all others must be NaN."""
    truth = simulated.truths[band]
    fold = truth.kind == "fsw" and result.solution.config.fold
    spectra, flags = np.asarray(result.spectra), np.asarray(result.flags)
    blank = (flags & int(Flag.BAD_CHANNEL | Flag.FILL_VALUE)) != 0
    assert np.array_equal(np.isnan(spectra), blank)
    worst = 0.0
    for j, on in enumerate(result.solution.pairing.on_index):
        expected = (truth.folded if fold else truth.t_a_star)(int(on), scheme=scheme)
        expected = _per_cycle(expected, result.solution.pairing.recipes[j])
        seen = ~blank[..., j] & np.isfinite(expected)
        assert seen.mean() > 0.5
        worst = max(worst, float(np.max(np.abs(spectra[..., j] - expected)[seen])))
    return worst


def _per_cycle(expected: Any, recipe: Any) -> Any:
    """Chop cycles: the mean over the dumps on the source."""
    cycles = getattr(recipe.parts()[0], "cycles", None)
    if cycles is None:
        return expected
    return np.stack([expected[:, list(on)].mean(axis=1) for on, _ in cycles], axis=1)


__all__ = ["calibrated", "simulate_scan", "spectra_error", "steady", "without_lines"]
