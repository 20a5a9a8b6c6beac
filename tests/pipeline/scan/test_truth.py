"""A simulated night gives back what it was made of: every mode, option and scope."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from builders.truth_setup import calibrated, simulate_scan, spectra_error, steady, without_lines

from gpucal import AtmosphereError, CalibrationConfig, Flag
from gpucal.simulate.counts import Recording
from gpucal.simulate.presets import preset
from gpucal.simulate.setup import Kind

KELVIN = 1e-6
MODES = ["tp", "otf", "otf-chopped", "nod", "fsw", "wsw", "wsw-chopped"]
TRUE_MODE = {"wsw-chopped": "wsw"}


def config_for(simulated: Any, band: int = 0, **options: Any) -> CalibrationConfig:
    """Fit the water where a scan allows it: a vane cannot, and a switched frequency never leaves
    the source."""
    truth = simulated.truths[band]
    vane = simulated.scans[band].calibration.tcold is None or "COLD" not in (
        simulated.scans[band].calibration.sobsmode
    )
    if vane:
        # a switched frequency never leaves the source: the sky is then that of the load scan
        options = {"cal_scheme": "vane-channel", **options}
        options = {"vane_sky": "sky", **options} if truth.kind == "fsw" else options
    if vane or truth.kind == "fsw":
        options = {"pwv": truth.pwv_mm, **options}
    return CalibrationConfig(**options)


def whole_throw(setup: Any) -> Any:
    """A throw of 16 whole channels: folding then needs no interpolation."""
    bands = tuple(replace(b, throw_hz=16 * b.freq_res) for b in setup.bands)
    return replace(setup, bands=bands)


@pytest.mark.parametrize("kind", MODES)
@pytest.mark.parametrize("name", ["hera", "upgreat", "chai", "argus", "superc"])
def test_every_mode_returns_the_truth(name: str, kind: Kind) -> None:
    simulated = simulate_scan(whole_throw(steady(name)), kind, 7)
    for band, truth in enumerate(simulated.truths):
        config = config_for(simulated, band)
        result = calibrated(simulated, config, band)
        solution = result.solution
        assert solution.pairing.mode == TRUE_MODE.get(kind, kind)
        assert spectra_error(result, simulated, band) < KELVIN
        assert np.array_equal(np.asarray(solution.loads.bad), truth.bad)
        if solution.loads.cold is None:
            continue
        good = ~truth.bad
        assert np.max(np.abs(result.t_rec - truth.t_rec)[good]) < KELVIN
        assert np.max(np.abs(result.gamma - truth.gamma)[good]) < KELVIN
        assert np.all(np.isnan(result.t_rec[truth.bad]))
        assert np.max(np.abs(solution.atmosphere.pwv - truth.pwv_mm)) < KELVIN
        for j, on in enumerate(solution.pairing.on_index):
            error = np.abs(result.t_sys[..., j] - truth.t_sys(int(on)))
            assert np.max(error[good]) < KELVIN


@pytest.mark.parametrize("scope", ["full", "per-pixel", "per-pair"])
@pytest.mark.parametrize("kind", ["tp", "otf-chopped", "nod", "wsw-chopped"])
def test_every_scope_returns_the_water_and_the_opacity(kind: Kind, scope: str) -> None:
    from gpucal.pipeline.store.l1_arrays import small_arrays

    simulated = simulate_scan(steady("chai"), kind, 7)
    result = calibrated(simulated, CalibrationConfig(pwv_scope=scope), 1)
    atmosphere, truth = result.solution.atmosphere, simulated.truths[1]
    assert np.max(np.abs(atmosphere.pwv - truth.pwv_mm)) < KELVIN
    assert atmosphere.converged
    assert np.all(atmosphere.error > 0)
    assert spectra_error(result, simulated, 1) < KELVIN
    stored = small_arrays(result.solution)
    expected = {"full": 0, "per-pixel": 2, "per-pair": 1}[scope]
    assert stored["pwv"][0].ndim == expected
    for name in ("tau_signal", "tau_image"):
        wanted = getattr(truth, name)
        found = stored[name][0].reshape(wanted.shape[0], -1)
        assert np.max(np.abs(found - wanted)) < KELVIN


@pytest.mark.parametrize("scope", ["full", "per-pixel", "per-pair"])
def test_a_changing_sky_is_followed_pair_by_pair(scope: str) -> None:
    setup = steady("hera", sky_drift="linear", pwv_drift=0.05)
    simulated = simulate_scan(setup, "tp", 7)
    truth = simulated.truths[0]
    result = calibrated(simulated, CalibrationConfig(pwv_scope=scope))
    if scope == "per-pair":
        found = result.solution.atmosphere.pwv[0, 0]
        assert np.max(np.abs(found - truth.pwv)) < KELVIN
        assert spectra_error(result, simulated) < KELVIN
    else:
        # one PWV for a sky that changes by 1e-3 of it cannot be exact, but must lie between
        found = result.solution.atmosphere.pwv
        assert np.all(found > truth.pwv.min())
        assert np.all(found < truth.pwv.max())
        assert spectra_error(result, simulated) < 2e-3


def test_per_dump_reference_follows_the_sky_within_a_subscan() -> None:
    setup = steady("hera", sky_drift="linear-dump", pwv_drift=0.05)
    simulated = simulate_scan(setup, "otf", 7)
    per_dump = CalibrationConfig(reference="per-dump", pwv_scope="per-pair")
    assert spectra_error(calibrated(simulated, per_dump), simulated) < KELVIN
    linear = CalibrationConfig(reference="linear", pwv_scope="per-pair")
    assert spectra_error(calibrated(simulated, linear), simulated) > 1e-5


@pytest.mark.parametrize("kind", ["otf-chopped", "wsw-chopped"])
def test_merged_beams_return_the_truth_on_a_steady_sky(kind: Kind) -> None:
    setup = steady("hera")
    simulated = simulate_scan(setup, kind, 7)
    plain = calibrated(simulated, CalibrationConfig())
    merged = calibrated(simulated, CalibrationConfig(dbs_coupling=True))
    modes = simulated.scans[0].source.sobsmode  # type: ignore[union-attr]
    on = plain.solution.pairing.on_index.tolist()
    first = [j for j, s in enumerate(on) if modes[s] in ("OTFSWA-ON", "WSW-ON")]
    second = [j for j, s in enumerate(on) if modes[s] in ("OTFSWB-ON", "WSW-OFF")]
    assert len(merged.solution.pairing.recipes) == len(first) == len(second)
    expected = 0.5 * (plain.spectra[..., first] + plain.spectra[..., second])
    assert np.array_equal(merged.spectra, expected, equal_nan=True)
    assert np.array_equal(merged.flags, plain.flags[..., first] | plain.flags[..., second])


@pytest.mark.parametrize("mode", [2, 3])
def test_a_linear_gain_drift_is_removed_exactly(mode: int) -> None:
    setup = steady("hera", gain_drift=0.4)
    start = 60000.0
    first = simulate_scan(setup, "load", 1, start=start)
    science = simulate_scan(setup, "tp", 2, start=start + 0.01, mjd0=start, lloadsn=1)
    last = simulate_scan(setup, "load", 3, start=start + 0.03, mjd0=start)
    truth = science.truths[0]
    kwargs: dict[str, Any] = {"load": first.scans[0], "later_load": last.scans[0]}
    base = CalibrationConfig(pwv=truth.pwv_mm)
    plain = calibrated(science, base, **kwargs)
    fixed = calibrated(science, base.model_copy(update={"gain_interpolate": mode}), **kwargs)
    assert spectra_error(plain, science) > 1e-3
    if mode == 3:
        assert spectra_error(fixed, science) < KELVIN
        assert np.nanmax(np.abs(fixed.t_rec - truth.t_rec)) < KELVIN
        fitted = calibrated(science, CalibrationConfig(gain_interpolate=3), **kwargs)
        assert np.max(np.abs(fitted.solution.atmosphere.pwv - truth.pwv_mm)) < KELVIN
    else:
        # mode 2 leaves the OFF as it is: ON and OFF are then on different scales
        assert not np.array_equal(fixed.spectra, plain.spectra, equal_nan=True)


def test_integer_counts_return_the_truth_to_the_quantisation() -> None:
    simulated = simulate_scan(
        steady("hera"), "tp", 7, recording=Recording(dtype="i32", noise=False)
    )
    truth = simulated.truths[0]
    result = calibrated(simulated, CalibrationConfig(pwv=truth.pwv_mm))
    factor = np.asarray(truth.gamma / np.asarray(result.solution.loads.span))
    # half a count in ON, OFF, HOT and COLD each; the gain error multiplies lines of 10 K at most
    bound = 3.0 * np.nanmax(factor)
    assert spectra_error(result, simulated) < bound
    assert spectra_error(result, simulated) > KELVIN


@pytest.mark.parametrize("dtype", ["f32", "u32"])
def test_other_counts_are_read_too(dtype: Any) -> None:
    recording = Recording(dtype=dtype, noise=False)
    setup = steady("hera", fill_fraction=0.0)
    simulated = simulate_scan(setup, "otf", 7, recording=recording)
    result = calibrated(simulated, CalibrationConfig(pwv=simulated.truths[0].pwv_mm))
    assert spectra_error(result, simulated) < 0.05


def test_f32_spectra_are_the_rounded_f64_spectra() -> None:
    simulated = simulate_scan(steady("hera"), "tp", 7)
    wide = calibrated(simulated, CalibrationConfig())
    narrow = calibrated(simulated, CalibrationConfig(dtype="f32"))
    assert narrow.spectra.dtype == np.float32
    assert np.array_equal(narrow.spectra, wide.spectra.astype(np.float32), equal_nan=True)


@pytest.mark.parametrize(
    ("name", "kind", "scope"),
    [
        ("hera", "tp", "full"),
        ("hera", "otf", "per-pixel"),
        ("hera", "nod", "full"),
        ("hera", "otf-chopped", "full"),
        ("hera", "fsw", "full"),
        ("hera", "wsw-chopped", "full"),
        ("chai", "otf", "per-pair"),
        ("argus", "tp", "full"),
    ],
)
def test_noise_is_that_of_the_radiometer_equation(name: str, kind: Kind, scope: str) -> None:
    setup = steady(name)
    bands = tuple(
        replace(b, channels=4096, throw_hz=256 * b.bandwidth_hz / 4096) for b in setup.bands[:1]
    )
    timing = replace(setup.timing, dumps=8, n_on=4)
    setup = without_lines(replace(setup, bands=bands, timing=timing, fill_fraction=0.0))
    simulated = simulate_scan(setup, kind, 7, recording=Recording(dtype="f64", noise=True, seed=3))
    result = calibrated(simulated, config_for(simulated, pwv_scope=scope))
    ratio = np.asarray(result.quality["rms_ratio"])
    assert np.all(np.abs(ratio - 1.0) < 0.05), ratio
    spectra = np.asarray(result.spectra)
    for r in range(spectra.shape[2]):
        for a in range(spectra.shape[3]):
            x = spectra[:, :, r, a]
            rows = x.reshape(x.shape[0], -1)
            per_channel = np.mean(rows[np.isfinite(rows).all(axis=1)], axis=1)
            sigma = per_channel.std() / np.sqrt(per_channel.size)
            assert abs(per_channel.mean()) < 3.0 * sigma
    if result.solution.loads.cold is not None and kind != "fsw":
        atmosphere = result.solution.atmosphere
        assert result.solution.errors is not None
        error = result.solution.errors.pwv_noise  # the inputs are exact
        pull = (atmosphere.pwv - simulated.truths[0].pwv_mm) / error
        assert np.max(np.abs(pull)) < 5.0


def test_line_scale_dsb_drops_the_signal_gain() -> None:
    simulated = simulate_scan(steady("hera"), "tp", 7)
    ssb = calibrated(simulated, CalibrationConfig())
    dsb = calibrated(simulated, CalibrationConfig(line_scale="dsb"))
    gain = np.asarray(ssb.solution.setup.g_sig)
    assert np.allclose(dsb.spectra, ssb.spectra * gain[..., None, None], rtol=1e-12, equal_nan=True)


def test_the_legacy_constant_changes_the_last_digits_only() -> None:
    simulated = simulate_scan(steady("hera"), "tp", 7)
    exact = calibrated(simulated, CalibrationConfig())
    legacy = calibrated(simulated, CalibrationConfig(physics="kalibrate"))
    difference = np.nanmax(np.abs(legacy.t_rec - exact.t_rec))
    assert 0 < difference < 0.01


def test_a_given_opacity_replaces_the_table() -> None:
    simulated = simulate_scan(steady("hera"), "tp", 7)
    config = CalibrationConfig(atmosphere="none", tau=0.0)
    clear = calibrated(replace_table(simulated), config)
    thick = calibrated(replace_table(simulated), config.model_copy(update={"tau": 0.5}))
    airmass = thick.solution.atmosphere.airmass
    for j, a in enumerate(airmass):
        thin = clear.spectra[..., j]
        line = np.isfinite(thin) & (np.abs(np.nan_to_num(thin)) > 0.1)
        assert line.any()
        found = thick.spectra[..., j][line] / thin[line]
        assert np.allclose(found, np.exp(0.5 * a), rtol=1e-9)


def replace_table(simulated: Any) -> Any:
    return replace(simulated, table=None)


def test_a_fit_at_the_edge_of_the_grid_says_so() -> None:
    setup = steady("hera")
    wet = replace(setup, weather=replace(setup.weather, pwv_mm=setup.weather.pwv_mm))
    simulated = simulate_scan(wet, "tp", 7)
    table = replace(simulated.table, attrs={**simulated.table.attrs, "pwv_range_mm": (0.01, 0.1)})
    for scope in ("full", "per-pixel", "per-pair"):
        with pytest.raises(AtmosphereError, match="edge of the trial range"):
            calibrated(replace(simulated, table=table), CalibrationConfig(pwv_scope=scope))


def test_low_elevation_and_extrapolated_reference_are_flagged() -> None:
    setup = steady("hera")
    low = replace(setup, weather=replace(setup.weather, elevation_deg=8.0, elevation_swing_deg=0.0))
    simulated = simulate_scan(low, "tp", 7)
    result = calibrated(simulated, CalibrationConfig())
    assert np.all(result.flags & int(Flag.ELEVATION_LOW))
    group = simulated.scans[0].source
    assert group is not None
    offs = [i for i, m in enumerate(group.sobsmode) if m == "OFF"]
    for j, on in enumerate(result.solution.pairing.on_index):
        one_sided = not any(i > on for i in offs) or not any(i < on for i in offs)
        flagged = bool(np.all(result.flags[..., j] & int(Flag.REFERENCE_EXTRAPOLATED)))
        assert flagged == one_sided


def test_fractional_throws_fold_to_the_accuracy_of_the_interpolation() -> None:
    setup = replace(steady("hera"), fill_fraction=0.0)
    band = setup.bands[0]
    receiver = replace(band.receiver, bad_per_pixel=0)
    throw = 64.3 * band.bandwidth_hz / 2048
    band = replace(band, channels=2048, throw_hz=throw, receiver=receiver)
    simulated = simulate_scan(replace(setup, bands=(band,)), "fsw", 7)
    truth = simulated.truths[0]
    result = calibrated(simulated, CalibrationConfig(pwv=truth.pwv_mm))
    assert spectra_error(result, simulated) < 1e-5


def test_presets_calibrate_as_they_are() -> None:
    simulated = simulate_scan(preset("superc"), preset("superc").kinds[0], 7)
    result = calibrated(simulated, config_for(simulated))
    assert np.isfinite(result.spectra).any()
