"""Scans with known truth through ``reduce_scan``: L0 and L1, pointing, focus, skydip, on-off."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from builders import procedure_scans as scans

from gpucal import (
    CalibrationConfig,
    ConfigError,
    Flag,
    GpucalError,
    ReduceOptions,
    calibrate_store,
    main,
    reduce_scan,
)
from gpucal.cli.commands.reduce_settings import reduce_options
from gpucal.pipeline.reduction.procedure_choice import reduction_of
from gpucal.procedures.skydip import SkydipOptions
from gpucal.procedures.switching import LineWindow

SCENE = scans.Scene(lon=6.5, lat=-4.0)


@pytest.fixture(scope="module")
def pointing_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pointing without noise, with 0.1 s latency, as scan 1."""
    path = tmp_path_factory.mktemp("pointing") / "l0.zarr"
    return scans.write(path, 1, scans.pointing(late=0.1), SCENE, obs_procedure="pointing")


def check_pointing(found: Any) -> None:
    """Offsets to 0.01 arcsec: the data have no noise."""
    assert found.valid, found.reason
    assert found.procedure == "pointing"
    assert found.scale == "T_A*"
    for axis, truth in (("az", SCENE.lon), ("el", SCENE.lat)):
        mean = found.result.mean(axis, "offset")
        assert mean.valid
        assert mean.mean.value == pytest.approx(truth, abs=0.01)
    middle = [f for f in found.result.fits if f.pixel == 1]
    for fit in middle:
        assert fit.fwhm.value == pytest.approx(SCENE.fwhm, abs=0.02)
        assert fit.corrected.value == pytest.approx(8.0, rel=2e-3)
        # 0.1 s at 120 arcsec in 40 dumps of 0.5 s
        assert fit.delay.value == pytest.approx(0.1, abs=2e-3)
        np.testing.assert_allclose(fit.values - fit.model, fit.residual, atol=1e-12)


def test_pointing_from_raw_counts(pointing_store: Path) -> None:
    check_pointing(reduce_scan(pointing_store, 1, config=scans.CONFIG))


def test_pointing_from_calibrated_store(pointing_store: Path, tmp_path: Path) -> None:
    report = calibrate_store(pointing_store, tmp_path / "l1.zarr", scans.CONFIG)
    assert report.exit_code == 0
    found: Any = reduce_scan(tmp_path / "l1.zarr", 1)
    check_pointing(found)
    raw: Any = reduce_scan(pointing_store, 1, config=scans.CONFIG)
    for a, b in zip(found.result.fits, raw.result.fits, strict=True):
        np.testing.assert_allclose(a.values, b.values, rtol=1e-12, atol=1e-12)


def test_flagged_samples_of_a_calibrated_store_do_not_count(
    pointing_store: Path, tmp_path: Path
) -> None:
    """Interference that was flagged after the calibration moves neither offsets nor averages."""
    out = tmp_path / "l1.zarr"
    calibrate_store(pointing_store, out, scans.CONFIG)
    group: Any = zarr.open_group(out / "scan_000001", mode="r+")
    spectra, flags = group["spectra"][...], group["flags"][...]
    spectra[5, 3:9] = 1e4
    flags[5, 3:9] |= np.uint16(int(Flag.RFI))
    group["spectra"][...], group["flags"][...] = spectra, flags
    check_pointing(reduce_scan(out, 1))
    averaged: Any = reduce_scan(out, 1, procedure="on-off")
    switched = averaged.result[""]
    assert np.nanmax(np.abs(switched.spectrum)) < 10.0


def test_outer_pixels_say_what_they_saw(pointing_store: Path) -> None:
    """In elevation drifts the outer pixels pass the source at 24 arcsec: weak, but without noise seen."""
    found: Any = reduce_scan(pointing_store, 1, config=scans.CONFIG)
    crosses = {f.pixel: f.cross for f in found.result.fits if f.axis == "el"}
    assert crosses == {0: -24.0, 1: 0.0, 2: 24.0}


def test_pointing_cancelled_after_azimuth(tmp_path: Path) -> None:
    subs = scans.pointing(axes=["az"])[:3]  # OFF and two drifts, then cancelled
    path = scans.write(
        tmp_path / "l0.zarr",
        1,
        subs,
        SCENE,
        obs_procedure="pointing",
        complete=False,
        n_subscans_planned=6,
    )
    found: Any = reduce_scan(path, 1, config=scans.CONFIG)
    assert found.valid
    assert found.result.mean("az", "offset").mean.value == pytest.approx(SCENE.lon, abs=0.01)
    assert found.reason == "el: no drifts"
    assert not found.result.mean("el", "offset").valid


