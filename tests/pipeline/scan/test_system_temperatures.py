"""T_sys at the receiver's input and T_sys* above the air: both in L1 by name, for every scheme; physics section 6."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from builders.truth_setup import calibrated, simulate_scan, steady

from gpucal import CalibratedScan, CalibrationConfig
from gpucal.io.l1.memory_scan import MemoryArray, MemoryScan
from gpucal.io.l1.stored_t_sys import StoredTSys
from gpucal.plot.source import ScanView, t_sys_name


def small(name: str, gain_image: float | None = None) -> Any:
    setup = steady(name)
    bands = tuple(
        replace(b, receiver=replace(b.receiver, gain_image=gain_image))
        if gain_image is not None
        else b
        for b in setup.bands
    )
    return replace(setup, pixels=2, bands=bands, fill_fraction=0.0)


def of(simulated: Any, **options: Any) -> CalibratedScan:
    truth = simulated.truths[0]
    if truth.vane_tsys.size:
        options = {"pwv": truth.pwv_mm, **options}
    return calibrated(simulated, CalibrationConfig(**options))


def line_factor(result: CalibratedScan, output: int, *, ssb: bool = True) -> np.ndarray:
    """g_s f_eff exp(-A tau) of an output, f64 [C,R,A], from what L1 holds."""
    l1 = result.l1
    elevation = np.nanmean(np.asarray(l1["elevation"][...])[:, output])
    tau = np.asarray(l1["tau_signal"][...]).reshape(l1["t_sys"].shape[0], -1)
    gain = l1.attrs["gain_signal"] if ssb else 1.0
    factor = gain * l1.attrs["forward_efficiency"] * np.exp(-tau / np.sin(elevation))
    return np.asarray(factor[:, :, None])


CASES = [
    # preset, gain of the image, options, what t_sys is
    ("hera", None, {}, "DSB"),
    ("hera", 0.0, {}, "SSB"),
    ("superc", None, {"line_scale": "dsb"}, "DSB"),
    ("argus", None, {"cal_scheme": "vane-channel"}, "SSB"),
    ("argus", 0.5, {"cal_scheme": "vane-channel"}, "DSB"),
    ("argus", 0.5, {"cal_scheme": "vane-channel", "line_scale": "dsb"}, "DSB"),
]


@pytest.mark.parametrize(("name", "gain", "options", "sidebands"), CASES)
def test_both_are_what_their_names_say(
    name: str, gain: float | None, options: dict[str, Any], sidebands: str
) -> None:
    simulated = simulate_scan(small(name, gain), "tp", 7)
    result, truth = of(simulated, **options), simulated.truths[0]
    good = ~truth.bad
    for j, on in enumerate(result.solution.pairing.on_index):
        t_sys, star = np.asarray(result.t_sys)[..., j], np.asarray(result.t_sys_star)[..., j]
        # a vane is compared with the sky of its OFF, which is as high as the ON here
        np.testing.assert_allclose(t_sys[good], truth.t_sys(int(on))[good], rtol=1e-4)
        ssb = options.get("line_scale") != "dsb"
        factor = np.broadcast_to(line_factor(result, j, ssb=ssb), t_sys.shape)
        np.testing.assert_allclose(star[good], (t_sys / factor)[good], rtol=1e-9)
    l1 = result.l1
    assert l1["t_sys"].attrs["t_sys_convention"] == sidebands
    assert l1["t_sys_star"].attrs["t_sys_convention"] == "T_sys*"
    assert ("g_s" in l1["t_sys_star"].attrs["formula"]) == ssb
    assert result.quality["t_sys_sidebands"] == sidebands
    for name_of, array in (("t_sys", result.t_sys), ("t_sys_star", result.t_sys_star)):
        middle = np.asarray(array)[..., len(result.solution.pairing.on_index) // 2]
        assert result.quality[f"{name_of}_median"] == pytest.approx(np.nanmedian(middle))
    assert sidebands in repr(result)
    assert "T_sys* " in repr(result)


@pytest.mark.parametrize("average", ["mean", "median"])
@pytest.mark.parametrize("gain", [0.0, 0.5])
def test_one_t_sys_per_pixel_of_a_vane(average: str, gain: float) -> None:
    """Scheme "vane": one T_sys* for all channels, and what the receiver sees; the gain of the image is in neither."""
    simulated = simulate_scan(small("argus", gain), "tp", 7)
    result, truth = of(simulated, cal_scheme="vane", vane_average=average), simulated.truths[0]
    for j, on in enumerate(result.solution.pairing.on_index):
        t_sys, star = np.asarray(result.t_sys)[..., j], np.asarray(result.t_sys_star)[..., j]
        if average == "mean":
            mine = np.where(truth.bad, np.nan, truth.vane_tsys[:, truth.position(int(on))])
            np.testing.assert_allclose(star, mine, rtol=1e-9)
        seen = np.where(truth.bad, np.nan, truth.t_sys(int(on)))
        found, expected = (np.nanmean(x[26:-26], axis=0) for x in (t_sys, seen))
        # means of channels, J for T; the median is over the edges of the band, too
        np.testing.assert_allclose(found, expected, rtol=0.01 if average == "mean" else 0.03)
        through = np.mean(line_factor(result, j, ssb=False)[26:-26])
        np.testing.assert_allclose(
            np.nanmedian(t_sys), np.nanmedian(star) * float(through), rtol=1e-3
        )


def test_the_night_of_the_tutorial_has_the_right_size() -> None:
    """At 230 GHz through 3 mm of water: about 199 K at the receiver, 300 to 316 K above the air."""
    result = of(simulate_scan(small("hera"), "otf", 7))
    assert 195 < result.quality["t_sys_median"] < 203
    assert 300 < result.quality["t_sys_star_median"] < 316


def older(scan: MemoryScan, convention: str, values: str) -> MemoryScan:
    """The scan as it was written before L1 held both: ``values`` under the name t_sys."""
    arrays = {name: array for name, array in scan.arrays.items() if name != "t_sys_star"}
    was = scan.arrays[values]
    arrays["t_sys"] = MemoryArray(was.values, was.dims, {"t_sys_convention": convention})
    return replace(scan, arrays=arrays)


@pytest.mark.parametrize("line_scale", ["ssb", "dsb"])
def test_older_stores_give_t_sys_star_all_the_same(line_scale: str) -> None:
    result = of(simulate_scan(small("upgreat"), "tp", 7), line_scale=line_scale)
    # --line-scale is an attribute of the band in L1
    now, before = StoredTSys(result.l1), StoredTSys(older(result.l1, "DSB", "t_sys"))
    for output in range(result.l1["t_sys"].shape[3]):
        np.testing.assert_allclose(before.star(output), now.star(output), rtol=1e-6)
        one = before.star(output, slice(10, 20), (1, 1))
        np.testing.assert_allclose(one, now.star(output)[10:20, 1, 1], rtol=1e-6)
    assert before.sidebands == now.sidebands == "DSB"
    single = replace(older(result.l1, "DSB", "t_sys"), attrs={"gain_signal": 1.0})
    assert StoredTSys(single).sidebands == "SSB"  # it was called DSB without an image, too
    bare = replace(older(result.l1, "DSB", "t_sys"), attrs={})
    assert np.isnan(StoredTSys(bare).star(0)).all()  # it does not tell its gains


def test_an_older_store_of_a_vane_knows_t_sys_star_alone() -> None:
    simulated = simulate_scan(small("argus"), "tp", 7)
    l1 = of(simulated, cal_scheme="vane").l1
    before = older(l1, "T_sys*", "t_sys_star")
    np.testing.assert_array_equal(StoredTSys(before).star(0), l1["t_sys_star"][..., 0])
    assert np.isnan(StoredTSys(before).at_receiver(0)).all()
    names = [t_sys_name(ScanView(7, "", scan.attrs, scan)) for scan in (before, l1)]
    assert "*" in names[0]
    assert names[1].endswith("SSB")
