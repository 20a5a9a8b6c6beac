"""The counts follow the equations, and T_A* comes back from them by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from gpucal import ConfigError
from gpucal.simulate import Recording, preset, simulate_scan
from gpucal.simulate.setup import InstrumentSetup
from gpucal.simulate.truth import Truth

HK = 4.799243073366221e-11
KINDS = ("tp", "otf", "otf-chopped", "nod", "fsw", "wsw", "wsw-chopped")


def small(name: str = "hera", *, sky_drift: str = "none", drift: float = 0.0) -> InstrumentSetup:
    """A small instrument without fills or gain drift, so that the truth is exact."""
    setup = preset(name, channels=48, dumps=4, n_on=4, sky="isothermal")
    bands = tuple(
        replace(b, receiver=replace(b.receiver, gain_drift_per_h=drift)) for b in setup.bands
    )
    return replace(setup, bands=bands, fill_fraction=0.0, sky_drift=sky_drift)  # type: ignore[arg-type]


def j(nu: float, t: float) -> float:
    x = HK * nu
    return x / math.expm1(x / t)


def tau(table: Any, nu: float, pwv: float) -> float:
    b, q, dry, ozone, minor = (
        float(np.interp(nu, table.freq_hz, column))
        for column in (table.b, table.q, table.c_dry, table.c_o3, table.c_minor)
    )
    return b * pwv + q * pwv * pwv + dry + ozone + minor


class Hand:
    """Scalar equations for one channel, receiver and pixel of a simulated scan."""

    def __init__(self, setup: InstrumentSetup, made: Any, c: int, r: int) -> None:
        band = setup.bands[0]
        offset = (c - band.channels // 2) * band.bandwidth_hz / band.channels
        self.setup, self.table, self.lines = setup, made.table, band.lines
        self.nu = (band.signal_freq[r] + offset, band.image_freq[r] - offset)
        ratio = float(band.receiver.gain_image)
        self.g = (1.0 / (1.0 + ratio), ratio / (1.0 + ratio))
        self.pwv = made.truth.pwv_mm

    def load(self, t: float) -> float:
        return sum(g * j(nu, t) for g, nu in zip(self.g, self.nu, strict=True))

    def t(self, nu: float, airmass: float) -> float:
        return math.exp(-airmass * tau(self.table, nu, self.pwv))

    def sky(self, airmass: float) -> float:
        f, amb, total = self.setup.f_eff, self.setup.weather.t_amb, 0.0
        for g, nu in zip(self.g, self.nu, strict=True):
            t = self.t(nu, airmass)
            inside = j(nu, amb) * (1 - t) + j(nu, 2.725) * t
            total += g * (f * inside + (1 - f) * j(nu, amb))
        return total

    def line(self, nu: float) -> float:
        return sum(
            x.peak_k * math.exp(-4 * math.log(2) * ((nu - x.freq_hz) / x.fwhm_hz) ** 2)
            for x in self.lines
        )

    def source(self, airmass: float, throw: float = 0.0) -> float:
        """K at the input; the exact mode moves the source in frequency, not the sky's emission."""
        return self.setup.f_eff * sum(
            g * self.t(nu + throw, airmass) * self.line(nu + throw)
            for g, nu in zip(self.g, self.nu, strict=True)
        )


def good_channel(truth: Truth, near: int) -> int:
    return next(c for c in range(near, near + 12) if not truth.bad[c].any())


