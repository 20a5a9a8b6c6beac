"""Real GBT data, imported and then calibrated with plain NumPy: which conventions give which numbers.

Independent of the engine: the recipes below are what the engine is compared with. Source: GBT
Memo 302 (vane, W-band loads); airmass of the GBT weather pages (Maddalena).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.groups import known, loads_of, source_of
from scipy.ndimage import median_filter

from gpucal import GpucalWarning, import_sdfits, open_l0
from gpucal.io.l0.store import L0Store

pytest.importorskip("astropy")
pytestmark = pytest.mark.realdata

T_BG = 2.725
LIGHT = 299792458.0


@pytest.fixture(scope="module")
def night(
    realdata: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], tuple[L0Store, list[str]]]:
    """Import a project once; return its store and the warnings."""
    done: dict[str, tuple[L0Store, list[str]]] = {}

    def get(project: str) -> tuple[L0Store, list[str]]:
        if project not in done:
            folder = realdata / "gbt" / project
            if not folder.is_dir():
                pytest.skip(f"{folder}, below GPUCAL_REALDATA, is not there")
            out = tmp_path_factory.mktemp("gbt") / "night.zarr"
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always", GpucalWarning)
                import_sdfits(sorted(folder.glob("*.fits")), out)
            done[project] = open_l0(out), [str(w.message) for w in caught]
        return done[project]

    return get


def counts(group: Any, mode: str) -> np.ndarray:
    """Counts [C, D, A] of the first subscan of a mode, first receiver, f64."""
    block = group.counts.read(0, group.shape[0], group.select(mode)[0])
    return np.asarray(block[:, :, 0, :], dtype=np.float64)


def inner(n_channels: int) -> slice:
    """The inner 80 % of the channels: int(0.1 C) channels off at each end."""
    edge = int(0.1 * n_channels)
    return slice(edge, n_channels - edge)


def gbt_airmass(elevation_rad: float) -> float:
    """Airmass of the GBT tools, from a fit to ray tracing at Green Bank; 1/sin(el) is 0.9 % more."""
    el = np.degrees(elevation_rad)
    return float(-0.0234 + 1.014 / np.sin(np.radians(el + 5.18 / (el + 3.35))))


def vane_t_cal(t_warm: float, t_atm: float, tau: float, airmass: float) -> float:
    """Memo 302 eq. 22: (T_atm - T_bg) + (T_warm - T_atm) exp(A tau), K."""
    return (t_atm - T_BG) + (t_warm - t_atm) * float(np.exp(airmass * tau))


# --- Argus, DR21, frequency switching -----------------------------------------------------------

DR21 = "TGBT22A_603_05"


def dr21_t_sys(store: L0Store, airmass: Callable[[float], float]) -> float:
    """T_sys* from the vane scan and the reference phase of the science scan."""
    load, science = loads_of(store.load(10)[0]), source_of(store.load(12)[0])
    hot, ref = counts(load, "HOT")[:, 0, 0], counts(science, "FSW-REF")[:, 0, 0]
    s = science.select("FSW-REF")[0]
    t_warm = known(load.thot)[0, load.select("HOT")[0]]
    t_cal = vane_t_cal(t_warm, 273.0, 0.1, airmass(science.elevation[0, s]))
    i = inner(ref.size)
    return t_cal * float(np.nanmean(ref[i]) / np.nanmean((hot - ref)[i]))


def test_dr21_layout(night: Any) -> None:
    store, messages = night(DR21)
    assert store.numbers() == [10, 12]
    assert messages == []
    source = source_of(store.load(12)[0])
    assert source.sobsmode == ("FSW-SIG", "FSW-REF")
    assert source.signal_freq[0].tolist() == [93168083880.0, 93168083880.0]
    assert known(source.freq_throw)[0].tolist() == [0.0, 25.0e6]
    assert source.freq_res[0, 0] == -2861.02294921875
    assert source.ref_channel[0, 0] == 32768.0
    assert source.lloadsn.tolist() == [10, 10]
    assert known(loads_of(store.load(10)[0]).thot)[0, 0] == pytest.approx(23.7 + 273.15)


def test_dr21_system_temperature(night: Any) -> None:
    store, _ = night(DR21)
    assert dr21_t_sys(store, gbt_airmass) == pytest.approx(234.340397, rel=5e-7)


def test_dr21_plane_airmass_gives_8e_5_more(night: Any) -> None:
    store, _ = night(DR21)
    plane = dr21_t_sys(store, lambda el: 1.0 / np.sin(el))
    assert plane / 234.340397 - 1.0 == pytest.approx(8.3e-5, abs=3e-6)


def test_dr21_unfolded_spectrum(night: Any, realdata: Path) -> None:
    store, _ = night(DR21)
    reference = np.load(realdata / "gbt" / DR21 / f"{DR21}_dr21_fsw_nofold.npz")["data"][0]
    source = source_of(store.load(12)[0])
    sig, ref = (counts(source, m)[:, 0, 0] for m in ("FSW-SIG", "FSW-REF"))
    spectrum = dr21_t_sys(store, gbt_airmass) * (sig - ref) / ref
    np.testing.assert_array_equal(np.isnan(spectrum), np.isnan(reference))
    np.testing.assert_allclose(spectrum, reference, rtol=0, atol=1e-5)


def test_dr21_reference_called_folded_is_not_folded(realdata: Path) -> None:
    folder = realdata / "gbt" / DR21
    if not folder.is_dir():
        pytest.skip(f"{folder}, below GPUCAL_REALDATA, is not there")
    plain, folded = (
        np.load(folder / f"{DR21}_dr21_fsw_{kind}.npz")["data"][0] for kind in ("nofold", "fold")
    )
    both = np.isfinite(plain) & np.isfinite(folded)
    differs = np.flatnonzero(np.abs(plain - folded)[both] > 1e-9)
    assert differs.tolist() == [int(both.sum()) - 1]


def shifted(values: np.ndarray, channels: float, half_width: int = 16) -> np.ndarray:
    """values at c + channels, by a Lanczos-windowed sinc; NaN where the window leaves the band."""
    whole = int(np.floor(channels))
    taps = np.arange(-half_width + 1, half_width + 1)
    x = channels - whole - taps
    weights = np.sinc(x) * np.sinc(x / half_width)
    weights /= weights.sum()
    out = np.zeros(values.size)
    for tap, weight in zip(taps, weights, strict=True):
        index = np.arange(values.size) + whole + tap
        inside = (index >= 0) & (index < values.size)
        out += weight * np.where(inside, values[np.clip(index, 0, values.size - 1)], np.nan)
    return out


def test_dr21_line(night: Any) -> None:
    """Folded and smoothed by 32 channels: near 3.8 K at v_LSR -2.9 km/s.

    The noise is 0.3 K and the baseline is not flat: above the median within 30 km/s the peak is
    4.24 K, above a running median of 101 smoothed channels 3.81 K.
    """
    store, _ = night(DR21)
    scan = store.load(12)[0]
    source = source_of(scan)
    sig, ref = (counts(source, m)[:, 0, 0] for m in ("FSW-SIG", "FSW-REF"))
    spectrum = dr21_t_sys(store, gbt_airmass) * (sig - ref) / ref
    channel = np.arange(spectrum.size)
    good = np.isfinite(spectrum)
    spectrum = np.interp(channel, channel[good], spectrum[good])
    throw = (known(source.freq_throw)[0, 1] - known(source.freq_throw)[0, 0]) / source.freq_res[
        0, 0
    ]
    # A line at channel c of SIG stands, negative, at c - throw/width of REF: towards higher sky
    # frequency by +25 MHz, hence 8738.13 channels up, as the width is negative.
    folded = 0.5 * (spectrum - shifted(spectrum, -throw))
    smooth = folded.reshape(-1, 32).mean(axis=1)
    nu = source.signal_freq[0, 0] + (channel - source.ref_channel[0, 0]) * source.freq_res[0, 0]
    nu = nu.reshape(-1, 32).mean(axis=1)
    beta = scan.attrs["velocity_frame_mps"] / LIGHT
    in_frame = nu * np.sqrt((1.0 + beta) / (1.0 - beta))
    v_lsr = LIGHT / 1e3 * (1.0 - in_frame / scan.attrs["rest_freq_hz"])  # VELDEF RADI-LSR
    near = np.flatnonzero(np.abs(v_lsr + 3.0) < 30.0)
    line = np.abs(v_lsr[near] + 3.0) < 12.0  # the seven hyperfine components
    level = np.median(smooth[near][~line])
    peak = near[np.argmax(smooth[near])]
    assert v_lsr[peak] == pytest.approx(-2.9, abs=0.1)
    assert smooth[peak] - level == pytest.approx(4.24, abs=0.05)
    running = median_filter(smooth[peak - 200 : peak + 201], 101)[200]
    assert smooth[peak] - running == pytest.approx(3.81, abs=0.05)


def test_dr21_frame_velocity_agrees_with_astropy(night: Any) -> None:
    from astropy import units as u
    from astropy.coordinates import EarthLocation, SkyCoord, SpectralCoord
    from astropy.time import Time
    from astropy.utils import iers

    store, _ = night(DR21)
    scan = store.load(12)[0]
    site = store.attrs["site"]
    place = EarthLocation.from_geodetic(
        site["lon_deg"] * u.deg, site["lat_deg"] * u.deg, site["alt_m"] * u.m
    )
    source = source_of(scan)
    target = SkyCoord(source.otf_lon[0, 0] * u.deg, source.otf_lat[0, 0] * u.deg, frame="fk5")
    with iers.conf.set_temp("auto_download", False), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the source has no distance, and old Earth rotation data
        observer = place.get_itrs(Time(source.mjd[0, 0], format="mjd"))
        sky = SpectralCoord(93.168e9 * u.Hz, observer=observer, target=target)
        rest = sky.with_observer_stationary_relative_to("lsrk").to_value(u.Hz)
    beta = scan.attrs["velocity_frame_mps"] / LIGHT
    ours = 93.168e9 * np.sqrt((1.0 + beta) / (1.0 - beta))
    assert (ours - rest) / 93.168e9 * LIGHT == pytest.approx(0.0, abs=2.0)  # m/s


# --- W-band, hot and cold load ------------------------------------------------------------------

W_BAND = "AGBT15B_244_07"


@pytest.mark.parametrize(
    ("feed", "t_sys", "gain"), [(0, 106.975, 8.8282e-7), (1, 141.988, 1.17917e-6)]
)
def test_w_band_gain_and_system_temperature(
    night: Any, feed: int, t_sys: float, gain: float
) -> None:
    """gain = (T_warm - T_cold)/<C_hot - C_cold>, T_sys = gain <C_sky>; means over the inner 80 %."""
    store, messages = night(W_BAND)
    assert messages == []
    load = loads_of(store.load(130)[0])
    hot, cold, sky = (counts(load, m)[:, 0, feed] for m in ("HOT", "COLD", "SKY"))
    t_hot = known(load.thot)[0, load.select("HOT")[0]]
    t_cold = known(load.tcold)[0, load.select("COLD")[0]]
    assert t_hot == pytest.approx(263.18359375)
    assert t_cold == pytest.approx(54.0 - 0.6 * (87.228489 - 77.0), abs=1e-4)
    i = inner(hot.size)
    found = (t_hot - t_cold) / np.mean((hot - cold)[i])
    assert found == pytest.approx(gain, rel=3e-3)
    assert found * np.mean(sky[i]) == pytest.approx(t_sys, rel=3e-5)


def test_w_band_nod(night: Any) -> None:
    scan = night(W_BAND)[0].load(131)[0]
    assert scan.source.sobsmode == ("NOD-1", "NOD-2")
    assert scan.source.shape == (16384, 3, 1, 2, 2)
    assert scan.attrs["nod_beams"] == [[0, 0], [0, 1]]
    assert scan.source.lloadsn.tolist() == [130, 130]
    # the two beams are 286 arcsec apart
    apart = np.hypot(source_of(scan).pixel_offset_lon, source_of(scan).pixel_offset_lat)[0]
    np.testing.assert_allclose(apart, [[0.0, 0.0794], [0.0794, 0.0]], atol=2e-4)


# --- Argus, 16 feeds ----------------------------------------------------------------------------

ARGUS = "AGBT22A_325_23"
ARGUS_T_SYS = np.array(
    [
        *(498.16, 456.39, 193.61, 206.07, 228.06, 488.43, 392.97, 251.04),
        *(192.16, 197.44, 195.62, 206.53, 281.30, 683.47, 207.18, 244.70),
    ]
)
ARGUS_SKY = {"t_atm": 265.48, "tau": 0.21}


def test_argus_vane_as_recorded(night: Any) -> None:
    """T_sys = T_cal / median over all channels of (vane - sky)/sky, the sky from the SKY scan."""
    store, messages = night(ARGUS)
    assert len(messages) == 1
    assert "recorded at 372.15 K, the air at 268.71 K" in messages[0]
    load = loads_of(store.load(43)[0])
    hot, sky = (counts(load, m).mean(axis=1) for m in ("HOT", "SKY"))  # [C, A]
    s = load.select("SKY")[0]
    t_warm = known(load.thot)[0, load.select("HOT")[0]]
    assert t_warm == pytest.approx(99.0 + 273.15)
    t_cal = vane_t_cal(t_warm, **ARGUS_SKY, airmass=gbt_airmass(load.elevation[:, s].mean()))
    t_sys = t_cal / np.median((hot - sky) / sky, axis=0)
    np.testing.assert_allclose(t_sys, ARGUS_T_SYS, rtol=5e-5)


def test_argus_nod_with_its_own_reference(night: Any) -> None:
    """The recipe of physics section 9 per dump: each beam's OFF dump, inner 80 %."""
    store, _ = night(ARGUS)
    scan, load = store.load(45)[0], loads_of(store.load(43)[0])
    assert scan.attrs["nod_beams"] == [[0, 10], [0, 8]]
    hot = counts(load, "HOT").mean(axis=1)
    t_warm = known(load.thot)[0, load.select("HOT")[0]]
    found = []
    for mode, pixel in (("NOD-2", 10), ("NOD-1", 8)):
        s = source_of(scan).select(mode)[0]
        off = counts(source_of(scan), mode)[..., pixel]
        i = inner(off.shape[0])
        ratio = off[i].mean(axis=0) / (hot[i, pixel][:, None] - off[i]).mean(axis=0)
        elevation = source_of(scan).elevation[:, s]
        t_cal = [vane_t_cal(t_warm, **ARGUS_SKY, airmass=gbt_airmass(el)) for el in elevation]
        found.append(float(np.mean(np.array(t_cal) * ratio)))
    np.testing.assert_allclose(found, [195.85427, 185.70133], rtol=2e-4)