def test_pointing_without_loads_is_fitted_in_counts(tmp_path: Path) -> None:
    path = scans.write(
        tmp_path / "l0.zarr", 1, scans.pointing(), SCENE, loads=(), obs_procedure="pointing"
    )
    found: Any = reduce_scan(path, 1, config=scans.CONFIG)
    assert found.valid
    assert found.scale == "counts"
    assert found.result.fits[0].amplitude.unit == "count"
    assert found.result.mean("az", "offset").mean.value == pytest.approx(SCENE.lon, abs=0.01)
    assert any("not calibrated" in w for w in found.warnings)


def test_pointing_without_a_table_for_the_site_still_gives_offsets(pointing_store: Path) -> None:
    """The site has a table that may not hold, or none: the offsets do not care."""
    found: Any = reduce_scan(pointing_store, 1, config=CalibrationConfig(workers=1))
    assert found.result.mean("az", "offset").mean.value == pytest.approx(SCENE.lon, abs=0.01)


FOCUS_MM = np.array([-2.0, -1.0, 0.0, 1.0, 2.0])
BEST = 0.4


def focus_strengths() -> list[float]:
    return [float(x) for x in 6.0 - 0.8 * (FOCUS_MM - BEST) ** 2]


def focus_attribute() -> list[float]:
    """One entry per subscan: OFF, then ON and OFF at each position."""
    return [FOCUS_MM[0], *np.repeat(FOCUS_MM, 2).tolist()]


def test_focus_from_raw_counts_and_calibrated_store(tmp_path: Path) -> None:
    scene = scans.Scene(noise=1.0, seed=3)
    path = scans.write(
        tmp_path / "l0.zarr",
        4,
        scans.focus(focus_strengths()),
        scene,
        obs_procedure="focus",
        focus_mm=focus_attribute(),
    )
    raw: Any = reduce_scan(path, 4, config=scans.CONFIG)
    assert raw.valid, raw.reason
    calibrate_store(path, tmp_path / "l1.zarr", scans.CONFIG)
    stored: Any = reduce_scan(tmp_path / "l1.zarr", 4)
    for found in (raw, stored):
        best = found.result.mean("z", "best").mean
        assert abs(best.value - BEST) < 4 * best.error
        assert best.error < 0.05
        middle = next(f for f in found.result.fits if f.pixel == 1)
        assert middle.peak.value == pytest.approx(6.0, abs=5 * middle.peak.error)
        assert 0.02 < middle.quality.chi2_dof < 6.0
        np.testing.assert_array_equal(middle.positions, FOCUS_MM)