@pytest.mark.parametrize("kind", KINDS)
def test_one_channel_of_each_mode_by_hand(kind: str) -> None:
    setup = small()
    made = simulate_scan(setup, kind)  # type: ignore[arg-type]
    source, loads = made.scan.source, made.scan.calibration
    assert source is not None
    assert loads is not None
    c, r, a, d = good_channel(made.truth, 23), 1, 4, 2
    hand = Hand(setup, made, c, r)
    data, cal = source.counts.data, loads.counts.data  # type: ignore[attr-defined]
    t_rec = float(made.truth.t_rec[c, r, a])
    gain = cal[c, 0, r, a, 0] / (t_rec + hand.load(setup.loads.t_hot))
    assert cal[c, 3, r, a, 1] == pytest.approx(gain * (t_rec + hand.load(setup.loads.t_cold)))
    airmass = 1.0 / math.sin(source.elevation[0, 0])
    throws = {"FSW-SIG": 30e6, "FSW-REF": -30e6}
    for s, mode in enumerate(source.sobsmode):
        kelvin = t_rec + hand.sky(airmass)
        plan = made.plan.source[s]
        if plan.on_source[d] and kind != "nod":  # pixel 4 is on the axis
            lon, lat = plan.lon[d] / setup.source_fwhm_deg, plan.lat[d] / setup.source_fwhm_deg
            weight = math.exp(-4 * math.log(2) * (lon * lon + lat * lat))
            kelvin += weight * hand.source(airmass, throws.get(mode, 0.0))
        assert data[c, d, r, a, s] == pytest.approx(gain * kelvin, rel=1e-12), mode


def calibrated(made: Any, on: Any, ref: Any, airmass: float) -> Any:
    """(C_on - C_ref) gamma / (C_hot - C_cold) / t_sig for counts [C,D,R,A]."""
    loads, truth = made.scan.calibration, made.truth
    cal = loads.counts.data
    hot = cal[..., loads.sobsmode.index("HOT")].mean(axis=1)
    cold = cal[..., loads.sobsmode.index("COLD")].mean(axis=1)
    nu = truth.frequency
    opacity = np.array([[tau(made.table, x, truth.pwv_mm) for x in row] for row in nu])
    with np.errstate(divide="ignore", invalid="ignore"):
        factor = truth.gamma / (hot - cold) / np.exp(-airmass * opacity)[:, :, None]
        return (on - ref) * factor[:, None]


def reference_of(source: Any, s: int, kind: str) -> Any:
    """The reference counts of ON subscan s, by the simplest rule that fits the mode."""
    data, modes = source.counts.data, source.sobsmode
    if kind in ("tp", "otf"):
        before = max(i for i in range(s) if modes[i].endswith("OFF"))
        after = min(i for i in range(s, len(modes)) if modes[i].endswith("OFF"))
        t = source.mjd_mid
        w = (t[s] - t[before]) / (t[after] - t[before])
        one, two = (data[..., i].mean(axis=1, keepdims=True) for i in (before, after))
        return (1 - w) * one + w * two
    return data[..., s + 1]


@pytest.mark.parametrize(
    ("preset_name", "kind"),
    [
        *(("hera", kind) for kind in KINDS),
        *((name, kind) for name in ("upgreat", "superc") for kind in KINDS if kind != "fsw"),
    ],
)
def test_t_a_star_comes_back(preset_name: str, kind: str) -> None:
    setup = small(preset_name)
    made = simulate_scan(setup, kind)  # type: ignore[arg-type]
    source, truth = made.scan.source, made.truth
    assert source is not None
    airmass = 1.0 / math.sin(source.elevation[0, 0])
    good = ~truth.bad[:, None]
    for s in truth.on_index.tolist():
        data = source.counts.data  # type: ignore[attr-defined]
        want = truth.t_a_star(s)
        if kind == "wsw-chopped":  # the source is in chop phase 0 at nod A and in 1 at nod B
            phase = 0 if source.sobsmode[s] == "WSW-ON" else 1
            on, ref = data[:, phase::2, ..., s], data[:, 1 - phase :: 2, ..., s]
            want = want[:, ::2]
        else:
            on, ref = data[..., s], reference_of(source, s, kind)
        result = calibrated(made, on, ref, airmass)
        if kind == "nod":
            result[..., 0, -1] = -result[..., 0, -1]  # the second beam has its source in NOD-2
        where = np.broadcast_to(good, result.shape)
        np.testing.assert_allclose(result[where], want[where], atol=1e-8)
        assert float(np.max(want)) > 0.5


