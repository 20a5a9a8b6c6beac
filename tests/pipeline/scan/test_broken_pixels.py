"""One broken pixel costs itself alone: the others are as in a run without it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from builders.truth_setup import calibrated, simulate_scan, spectra_error, steady

from gpucal import CalibrationConfig, Flag, Scan
from gpucal.scan import ArrayCounts

VICTIM = 3
Counts = Any
Break = Callable[[Counts, Counts, tuple[str, ...]], None]


def rows(modes: tuple[str, ...], *wanted: str) -> list[int]:
    """Subscans of these modes; all without any."""
    return [i for i, mode in enumerate(modes) if not wanted or mode in wanted]


def set_source(value: float) -> Break:
    def act(source: Counts, loads: Counts, modes: tuple[str, ...]) -> None:
        source[..., VICTIM, :] = value

    return act


def scale_source(factor: float, *wanted: str) -> Break:
    def act(source: Counts, loads: Counts, modes: tuple[str, ...]) -> None:
        for s in rows(modes, *wanted):
            source[:, :, :, VICTIM, s] *= factor

    return act


def scale_load(kind: int, factor: float) -> Break:
    def act(source: Counts, loads: Counts, modes: tuple[str, ...]) -> None:
        loads[..., VICTIM, kind] *= factor

    return act


def wavy_off(source: Counts, loads: Counts, modes: tuple[str, ...]) -> None:
    wave = 1.0 + 0.2 * np.sin(np.arange(source.shape[0]) / 3.0)
    for s in rows(modes, "OFF", "OTF-OFF"):
        source[:, :, :, VICTIM, s] *= wave[:, None, None]


def stuck(source: Counts, loads: Counts, modes: tuple[str, ...]) -> None:
    source[..., VICTIM, :] = loads[..., VICTIM, :].mean()
    loads[..., VICTIM, :] = loads[..., VICTIM, :].mean()


BROKEN: dict[str, Break] = {
    "source zero": set_source(0.0),
    "source negative": set_source(-5.0),
    "source at the end of i32": set_source(float(2**31 - 1)),
    "source at the end of f32": set_source(float(np.finfo(np.float32).max)),
    "source saturated at 2^24": set_source(float(2**24)),
    "source never written": set_source(np.nan),
    "OFF zero": scale_source(0.0, "OFF", "OTF-OFF"),
    "OFF half": scale_source(0.5, "OFF", "OTF-OFF"),
    "OFF a quarter more": scale_source(1.25, "OFF", "OTF-OFF"),
    "OFF ten times": scale_source(10.0, "OFF", "OTF-OFF"),
    "OFF wavy": wavy_off,
    "HOT zero": scale_load(0, 0.0),
    "HOT saturated": scale_load(0, 40.0),
    "COLD zero": scale_load(1, 0.0),
    "COLD nearly HOT": scale_load(1, 2.0),
    "all stuck at one value": stuck,
}


def broken(scan: Scan, act: Break) -> Scan:
    """The scan with the counts of the victim changed."""
    assert scan.source is not None
    assert scan.calibration is not None
    source = np.array(scan.source.counts.data)  # type: ignore[attr-defined]
    loads = np.array(scan.calibration.counts.data)  # type: ignore[attr-defined]
    order = [scan.calibration.sobsmode.index(kind) for kind in ("HOT", "COLD")]
    view = loads[..., order]
    act(source, view, scan.source.sobsmode)
    loads[..., order] = view
    return replace(
        scan,
        source=replace(scan.source, counts=ArrayCounts(source)),
        calibration=replace(scan.calibration, counts=ArrayCounts(loads)),
    )


@pytest.fixture(scope="module")
def simulated() -> Any:
    return simulate_scan(steady("hera"), "otf", 7)


@pytest.fixture(scope="module", params=["fit", "true"])
def config(request: pytest.FixtureRequest, simulated: Any) -> CalibrationConfig:
    pwv = "fit" if request.param == "fit" else simulated.truths[0].pwv_mm
    return CalibrationConfig(pwv=pwv)


@pytest.fixture(scope="module")
def without(simulated: Any, config: CalibrationConfig) -> Any:
    """The result for the other pixels when the victim was never written at all."""
    nan = set_source(np.nan)

    def all_gone(source: Counts, loads: Counts, modes: tuple[str, ...]) -> None:
        nan(source, loads, modes)
        loads[..., VICTIM, :] = np.nan

    alone = replace(simulated, scans=(broken(simulated.scans[0], all_gone),))
    return calibrated(alone, config)


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_pixel_costs_itself_alone(
    name: str, simulated: Any, config: CalibrationConfig, without: Any
) -> None:
    hurt = replace(simulated, scans=(broken(simulated.scans[0], BROKEN[name]),))
    result = calibrated(hurt, config)
    others = [a for a in range(result.spectra.shape[3]) if a != VICTIM]
    good = np.asarray(without.spectra)[:, :, :, others]
    np.testing.assert_allclose(
        np.asarray(result.spectra)[:, :, :, others], good, rtol=1e-12, atol=1e-12
    )
    assert np.array_equal(
        np.asarray(result.flags)[:, :, :, others], np.asarray(without.flags)[:, :, :, others]
    )
    # What is left of the pixel is blank, or said to be doubtful.
    spectra = np.asarray(result.spectra)[:, :, :, VICTIM]
    flags = np.asarray(result.flags)[:, :, :, VICTIM]
    doubtful = (flags & int(Flag.TSYS_OUTLIER)) != 0
    # (a wavy OFF has the right level: only the fit can tell it)
    assert (np.isnan(spectra) | doubtful).all() or (name == "OFF wavy" and config.pwv != "fit")
    said = " ".join(result.solution.warnings)
    if np.isfinite(spectra).any() and doubtful.any():
        assert f"pixel {VICTIM}" in said


def test_good_pixels_of_all_presets_are_not_complained_about() -> None:
    for name in ("hera", "upgreat", "chai", "superc"):
        made = simulate_scan(steady(name), "otf", 7)
        for band in range(len(made.truths)):
            result = calibrated(made, CalibrationConfig(), band)
            assert not [w for w in result.solution.warnings if "left out" in w]
            assert spectra_error(result, made, band) < 1e-6


def test_the_limits_can_be_lifted(simulated: Any) -> None:
    """pixel_sky = 0: the old fit, which follows the broken pixel."""
    hurt = replace(simulated, scans=(broken(simulated.scans[0], BROKEN["OFF a quarter more"]),))
    free = CalibrationConfig(pixel_sky=0.0)
    pwv = [calibrated(hurt, c).quality["pwv"] for c in (CalibrationConfig(), free)]
    truth = simulated.truths[0].pwv_mm
    assert pwv[0] == pytest.approx(truth, rel=1e-6)
    assert pwv[1] != pytest.approx(truth, rel=1e-6)
