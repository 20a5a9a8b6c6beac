"""The oracle itself against values worked out by hand and against scenes with known truth."""

from __future__ import annotations

import ast
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from oracle import loads as oracle_loads
from oracle import scan as oracle
from oracle import sky as oracle_sky
from oracle.scene import SECOND, Scene


def line_error(out: dict[str, Any], scene: Scene) -> float:
    """Largest |T_A* - truth| over all samples, K."""
    worst = 0.0
    for c, d, r, a, s in np.ndindex(out["spectra"].shape):
        truth = scene.line if scene.is_line(c) else 0.0
        worst = max(worst, abs(float(out["spectra"][c, d, r, a, s]) - truth))
    return worst


@pytest.mark.parametrize("module", [oracle, oracle_loads, oracle_sky])
def test_oracle_imports_nothing_of_the_package(module: Any) -> None:
    names = set()
    for node in ast.walk(ast.parse(Path(module.__file__).read_text())):
        if isinstance(node, ast.Import):
            names |= {a.name.split(".")[0] for a in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add((node.module or "").split(".")[0])
    assert names <= {
        *("__future__", "collections", "functools", "math", "typing", "numpy"),
        *("oracle",),
    }


@pytest.mark.parametrize(("ghz", "expected"), [(460.0, 289.1), (1900.5, 256.7), (4744.8, 200.4)])
def test_radiation_temperature(ghz: float, expected: float) -> None:
    assert oracle_sky.radiation(ghz * 1e9, 300.0) == pytest.approx(expected, abs=0.05)


def test_radiation_temperature_is_smaller_by_half_h_nu_over_k_at_long_waves() -> None:
    h_over_k = 4.799243073366e-11
    assert oracle_sky.radiation(1e9, 300.0) == pytest.approx(300.0 - 0.5 * h_over_k * 1e9, abs=1e-4)


@pytest.mark.parametrize("temperature", [0.0, -3.0, math.nan])
def test_radiation_temperature_rejects(temperature: float) -> None:
    with pytest.raises(ValueError, match="positive"):
        oracle_sky.radiation(460e9, temperature)


def test_gains() -> None:
    assert oracle_sky.gains(1.0) == (0.5, 0.5)
    assert oracle_sky.gains(0.0) == (1.0, 0.0)
    assert oracle_sky.gains(0.1) == pytest.approx((1 / 1.1, 0.1 / 1.1), abs=1e-15)
    with pytest.raises(ValueError, match="finite"):
        oracle_sky.gains(-0.1)


def test_frequencies_run_in_opposite_directions() -> None:
    assert oracle_sky.signal_frequency(12, 460e9, 1e6, 10.0) == 460.002e9
    assert oracle_sky.image_frequency(12, 448e9, 1e6, 10.0) == 447.998e9


def test_receiver_temperature_by_hand() -> None:
    # Y = 2, hot 300 K, cold 80 K: (300 - 160)/1
    assert oracle_loads.receiver_temperature(2000.0, 1000.0, 300.0, 80.0) == pytest.approx(140.0)


def test_median_smooth_repeats_ends_and_ignores_nan() -> None:
    assert oracle_loads.median_smooth([9.0, 1.0, 2.0, math.nan, 4.0, 5.0]) == [
        *(9.0, 5.5, 3.0, 3.0, 4.5, 5.0)
    ]


def test_bad_channel_rules() -> None:
    par = {"clip_counts": 0.01, "clip_trec": 20000.0, "clip_tsys": 200.0}
    hot, cold, t_rec = [2000.0] * 12, [1000.0] * 12, [100.0] * 12
    cold[1] = 2001.0
    hot[2] = math.nan
    cold[3] = 1991.0
    t_rec[4], t_rec[5], t_rec[6], t_rec[7] = -1.0, 20001.0, 19999.0, 20000.0
    hot[9] = 500000.0  # one strong interloper does not set the scale
    bad = oracle_loads.bad_channels(hot, cold, t_rec, par)
    assert [c for c, b in enumerate(bad) if b] == [1, 2, 3, 4, 5]
    par["clip_tsys"] = 199.99
    bad = oracle_loads.bad_channels(hot, cold, t_rec, par)
    assert [c for c, b in enumerate(bad) if b] == [1, 2, 3, 4, 5, 7]


def test_load_mean_pools_the_dumps_of_all_hot_subscans() -> None:
    counts = np.asarray([1.0, 2.0, math.nan, 9.0]).reshape(1, 2, 1, 1, 2)
    group = {"counts": counts, "sobsmode": ["HOT", "HOT"]}
    assert oracle_loads.group_mean(group, ("HOT",), 0, 0, 0) == 4.0


@pytest.mark.parametrize("gain_image", [0.0, 0.1, 1.0, 1.3])
def test_a_line_comes_back(gain_image: float) -> None:
    scene = Scene(["OFF", "ON", "ON", "OFF"], gain_image=gain_image, points=2)
    out = oracle.calibrate_scan_oracle(scene.source(), scene.cal(), **scene.parameters())
    assert line_error(out, scene) < 1e-6
    assert np.all(out["flags"] == 0)
    assert out["pwv"].flat[0] == pytest.approx(scene.pwv, abs=1e-9)
    assert out["t_rec"][5, 0, 1] == pytest.approx(scene.t_rec(5, 0, 1), abs=1e-6)
    ch = scene.channel(5, 0, 1)
    j_sky = oracle_sky.sky_temperature(ch, scene.pwv, oracle_sky.airmass(0.9))
    assert out["t_sys"][5, 0, 1, 0] == pytest.approx(scene.t_rec(5, 0, 1) + j_sky, abs=1e-6)


def test_double_sideband_scale_divides_by_the_signal_gain() -> None:
    scene = Scene(["OFF", "ON"])
    both = [
        oracle.calibrate_scan_oracle(
            scene.source(), scene.cal(), line_scale=scale, **scene.parameters()
        )["spectra"][16, 0, 0, 0, 0]
        for scale in ("ssb", "dsb")
    ]
    assert both[0] == pytest.approx(5.0, abs=1e-6)
    assert both[1] == pytest.approx(5.0 / 1.8, abs=1e-6)


@pytest.mark.parametrize("scope", ["full", "per-pixel", "per-pair"])
def test_scopes_agree_on_a_uniform_sky(scope: str) -> None:
    scene = Scene(["OFF", "ON", "OFF"], pwv=1.4)
    out = oracle.calibrate_scan_oracle(
        scene.source(), scene.cal(), pwv_scope=scope, **scene.parameters()
    )
    assert np.max(np.abs(out["pwv"] - 1.4)) < 1e-9


def test_fit_minimises_chi_square_with_its_own_weights() -> None:
    scene = Scene(["OFF", "ON"], shape=(40, 2, 1, 1))
    channels = []
    for c in range(40):
        ch = scene.channel(c, 0, 0)
        j_hot = scene.load(c, 0, 0, 293.0)
        wave = 1.5 * math.sin(1.7 * c)
        ch["observed"] = oracle_sky.sky_temperature(ch, 0.7, 1.2) - j_hot + wave
        ch.update(channel=c, j_hot=j_hot, t_rec=120.0, airmass=1.2, dnu=2e7, t_off=2.0, t_hot=2.0)
        channels.append(ch)
    fit = oracle_sky.fit_pwv(channels, (0.1, 3.0))
    weights = [oracle_sky.weight(ch, fit["pwv"], 0.05) for ch in channels]
    here = oracle_sky.chi_square(channels, weights, fit["pwv"])
    for step in (-1e-4, 1e-4):
        assert oracle_sky.chi_square(channels, weights, fit["pwv"] + step) > here
    assert abs(fit["pwv"] - 0.7) > 1e-5  # the wave moved it
    assert not fit["poor"]
    # the derivative used by the bisection is that of the model
    ch = channels[7]
    numeric = [oracle_sky.sky_temperature(ch, 0.7 + h, 1.2) for h in (-1e-5, 1e-5)]
    assert oracle_sky.slope(ch, 0.7) == pytest.approx((numeric[1] - numeric[0]) / 2e-5, rel=1e-7)


def test_fit_says_when_it_ends_at_the_edge_or_has_few_channels() -> None:
    scene = Scene(["OFF", "ON"], shape=(32, 1, 1, 1), pwv=9.0)
    out = oracle.calibrate_scan_oracle(scene.source(), scene.cal(), **scene.parameters())
    assert np.all(out["flags"] & oracle.ATMOSPHERE_POOR)
    scene = Scene(["OFF", "ON"], shape=(12, 1, 1, 1))
    out = oracle.calibrate_scan_oracle(scene.source(), scene.cal(), **scene.parameters())
    assert np.all(out["flags"] & oracle.ATMOSPHERE_POOR)


@pytest.mark.parametrize("which", [0, 3])
def test_a_linear_gain_drift_is_removed_exactly(which: int) -> None:
    scene = Scene(["OFF", "ON", "OFF", "ON", "OFF"], drift=4e-4)
    out = oracle.calibrate_scan_oracle(
        scene.source(),
        scene.cal(),
        later_cal=scene.cal(400.0),
        gain_interpolate=which,
        pwv=scene.pwv,
        **scene.parameters(),
    )
    error = line_error(out, scene)
    # HOT and COLD of one load scan are 40 s apart: each has its own line, so nothing remains
    assert error < 1e-5 if which else error > 0.01
    wrong = abs(float(out["t_rec"][3, 0, 1]) - scene.t_rec(3, 0, 1))
    assert wrong < 1e-5 if which else wrong > 0.1


def test_gain_drift_epoch_is_the_middle_of_the_first_load_scan() -> None:
    scene = Scene(["OFF", "ON"], shape=(4, 2, 1, 1), drift=1e-3)
    first, later = scene.cal(), scene.cal(300.0)
    _, h1, k1 = oracle_loads.drift_corrected(scene.source(), (first, later))
    # HOT at 1 s, COLD at 41 s: both lines are read at 21 s
    for value, subscan, own in ((h1, 0, 1.0), (k1, 1, 41.0)):
        mean = np.mean(first["counts"][0, :, 0, 0, subscan])
        expected = mean * (1 + 1e-3 * 21.0) / (1 + 1e-3 * own)
        assert value[0, 0, 0] == pytest.approx(expected, rel=1e-7)


def test_references_by_hand() -> None:
    source = Scene(["OFF", "ON", "ON", "OFF", "ON"], shape=(1, 2, 1, 1)).source()
    assert oracle.bracket(source, 1, [0, 3]) == (0, 3)
    assert oracle.bracket(source, 4, [0, 3]) == (3, 3)
    assert oracle.nearest(source, 1, [0, 3]) == 0
    assert oracle.nearest(source, 2, [0, 3]) == 3
    source["counts"][0, :, 0, 0, 0] = 6.0
    source["counts"][0, :, 0, 0, 3] = [8.0, 10.0]
    linear, alone = oracle.total_power_reference(source, 1, [0, 3], "linear")
    assert linear(0, 0, 0, 0) == pytest.approx(7.0, abs=1e-6)
    assert alone is False
    dump, _ = oracle.total_power_reference(source, 1, [0, 3], "per-dump")
    assert dump(0, 1, 0, 0) == pytest.approx(6.0 + 3.0 * 40.5 / 120.0, abs=1e-6)
    late, alone = oracle.total_power_reference(source, 4, [0, 3], "linear")
    assert (late(0, 0, 0, 0), alone) == (9.0, True)
    source["counts"][0, :, 0, 0, 3] = math.nan
    assert linear(0, 0, 0, 0) == pytest.approx(7.0, abs=1e-6)  # kept from before
    again, _ = oracle.total_power_reference(source, 1, [0, 3], "linear")
    assert again(0, 0, 0, 0) == 6.0


def test_flags_and_blanking() -> None:
    scene = Scene(["OFF", "ON"], shape=(24, 2, 1, 2))
    source, cal = scene.source(), scene.cal()
    source["counts"] = np.round(source["counts"] * 1000).astype(np.int32)
    cal["counts"] = np.round(cal["counts"] * 1000).astype(np.int32)
    source["counts"][3, 1, 0, 0, 1] = np.iinfo(np.int32).min
    source["counts"][4, :, 0, 1, 0] = np.iinfo(np.int32).min
    cal["counts"][6, :, 0, 0, 1] = cal["counts"][6, :, 0, 0, 0]
    out = oracle.calibrate_scan_oracle(source, cal, elevation_low=60.0, **scene.parameters())
    usual = oracle.REFERENCE_EXTRAPOLATED | oracle.ELEVATION_LOW
    flags = out["flags"]
    assert flags[0, 0, 0, 0, 0] == usual
    assert flags[3, 1, 0, 0, 0] == usual | oracle.FILL_VALUE
    assert flags[3, 0, 0, 0, 0] == usual
    assert np.all(flags[4, :, 0, 1, 0] == usual | oracle.FILL_VALUE)
    assert np.all(flags[6, :, 0, 0, 0] == usual | oracle.BAD_CHANNEL)
    blank = (flags & (oracle.BAD_CHANNEL | oracle.FILL_VALUE)) > 0
    assert np.array_equal(np.isnan(out["spectra"]), blank)


@pytest.mark.parametrize(
    ("mode", "modes"),
    [
        ("otf-chopped", ["OTFSWA-ON", "OTFSWA-OFF", "OTFSWB-ON", "OTFSWB-OFF"]),
        ("fsw", ["FSW-SIG", "FSW-REF", "FSW-SIG", "FSW-REF"]),
        ("wsw", ["WSW-ON", "WSW-OFF"]),
    ],
)
def test_switched_modes_bring_the_line_back(mode: str, modes: list[str]) -> None:
    scene = Scene(modes)
    out = oracle.calibrate_scan_oracle(scene.source(), scene.cal(), mode=mode, **scene.parameters())
    assert out["spectra"].shape[-1] == len(modes) // 2
    assert line_error(out, scene) < 1e-6


def test_chopped_uses_the_same_beam() -> None:
    scene = Scene(["OTFSWA-ON", "OTFSWB-OFF", "OTFSWA-OFF", "OTFSWB-ON"])
    out = oracle.calibrate_scan_oracle(
        scene.source(), scene.cal(), mode="otf-chopped", **scene.parameters()
    )
    assert (out["on_index"], out["off_index"]) == ([0, 3], [2, 1])


def test_nod_is_positive_in_both_beams() -> None:
    scene = Scene(["NOD-1", "NOD-2"], shape=(32, 2, 1, 3))
    source = scene.source()
    # the second beam is on the source in the second position
    swapped = source["counts"][:, :, 0, 1, :].copy()
    source["counts"][:, :, 0, 1, 0] = swapped[..., 1]
    source["counts"][:, :, 0, 1, 1] = swapped[..., 0]
    source["nod_beams"] = [[0, 0], [0, 1]]
    out = oracle.calibrate_scan_oracle(
        source, scene.cal(), mode="nod", pwv=scene.pwv, **scene.parameters()
    )
    assert out["spectra"].shape[-1] == 1
    assert line_error(out, scene) < 1e-6


def test_wobbler_cycles_and_beam_merge() -> None:
    assert oracle.wobbler_cycles([3.0, 5.0, 1.0, 1.0, 7.0, 2.0], [0, 0, 1, 1, 0, 1]) == [3.0, 5.0]
    one, two = np.asarray([1.0, math.nan]), np.asarray([3.0, 3.0])
    flags = np.asarray([4, 2], dtype=np.uint16), np.asarray([8, 0], dtype=np.uint16)
    spectra, merged = oracle.merge_beams(one, two, *flags)
    assert spectra[0] == 2.0
    assert math.isnan(spectra[1])
    assert list(merged) == [12, 2]


def test_vane_by_hand_and_with_a_forward_model() -> None:
    assert oracle_loads.vane_t_cal(300.0, 270.0, 0.0, 1.0) == pytest.approx(300.0 - 2.725)
    # ten channels: the first and the last are outside the inner 80 %
    off, vane = [9.0, *([2.0] * 8), 9.0], [9.0, *([6.0] * 8), 99.0]
    assert oracle_loads.vane_t_sys(vane, off, 200.0) == pytest.approx(100.0)
    assert oracle_loads.vane_spectrum(2.2, 2.0, 100.0) == pytest.approx(10.0)
    scene = Scene(["OFF", "ON"], shape=(20, 1, 1, 1))
    source, cal = scene.source(), scene.cal()
    ch = scene.channel(10, 0, 0)
    off_counts = float(source["counts"][10, 0, 0, 0, 0])
    counts = (float(source["counts"][10, 0, 0, 0, 1]), off_counts)
    hot = float(cal["counts"][10, 0, 0, 0, 0])
    value = oracle_loads.vane_channel_spectrum(
        (*counts, hot, off_counts),
        ch,
        scene.load(10, 0, 0, 293.0),
        (scene.pwv, oracle_sky.airmass(0.9)),
    )
    assert value == pytest.approx(5.0, abs=1e-9)


def test_expected_rms() -> None:
    assert oracle.expected_rms(100.0, 1.0, (2.0, 2.0), 0.5, -1e4) == pytest.approx(math.sqrt(1.25))
    ch = Scene(["OFF", "ON"]).channel(3, 0, 0)
    t_sig = oracle_sky.transmission(ch["bqc"][0], 0.7, 1.3)
    whole = oracle.t_sys_star(100.0, ch, 0.7, 1.3) * t_sig * 0.95 / 1.8
    assert whole == pytest.approx(100.0 + oracle_sky.sky_temperature(ch, 0.7, 1.3))


def test_scene_times() -> None:
    assert Scene(["OFF"]).source()["mjd"][0, 0] == pytest.approx(60000 + 100.5 * SECOND, abs=1e-9)