def test_image_line_is_part_of_the_truth() -> None:
    setup = small("upgreat")
    band = setup.bands[0]
    quiet = replace(setup, bands=(replace(band, lines=band.lines[:3]),))
    with_image = simulate_scan(setup, "tp").truth.profile
    without = simulate_scan(quiet, "tp").truth.profile
    assert float(np.max(with_image - without)) > 1.0


def test_nod_beams() -> None:
    setup = small()
    truth = simulate_scan(setup, "nod").truth
    amplitude = truth.amplitude[:, 0]
    assert np.all(amplitude[:, 0, [0, -1]] == 1.0)
    assert np.count_nonzero(amplitude) == 2 * setup.timing.dumps


def test_otf_map_has_its_peak_on_the_source() -> None:
    setup = replace(small(), timing=replace(small().timing, dumps=21, n_on=5))
    made = simulate_scan(setup, "otf")
    source, truth = made.scan.source, made.truth
    assert source is not None
    lon = source.otf_lon[:, None, None, :] + source.pixel_offset_lon
    lat = source.otf_lat[:, None, None, :] + source.pixel_offset_lat
    distance = np.hypot(lon, lat)[..., truth.on_index]
    nearest = np.unravel_index(np.argmin(distance), distance.shape)
    amplitude = np.moveaxis(truth.amplitude, 1, -1)
    assert amplitude[nearest] == amplitude.max() > 0.9
    assert amplitude.min() < 1e-3


@pytest.mark.parametrize("per_dump", [False, True])
def test_linear_sky_vanishes_in_the_interpolated_reference(per_dump: bool) -> None:
    setup = small(sky_drift="linear-dump" if per_dump else "linear")
    setup = replace(setup, weather=replace(setup.weather, pwv_drift_per_h=2.0))
    made = simulate_scan(setup, "tp")
    source, truth = made.scan.source, made.truth
    assert source is not None
    data, mid = source.counts.data, source.mjd_mid  # type: ignore[attr-defined]
    off = [i for i, m in enumerate(source.sobsmode) if m == "OFF"]
    s = int(truth.on_index[0])
    times = source.mjd[:, s] if per_dump else np.array([mid[s]])
    w = ((times - mid[off[0]]) / (mid[off[1]] - mid[off[0]]))[:, None, None]
    one, two = (data[..., i].mean(axis=1)[:, None] for i in off[:2])
    left = data[..., s] - (1 - w) * one - w * two
    dark = (truth.profile[:, 0].max(axis=(1, 2)) < 1e-9) & ~truth.bad.any(axis=(1, 2))
    assert dark.any()
    scale = np.abs(two - one)[dark].max()
    assert scale > 100.0  # the sky did change between the OFFs
    assert np.abs(left[dark]).max() < 1e-6


def test_free_sky_has_its_own_elevation_in_each_dump() -> None:
    made = simulate_scan(small(sky_drift="free"), "tp")
    source, c = made.scan.source, good_channel(made.truth, 20)
    assert source is not None
    assert np.all(np.diff(source.elevation, axis=0) > 0)
    off = source.counts.data[c, :, 0, 4, 0]  # type: ignore[attr-defined]
    assert np.all(np.diff(off) < 0)  # the source rises, the sky becomes thinner


