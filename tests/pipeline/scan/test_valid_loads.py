"""Loads are judged before they are chosen: bad ones hide neither the good ones before them nor those after."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import zarr
from builders import procedure_scans as scans

from gpucal import CalibrationConfig, LoadError, calibrate_store, open_l0, open_l1, select_backend
from gpucal.pipeline.scan.load_library import LoadLibrary
from gpucal.pipeline.scan.solve import LoadChoice

FIRST, BAD, SCIENCE, LATER = 1, 2, 3, 4
SETTINGS = CalibrationConfig(atmosphere="none", tau=scans.TAU, workers=1)
VANE = SETTINGS.model_copy(update={"cal_scheme": "vane"})
OFF, ON = scans.Sub("OFF", np.full(scans.DUMPS, 600.0)), scans.Sub("ON", strength=8.0)
HOT, COLD, SKY = (scans.Sub(mode) for mode in ("HOT", "COLD", "SKY"))
SCENE = scans.Scene(noise=1.0, seed=4)


def write(path: Path, number: int, source: Any = (), loads: Any = (), **attrs: Any) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scans, "MJD", 61000.2 + 0.004 * number)
        scans.write(path, number, source, SCENE, loads=loads, **{"project": "p", **attrs})


@pytest.fixture(scope="module")
def nights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Loads in 1, 2 and 4, OFF ON OFF in 3: with HOT and COLD, and with HOT and SKY."""
    found = {}
    for name, loads in {"cold": (HOT, COLD), "vane": (HOT, SKY), "bare": (HOT,)}.items():
        path = found[name] = tmp_path_factory.mktemp(name) / "l0.zarr"
        for number in (FIRST, BAD, LATER):
            write(path, number, loads=loads)
        write(path, SCIENCE, (OFF, ON, OFF))
    return found


def spoiled(night: Path, out: Path, how: str, number: int = BAD, pixels: Any = slice(None)) -> Path:
    """The night with one load scan made bad, for some pixels."""
    shutil.copytree(night, out)
    group: Any = zarr.open_group(out / f"scan_{number:06d}" / "calibration", mode="r+")
    hot, other = (group["data_5d"][..., s] for s in (0, -1))
    noise = np.random.default_rng(7).normal(1.0, 3e-3, hot.shape)
    new = {
        "equal": other * noise,
        "zeros": np.zeros_like(hot),
        "nothing": np.full_like(hot, np.nan),
        "weaker": other * 0.7,
        "saturated": np.full_like(hot, np.finfo(hot.dtype).max),
    }
    if how == "stopped":
        group.attrs["sobsmode"] = ["HOT", "HOT"]
    elif how == "cold zeros":
        group["data_5d"][:, :, :, pixels, 1] = 0.0
    elif how == "temperatures":
        group["tcold"][...] = 310.0
    else:
        group["data_5d"][:, :, :, pixels, 0] = new[how][:, :, :, pixels]
    return out


def choice(night: Path, config: CalibrationConfig = SETTINGS) -> LoadChoice:
    library = LoadLibrary(open_l0(night), config, select_backend("cpu"))
    return library.choose(library.scan(SCIENCE)[0])


KINDS = (
    "equal",
    "zeros",
    "nothing",
    "weaker",
    "saturated",
    "cold zeros",
    "temperatures",
    "stopped",
)


@pytest.mark.parametrize("how", KINDS)
def test_a_bad_calibration_does_not_hide_the_good_one(
    nights: dict[str, Path], tmp_path: Path, how: str
) -> None:
    night = spoiled(nights["cold"], tmp_path / "l0.zarr", how)
    found = choice(night)
    assert found.first.scan == FIRST
    assert any(f"load scan {BAD} was passed over" in text for text in found.warnings)
    shutil.rmtree(night / f"scan_{FIRST:06d}")
    assert choice(night).first.scan == LATER  # and one that comes later rescues the scan
    shutil.rmtree(night / f"scan_{LATER:06d}")
    if how != "stopped":  # alone, a HOT may be a vane
        with pytest.raises(LoadError, match=f"Load scan {BAD} was passed over"):
            choice(night)


@pytest.mark.parametrize("kind", ["vane", "bare"])
@pytest.mark.parametrize("how", ["equal", "zeros", "weaker"])
def test_a_vane_that_was_not_in_the_beam(
    nights: dict[str, Path], tmp_path: Path, how: str, kind: str
) -> None:
    if kind == "bare":  # its sky is the OFF of the scan
        off = open_l0(nights["bare"]).load(SCIENCE)[0].source
        assert off is not None
        sky = off.counts.read(0, off.shape[0], 0)
        night = spoiled(nights["bare"], tmp_path / "l0.zarr", "zeros")
        group: Any = zarr.open_group(night / f"scan_{BAD:06d}" / "calibration", mode="r+")
        group["data_5d"][..., 0] = {"equal": sky, "zeros": 0 * sky, "weaker": 0.7 * sky}[how]
    else:
        night = spoiled(nights[kind], tmp_path / "l0.zarr", how)
    assert choice(nights[kind], VANE).first.scan == BAD
    assert choice(night, VANE).first.scan == FIRST


