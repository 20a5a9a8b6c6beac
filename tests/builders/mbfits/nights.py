"""Simulated nights of APEX as MBFITS: a receiver of two pixels with two basebands, and one of a single pixel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from builders.imbfits import subscans
from builders.imbfits.nights import native_groups
from builders.mbfits.files import DAY, Baseband, Febe, MbScan, Sub
from gpucal import Scan, create_l0, write_l0_scan
from gpucal.simulate import SimulatedScan
from gpucal.simulate.setup import (
    BandSetup,
    InstrumentSetup,
    Line,
    Loads,
    Opacity,
    Receiver,
    Site,
    Timing,
    Weather,
)

SITE = Site(-23.00583, -67.759, 5105.0)
ROTATION, DEWAR = 25.0, 15.0
"""ROTANGLE and DEWANG of the two-pixel receiver, deg."""
REST = 345.79599e9
FEBE = "CHAMP345-XFFTS2"
SPARE = "PI230-FFTS1"
OFF_DEG = (-300.0 / 3600.0, 120.0 / 3600.0)
KINDS = {
    **{m: m for m in ("HOT", "COLD", "SKY", "ON")},
    "OFF": "REF",
    "OTF-ON": "ON",
    "OTF-OFF": "REF",
}


def apex() -> tuple[InstrumentSetup, list[Febe]]:
    """Two pixels of CHAMP in two basebands (one runs backwards), and a receiver of one pixel (the array's first)."""
    quiet = Receiver(120.0, gain_image=0.05, bad_per_pixel=0, gain_drift_per_h=0.0)
    wet = Opacity(0.12, 0.02, 0.05)
    bands = [
        _band("band_champ345_xffts2_1", 345.61e9, 333.7e9, 2e6, 32, wet, quiet),
        _band("band_champ345_xffts2_2", 345.9e9, 333.4e9, -3e6, 24, wet, quiet),
    ]
    setup = _setup(tuple(bands), 2)
    x, y = (o[0] for o in setup.pixel_offsets())
    angle = np.deg2rad(-(ROTATION + DEWAR))
    c, s = np.cos(angle), np.sin(angle)
    places = np.stack([c * x - s * y, s * x + c * y], axis=1)
    # feeds 3 and 1 are in use, in that order; the reference is feed 2, which is not; offsets count from it
    shift = np.array([0.002, -0.001])
    table = [places[1] + shift, shift, places[0] + shift, (9.0, 9.0)]
    offsets = [(float(a), float(b)) for a, b in table]
    basebands = [_baseband(k + 1, b) for k, b in enumerate(bands)]
    champ = Febe(FEBE, basebands, (3, 1), None, offsets, reference=2)
    return setup, [champ]


def single(throw_hz: float = 0.0) -> tuple[InstrumentSetup, list[Febe]]:
    """One pixel, one baseband."""
    quiet = Receiver(90.0, gain_image=0.05, bad_per_pixel=0, gain_drift_per_h=0.0)
    wet = Opacity(0.12, 0.02, 0.05)
    band = _band("band_pi230_ffts1_1", 230.5e9, 218.5e9, 2e6, 48, wet, quiet, throw_hz)
    return _setup((band,), 1), [Febe(SPARE, [_baseband(1, band)])]


def _band(
    name: str,
    signal: float,
    image: float,
    step: float,
    channels: int,
    opacity: Opacity,
    receiver: Receiver,
    throw_hz: float = 0.0,
) -> BandSetup:
    lines = (Line(signal + 3.3 * step, 5.0 * abs(step), 9.0),)
    return BandSetup(
        name, (signal,), (image,), step * channels, channels, opacity, receiver, lines, throw_hz
    )


def _baseband(number: int, band: BandSetup) -> Baseband:
    """The axis told at another pixel than the simulator's reference."""
    pixel = 5.5
    move = (pixel - 1.0 - band.ref_channel) * band.freq_res
    signal, image = band.signal_freq[0] + move, band.image_freq[0] - move
    side = "USB" if signal > image else "LSB"
    return Baseband(number, band.channels, pixel, signal, image, band.freq_res, side, REST)


def _setup(bands: tuple[BandSetup, ...], pixels: int) -> InstrumentSetup:
    return InstrumentSetup(
        name="apex",
        telescope="APEX-12m",
        site=SITE,
        bands=bands,
        receivers=1,
        pixels=pixels,
        pixel_spacing_deg=20 / 3600,
        weather=Weather(1.0, pwv_drift_per_h=0.0, t_amb=270.4, p_amb=412.5341),
        line="CO(3-2)",
        timing=Timing(dumps=4, n_on=2, cal_dumps=2),
        loads=Loads(291.25, 78.5),
        f_eff=0.95,
        kinds=("otf",),
        sky_drift="none",
        fill_fraction=0.0,
    )


def points(febes: Sequence[Febe]) -> list[tuple[str, Sequence[float], str]]:
    """The monitor points of a subscan."""
    found: list[tuple[str, Sequence[float], str]] = [
        ("TAMB_P_HUMID", [270.4 - 273.15, 550.0, 12.0], "C;hPa;%"),
        ("PWV", [1.0], "mm"),
        ("THOTCOLD_C", [250.0, 20.0], "K;K"),
    ]
    bands = [(f.name, band.number) for f in febes for band in f.bands]
    return found + [(f"THOTCOLD_{f}_{n}", [291.25, 78.5], "K;K") for f, n in bands]


def of_simulated(
    made: SimulatedScan, febes: Sequence[Febe], number: int, kind: str, **changes: Any
) -> MbScan:
    """A simulated scan as MBFITS."""
    focus = made.plan.kind == "focus"
    subs = [
        _sub(n, made, which, febes, focus) for n, which in enumerate(subscans(made.scans[0]), 1)
    ]
    return MbScan(number, kind, febes, subs, **changes)


def _sub(
    number: int,
    made: SimulatedScan,
    which: tuple[str, int, str],
    febes: Sequence[Febe],
    focus: bool,
) -> Sub:
    name, s, mode = which
    lead = getattr(made.scans[0], name)
    keys = [(f.name, b.number) for f in febes for b in f.bands]
    data = {
        key: _spectra(_counts(scan, name, s)) for key, scan in zip(keys, made.scans, strict=True)
    }
    lon, lat = (np.nan_to_num(z[:, s]) for z in (lead.otf_lon, lead.otf_lat))
    if mode in ("OTF-OFF", "OFF"):
        lon, lat = lon + OFF_DEG[0], lat + OFF_DEG[1]
    kind = "ON" if made.plan.kind == "skydip" and mode == "SKY" else KINDS[mode]
    sub = Sub(
        number,
        kind,
        lead.mjd[:, s],
        float(lead.exptime[0, s]),
        data,
        lon,
        lat,
        np.rad2deg(lead.azimuth[:, s]),
        np.rad2deg(lead.elevation[:, s]),
        ROTATION,
        mode="OTF" if mode.startswith("OTF") else "TRACK",
        points=points(febes),
        pars={"DEWANG": DEWAR},
    )
    if focus and mode == "ON":
        value = float(made.plan.source[s].focus_mm)
        sub.columns = {"DFOCUS_Z": ("D", np.full(len(sub.middle), value))}
    return sub


def _counts(scan: Scan, name: str, s: int) -> npt.NDArray[Any]:
    """Counts [C, D, A] of a subscan of one receiver."""
    group = getattr(scan, name)
    return np.asarray(group.counts.read(0, group.shape[0], s))[:, :, 0]


def _spectra(counts: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """[C, D, A] as rows of DATA [D, A, C]."""
    return counts.transpose(1, 2, 0)


def interleaved(
    made: SimulatedScan, febes: Sequence[Febe], number: int, pairs: bool, **changes: Any
) -> MbScan:
    """A switched scan, its phases in turn. pairs: two subscans of the simulator become one; else one has both."""
    group = made.scans[0].source
    assert group is not None
    key = (febes[0].name, febes[0].bands[0].number)
    subs = []
    for n, s in enumerate(range(0, group.shape[4], 2 if pairs else 1), 1):
        blocks = [_counts(made.scans[0], "source", k) for k in ((s, s + 1) if pairs else (s,))]
        dumps = len(blocks) * blocks[0].shape[1]
        counts = np.stack(blocks, axis=2).reshape(len(blocks[0]), dumps, -1)
        second = group.sobsmode[s] == "WSW-OFF"
        # phase 1 is always the positive side of the wobbler: the nod decides which one is on the source
        phase = np.arange(dumps) % 2 + 1
        words = {"PHASE1": "WON", "PHASE2": "WOFF"}
        if second:
            words = {"PHASE1": "WOFF", "PHASE2": "WON"}
        if pairs:
            words = {"PHASE1": "FLO", "PHASE2": "FHI"}
        middle = float(group.mjd[0, s]) + np.arange(dumps) / DAY
        nod = 0.0 if pairs else (-60.0 if second else 60.0) / 3600.0
        subs.append(
            Sub(
                n,
                "ON",
                middle,
                1.0,
                {key: _spectra(counts)},
                nod,
                0.0,
                np.rad2deg(float(group.azimuth[0, s])),
                np.rad2deg(float(group.elevation[0, s])),
                phase=phase,
                points=points(febes),
                pars=words,
            )
        )
    return MbScan(number, "ONOFF", febes, subs, phases=2, **changes)


def native(out: Path, setup: InstrumentSetup, made: Mapping[int, SimulatedScan]) -> Path:
    """The same scans as an L0 store, with f32 counts."""
    create_l0(out, telescope="APEX-12m", site=dict(setup.site.__dict__), instrument="MBFITS")
    for number, scan in made.items():
        groups = {s.band: native_groups(s) for s in scan.scans}
        write_l0_scan(out, number, attrs=dict(scan.scans[0].attrs), groups=groups)
    return out
