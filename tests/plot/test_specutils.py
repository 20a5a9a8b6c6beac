"""L1 as specutils.Spectrum: the average, its uncertainty, mask and axis."""

from __future__ import annotations

import builtins
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from builders.synthetic_l1 import write_l1

import gpucal
from gpucal import L1Error
from gpucal.io.l1.reader import L1Scan

specutils = pytest.importorskip("specutils")
pytestmark = pytest.mark.filterwarnings("default:::astropy")


@pytest.fixture
def scan(tmp_path: Path) -> L1Scan:
    """64 channels, 4 dumps, 2 receivers, 3 pixels, 3 subscans of different exposure and T_sys."""
    path = write_l1(tmp_path / "l1.zarr", (3,), (64, 4, 2, 3, 3))
    group: Any = zarr.open_group(path / "scan_000003", mode="a")
    rng = np.random.default_rng(2)
    group["exptime"][...] = rng.uniform(1, 3, (4, 3))
    group["t_sys"][...] = group["t_sys"][...] * np.array([1.0, 1.5, 0.8])
    group["spectra"][10, 1, 1, 2, 0] = np.nan
    group["flags"][10, 1, 1, 2, 0] = 2
    group["flags"][20, 0, 1, 2, 1] = 8
    group.attrs.update({"gain_signal": 0.5, "forward_efficiency": 0.95, "rest_freq_hz": 460.8e9})
    return gpucal.open_l1(path)[3]


def star(scan: Any, r: int, a: int) -> Any:
    """T_sys* [C,S]."""
    air = 1 / np.sin(scan["elevation"][...].mean(axis=0))
    t_sig = np.exp(-scan["tau_signal"][...][:, None] * air)
    return scan["t_sys"][:, r, a] / (0.5 * 0.95 * t_sig)


def test_average_and_uncertainty_against_a_plain_sum(scan: Any) -> None:
    found = gpucal.to_spectrum1d(scan, receiver=1, pixel=2)
    values = scan["spectra"][:, :, 1, 2]
    weight = scan["exptime"][...][None] / star(scan, 1, 2)[:, None] ** 2
    rfi = scan["flags"][:, :, 1, 2] == 8
    assert rfi.sum() == 1
    weight = np.where(np.isfinite(values) & ~rfi, weight, 0.0)
    norm = weight.sum(axis=(1, 2))
    dead = norm == 0
    with np.errstate(invalid="ignore", divide="ignore"):
        expected = np.nansum(values * weight, axis=(1, 2)) / norm
        width = np.diff(scan["frequency"][...])[0]
        sigma = 1 / np.sqrt(width * norm)
    np.testing.assert_array_equal(found.mask, dead)
    assert dead.sum() == 1
    assert not found.mask[10]
    np.testing.assert_allclose(found.flux.value[~dead], expected[~dead], rtol=1e-12)
    np.testing.assert_allclose(found.uncertainty.array[~dead], sigma[~dead], rtol=1e-6)
    assert str(found.flux.unit) == "K"
    np.testing.assert_array_equal(found.spectral_axis.value, scan["frequency"][...])
    assert found.rest_value.value == 460.8e9
    assert found.meta["velocity_frame"] == "TOPOCENT"
    assert (found.meta["source"], found.meta["scan"]) == ("DR21", 3)
    assert (found.meta["flags"][10], found.meta["flags"][20]) == (2, 8)


def test_dumps_and_single_subscans(scan: Any) -> None:
    dumps = gpucal.to_spectrum1d(scan, receiver=1, pixel=2, average="none")
    assert dumps.flux.shape == (12, 64)
    rows = scan["spectra"][:, :, 1, 2].transpose(2, 1, 0).reshape(12, 64)
    good = np.isfinite(rows)
    good[4, 20] = False  # RFI, by its flag alone
    np.testing.assert_array_equal(dumps.mask, ~good)
    assert dumps.mask[1, 10]
    np.testing.assert_allclose(dumps.flux.value[good], rows[good], rtol=1e-12)
    per_subscan = gpucal.to_spectrum1d(scan, receiver=1, pixel=2, average="dumps")
    one = gpucal.to_spectrum1d(scan, receiver=1, pixel=2, subscan=1)
    assert per_subscan.flux.shape == (3, 64)
    np.testing.assert_array_equal(per_subscan.flux.value[1][2:], one.flux.value[2:])


def test_a_falling_axis_is_turned(scan: Any) -> None:
    upward = gpucal.to_spectrum1d(scan)
    group: Any = zarr.open_group(scan.path, mode="a")
    group["frequency"][...] = group["frequency"][...][::-1]
    downward = gpucal.to_spectrum1d(gpucal.open_l1(scan.path.parent)[3])
    assert (np.diff(downward.spectral_axis.value) > 0).all()
    np.testing.assert_array_equal(downward.flux.value, upward.flux.value[::-1])
    np.testing.assert_array_equal(downward.mask, upward.mask[::-1])
    np.testing.assert_array_equal(downward.meta["flags"], upward.meta["flags"][::-1])


def test_frame_of_the_source(scan: Any) -> None:
    group: Any = zarr.open_group(scan.path, mode="a")
    moving = {"velocity_frame_mps": -20e3, "velocity_definition": "RADI-LSR"}
    group.attrs.update({**moving, "velocity_source_kms": -3.0})
    found = gpucal.to_spectrum1d(gpucal.open_l1(scan.path.parent)[3])
    b = -20e3 / 299792458.0
    factor = np.sqrt((1 + b) / (1 - b))
    np.testing.assert_allclose(
        found.spectral_axis.value, scan["frequency"][...] * factor, rtol=1e-12
    )
    assert found.meta["velocity_frame"] == "LSRK"
    assert found.meta["radial_velocity"].to_value("km/s") == pytest.approx(-3.0)
    expected = 299792.458 * (1 - scan["frequency"][7] * factor / 460.8e9)
    assert found.velocity[7].to_value("km/s") == pytest.approx(expected, abs=1e-6)


def test_errors(scan: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(L1Error, match="no pixel 3, only 0 to 2"):
        gpucal.to_spectrum1d(scan, pixel=3)
    with pytest.raises(L1Error, match="no subscan 7"):
        gpucal.to_spectrum1d(scan, subscan=7)
    with pytest.raises(L1Error, match="average is 'all'"):
        gpucal.to_spectrum1d(scan, average="all")  # type: ignore[arg-type]
    bands = write_l1(tmp_path / "b.zarr", (3,), (8, 1, 1, 1, 1), bands=("band_1", "band_2"))
    with pytest.raises(L1Error, match=r"bands band_1, band_2.*store\[3, 'band_1'\]"):
        gpucal.to_spectrum1d(gpucal.open_l1(bands)[3])
    assert gpucal.to_spectrum1d(gpucal.open_l1(bands).scan(3, "band_2")).meta["band"] == "band_2"
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "specutils":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(L1Error, match="pip install specutils"):
        gpucal.to_spectrum1d(scan)