def test_focus_with_one_dump_per_position(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No scatter of dumps to take errors from: the residual of the parabola gives them."""
    monkeypatch.setattr(scans, "DUMPS", 1)
    monkeypatch.setattr(scans, "footprint", lambda sub, scene: np.array([[0.0, 1.0, 0.0]]))
    subs = [replace(s, lon=np.zeros(1), lat=np.zeros(1)) for s in scans.focus(focus_strengths())]
    scene = scans.Scene(noise=1.0, seed=3)
    path = scans.write(
        tmp_path / "l0.zarr",
        4,
        subs,
        scene,
        loads=(scans.Sub("HOT"), scans.Sub("COLD")),
        obs_procedure="focus",
        focus_mm=focus_attribute(),
    )
    found: Any = reduce_scan(path, 4, config=scans.CONFIG)
    assert found.valid, found.reason
    fit = next(f for f in found.result.fits if f.pixel == 1)
    assert fit.valid, fit.reason
    assert abs(fit.best.value - BEST) < max(5 * fit.best.error, 0.05)


def test_focus_with_drifts_fits_the_peaks(tmp_path: Path) -> None:
    off = scans.Sub("OTF-OFF", np.full(scans.DUMPS, 600.0))
    subs = [off]
    for strength in focus_strengths():
        subs += [scans.drift("az", 1, strength=strength), scans.drift("az", -1, strength=strength)]
    path = scans.write(
        tmp_path / "l0.zarr",
        5,
        [*subs, off],
        scans.Scene(lon=3.0, noise=1.0),
        obs_procedure="focus",
        focus_mm=[0.0, *np.repeat(FOCUS_MM, 2).tolist(), 0.0],
        focus_axis="x",
    )
    found: Any = reduce_scan(path, 5, config=scans.CONFIG)
    best = found.result.mean("x", "best").mean
    assert abs(best.value - BEST) < 4 * best.error
    assert best.error < 0.1


def test_focus_needs_its_attribute(tmp_path: Path) -> None:
    path = scans.write(
        tmp_path / "l0.zarr", 1, scans.focus([1.0, 2.0, 1.0]), SCENE, obs_procedure="focus"
    )
    with pytest.raises(GpucalError, match="focus_mm is None, expected a list of at least"):
        reduce_scan(path, 1, config=scans.CONFIG)


ELEVATIONS = [20.0, 25.0, 32.0, 42.0, 55.0, 75.0]


def test_skydip_gives_opacity_and_efficiency(tmp_path: Path) -> None:
    path = scans.write(
        tmp_path / "l0.zarr",
        7,
        [],
        scans.Scene(noise=1.0),
        loads=scans.skydip_loads(ELEVATIONS),
        obs_procedure="skydip",
    )
    config = CalibrationConfig(workers=1, t_atm_factor=0.94)
    found: Any = reduce_scan(path, 7, config=config)
    assert found.valid, found.reason
    tau = found.result.mean("airmass", "tau").mean
    efficiency = found.result.mean("airmass", "f_eff").mean
    assert tau.value == pytest.approx(scans.TAU, rel=0.02)
    assert efficiency.value == pytest.approx(scans.F_EFF, abs=0.01)
    fixed = ReduceOptions(skydip=SkydipOptions(f_eff=scans.F_EFF))
    held: Any = reduce_scan(path, 7, config=config, options=fixed)
    assert held.result.mean("airmass", "tau").mean.error < tau.error
    assert held.result.mean("airmass", "tau").mean.value == pytest.approx(scans.TAU, rel=0.02)


def test_skydip_without_noise_is_exact(tmp_path: Path) -> None:
    path = scans.write(
        tmp_path / "l0.zarr",
        7,
        [],
        scans.Scene(),
        loads=scans.skydip_loads(ELEVATIONS),
        obs_procedure="skydip",
    )
    found: Any = reduce_scan(path, 7, config=CalibrationConfig(workers=1, t_atm_factor=0.94))
    for fit in found.result.fits:
        # the elevation is stored as float32
        assert fit.tau.value == pytest.approx(scans.TAU, rel=1e-5)
        assert fit.f_eff.value == pytest.approx(scans.F_EFF, rel=1e-5)


def test_skydip_from_l1_is_refused(pointing_store: Path, tmp_path: Path) -> None:
    calibrate_store(pointing_store, tmp_path / "l1.zarr", scans.CONFIG)
    with pytest.raises(ConfigError, match="needs the raw counts"):
        reduce_scan(tmp_path / "l1.zarr", 1, procedure="skydip")


def test_counts_are_no_temperatures_for_the_efficiency_form(tmp_path: Path) -> None:
    """Without a cold load only the total-power form with a free gain can take counts."""
    hot, _, *tips = scans.skydip_loads(ELEVATIONS)
    path = scans.write(
        tmp_path / "l0.zarr", 7, [], scans.Scene(), loads=[hot, *tips], obs_procedure="skydip"
    )
    config = CalibrationConfig(workers=1, t_atm_factor=0.94)
    odd = ReduceOptions(skydip=SkydipOptions("efficiency", free_gain=True))
    with pytest.raises(GpucalError, match="COLD"):
        reduce_scan(path, 7, config=config, options=odd)
    free = ReduceOptions(skydip=SkydipOptions("total-power", free_gain=True))
    assert reduce_scan(path, 7, config=config, options=free).scale == "counts"


def test_skydip_needs_sky(tmp_path: Path) -> None:
    path = scans.write(tmp_path / "l0.zarr", 1, [], SCENE, obs_procedure="skydip")
    with pytest.raises(GpucalError, match="not two SKY subscans"):
        reduce_scan(path, 1, config=scans.CONFIG)


def test_on_off_average_and_its_noise(tmp_path: Path) -> None:
    """The scatter over many channels and pixels is what the radiometer equation says, OFFs shared."""
    scene = replace(SCENE, lon=0.0, lat=0.0, noise=1.0, seed=9)
    path = scans.write(
        tmp_path / "l0.zarr", 2, scans.focus([3.0, 3.0, 3.0]), scene, obs_procedure="tp"
    )
    window = LineWindow(scans.FREQ + 2 * scans.STEP, scans.FREQ + 6 * scans.STEP, scans.FREQ)
    found: Any = reduce_scan(path, 2, config=scans.CONFIG, options=ReduceOptions(window=window))
    assert found.procedure == "on-off"
    result = found.result[""]
    assert result.n == 3
    np.testing.assert_allclose(result.time, 3 * scans.DUMPS * scans.EXPTIME, rtol=1e-6)
    pixel = result.spectrum[:, 0, 1]
    deviation = (pixel - 3.0) / result.expected[0, 1]
    assert abs(deviation.mean()) < 4 / np.sqrt(deviation.size)
    assert 0.6 < deviation.std() < 1.5
    # a flat continuum is no line
    assert not result.line[1].valid
    assert "no line seen" in result.line[1].reason
    calibrate_store(path, tmp_path / "l1.zarr", scans.CONFIG)
    again: Any = reduce_scan(tmp_path / "l1.zarr", 2)
    stored = again.result[""]
    np.testing.assert_allclose(stored.spectrum, result.spectrum, rtol=1e-10)
    np.testing.assert_allclose(stored.expected, result.expected, rtol=0.25)


@pytest.mark.parametrize(
    ("said", "modes", "expected"),
    [
        ("Pointing", (), "pointing"),
        ("FOCUS", (), "focus"),
        ("sky dip", (), "skydip"),
        ("on-off", (), "on-off"),
        ("", ("ON", "OFF"), "on-off"),
        ("", ("FSW-SIG", "FSW-REF"), "on-off"),
    ],
)
def test_procedure_is_read_from_the_scan(said: str, modes: tuple[str, ...], expected: str) -> None:
    assert reduction_of({"obs_procedure": said}, modes) == expected


def test_unknown_procedure_is_an_error(pointing_store: Path) -> None:
    with pytest.raises(ConfigError, match="which no procedure serves"):
        reduction_of({"obs_procedure": "otf"})
    with pytest.raises(ConfigError, match="'dance'"):
        reduce_scan(pointing_store, 1, procedure="dance")  # type: ignore[arg-type]


def test_command_prints_json_and_table(
    pointing_store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = ["reduce", str(pointing_store), "--scan", "1", "--atmosphere", "none", "--tau", "0.12"]
    assert main([*args, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["valid"] is True
    offset = next(r for r in report["results"] if (r["axis"], r["name"]) == ("az", "offset"))
    assert offset["value"] == pytest.approx(6.5, abs=0.01)
    assert main(args) == 0
    text = capsys.readouterr().out
    assert "az offset" in text
    assert text.rstrip().endswith("valid")


def test_command_fails_when_nothing_is_seen(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = scans.write(
        tmp_path / "l0.zarr",
        1,
        scans.pointing(strength=0.0),
        scans.Scene(noise=1.0),
        obs_procedure="pointing",
    )
    args = ["reduce", str(path), "--scan", "1", "--atmosphere", "none", "--tau", "0.12"]
    assert main(args) == 1
    assert "no source seen" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("width=3", "is unknown"),
        ("order=2", "expected 0 or 1"),
        ("f_eff=1.2", "at most 1"),
        ("fit_throw=yes", "needs a throw"),
        ("line_ghz=3", "LOW:HIGH"),
        ("free_gain=maybe", "yes or no"),
        ("free_gain=yes", "form=total-power"),
        ("form=other", "efficiency or total-power"),
        ("fwhm=-1", "more than 0"),
    ],
)
def test_command_refuses_wrong_settings(
    pointing_store: Path, capsys: pytest.CaptureFixture[str], text: str, message: str
) -> None:
    assert main(["reduce", str(pointing_store), "--scan", "1", "--set", text]) == 64
    assert message in capsys.readouterr().err


def test_an_efficiency_means_nothing_to_the_total_power_form() -> None:
    with pytest.raises(ConfigError, match="f_eff is for form=efficiency"):
        reduce_options(["form=total-power", "f_eff=0.9"])
