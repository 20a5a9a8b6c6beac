"""GBT data through the whole engine: import, calibrate, and the numbers that must come out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpucal import main, open_l1

pytestmark = [
    pytest.mark.realdata,
    pytest.mark.filterwarnings("default::gpucal.errors.GpucalWarning"),
]
LIGHT_KMS = 299792.458
ARGUS_T_SYS = [
    498.16, 456.39, 193.61, 206.07, 228.06, 488.43, 392.97, 251.04,
    192.16, 197.44, 195.62, 206.53, 281.30, 683.47, 207.18, 244.70,
]  # fmt: skip
Run = Callable[..., tuple[Any, str]]


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("gbt")


@pytest.fixture
def run(raw: Path, realdata: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Import a project once, calibrate it with options; returns (L1 scan, what was printed)."""

    def calibrate(project: str, scan: int, *options: str) -> tuple[Any, str]:
        l0 = raw / f"{project}.zarr"
        if not l0.exists():
            files = sorted(str(f) for f in (realdata / "gbt" / project).glob("*.fits"))
            assert main(["import", "sdfits", *files, str(l0)]) == 0
        out = tmp_path / "l1.zarr"
        assert main(["calibrate", str(l0), str(out), "--airmass", "gbt", *options]) == 0
        printed = capsys.readouterr()
        return open_l1(out).scan(scan), printed.out + printed.err

    return calibrate


DR21 = ("TGBT22A_603_05", 12, "--atmosphere", "none", "--tau", "0.1", "--t-atm", "273")


def test_dr21_system_temperature_and_unfolded_spectrum(run: Run, realdata: Path) -> None:
    scan, _ = run(*DR21, "--no-fold")
    t_sys = scan["t_sys_star"][:]
    good = t_sys[np.isfinite(t_sys)]
    assert scan["t_sys"].attrs["t_sys_convention"] == "SSB"
    assert good == pytest.approx(234.340397, rel=1e-5)
    stored = np.load(realdata / "gbt" / DR21[0] / "TGBT22A_603_05_dr21_fsw_nofold.npz")
    expected = stored[stored.files[0]].ravel()
    spectrum = scan["spectra"][:].ravel()
    seen = np.isfinite(spectrum) & np.isfinite(expected)
    assert seen.mean() > 0.97
    assert np.max(np.abs(spectrum - expected)[seen]) < 1e-5
    ratio = np.asarray(scan.attrs["qa"]["rms_ratio"])
    assert ratio == pytest.approx(1.0, abs=0.05)


def test_dr21_folded_line_lies_at_its_velocity(run: Run) -> None:
    from scipy.ndimage import median_filter

    scan, _ = run(*DR21)
    spectrum = scan["spectra"][:].ravel()
    channel = np.arange(spectrum.size)
    good = np.isfinite(spectrum)
    filled = np.interp(channel, channel[good], spectrum[good])
    smooth = filled.reshape(-1, 32).mean(axis=1)
    frequency = scan["frequency"][:].reshape(-1, 32).mean(axis=1)
    v_lsr = lsr_velocity(frequency, scan)
    near = np.flatnonzero(np.abs(v_lsr + 3.0) < 30.0)
    peak = near[np.argmax(smooth[near])]
    assert v_lsr[peak] == pytest.approx(-2.9, abs=0.1)
    running = median_filter(smooth[peak - 200 : peak + 201], 101)[200]
    assert smooth[peak] - running == pytest.approx(3.8, abs=0.1)


def lsr_velocity(frequency: np.ndarray, scan: Any) -> np.ndarray:
    """Radio velocity in the LSR, km/s, from topocentric sky frequencies; astropy for the frame."""
    import warnings

    from astropy import units as u
    from astropy.coordinates import EarthLocation, SkyCoord, SpectralCoord
    from astropy.time import Time
    from astropy.utils import iers

    gbt = EarthLocation.from_geodetic(-79.83983 * u.deg, 38.43312 * u.deg, 824.595 * u.m)
    target = SkyCoord(scan["otf_lon"][0, 0] * u.deg, scan["otf_lat"][0, 0] * u.deg, frame="fk5")
    with iers.conf.set_temp("auto_download", False), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the source has no distance; old Earth rotation data
        observer = gbt.get_itrs(Time(scan["mjd"][0, 0], format="mjd"))
        sky = SpectralCoord(frequency * u.Hz, observer=observer, target=target)
        rest = sky.with_observer_stationary_relative_to("lsrk").to_value(u.Hz)
    return np.asarray(LIGHT_KMS * (1.0 - rest / scan.attrs["rest_freq_hz"]))


def test_w_band_gain_and_system_temperature(run: Run) -> None:
    scan, _ = run("AGBT15B_244_07", 131, "--atmosphere", "iram_30m")
    qa = scan.attrs["qa"]
    assert qa["t_sys_from_counts"][0] == pytest.approx([106.975, 141.988], rel=3e-3)
    assert qa["gain_k_per_count"][0] == pytest.approx([8.8282e-7, 1.17917e-6], rel=3e-3)
    ratio = np.asarray(qa["rms_ratio"])
    assert ratio == pytest.approx(1.0, abs=0.1)
    assert scan.attrs["mode"] == "nod"
    # a model sky of another site: T_rec + J_sky still agrees with the counts to a few per cent
    t_sys = np.nanmedian(scan["t_sys"][:], axis=(0, 1, 3))
    assert t_sys == pytest.approx([106.975, 141.988], rel=0.06)


ARGUS = ("AGBT22A_325_23", 45, "--atmosphere", "none", "--tau", "0.21", "--t-atm", "265.48")


def test_sixteen_argus_feeds_as_recorded_and_the_warning(run: Run) -> None:
    scan, printed = run(*ARGUS, "--vane-sky", "sky", "--vane-average", "median")
    t_sys = np.nanmedian(scan["t_sys_star"][:], axis=(0, 1, 3))
    assert t_sys == pytest.approx(ARGUS_T_SYS, rel=1e-4)
    assert "load temperature 372.1 K" in printed
    assert "--t-hot" in printed
    assert any("load temperature" in w for w in scan.attrs["warnings"])


def test_argus_with_its_own_off(run: Run) -> None:
    """dysh, inner 80 % means against the scan's own OFF: pixel 8 in OFF NOD-1, 10 in NOD-2."""
    scan, _ = run(*ARGUS)
    t_sys = np.nanmedian(scan["t_sys_star"][:], axis=(0, 1, 3))
    assert t_sys[10] == pytest.approx(195.85427, rel=2e-3)


def test_the_load_temperature_can_be_overridden(run: Run) -> None:
    scan, _ = run(*ARGUS, "--t-hot", "280", "--json")
    recorded = ARGUS_T_SYS[10]
    t_sys = np.nanmedian(scan["t_sys_star"][:], axis=(0, 1, 3))
    assert t_sys[10] < 0.8 * recorded
    assert scan.attrs["t_hot_k"] == [280.0]
    assert json.dumps(scan.attrs["config"]["t_hot"]) == "280.0"
