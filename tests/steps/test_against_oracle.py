"""The calibration steps against the independent oracle, for every mode, scope and reference."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from oracle import loads as oracle_loads
from oracle import scan as oracle
from oracle import sky
from oracle.scene import F_EFF, IMAGE, RESOLUTION, SIGNAL, T_AMB, T_ATM, T_HOT, Scene

from gpucal import AtmosphereTable, CalibrationConfig, Flag, Scan, SubscanGroup, select_backend
from gpucal.backend.protocol import Backend
from gpucal.pipeline.scan.solve import LoadChoice, solve_scan
from gpucal.products import LoadMeans, MeanKey
from gpucal.scan import ArrayCounts
from gpucal.steps.loads import load_temperatures
from gpucal.steps.means import dump_means, mean_time
from gpucal.steps.sky_model import zenith_opacity
from gpucal.steps.solution import ScanSolution
from gpucal.steps.tile import calibrate_tile


def as_group(raw: dict[str, Any]) -> SubscanGroup:
    """The frozen group of a dict of the oracle."""
    _, _, r, a, s = raw["counts"].shape
    per_receiver = {
        name: np.repeat(raw[name][:, None], s, axis=1)
        for name in ("signal_freq", "image_freq", "freq_res", "ref_channel")
    }
    return SubscanGroup(
        counts=ArrayCounts(raw["counts"]),
        sobsmode=tuple(raw["sobsmode"]),
        mjd=raw["mjd"],
        exptime=raw["exptime"],
        elevation=raw["elevation"],
        azimuth=np.zeros_like(raw["mjd"]),
        pamb=np.full(s, 430.0),
        tamb=np.full(s, T_AMB),
        lloadsn=np.full(s, -1, dtype=np.int32),
        otf_lon=np.zeros_like(raw["mjd"]),
        otf_lat=np.zeros_like(raw["mjd"]),
        pixel_offset_lon=np.zeros((r, a, s)),
        pixel_offset_lat=np.zeros((r, a, s)),
        thot=np.repeat(raw["t_hot"][:, None], s, axis=1),
        tcold=np.repeat(raw["t_cold"][:, None], s, axis=1),
        **per_receiver,
    )


def load_means(group: SubscanGroup, backend: Backend) -> LoadMeans:
    """Means of a load scan with one HOT and one COLD subscan."""
    hot, cold = group.select("HOT"), group.select("COLD")
    assert (len(hot), len(cold)) == (1, 1)
    means = dump_means(group, [MeanKey(hot[0]), MeanKey(cold[0])], backend)
    times = [mean_time(group, subscans) for subscans in (hot, cold)]
    return LoadMeans(
        scan=1,
        hot=means[MeanKey(hot[0])].mean,
        cold=means[MeanKey(cold[0])].mean,
        hot_mjd=times[0][0],
        cold_mjd=times[1][0],
        hot_time=times[0][1],
        t_hot=load_temperatures(group, "HOT", hot, None),
        t_cold=load_temperatures(group, "COLD", cold, None),
    )


def make_table(step_hz: float, *, layered: bool = False) -> AtmosphereTable:
    """Smooth coefficients from 448 to 463 GHz, with knots every ``step_hz``; layered: with emission columns."""
    freq = np.arange(448e9, 463e9, step_hz)
    x = freq / 1e8
    emission: dict[str, Any] = {
        "e_b": 0.02 * (1.0 + 0.2 * np.sin(x)),
        "e_q": -0.0006 * (1.0 + 0.5 * np.cos(0.7 * x)),
        "e_c": 0.006 + 0.002 * np.cos(1.3 * x),
        "e_o3": 0.15 + 0.03 * np.sin(0.3 * x),
    }
    return AtmosphereTable(
        freq_hz=freq,
        b=0.55 * (1.0 + 0.3 * np.sin(x)),
        q=0.004 * (1.0 + 0.5 * np.cos(0.7 * x)),
        c_dry=0.05 + 0.02 * np.cos(1.3 * x),
        c_o3=0.01 * (1.0 + np.sin(2.0 * x)),
        c_minor=np.zeros_like(x),
        attrs={"model": "made up", "pwv_range_mm": [0.1, 3.0]},
        **(emission if layered else {}),
    )


def opacity_of(table: AtmosphereTable, scene: Scene) -> Any:
    """[3,2,J,C,R] for the oracle: what the table says is not what is tested here."""
    sides = sidebands(table, scene)
    return np.asarray(
        [
            [np.stack([np.asarray(getattr(o, name)) for o in side], axis=-1) for side in sides]
            for name in ("b", "q", "c")
        ]
    )


def emission_of(table: AtmosphereTable, scene: Scene) -> Any:
    """The same of the emission: [5,2,J,C,R]."""
    sides = sidebands(table, scene)
    return np.stack([np.stack([o.emission for o in side], axis=-1) for side in sides], axis=1)


def sidebands(table: AtmosphereTable, scene: Scene) -> Any:
    """The coefficients of each sideband and receiver."""
    n, _, receivers, _ = scene.shape
    offset: Any = (np.arange(n) - 16.0) * RESOLUTION
    return [
        [
            table.channel_opacity(centre + 1e9 * r + sign * offset, RESOLUTION)
            for r in range(receivers)
        ]
        for centre, sign in ((SIGNAL, 1.0), (IMAGE, -1.0))
    ]


def through_steps(
    source: dict[str, Any],
    cals: list[dict[str, Any]],
    table: AtmosphereTable,
    config: CalibrationConfig,
    attrs: dict[str, Any],
) -> dict[str, Any]:
    """The same products as ``calibrate_scan_oracle``, made by the steps."""
    backend = select_backend("cpu", threads=2)
    loads = [load_means(as_group(c), backend) for c in cals]
    scan = Scan(2, "", attrs, {}, as_group(source), None)
    choice = LoadChoice(loads[0], loads[1] if len(loads) > 1 else None)
    return run_tiles(solve_scan(scan, choice, table, config, backend))


def run_tiles(solution: ScanSolution) -> dict[str, Any]:
    """All tiles of a solution, in blocks of seven channels."""
    shape = solution.output_shape
    spectra, flags = np.empty(shape), np.empty(shape, dtype=np.uint16)
    t_sys = np.empty((shape[0], *shape[2:]))
    read = solution.group.counts.read
    for i in range(shape[-1]):
        for c0 in range(0, shape[0], 7):
            c1 = min(c0 + 7, shape[0])
            out = np.empty((c1 - c0, *shape[1:4]))
            bits = np.empty(out.shape, dtype=np.uint16)
            _, scale = calibrate_tile(solution, i, (c0, c1), read, out, bits)
            spectra[c0:c1, ..., i], flags[c0:c1, ..., i] = out, bits
            t_sys[c0:c1, ..., i] = scale.t_sys
    atmosphere = solution.atmosphere
    first = float(atmosphere.pwv[0, 0, 0])
    return {
        "spectra": spectra,
        "flags": flags,
        "t_sys": t_sys,
        "t_rec": solution.loads.t_rec,
        "gamma": solution.loads.gamma,
        "bad": solution.loads.bad,
        "pwv": np.broadcast_to(atmosphere.pwv, (*shape[2:4], shape[4])),
        "tau_signal": zenith_opacity(atmosphere.model, 0, first),
        "tau_image": zenith_opacity(atmosphere.model, 1, first),
        "off_index": solution.pairing.off_index_per_on,
    }


def noisy(group: dict[str, Any], seed: int) -> dict[str, Any]:
    """Radiometer-like noise, rounded to int32 with a few fill values."""
    generator = np.random.default_rng(seed)
    counts = group["counts"] * (1.0 + 2e-4 * generator.standard_normal(group["counts"].shape))
    whole = np.round(100.0 * counts).astype(np.int32)
    whole[generator.random(whole.shape) < 0.01] = np.iinfo(np.int32).min
    return {**group, "counts": whole}


def compare(
    ours: dict[str, Any],
    truth: dict[str, Any],
    names: tuple[str, ...] = ("tau_signal", "tau_image"),
) -> None:
    """Every product of the steps equals that of the oracle; ``names`` of the opacities."""
    assert np.array_equal(ours["bad"], truth["bad"])
    assert np.array_equal(ours["flags"], truth["flags"])
    assert list(ours["off_index"]) == truth["off_index"]
    good = ~truth["bad"]
    # a double holds an MJD to 0.6 microseconds, which the gain drift sees
    np.testing.assert_allclose(ours["t_rec"][good], truth["t_rec"][good], rtol=3e-9)
    np.testing.assert_allclose(ours["gamma"], truth["gamma"], rtol=1e-13)
    np.testing.assert_allclose(ours["pwv"], truth["pwv"], rtol=1e-8)
    np.testing.assert_allclose(ours["t_sys"][good], truth["t_sys"][good], rtol=1e-8)
    scale = np.nanmax(np.abs(truth["spectra"]))
    np.testing.assert_allclose(ours["spectra"], truth["spectra"], rtol=1e-8, atol=1e-9 * scale)
    for name in names:
        wanted = truth[name][:, : ours[name].shape[1]]
        np.testing.assert_allclose(ours[name], wanted, rtol=1e-8)


def both(
    scene: Scene,
    *,
    cals: int = 1,
    step_hz: float = 20e6,
    layered: bool = False,
    edit: Callable[[dict[str, Any], dict[str, Any]], None] | None = None,
    **options: Any,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Calibrate one scene with the steps and with the oracle."""
    table = make_table(step_hz, layered=layered)
    scene.opacity = opacity_of(table, scene)
    scene.emission = emission_of(table, scene) if layered else None
    source = noisy(scene.source(), 7)
    loads = [noisy(scene.cal(400.0 * i), 8 + i) for i in range(cals)]
    if edit is not None:
        edit(source, loads[0])
    attrs = {"f_eff": F_EFF, "gain_image": scene.gain_image}
    if "nod_beams" in source:
        attrs["nod_beams"] = source["nod_beams"]
    config = CalibrationConfig(t_atm=None if layered else T_ATM, fold=False, **options)
    ours = through_steps(source, loads, table, config, attrs)
    asked = {k: v for k, v in options.items() if k not in ("gain_interpolate", "dbs_coupling")}
    truth = oracle.calibrate_scan_oracle(
        source,
        loads[0],
        later_cal=loads[1] if cals > 1 else None,
        gain_interpolate=options.get("gain_interpolate", 0),
        **{**scene.parameters(), **asked},
    )
    return ours, truth