def test_gain_drift_is_undone_by_the_lines_through_two_load_scans() -> None:
    setup = replace(small(drift=0.5), loads=replace(small().loads, separate=True))
    first = simulate_scan(setup, "load", 1)
    start = first.plan.mjd0
    made = simulate_scan(setup, "tp", 2, start=first.plan.end, mjd0=start, lloadsn=1)
    last = simulate_scan(setup, "load", 3, start=made.plan.end, mjd0=start)
    source, truth = made.scan.source, made.truth
    assert source is not None
    assert made.scan.calibration is None
    assert set(source.lloadsn.tolist()) == {1}
    load, t = {}, {}
    for scan in (first.scan, last.scan):
        for i, mode in enumerate(("HOT", "COLD")):
            load[scan.number, mode] = scan.calibration.counts.data[..., i].mean(axis=1)  # type: ignore[union-attr]
            t[scan.number, mode] = scan.calibration.mjd_mid[i]  # type: ignore[union-attr]

    def at(mode: str, mjd: float) -> Any:
        w = (mjd - t[1, mode]) / (t[3, mode] - t[1, mode])
        return (1 - w) * load[1, mode] + w * load[3, mode]

    t1 = 0.5 * (t[1, "HOT"] + t[1, "COLD"])
    hot, cold = at("HOT", t1), at("COLD", t1)
    fixed = np.empty_like(source.counts.data)  # type: ignore[attr-defined]
    with np.errstate(divide="ignore", invalid="ignore"):
        for d in range(setup.timing.dumps):
            for s in range(len(source.sobsmode)):
                h, k = at("HOT", source.mjd[d, s]), at("COLD", source.mjd[d, s])
                raw = source.counts.data[:, d, ..., s]  # type: ignore[attr-defined]
                fixed[:, d, ..., s] = cold + (raw - k) * (hot - cold) / (h - k)
    off = fixed[..., 0].mean(axis=1)
    s = int(truth.on_index[0])
    nu = truth.frequency
    opacity = np.array([[tau(made.table, x, truth.pwv_mm) for x in row] for row in nu])
    airmass = 1.0 / math.sin(source.elevation[0, 0])
    with np.errstate(divide="ignore", invalid="ignore"):
        factor = truth.gamma / (hot - cold) / np.exp(-airmass * opacity)[:, :, None]
        result = (fixed[..., s] - off[:, None]) * factor[:, None]
    good = np.broadcast_to(~truth.bad[:, None], result.shape)
    np.testing.assert_allclose(result[good], truth.t_a_star(s)[good], atol=1e-6)


def test_vane_schemes() -> None:
    setup = small("argus")
    made = simulate_scan(setup, "tp")
    source, loads, truth = made.scan.source, made.scan.calibration, made.truth
    assert source is not None
    assert loads is not None
    assert loads.sobsmode == ("HOT", "SKY")
    assert np.all(np.isnan(loads.tcold))  # type: ignore[arg-type]
    on, off = (source.counts.data[..., s] for s in (1, 0))  # type: ignore[attr-defined]
    off = off.mean(axis=1)
    hot = loads.counts.data[..., 0].mean(axis=1)  # type: ignore[attr-defined]
    hand = [Hand(setup, made, c, 0) for c in range(48)]
    airmass = 1.0 / math.sin(source.elevation[0, 0])
    j_hot = np.array([h.load(setup.loads.t_hot) for h in hand])[:, None, None]
    j_sky = np.array([h.sky(airmass) for h in hand])[:, None, None]
    slant = np.array([-math.log(h.t(h.nu[0], airmass)) for h in hand])[:, None, None]
    t_cal = (j_hot - j_sky) * np.exp(slant)
    result = t_cal[:, None] * (on - off[:, None]) / (hot - off)[:, None]
    np.testing.assert_allclose(result, truth.t_a_star(1), atol=1e-8)

    t_atm, t_warm = setup.weather.t_amb, setup.loads.t_hot
    inner = slice(4, 44)
    tau_mean = np.mean([tau(made.table, h.nu[0], truth.pwv_mm) for h in hand[inner]])
    t_cal = (t_atm - 2.725) + (t_warm - t_atm) * math.exp(airmass * tau_mean)
    t_sys = t_cal * (off[inner].mean(axis=0) / (hot - off)[inner].mean(axis=0))
    approximate = t_sys * (on - off[:, None]) / off[:, None]
    np.testing.assert_allclose(approximate, truth.t_a_star(1, scheme="vane"), atol=1e-8)
    np.testing.assert_allclose(
        truth.vane_tsys[:, 0], np.broadcast_to(t_sys, (48, 1, 16)), rtol=1e-10
    )
    inner_ratio = truth.vane_ratio[inner]
    assert 0.8 < inner_ratio.min() < inner_ratio.max() < 1.2


