"""What the beam sees beside sky and loads: the temperature of the cabin, and loads that do not fill the beam.

The oracle's scene with a spillover and loads of its own: its counts know nothing of the package.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from oracle import sky
from oracle.scene import F_EFF, RESOLUTION, T_AMB, T_ATM, T_COLD, T_HOT, Scene

from gpucal import CalibrationConfig, ConfigError, Scan, calibrate_scan
from gpucal.steps.scale import scale_of_output

from .test_against_oracle import as_group, make_table, opacity_of

TABLE = make_table(RESOLUTION)


class WarmCabin(Scene):
    """Spillover at ``t_cab``; of the beam ``hot`` and ``cold`` are on the loads, the rest sees ``t_cab``."""

    t_cab, hot, cold = T_AMB, 1.0, 1.0

    def channel(self, c: int, r: int, a: int) -> sky.SkyChannel:
        seen = super().channel(c, r, a)
        return {**seen, "j_amb": tuple(sky.radiation(x, self.t_cab) for x in seen["nu"])}

    def load(self, c: int, r: int, a: int, temperature: float) -> float:
        share = self.hot if temperature == T_HOT else self.cold
        there, stray = (super(WarmCabin, self).load(c, r, a, t) for t in (temperature, self.t_cab))
        return share * there + (1.0 - share) * stray


def scene_of(t_cab: float = T_AMB, hot: float = 1.0, cold: float = 1.0) -> WarmCabin:
    scene = WarmCabin(["OFF", "ON", "OFF"], shape=(64, 2, 1, 2))
    scene.opacity = opacity_of(TABLE, scene)
    scene.t_cab, scene.hot, scene.cold = t_cab, hot, cold
    return scene


def scan_of(scene: Scene) -> Scan:
    attrs = {"f_eff": F_EFF, "gain_image": scene.gain_image}
    return Scan(7, "", attrs, {}, as_group(scene.source()), as_group(scene.cal()))


def line_and_t_rec(scene: Scene, **options: Any) -> tuple[Any, Any, Any]:
    """T_A* in the line [..], T_rec over the truth [C,R,A], and the result."""
    result = calibrate_scan(scan_of(scene), CalibrationConfig(t_atm=T_ATM, **options), table=TABLE)
    line = np.array([scene.is_line(c) for c in range(scene.shape[0])])
    true = np.array([scene.t_rec(*i) for i in np.ndindex(64, 1, 2)]).reshape(64, 1, 2)
    return np.asarray(result.spectra)[line], np.asarray(result.t_rec) / true, result


@pytest.mark.parametrize(("t_cab", "option"), [(290.0, 290.0), (T_HOT, "hot"), (T_AMB, "amb")])
def test_a_spillover_at_the_temperature_of_the_cabin(t_cab: float, option: Any) -> None:
    scene = scene_of(t_cab)
    line, t_rec, result = line_and_t_rec(scene, t_cab=option)
    assert line == pytest.approx(scene.line, abs=1e-6)
    assert t_rec == pytest.approx(1.0, abs=1e-9)
    assert result.solution.atmosphere.pwv == pytest.approx(scene.pwv, abs=1e-8)
    if option != "amb":
        wrong = float(np.median(line_and_t_rec(scene)[0])) / scene.line - 1.0
        # by hand: (1 - f) dJ of spillover is taken for sky of f (J_atm - J_bg) t, and that is dt/t
        assert 0.002 < abs(wrong) < 0.02


@pytest.mark.parametrize(("hot", "cold"), [(0.96, 1.0), (1.0, 0.97), (0.95, 0.98)])
def test_loads_that_do_not_fill_the_beam(hot: float, cold: float) -> None:
    scene = scene_of(285.0, hot, cold)
    options = {"t_cab": 285.0, "hot_coupling": hot, "cold_coupling": cold}
    line, t_rec, result = line_and_t_rec(scene, **options)
    assert line == pytest.approx(scene.line, abs=1e-6)
    assert t_rec == pytest.approx(1.0, abs=1e-9)
    assert result.solution.atmosphere.pwv == pytest.approx(scene.pwv, abs=1e-8)
    assert result.l1.attrs["load_coupling"] == [hot, cold]
    without, other, _ = line_and_t_rec(scene, t_cab=285.0)
    assert abs(float(np.median(without)) / scene.line - 1.0) > 2e-4
    assert abs(float(np.median(other)) - 1.0) > 1e-3


def test_one_number_by_hand() -> None:
    """J_eff = c J(T) + (1 - c) J(T_cab) at 461 and 449 GHz with gains of 1/1.8 and 0.8/1.8."""
    from gpucal.backend.cpu import cpu_backend
    from gpucal.products import Coupling
    from gpucal.steps.loads import load_brightness, spectral_setup

    scene, backend = scene_of(), cpu_backend()
    setup = spectral_setup(scan_of(scene), CalibrationConfig(), backend)
    found = load_brightness(setup, np.array([T_COLD]), backend, Coupling(0.97, 285.0))
    by_hand = 0.0
    for k, gain in enumerate((1 / 1.8, 0.8 / 1.8)):
        nu = scene.channel(16, 0, 0)["nu"][k]
        by_hand += gain * (0.97 * sky.radiation(nu, T_COLD) + 0.03 * sky.radiation(nu, 285.0))
    assert np.asarray(found)[16, 0, 0] == pytest.approx(by_hand, rel=1e-12)


def test_a_stray_beam_at_the_ambient_temperature_of_the_loads() -> None:
    scene = scene_of(T_AMB, 0.95, 0.98)
    line, t_rec, _ = line_and_t_rec(scene, hot_coupling=0.95, cold_coupling=0.98)
    assert line == pytest.approx(scene.line, abs=1e-6)
    assert t_rec == pytest.approx(1.0, abs=1e-9)


def test_vane_by_channel_knows_both() -> None:
    scene = scene_of(288.0, 0.9)
    options = {"t_cab": 288.0, "hot_coupling": 0.9, "cal_scheme": "vane-channel", "pwv": scene.pwv}
    line, _, result = line_and_t_rec(scene, **options)
    assert line == pytest.approx(scene.line, abs=1e-6)
    assert not [w for w in result.solution.warnings if "does nothing" in w]
    assert (
        abs(float(np.median(line_and_t_rec(scene, **{**options, "t_cab": "amb"})[0])) / 5 - 1)
        > 0.002
    )


def test_a_vane_that_does_not_fill_the_beam() -> None:
    """Rayleigh-Jeans by hand: the vane is at c T + (1 - c) T_cab, the line comes back."""
    tau, share, t_cab, line = 0.4, 0.9, 260.0, 8.0
    scene = Scene(["OFF", "ON"], gain_image=0.0, shape=(32, 2, 1, 1))
    scene.opacity = np.zeros((3, 2, 1, 32, 1))
    through = np.exp(-tau / np.sin(0.9))
    off = 100.0 + T_ATM * (1.0 - through) + 2.725 * through
    warm = 100.0 + share * T_HOT + (1.0 - share) * t_cab
    source, cal = as_group(scene.source()), as_group(scene.cal())
    levels = {"OFF": off, "ON": off + line * through, "HOT": warm, "COLD": 200.0}

    def flat(group: Any) -> Any:
        data = np.ones(group.counts.data.shape) * [levels[m] for m in group.sobsmode]
        return replace(group, counts=type(group.counts)(data * 1e3))

    scan = Scan(7, "", {"f_eff": 1.0, "gain_image": 0.0}, {}, flat(source), flat(cal))
    config = CalibrationConfig(
        atmosphere="none", tau=tau, t_atm=T_ATM, cal_scheme="vane", hot_coupling=share, t_cab=t_cab
    )
    assert np.asarray(calibrate_scan(scan, config).spectra) == pytest.approx(line, rel=1e-9)


def test_what_a_vane_does_not_look_at_is_said() -> None:
    scene = scene_of()
    options = {"pwv": scene.pwv, "cal_scheme": "vane", "t_cab": 290.0, "cold_coupling": 0.9}
    *_, result = line_and_t_rec(scene, airmass_per="dump", vane_airmass="sky", **options)
    for option in ("t-cab", "cold-coupling", "airmass-per dump"):
        assert any(f"--{option} does nothing" in w for w in result.solution.warnings)


def test_the_budget_has_a_row_for_a_given_cabin() -> None:
    scene = scene_of(290.0, 0.97, 0.97)
    rows = {}
    for t_cab in ("amb", "hot", 290.0):
        options = {"t_cab": t_cab, "hot_coupling": 0.97, "cold_coupling": 0.97}
        *_, result = line_and_t_rec(scene, **options)
        rows[t_cab] = {row["source"]: row["t_a_star"] for row in result.quality["error_budget"]}
    assert "t_cab" not in rows["amb"]
    assert {"t_cab", "t_amb"} <= set(rows[290.0]) & set(rows["hot"])
    # what the scale of all channels does when the option is off by its error
    both = {"hot_coupling": 0.97, "cold_coupling": 0.97}
    low, high = (
        np.asarray(scale_of_output(found.solution, 0, 0, 64).factor())
        for *_, found in (line_and_t_rec(scene, t_cab=290.0 + dt, **both) for dt in (-2.0, 2.0))
    )
    expected = float(np.median(np.abs(high - low) / (high + low)))
    assert rows[290.0]["t_cab"] == pytest.approx(expected, rel=0.02)
    assert rows["amb"]["t_amb"] != pytest.approx(rows[290.0]["t_amb"], rel=0.01)
    assert rows["hot"]["t_hot"] != pytest.approx(rows[290.0]["t_hot"], rel=0.01)


@pytest.mark.parametrize(
    "wrong", [{"t_cab": 17.0}, {"t_cab": "roof"}, {"hot_coupling": 0.0}, {"cold_coupling": 1.1}]
)
def test_impossible_values_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        CalibrationConfig(**wrong)


@pytest.mark.parametrize(("t_cab", "wanted"), [("amb", None), (291.0, 291.0), ("hot", 0.0)])
def test_a_skydip_has_the_spillover_of_the_cabin(t_cab: Any, wanted: float | None) -> None:
    from builders.truth_setup import simulate_scan, steady

    from gpucal.backend.cpu import cpu_backend
    from gpucal.pipeline.reduction.continuum import raw_continuum
    from gpucal.pipeline.reduction.load_scale import load_scale
    from gpucal.pipeline.reduction.skydip_inputs import sky_of, skydip_series
    from gpucal.steps.loads import load_means

    setup, backend = steady("hera"), cpu_backend()
    scan = simulate_scan(setup, "skydip", 7).scans[0]
    config = CalibrationConfig(t_cab=t_cab)
    scale = load_scale(scan, load_means(scan, config, backend), config, backend)
    seen = sky_of(scan)
    continuum = raw_continuum(seen.group, seen.subscans, scan.band, scale)
    series = skydip_series(seen, continuum, scale, config)[0]
    kelvin = {None: setup.weather.t_amb, 0.0: setup.loads.t_hot}.get(wanted, wanted)
    assert kelvin is not None
    assert series.t_amb == pytest.approx(float(scale.brightness(kelvin)[0, 0]), rel=1e-6)