TP = ["OFF", "ON", "ON", "OFF", "ON", "OFF", "ON"]


@pytest.mark.parametrize("reference", ["linear", "nearest", "per-dump"])
def test_total_power(reference: str) -> None:
    compare(*both(Scene(TP), reference=reference))


def test_several_opacity_points_in_a_channel() -> None:
    scene = Scene(["OFF", "ON"])
    results = both(scene, step_hz=4e6)
    assert scene.opacity.shape[2] == 5
    compare(*results)


@pytest.mark.parametrize("gain_image", [0.3, 1.0])
def test_sideband_ratios(gain_image: float) -> None:
    compare(*both(Scene(["OFF", "ON", "OFF"], gain_image=gain_image)))


def test_single_sideband() -> None:
    # a receiver that does not look at its image has no image opacity to compare
    ours, truth = both(Scene(["OFF", "ON", "OFF"], gain_image=0.0))
    compare(ours, truth, ("tau_signal",))


@pytest.mark.parametrize("scope", ["full", "per-pixel", "per-pair"])
@pytest.mark.parametrize("receivers", [1, 2])
def test_scopes(scope: str, receivers: int) -> None:
    scene = Scene(["OFF", "ON", "OFF", "ON"], shape=(32, 2, receivers, 2))
    compare(*both(scene, pwv_scope=scope))