def test_folded_truth_is_the_fold_of_the_phases() -> None:
    setup = small()
    band = setup.bands[0]
    shift = 4
    throw = 2 * shift * band.freq_res
    setup = replace(setup, bands=(replace(band, throw_hz=throw),))
    made = simulate_scan(setup, "fsw")
    truth = made.truth
    airmass = 1.0 / math.sin(made.scan.source.elevation[0, 0])  # type: ignore[union-attr]
    t = [
        [math.exp(-airmass * tau(made.table, x, truth.pwv_mm)) for x in row]
        for row in truth.frequency
    ]
    own = np.array(t)[:, None, :, None]
    unfolded = truth.t_a_star(0) * own
    weight = (own[:, 0] / (truth.t_rec + truth.sky[:, 0])) ** 2
    # channel c of SIG sees nu(c) + throw/2: its spectrum moves up by `shift` channels
    up, down = np.roll(unfolded, shift, axis=0), np.roll(unfolded, -shift, axis=0)
    w1, w2 = np.roll(weight, shift, axis=0)[:, None], np.roll(weight, -shift, axis=0)[:, None]
    expected = (w1 * up - w2 * down) / (w1 + w2) / own
    folded = truth.folded(0)
    inside = slice(shift, -shift)
    np.testing.assert_allclose(folded[inside], expected[inside], atol=1e-9)
    assert np.isnan(folded[:shift]).all()
    assert np.isnan(folded[-shift:]).all()


def test_receivers_at_different_frequencies_get_their_own_axes() -> None:
    source = simulate_scan(small("upgreat"), "tp").scan.source
    assert source is not None
    assert np.all(source.signal_freq[1] - source.signal_freq[0] == 0.4e9)
    assert np.all(source.freq_res < 0)


def test_bands() -> None:
    made = simulate_scan(small("chai"), "otf", recording=Recording("f64", noise=False))
    assert [scan.band for scan in made.scans] == ["band_1", "band_2"]
    assert not np.array_equal(made.truths[0].t_rec, made.truths[1].t_rec)


def test_bad_channels_look_bad() -> None:
    made = simulate_scan(small(), "tp")
    cal, truth = made.scan.calibration.counts.data.mean(axis=1), made.truth  # type: ignore[union-attr]
    step = cal[..., 0] - cal[..., 1]
    suspicious = (step < 0.01 * np.median(step, axis=0)) | (truth.t_rec > 20000)
    np.testing.assert_array_equal(suspicious, truth.bad)
    assert np.all(truth.bad.sum(axis=0) == 3)


def test_wrong_setups_are_refused() -> None:
    with pytest.raises(ConfigError, match="expected one of hera"):
        preset("nothing")
    with pytest.raises(ConfigError, match="even number"):
        simulate_scan(preset("hera", channels=32, dumps=3, n_on=1), "wsw-chopped")
    with pytest.raises(ConfigError, match="kind of scan"):
        simulate_scan(small(), "stare")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="at least 16"):
        preset("hera", channels=4)
    with pytest.raises(ConfigError, match="no fill value"):
        simulate_scan(preset("hera", channels=32, n_on=1), "tp", recording=Recording("u32"))
    with pytest.raises(ConfigError, match="dtype"):
        Recording("i16")
    band = small().bands[0]
    with pytest.raises(ConfigError, match="one per receiver"):
        replace(small(), bands=(replace(band, signal_freq=(1e11,)),))
