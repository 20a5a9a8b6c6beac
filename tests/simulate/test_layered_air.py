"""The layered sky of the simulator: its air, what it absorbs and emits, and the nights made with it."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from builders.truth_setup import calibrated, steady

from gpucal import CalibrationConfig, ConfigError, load_table, main, simulate_scan
from gpucal.physics.radiometry import T_BACKGROUND, radiation_temperature
from gpucal.simulate.air.absorption import water_absorption
from gpucal.simulate.air.layers import HPA_PER_TORR, air_at, layer_edges
from gpucal.simulate.air.sky import LayeredChannels, layered_sky
from gpucal.simulate.night import sky_over
from gpucal.simulate.presets import preset
from gpucal.simulate.receiver import BandModel, build_band
from gpucal.simulate.setup import InstrumentSetup, Line
from gpucal.simulate.sky import synthetic_table

BELOW_1_THZ = ["hera", "chai", "argus", "superc"]


def layered(name: str = "hera") -> InstrumentSetup:
    setup = steady(name)
    bands = tuple(replace(band, channels=64) for band in setup.bands)
    return replace(setup, sky="layered", bands=bands)


def model_of(setup: InstrumentSetup, band: int = 0) -> BandModel:
    table, air = sky_over(setup)
    return build_band(setup, band, table, 1, air)


@pytest.mark.parametrize("name", BELOW_1_THZ)
def test_air_is_that_of_the_weather_and_weighs_what_its_pressure_says(name: str) -> None:
    setup = preset(name)
    edges = layer_edges(setup)
    thickness = np.diff(edges)
    ground, air = air_at(setup, edges[:1]), air_at(setup, 0.5 * (edges[1:] + edges[:-1]))
    surface = HPA_PER_TORR * setup.weather.p_amb
    assert edges[0] == setup.site.alt_m / 1e3
    assert (ground.t_k[0], ground.p_hpa[0]) == (setup.weather.t_amb, pytest.approx(surface))
    assert np.all(np.diff(air.p_hpa) < 0)
    assert np.all((air.t_k >= 200.0) & (air.t_k <= max(265.0, setup.weather.t_amb)))
    density = 100.0 * air.p_hpa * 0.0289644 / (8.314462618 * air.t_k)
    weight = 9.80665 * 1e3 * np.sum(thickness * density) / 100.0
    assert weight == pytest.approx(surface, rel=2e-3)
    vapour = 100.0 * air.e_hpa * 0.01801528 / (8.314462618 * air.t_k)
    assert 1e3 * np.sum(vapour * thickness) == pytest.approx(1.0, rel=3e-3)
    assert np.sum(air.ozone * thickness) == pytest.approx(1.0, rel=1e-2)


@pytest.mark.parametrize(("p", "t", "e"), [(700.0, 275.0, 3.0), (300.0, 230.0, 0.1)])
def test_water_is_that_of_rosenkranz_1998(p: float, t: float, e: float) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        package = pytest.importorskip("pyrtlib.absorption_model")
        transfer = pytest.importorskip("pyrtlib.rt_equation").RTEquation
    for kind in (package.H2OAbsModel, package.O2AbsModel):
        kind.model = "R98"
        kind.set_ll()
    package.N2AbsModel.model = "R98"
    profile = [np.array([x]) for x in (p, t, e)]
    freq = np.array([93.0, 183.31, 230.0, 345.0, 461.0, 557.0, 691.0, 809.0, 950.0])
    theirs = [transfer.clearsky_absorption(*profile, np.float64(f))[0][0] for f in freq]
    np.testing.assert_allclose(water_absorption(freq * 1e9, *profile)[0], theirs, rtol=3e-3)


def some_layers() -> LayeredChannels:
    rng = np.random.default_rng(3)
    b, c = rng.uniform(0.0, 0.1, (2, 6, 5))
    nu = np.linspace(200e9, 800e9, 5)
    kelvin = np.linspace(280.0, 220.0, 6)
    j = radiation_temperature(nu[None], kelvin[:, None])
    return LayeredChannels(b, 0.1 * b, c, j)


def test_radiation_comes_down_layer_by_layer() -> None:
    """The same, written as the recursion from the top: each layer dims what comes from above and adds its own."""
    layers, pwv, airmass = some_layers(), 1.7, 1.9
    coming = np.zeros(5)
    for b, q, c, j in zip(
        layers.b[::-1], layers.q[::-1], layers.c[::-1], layers.j[::-1], strict=True
    ):
        t = np.exp(-airmass * (b * pwv + q * pwv**2 + c))
        coming = coming * t + j * (1.0 - t)
    np.testing.assert_allclose(layers.emission(pwv, airmass), coming, rtol=1e-13)


def test_limits_of_the_transfer() -> None:
    layers = some_layers()
    one = np.repeat(layers.j[:1], 6, axis=0)
    same = replace(layers, j=one)
    depth = 1.3 * np.sum(layers.b * 2.0 + layers.q * 4.0 + layers.c, axis=0)
    np.testing.assert_allclose(same.emission(2.0, 1.3), one[0] * -np.expm1(-depth), rtol=1e-13)
    np.testing.assert_allclose(layers.emission(1e4, 1.0), layers.j[0], rtol=1e-9)  # only the lowest


@pytest.mark.parametrize("name", BELOW_1_THZ)
def test_table_holds_the_opacity_of_the_layers(name: str) -> None:
    setup = layered(name)
    for index in range(len(setup.bands)):
        model = model_of(setup, index)
        assert model.air is not None
        nu = model.nu_sig[:, 0]
        seen = model.air.channels(nu)
        for pwv in np.array([0.3, 1.0, 4.0]) * setup.weather.pwv_mm:
            slant = 1.6 * np.sum((seen.b + seen.q * pwv) * pwv + seen.c, axis=0)
            assert np.all(slant > 0)
            t = model.transmission(float(pwv), 1.6)[0][:, 0]
            np.testing.assert_allclose(t, np.exp(-slant), rtol=1e-9)
    bands = {tuple(edge) for edge in synthetic_table(setup).bands_hz}
    assert bands == {tuple(edge) for edge in layered_sky(setup).table.bands_hz}


@pytest.mark.parametrize("name", BELOW_1_THZ)
def test_layered_air_is_colder_than_the_ground_by_some_percent(name: str) -> None:
    setup = layered(name)
    model = model_of(setup)
    pwv = setup.weather.pwv_mm
    emitted, t = model.emission(pwv, 1.3)[0][:, 0], model.transmission(pwv, 1.3)[0][:, 0]
    share = emitted / (1.0 - t) / radiation_temperature(model.nu_sig[:, 0], setup.weather.t_amb)
    assert 0.90 < np.median(share) < 0.98
    warm = replace(model, air=None).sky(pwv, 1.3)
    assert np.all(model.sky(pwv, 1.3) < warm)
    empty = model.sky(1e-9, 1e-9)[:, 0, 0]  # no air at all: background and spillover
    f_eff = setup.f_eff
    expected = sum(
        np.ravel(gain)[0]
        * (
            f_eff * radiation_temperature(nu[:, 0], T_BACKGROUND)
            + (1.0 - f_eff) * radiation_temperature(nu[:, 0], setup.weather.t_amb)
        )
        for nu, gain in ((model.nu_sig, model.g_sig), (model.nu_img, model.g_img))
    )
    np.testing.assert_allclose(empty, expected, rtol=1e-5)


def test_layered_sky_ends_with_its_water_lines() -> None:
    with pytest.raises(ConfigError, match="1000 GHz") as caught:
        simulate_scan(layered("upgreat"), "tp", 1)
    assert "--sky isothermal" in str(caught.value.hint)


def test_layered_sky_takes_no_table() -> None:
    setup = layered()
    with pytest.raises(ConfigError, match="makes its own"):
        simulate_scan(setup, "tp", 1, table=synthetic_table(setup))
    with pytest.raises(ConfigError, match="isothermal or layered"):
        preset("hera", sky="cloudy")


def test_source_and_receivers_do_not_depend_on_the_sky() -> None:
    """The truth of T_A* is the source's, and that of T_rec the receiver's; the counts differ."""
    made = [simulate_scan(steady(sky=sky), "tp", 1) for sky in ("isothermal", "layered")]
    one, two = (m.truth for m in made)
    np.testing.assert_array_equal(one.t_rec, two.t_rec)
    np.testing.assert_array_equal(one.amplitude, two.amplitude)
    np.testing.assert_allclose(one.profile.max(), two.profile.max(), rtol=1e-2)  # image lines
    assert not np.array_equal(one.sky, two.sky)


def test_command_writes_a_layered_night_and_its_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = ["--scans", "1", "--channels", "64", "--dumps", "3", "--subscans", "2"]
    out = tmp_path / "l0.zarr"
    assert main(["simulate", str(out), *small, "--sky", "layered"]) == 0
    table = load_table(f"{out}.atm.npz")
    assert "layered" in str(table.attrs["model"])
    assert table.attrs["t_ground_k"] == preset("hera").weather.t_amb
    capsys.readouterr()
    assert main(["simulate", str(tmp_path / "no.zarr"), *small, "--sky", "blue"]) != 0
    assert "isothermal or layered" in capsys.readouterr().err
    assert not (tmp_path / "no.zarr").exists()


@pytest.mark.parametrize("elevation", [60.0, 25.0])
@pytest.mark.parametrize("name", ["hera", "chai", "superc"])
def test_layered_night_comes_back(name: str, elevation: float) -> None:
    """T_A*, T_sys and PWV within 0.1 %, on the ozone lines too: the opacities are those of the layers exactly."""
    setup = layered(name)
    weather = replace(setup.weather, elevation_deg=elevation, elevation_swing_deg=0.0)
    bands = tuple(
        replace(b, lines=(Line(b.signal_freq[0], 3 * abs(b.bandwidth_hz), 10.0),))
        for b in setup.bands
    )
    simulated = simulate_scan(replace(setup, weather=weather, bands=bands), "tp", 7)
    for band, truth in enumerate(simulated.truths):
        result = calibrated(simulated, CalibrationConfig(), band)
        on = int(result.solution.pairing.on_index[0])
        expected, found = truth.t_a_star(on), np.asarray(result.spectra)[..., 0]
        seen = np.isfinite(found) & (expected > 0.1)
        assert np.count_nonzero(seen) > found.shape[0]
        np.testing.assert_allclose(found[seen], expected[seen], rtol=1e-3)
        t_sys = np.asarray(result.t_sys)[..., 0][~truth.bad] / truth.t_sys(on)[~truth.bad]
        assert np.max(np.abs(t_sys - 1.0)) < 1e-3
        np.testing.assert_allclose(result.solution.atmosphere.pwv, truth.pwv_mm, rtol=1e-3)


def test_one_temperature_shows_under_layers() -> None:
    """The same night with all air as warm as the ground: the water of the fit takes the blame."""
    simulated = simulate_scan(layered("hera"), "tp", 7)
    result = calibrated(simulated, CalibrationConfig(t_atm=preset("hera").weather.t_amb))
    found = np.asarray(result.solution.atmosphere.pwv) / simulated.truth.pwv_mm
    assert np.all((found > 0.85) & (found < 0.97))