def test_a_calibration_stopped_after_hot_among_vanes_is_a_vane(nights: dict[str, Path]) -> None:
    assert choice(nights["vane"]).first.scan == BAD
    assert choice(nights["vane"]).warnings == ()


def test_the_loads_of_the_scan_itself_are_judged_too(tmp_path: Path) -> None:
    night = tmp_path / "l0.zarr"
    write(night, FIRST, loads=(HOT, COLD))
    write(night, SCIENCE, (OFF, ON, OFF), (HOT, COLD))
    assert choice(night).first.scan == SCIENCE
    assert choice(spoiled(night, tmp_path / "bad", "zeros", SCIENCE)).first.scan == FIRST


def test_the_second_loads_of_a_gain_drift_are_judged_too(
    nights: dict[str, Path], tmp_path: Path
) -> None:
    night = tmp_path / "l0.zarr"
    shutil.copytree(nights["cold"], night)
    write(night, LATER + 1, loads=(HOT, COLD))
    config = SETTINGS.model_copy(update={"gain_interpolate": 3})
    assert choice(night, config).second is not None
    found = choice(spoiled(night, tmp_path / "bad", "equal", LATER), config)
    assert found.second is not None
    assert found.second.scan == LATER + 1


def test_pixels_are_judged_one_by_one(nights: dict[str, Path], tmp_path: Path) -> None:
    """A pixel that is bad in the nearest loads gets those before them; what is bad in all has no data."""
    night = spoiled(nights["cold"], tmp_path / "one", "equal", pixels=[0, 1])
    for number in (FIRST, LATER):
        group: Any = zarr.open_group(night / f"scan_{number:06d}" / "calibration", mode="r+")
        group["data_5d"][..., 1, 0] = group["data_5d"][..., 1, 1]
    group = zarr.open_group(night / f"scan_{FIRST:06d}" / "calibration", mode="r+")
    group["thot"][...] = scans.T_HOT + 3.0  # a warmer load, and its counts with it
    gain = group["data_5d"][:, :, 0, 0, 1] / (scans.T_REC + scans.j(scans.T_COLD))[:, None]
    group["data_5d"][:, :, 0, 0, 0] += (
        gain * (scans.j(scans.T_HOT + 3.0) - scans.j(scans.T_HOT))[:, None]
    )
    report = calibrate_store(night, tmp_path / "l1.zarr", SETTINGS)
    assert not report.failures
    (row,) = report.summaries
    texts = "\n".join(row.warnings)
    assert f"scan {BAD} cannot serve receiver 0 pixel 0: those of scan {FIRST} do" in texts
    assert "no loads can serve receiver 0 pixel 1" in texts
    found: Any = open_l1(tmp_path / "l1.zarr").scan(SCIENCE)
    assert found.attrs["load_scans"] == [BAD, FIRST]
    calibrate_store(nights["cold"], tmp_path / "plain.l1", SETTINGS)
    plain: Any = open_l1(tmp_path / "plain.l1").scan(SCIENCE)
    spectra, good = found["spectra"][...], plain["spectra"][...]
    np.testing.assert_array_equal(spectra[..., 2, :], good[..., 2, :])
    np.testing.assert_allclose(np.nanmedian(found["t_rec"][:, 0, 0]), scans.T_REC, rtol=2e-3)
    lent = np.nanmean(spectra[..., 0, 0, 0])
    np.testing.assert_allclose(lent, np.nanmean(good[..., 0, 0, 0]), atol=0.05)
    assert np.isnan(spectra[..., 1, :]).all()


def test_loads_of_another_project_serve_with_a_word(
    nights: dict[str, Path], tmp_path: Path
) -> None:
    night = tmp_path / "l0.zarr"
    shutil.copytree(nights["cold"], night)
    zarr.open_group(night / f"scan_{BAD:06d}", mode="r+").attrs["project"] = "other"
    found = choice(night)
    assert found.first.scan == BAD
    assert found.warnings == (f"the loads of scan {BAD} were taken for project other.",)


def test_a_night_of_vanes_is_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands of load scans without COLD are looked at one after the other, not one inside the other."""
    vanes: list[Any] = [
        SimpleNamespace(number=n, calibration=SimpleNamespace(sobsmode=["HOT"]))
        for n in range(5000)
    ]
    for name in ("load_time", "time_of"):
        monkeypatch.setattr(f"gpucal.pipeline.scan.load_library.{name}", lambda scan: 0.0)
    library = LoadLibrary(SimpleNamespace(), CalibrationConfig(), select_backend("cpu"))
    notes: list[str] = []
    assert list(library._with_cold(iter(vanes), vanes[0], notes)) == vanes
    assert not notes
    vanes[4].calibration = SimpleNamespace(sobsmode=["HOT", "COLD"])
    found = [scan.number for scan in library._with_cold(iter(vanes), vanes[0], notes)]
    assert found == [0, *range(4, 5000)]
    assert len(notes) == 3