@pytest.mark.parametrize(
    ("scope", "step_hz"),
    [("full", 20e6), ("per-pixel", 20e6), ("per-pair", 20e6), ("full", 8e6)],
)
def test_layered_sky(scope: str, step_hz: float) -> None:
    shape = (20, 1, 1, 2)
    scene = Scene(["OFF", "ON"], shape=shape)
    ours, truth = both(scene, layered=True, step_hz=step_hz, pwv_scope=scope)
    assert (scene.opacity.shape[2] > 1) == (step_hz < 10e6)
    compare(ours, truth)
    # and it matters: with one temperature the sky would be another
    flat, _ = both(Scene(["OFF", "ON"], shape=shape), pwv=0.7)
    assert np.nanmax(np.abs(ours["t_sys"] / flat["t_sys"] - 1.0)) > 5e-3


def test_layers_do_not_count_where_one_temperature_is_given() -> None:
    scene = Scene(["OFF", "ON", "OFF"])
    table, attrs = make_table(20e6, layered=True), {"f_eff": F_EFF, "gain_image": scene.gain_image}
    plain = make_table(20e6)
    scene.opacity = opacity_of(plain, scene)
    source, cal = scene.source(), scene.cal()
    for options in ({"t_atm": T_ATM}, {"t_atm_factor": 0.95}, {"t_atm_offset": -9.0}):
        config = CalibrationConfig(**options)
        one, two = (through_steps(source, [cal], t, config, attrs) for t in (table, plain))
        np.testing.assert_array_equal(one["spectra"], two["spectra"])


