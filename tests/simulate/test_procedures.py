"""Simulated pointing, focus and skydip scans: the reduction gives back what the setup says."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.night_stores import fast_folder
from typer.testing import CliRunner

from gpucal import AtmosphereTable, CalibrationConfig, ConfigError, main, reduce_scan
from gpucal.cli.commands.simulate import simulate
from gpucal.simulate import (
    PRESETS,
    InstrumentSetup,
    Procedures,
    load_truth,
    preset,
    rehearsal,
    simulate_night,
    simulate_scan,
    synthetic_table,
)
from gpucal.simulate.setup import Kind

VANE = [name for name in PRESETS if preset(name).loads.vane]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    with fast_folder(tmp_path) as fast:
        yield fast


def small(name: str, kinds: tuple[Kind, ...], **changes: Any) -> InstrumentSetup:
    """A preset with nine pixels at most, an offset of its own and a point source."""
    setup = preset(name, channels=48, dumps=6, sky="isothermal")
    wanted = Procedures(scans=kinds, offset=(0.3, -0.17), best_focus=-0.13, **changes)
    return replace(setup, pixels=min(9, setup.pixels), procedures=wanted)


def reduced(store: Path, number: int, setup: InstrumentSetup) -> Any:
    pwv: Any = setup.weather.pwv_mm if setup.loads.vane else "fit"
    config = CalibrationConfig(atmosphere=str(store) + ".npz", pwv=pwv, workers=1, backend="cpu")
    found = reduce_scan(store, number, config=config)
    assert found.valid, found.result
    return found.result


def night(folder: Path, setup: InstrumentSetup, table: AtmosphereTable | None = None) -> Path:
    path = folder / "l0.zarr"
    simulate_night(path, setup, 0, truth=folder / "truth.npz", table=table, table_out=f"{path}.npz")
    return path


def assert_within(found: Any, truth: float, extra: float = 0.0) -> None:
    """Five sigma: the value of a mean, its error, and what the noise does not hold."""
    assert abs(found.value - truth) < 5 * found.error + extra, (found, truth)


@pytest.mark.parametrize("name", PRESETS)
def test_pointing_and_focus_of_every_preset_come_back(folder: Path, name: str) -> None:
    setup = small(name, ("pointing", "focus"))
    beam = 0.5 * setup.pixel_spacing_deg * 3600.0  # the half of the distance of two pixels
    first = 2 if setup.loads.separate else 1
    path = night(folder, setup)
    pointing = reduced(path, first, setup)
    assert_within(pointing.mean("az", "offset").mean, 0.3 * beam)
    assert_within(pointing.mean("el", "offset").mean, -0.17 * beam)
    assert_within(pointing.mean("az", "fwhm").mean, beam)
    focus = reduced(path, first + 1, setup)
    wavelength = 2.99792458e11 / setup.bands[0].signal_freq[0]
    assert_within(focus.mean("z", "best").mean, -0.13 * wavelength)
    truth = load_truth(folder / "truth.npz")
    band = setup.bands[0].name
    said = truth.procedures[first, band].values
    assert said["az_arcsec"] == pytest.approx(0.3 * beam)
    assert said["el_arcsec"] == pytest.approx(-0.17 * beam)
    assert truth.procedures[first + 1, band].values["z_mm"] == pytest.approx(-0.13 * wavelength)
    assert {band for _, band in truth.procedures} == {b.name for b in setup.bands}


@pytest.mark.parametrize("name", [n for n in PRESETS if n not in VANE])
def test_skydips_come_back_under_one_opacity(folder: Path, name: str) -> None:
    setup = small(name, ("skydip",))
    bands = tuple(
        replace(b, receiver=replace(b.receiver, gain_drift_per_h=0.0)) for b in setup.bands
    )
    weather = replace(setup.weather, pwv_drift_per_h=0.0)
    setup = replace(setup, bands=bands[:1], weather=weather)
    made = synthetic_table(setup)
    wet, dry = 0.11 / weather.pwv_mm, 0.06
    zero = np.zeros_like(made.c_dry)
    table = replace(made, b=zero + wet, q=zero, c_dry=zero + dry, c_o3=zero, c_minor=zero)
    path = night(folder, setup, table)
    number = 2 if setup.loads.separate else 1
    found = reduced(path, number, setup)
    assert_within(found.mean("airmass", "tau").mean, 0.17, 2e-5)
    # the loads are as noisy as the sky: of all channels and dumps in some 100 K
    assert_within(found.mean("airmass", "f_eff").mean, setup.f_eff, 2e-4)
    said = load_truth(folder / "truth.npz").procedures[number, setup.bands[0].name].values
    assert said["tau"] == pytest.approx(0.17, rel=1e-9)
    assert said["tau_low"] == pytest.approx(said["tau_high"], rel=1e-9)
    assert said["f_eff"] == setup.f_eff


@pytest.mark.parametrize("name", [n for n in PRESETS if n not in VANE])
def test_skydips_under_the_sky_of_a_preset_lie_in_the_range_of_the_truth(
    folder: Path, name: str
) -> None:
    setup = small(name, ("skydip",))
    setup = replace(setup, bands=setup.bands[:1])
    found = reduced(night(folder, setup), 2 if setup.loads.separate else 1, setup)
    ((_, truth),) = load_truth(folder / "truth.npz").procedures.items()
    tau = found.mean("airmass", "tau").mean
    middle = 0.5 * (truth.values["tau_low"] + truth.values["tau_high"])
    half = 0.5 * (truth.values["tau_high"] - truth.values["tau_low"])
    assert_within(tau, middle, half)
    assert found.mean("airmass", "f_eff").mean.value == pytest.approx(setup.f_eff, rel=0.03)


def test_truth_of_a_skydip_is_the_mean_opacity_of_both_sidebands() -> None:
    setup = small("hera", ("skydip",))
    made = simulate_scan(setup, "skydip")
    (truth,) = made.procedures
    (scan,) = made.scans
    assert scan.calibration is not None
    assert scan.source is None
    assert scan.calibration.sobsmode == ("HOT", "COLD", *["SKY"] * 14)
    elevation = np.asarray(scan.calibration.elevation)[0, 2:]
    airmasses = np.array([1.05, 1.25, 1.5, 1.8, 2.2, 2.7, 3.2])
    np.testing.assert_allclose(1 / np.sin(elevation[:7]), airmasses, rtol=1e-6)
    np.testing.assert_allclose(elevation[7:], elevation[:7][::-1])
    nu = setup.bands[0].signal_freq[0], setup.bands[0].image_freq[0]
    r = 0.1
    pwv = truth.values["pwv_mm"]
    assert pwv == pytest.approx(setup.weather.pwv_mm, rel=0.01)
    width = abs(setup.bands[0].bandwidth_hz)
    taus = [
        made.table.channel_opacity(f + width * (np.arange(48) - 24) / 48, width / 48).zenith_tau(
            pwv
        )
        for f in nu
    ]
    expected = (taus[0].mean() + r * taus[1].mean()) / (1 + r)
    assert truth.values["tau"] == pytest.approx(expected, rel=0.02)  # bad channels are left out
    assert truth.values["tau_low"] < truth.values["tau"] <= truth.values["tau_high"]


@pytest.mark.parametrize("name", VANE)
def test_an_instrument_without_a_cold_load_has_no_skydip(folder: Path, name: str) -> None:
    with pytest.raises(
        ConfigError, match=f"{name} has a vane and no cold load.*pointing and focus"
    ):
        simulate_night(folder / "l0.zarr", small(name, ("skydip",)), 0)
    assert not (folder / "l0.zarr").exists()


def test_a_source_off_the_centre_moves_the_counts_that_way() -> None:
    """The drift along azimuth peaks where the position of the telescope equals that of the source."""
    setup = replace(small("hera", ()), fill_fraction=0.0)
    made = simulate_scan(setup, "pointing")
    group = made.scan.source
    assert group is not None
    block = np.asarray(group.counts.read(0, 48, 1), dtype=np.float64)
    counts = np.median(block / block[:, :1], axis=0)[:, 0, 4]
    lon = 3600.0 * np.asarray(group.otf_lon)[:, 1]
    beam = 1800.0 * setup.pixel_spacing_deg
    step = lon[1] - lon[0]
    assert abs(lon[np.argmax(counts)] - 0.3 * beam) <= 0.5 * abs(step) + 1e-9
    assert group.sobsmode == ("OTF-OFF", *["OTF-ON"] * 4, "OTF-OFF")


def test_the_seed_draws_the_errors() -> None:
    setup = preset("hera")
    one, two, again = (rehearsal(setup, ("focus",), seed).procedures for seed in (1, 2, 1))
    assert one == again
    assert one.offset != two.offset
    assert one.best_focus != two.best_focus
    assert one.scans == ("focus",)


def test_an_unknown_procedure_is_refused() -> None:
    with pytest.raises(ConfigError, match="procedure is 'otf', expected pointing, focus, skydip"):
        Procedures(scans=("otf",))


def test_the_command_makes_a_night_to_rehearse(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, truth = folder / "n.zarr", folder / "t.npz"
    short = ["--channels", "32", "--dumps", "4", "--subscans", "2", "--seed", "5"]
    given = ["--procedures", "tip,Point,focus", "--scans", "1", "--truth", str(truth), *short]
    assert main(["simulate", str(out), *given]) == 0
    said = capsys.readouterr().out
    table = f"{out}.atm.npz"
    kinds = ["skydip", "pointing", "focus"]
    for number, kind in enumerate(kinds, 1):
        assert f"scan {number}: {kind}" in said
        assert f"gpucal reduce {out} --scan {number} --atmosphere {table}  # {kind}" in said
    found = load_truth(truth)
    assert [t.kind for t in found.procedures.values()] == kinds
    args = ["reduce", str(out), "--scan", "2", "--atmosphere", table]
    assert main(args) == 0
    assert "pointing" in capsys.readouterr().out
    assert main(["calibrate", str(out), str(folder / "l1.zarr"), "--atmosphere", table]) == 0
    capsys.readouterr()
    from gpucal.simulate import compare_to_truth

    rows = compare_to_truth(folder / "l1.zarr", truth)
    assert {row.scan for row in rows} == {2, 3, 4}
    spectra = [row for row in rows if row.quantity == "spectra"]
    assert all(row.rms < 1.0 for row in spectra)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--procedures", "otf"], "procedures holds 'otf', expected pointing, focus, skydip"),
        (["--scans", "0"], "scans is 0, expected at least 1"),
        (["--procedures", "skydip", "--preset", "argus"], "argus has a vane and no cold load"),
    ],
)
def test_wrong_procedures_are_one_sentence(folder: Path, args: list[str], said: str) -> None:
    import typer

    app = typer.Typer()
    app.command()(simulate)
    done = CliRunner().invoke(app, [str(folder / "n.zarr"), *args])
    assert said in str(done.exception)
    assert not (folder / "n.zarr").exists()
