"""From the L1 store to spectra: values, weights, scales, numbers in the header, and few bytes at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from builders.export import store as export_store
from builders.export.store import F_EFF, SHAPE, make_store, truth

from gpucal import (
    ConfigError,
    CorruptDataError,
    L1Error,
    Selection,
    Spectrum,
    open_l1,
    spectra_of_store,
)

C, D, R, A, S = SHAPE


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("rows"))


def rows(path: Path, **selection: Any) -> list[Spectrum]:
    return list(spectra_of_store(open_l1(path), Selection(**{"scans": frozenset({7})} | selection)))


def test_every_dump_comes_once_and_in_order(store: Path) -> None:
    known = truth(store)
    found = rows(store)
    keys = [(s.subscan, s.dump, s.receiver, s.pixel) for s in found]
    on = {s: int(known.arrays["on_index"][s]) for s in range(S)}
    expected = [
        (on[s], d, r, a)
        for s in range(S)
        for d in range(D)
        for r in range(R)
        for a in range(A)
        if (s, d, r, a) != (0, D - 1, R - 1, A - 1)  # holds no good channel
    ]
    assert keys == expected
    index = {subscan: s for s, subscan in on.items()}
    for s in found:
        place = (s.dump, s.receiver, s.pixel, index[s.subscan])
        np.testing.assert_array_equal(s.values, known.spectra[:, *place])
        assert s.scan == 7


def test_flags_that_are_remarks_do_not_blank(store: Path) -> None:
    flagged = [s for s in rows(store) if s.dump == 1]
    assert flagged
    assert all(np.isfinite(s.values).mean() > 0.9 for s in flagged)


@pytest.mark.parametrize("average", ["none", "dumps", "subscans"])
@pytest.mark.parametrize("chunks", [None, (7, 3, 1, 2, 2)])
def test_a_small_budget_gives_the_same_bytes(
    tmp_path: Path, average: str, chunks: tuple[int, int, int, int, int] | None
) -> None:
    path = make_store(tmp_path, chunks=chunks)
    wide = rows(path, average=average)
    narrow = rows(path, average=average, budget=3000)
    assert len(wide) == len(narrow) > 0
    for a, b in zip(wide, narrow, strict=True):
        np.testing.assert_array_equal(a.values, b.values)
        left, right = ({k: v for k, v in vars(x).items() if k != "values"} for x in (a, b))
        assert repr(left) == repr(right)


def test_average_over_dumps_is_weighted_by_time(store: Path) -> None:
    known = truth(store)
    time = known.arrays["exptime"]
    found = rows(store, average="dumps")
    assert len(found) == S * R * A
    for n, s in enumerate(found):
        sub, (r, a) = n // (R * A), divmod(n % (R * A), A)
        assert (s.receiver, s.pixel, s.dump) == (r, a, -1)
        values = known.spectra[:, :, r, a, sub]
        good = np.isfinite(values)
        weight = np.where(good, time[:, sub], 0.0)
        expected = np.nansum(values * weight, axis=1) / np.where(
            weight.sum(axis=1) > 0, weight.sum(axis=1), np.nan
        )
        np.testing.assert_allclose(s.values, expected, rtol=1e-12)
        dumps = good.any(axis=0)
        assert s.exptime == pytest.approx(time[dumps, sub].sum())
        mean = np.average(known.arrays["mjd"][dumps, sub], weights=time[dumps, sub])
        assert s.mjd == pytest.approx(mean, abs=1e-10)
        assert s.t_sys == pytest.approx(known.t_sys_star[r, a, sub], rel=1e-12)
        offset = np.average(0.01 * np.arange(D)[dumps], weights=time[dumps, sub])
        pixel = known.arrays["pixel_offset_lon"][r, a, sub]
        assert s.offset_lon == pytest.approx(pixel + offset, abs=1e-12)


def test_average_over_subscans_is_weighted_by_t_over_t_sys_squared(store: Path) -> None:
    known = truth(store)
    time = known.arrays["exptime"]
    found = rows(store, average="subscans")
    assert [(s.receiver, s.pixel) for s in found] == [(r, a) for r in range(R) for a in range(A)]
    for s in found:
        values = known.spectra[:, :, s.receiver, s.pixel]
        good = np.isfinite(values)
        star = known.t_sys_star[s.receiver, s.pixel]
        weight = np.where(good, time / star**2, 0.0)
        total = weight.sum(axis=(1, 2))
        expected = np.nansum(values * weight, axis=(1, 2)) / np.where(total > 0, total, np.nan)
        np.testing.assert_allclose(s.values, expected, rtol=1e-12)
        dumps = good.any(axis=0)
        assert s.exptime == pytest.approx(time[dumps].sum())
        noise = s.t_sys**2 / s.exptime
        assert noise == pytest.approx(1.0 / (time / star**2)[dumps].sum(), rel=1e-12)
        elevation = np.average(known.arrays["elevation"][dumps], weights=(time / star**2)[dumps])
        assert s.elevation == pytest.approx(elevation, rel=1e-12)
        assert (s.subscan, s.dump) == (-1, -1)


def test_averaged_noise_is_what_its_t_sys_says(tmp_path: Path) -> None:
    """White noise of T_sys*/sqrt(dnu t) in: the average has the noise of its own T_sys*, exptime."""
    path = make_store(tmp_path, shape=(4096, 6, 1, 2, 2))
    known = truth(path)
    group: Any = zarr.open_group(path, mode="r+")["scan_000007"]
    frequency = known.arrays["frequency"]
    width = frequency[1] - frequency[0]
    sigma = known.t_sys_star[None, None] / np.sqrt(width * known.arrays["exptime"])[:, None, None]
    rng = np.random.default_rng(5)
    shape = known.spectra.shape
    group["spectra"][...] = rng.normal(size=shape) * sigma
    group["flags"][...] = np.zeros(shape, np.uint16)
    for s in rows(path, average="subscans"):
        expected = s.t_sys / np.sqrt(width * s.exptime)
        assert s.values.std() == pytest.approx(expected, rel=5 / np.sqrt(2 * 4096))


def test_t_mb_and_its_efficiencies(store: Path, tmp_path: Path) -> None:
    plain, beam = rows(store), rows(store, scale="tmb", b_eff=0.5)
    assert {s.scale for s in beam} == {"tmb"}
    for a, b in zip(plain, beam, strict=True):
        np.testing.assert_allclose(b.values, a.values * F_EFF / 0.5, rtol=1e-14)
        assert b.t_sys == pytest.approx(a.t_sys * F_EFF / 0.5)
        assert (b.f_eff, b.b_eff) == (F_EFF, 0.5)
    with pytest.raises(ConfigError, match=r"scan 7: T_mb needs .* b_eff is not known"):
        rows(store, scale="tmb")
    own = make_store(tmp_path)
    for name in ("scan_000007", "scan_000012"):
        zarr.open_group(own, mode="r+")[name].attrs["b_eff"] = 0.8
    assert rows(own, scale="tmb")[0].b_eff == 0.8


def test_header_numbers(store: Path) -> None:
    known = truth(store)
    s = rows(store)[5]
    frequency = known.arrays["frequency"]
    np.testing.assert_allclose(s.frequencies, frequency, rtol=0, atol=1e-3)
    assert s.image_frequency == known.arrays["image_frequency"][int(s.ref_channel)]
    assert s.gain_image == pytest.approx(export_store.GAIN_IMAGE)
    assert s.t_rec == pytest.approx(np.median(known.arrays["t_rec"][:, s.receiver, s.pixel]))
    assert s.tau_signal == known.arrays["tau_signal"][C // 2]
    assert (s.t_hot, s.t_cold, s.tamb, s.pamb) == (294.0, 77.0, 268.5, 392.0)
    assert (s.telescope, s.instrument, s.project) == ("CCAT-FYST", "CHAI", "P-17")
    assert (s.observer, s.source, s.line) == ("N. N.", "DR 21(OH)", "CO(4-3)")
    assert (s.site_lat, s.site_lon, s.site_alt) == tuple(export_store.SITE.values())
    assert (s.velocity, s.velocity_frame) == (-3000.0, "LSRK")


@pytest.mark.parametrize("pwv", ["full", "per-pixel", "per-pair", "none"])
def test_pwv_of_every_scope(tmp_path: Path, pwv: str) -> None:
    path = make_store(tmp_path, pwv=pwv)
    values = truth(path).arrays["pwv"]
    s = rows(path, average="dumps")[R * A + 4]
    place = {"per-pixel": (1, 1), "per-pair": (1,)}.get(pwv, ())
    np.testing.assert_equal(s.pwv, values[place])


def test_bands_and_axes_of_receivers(tmp_path: Path) -> None:
    path = make_store(tmp_path, bands=("band_1", "band_2"), own_axes=True)
    found = rows(path, average="subscans")
    assert [s.band for s in found] == ["band_1"] * R * A + ["band_2"] * R * A
    for s in found:
        axis = truth(path, band=s.band).arrays["frequency"][:, s.receiver]
        np.testing.assert_allclose(s.frequencies, axis, rtol=0, atol=1e-3)


def test_a_pixel_without_t_sys_is_weighted_by_time(tmp_path: Path) -> None:
    path = make_store(tmp_path)
    group: Any = zarr.open_group(path, mode="r+")["scan_000007"]
    group["t_sys"][...] = np.nan
    s = rows(path, average="subscans")[0]
    known = truth(path)
    values, time = known.spectra[40, :, 0, 0], known.arrays["exptime"]
    assert s.values[40] == pytest.approx((values * time).sum() / time.sum())
    assert np.isnan(s.t_sys)


def test_vane_stores_hold_t_sys_star_already(tmp_path: Path) -> None:
    path = make_store(tmp_path)
    group: Any = zarr.open_group(path, mode="r+")["scan_000007"]
    group["t_sys"].attrs["t_sys_convention"] = "T_sys*"
    assert rows(path)[0].t_sys == np.median(group["t_sys"][:, 0, 0, 0])


def test_stores_that_hold_both_export_t_sys_star(tmp_path: Path) -> None:
    path = make_store(tmp_path)
    group: Any = zarr.open_group(path, mode="r+")["scan_000007"]
    star = 3.0 * group["t_sys"][...]
    array = group.create_array("t_sys_star", shape=star.shape, dtype="f8")
    array[...] = star
    array.attrs["t_sys_convention"] = "T_sys*"
    group.attrs["line_scale"] = "dsb"  # nothing is derived
    for s in rows(path)[:4]:
        assert s.t_sys == np.median(star[:, s.receiver, s.pixel, 0])


def test_the_noise_of_the_dsb_line_scale_has_no_sideband_gain(tmp_path: Path) -> None:
    path = make_store(tmp_path)
    single = rows(path)[0].t_sys
    zarr.open_group(path, mode="r+")["scan_000007"].attrs["line_scale"] = "dsb"
    assert rows(path)[0].t_sys == pytest.approx(single / (1 + export_store.GAIN_IMAGE))


def test_what_cannot_be_exported_is_said(store: Path, tmp_path: Path) -> None:
    with pytest.raises(L1Error, match="has no scan 8"):
        rows(store, scans=frozenset({7, 8}))
    bent = make_store(tmp_path)
    frequency: Any = zarr.open_group(bent, mode="r+")["scan_000007/frequency"]
    frequency[3] += 10.0
    with pytest.raises(L1Error, match="frequency axis deviates"):
        rows(bent)
    broken = make_store(tmp_path, "broken.zarr")
    chunk = broken / "scan_000007/spectra/c/0/0/0/0/0"
    chunk.write_bytes(chunk.read_bytes()[:40])
    with pytest.raises(CorruptDataError, match="cannot be decoded"):
        rows(broken)