def test_elevation_changes_between_the_subscans() -> None:
    def sink(source: dict[str, Any], _: dict[str, Any]) -> None:
        source["elevation"] = source["elevation"] - np.asarray([[0.0, 0.1, 0.2, 0.75]])

    ours, truth = both(Scene(["OFF", "ON", "OFF", "ON"]), edit=sink, pwv_scope="per-pair")
    compare(ours, truth)
    assert np.all(ours["flags"][..., 1] & int(Flag.ELEVATION_LOW))
    assert not np.any(ours["flags"][..., 0] & int(Flag.ELEVATION_LOW))


@pytest.mark.parametrize(
    "options",
    [
        {"pwv": 0.7, "line_scale": "dsb"},
        {"airmass": "plane", "opacity_trust": 0.0},
        {"opacity_trust": 0.2},
        {"clip_tsys": 1.05},
        {"clip_trec": 118.0},
        {"clip_counts": 0.93},
    ],
    ids=["dsb", "no-trust", "much-trust", "clip_tsys", "clip_trec", "clip_counts"],
)
def test_options(options: dict[str, Any]) -> None:
    ours, truth = both(Scene(["OFF", "ON", "OFF"], shape=(48, 2, 1, 2)), **options)
    compare(ours, truth)
    if any(key.startswith("clip") for key in options):
        assert truth["bad"].any()
        assert not truth["bad"].all()


def test_bad_channels_and_lost_references() -> None:
    def break_it(source: dict[str, Any], cal: dict[str, Any]) -> None:
        lost = np.iinfo(np.int32).min
        cal["counts"][10, :, 0, 0, 0] = cal["counts"][10, :, 0, 0, 1] - 50
        cal["counts"][12, :, 0, 1, 1] = lost
        source["counts"][20, :, 0, 0, 0] = lost
        source["counts"][21, :, 0, 0, [0, 3]] = lost

    ours, truth = both(Scene(TP[:4]), edit=break_it)
    assert truth["bad"][10, 0, 0]
    assert truth["bad"][12, 0, 1]
    assert np.isnan(truth["spectra"][21, :, 0, 0, 0]).all()
    compare(ours, truth)


@pytest.mark.parametrize("which", [2, 3])
def test_gain_drift(which: int) -> None:
    scene = Scene(["OFF", "ON", "ON", "OFF"], drift=3e-4)
    compare(*both(scene, cals=2, gain_interpolate=which, pwv=0.7))


@pytest.mark.parametrize(
    ("mode", "modes"),
    [
        ("otf", ["OTF-OFF", "OTF-ON", "OTF-ON", "OTF-OFF"]),
        (
            "otf-chopped",
            ["OTFSWA-ON", "OTFSWA-OFF", "OTFSWB-OFF", "OTFSWB-ON", "OTFSWA-OFF", "OTFSWA-ON"],
        ),
        ("fsw", ["FSW-SIG", "FSW-REF", "FSW-REF", "FSW-SIG"]),
        ("wsw", ["WSW-ON", "WSW-OFF", "WSW-OFF", "WSW-ON"]),
    ],
)
def test_modes(mode: str, modes: list[str]) -> None:
    compare(*both(Scene(modes), mode=mode))


def test_nod() -> None:
    def aim(source: dict[str, Any], _: dict[str, Any]) -> None:
        source["nod_beams"] = [[0, 0], [0, 2]]

    scene = Scene(["NOD-1", "NOD-2", "NOD-2", "NOD-1"], shape=(32, 3, 2, 3))
    compare(*both(scene, mode="nod", edit=aim, pwv=0.7))


def test_double_beam_switching() -> None:
    scene = Scene(["OTFSWA-ON", "OTFSWA-OFF", "OTFSWB-OFF", "OTFSWB-ON"])
    ours, parts = both(scene, mode="otf-chopped", pwv=0.7, dbs_coupling=True)
    spectra, flags = oracle.merge_beams(
        *(parts["spectra"][..., i : i + 1] for i in (0, 1)),
        *(parts["flags"][..., i : i + 1] for i in (0, 1)),
    )
    np.testing.assert_allclose(ours["spectra"], spectra, rtol=1e-10, atol=1e-10)
    assert np.array_equal(ours["flags"], flags)


@pytest.mark.parametrize("scheme", ["vane", "vane-channel"])
def test_vane(scheme: str) -> None:
    scene = Scene(["OFF", "ON"], gain_image=0.4)
    n, _, _, pixels = scene.shape
    tau, air = 0.3, sky.airmass(0.9)
    scene.opacity = np.zeros((3, 2, 1, n, 1))
    scene.opacity[2] = tau
    source, cal = noisy(scene.source(), 7), noisy(scene.cal(), 8)
    backend = select_backend("cpu")
    vane = replace(load_means(as_group(cal), backend), cold=None, t_cold=None)
    config = CalibrationConfig(t_atm=T_ATM, tau=tau, atmosphere="none", cal_scheme=scheme)
    attrs = {"f_eff": F_EFF, "gain_image": scene.gain_image}
    scan = Scan(2, "", attrs, {}, as_group(source), None)
    ours = run_tiles(solve_scan(scan, LoadChoice(vane), None, config, backend))["spectra"]

    counts = oracle_loads.to_counts(source["counts"])
    hot = oracle_loads.to_counts(cal["counts"])
    for a in range(pixels):
        off = [oracle_loads.mean(counts[c, :, 0, a, 0]) for c in range(n)]
        warm = [oracle_loads.mean(hot[c, :, 0, a, 0]) for c in range(n)]
        t_cal = oracle_loads.vane_t_cal(T_HOT, T_ATM, tau, air)
        t_sys = oracle_loads.vane_t_sys(warm, off, t_cal)
        for c in range(n):
            on = float(counts[c, 1, 0, a, 1])
            expected = oracle_loads.vane_spectrum(on, off[c], t_sys)
            if scheme == "vane-channel":
                ch, j_hot = scene.channel(c, 0, a), scene.load(c, 0, a, T_HOT)
                four = (on, off[c], warm[c], off[c])
                expected = oracle_loads.vane_channel_spectrum(four, ch, j_hot, (0.0, air))
            assert ours[c, 1, 0, a, 0] == pytest.approx(expected, rel=1e-9, abs=1e-9, nan_ok=True)


def test_the_comparison_can_fail() -> None:
    ours, truth = both(Scene(["OFF", "ON"]), pwv=0.7)
    compare(ours, truth)
    late = {**ours, "spectra": ours["spectra"] * (1 + 1e-6)}
    with pytest.raises(AssertionError):
        compare(late, truth)
    ours["flags"][3] ^= 1
    with pytest.raises(AssertionError):
        compare(ours, truth)
