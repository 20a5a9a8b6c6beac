"""Simulated nights of EMIR and HERA as IMBFITS: bands of the simulator as chunks of a backend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from builders.imbfits.files import DAY, MHZ, NONSENSE, Night, Row, Sub, Tuned
from gpucal import GroupArrays, Scan, create_l0, write_l0_scan
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


@dataclass(frozen=True)
class Chunked:
    """How a simulated band lies in the file: its receiver, PART, name of BAND, number of chunks, edge channels."""

    receiver: Tuned
    part: int
    band: str
    chunks: int
    dropped: int = 3

    @property
    def side(self) -> int:
        """+1 USB, -1 LSB: that of BAND, else of the receiver."""
        letter = self.band[3] if self.band.startswith("E") else self.receiver.sideband[0]
        return 1 if letter == "U" else -1

    def rows(self, band: BandSetup, first: int, pixel: int = 1) -> list[Row]:
        """The rows of the backend's table, the first channel in DATA being ``first`` (from 1)."""
        used = band.channels // self.chunks
        chans = used + 2 * self.dropped
        step = self.side * band.freq_res
        found = []
        for k in range(self.chunks):
            nu = band.signal_freq[0] + (k * used - self.dropped - band.ref_channel) * band.freq_res
            reffreq = round(self.side * (nu - self.receiver.oscillator) / MHZ, 3)
            found.append(
                Row(
                    self.part,
                    first + k * chans,
                    chans,
                    self.dropped,
                    used,
                    self.receiver.name,
                    self.band,
                    reffreq,
                    step / MHZ,
                    pixel=pixel,
                )
            )
        return found

    def spectra(self, counts: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Counts [C, n] as they lie in DATA [n, channels]: nonsense in the edge channels."""
        parts = []
        edge = np.full((counts.shape[1], self.dropped), NONSENSE)
        for part in np.split(counts, self.chunks):
            parts += [edge, part.T, edge]
        return np.concatenate(parts, axis=1)


def simulated_band(
    name: str,
    how: Chunked,
    if_mhz: float,
    spacing_mhz: float,
    channels: int,
    opacity: Opacity,
    receiver: Receiver,
    throw_hz: float = 0.0,
) -> BandSetup:
    """A band of the simulator whose reference channel has an IF."""
    lo = how.receiver.oscillator
    signal = lo + how.side * if_mhz * MHZ
    width = how.side * spacing_mhz * MHZ
    lines = (Line(signal + 3.3 * width, 5.0 * abs(width), 9.0),)
    return BandSetup(
        name,
        (signal,),
        (2 * lo - signal,),
        width * channels,
        channels,
        opacity,
        receiver,
        lines,
        throw_hz,
    )


def emir() -> tuple[InstrumentSetup, dict[str, list[Chunked]]]:
    """EMIR: two receivers; FTS with three spectra (one of the other sideband), WILMA with one that runs backwards."""
    e230 = Tuned("E230", 230.538, "LSB", 6250.0)
    e090 = Tuned("E090", 98.0, "USB", 6250.0)
    how = {
        "FTS": [
            Chunked(e230, 1, "E2HLI", 3),
            Chunked(e230, 2, "E2HUI", 3),
            Chunked(e090, 4, "E0VUI", 2),
        ],
        "WILMA": [Chunked(e090, 1, "E0HUI", 1)],
    }
    quiet = Receiver(70.0, gain_image=0.05, bad_per_pixel=0, gain_drift_per_h=0.0)
    wet, dry = Opacity(0.055, 0.012, 0.03), Opacity(0.006, 0.05, 0.004)
    bands = (
        simulated_band("band_fts_1", how["FTS"][0], 6200.0, 2.0, 36, wet, quiet),
        simulated_band("band_fts_2", how["FTS"][1], 6200.0, -2.0, 36, wet, quiet),
        simulated_band("band_fts_4", how["FTS"][2], 6300.5, 1.5, 32, dry, quiet),
        simulated_band("band_wilma_1", how["WILMA"][0], 6250.0, -4.0, 24, dry, quiet),
    )
    return _setup("emir", bands, 1), how


def hera(**changes: Any) -> tuple[InstrumentSetup, dict[str, list[Chunked]]]:
    """HERA: nine pixels in two polarisations, each a receiver of its own; WILMA."""
    one, two = (
        Tuned(f"HERA{k}", 230.538, "USB", 4000.0, columns={"GAINIMAG": 0.1, **changes})
        for k in (1, 2)
    )
    how = {"WILMA": [Chunked(one, 1, "HERA1", 2), Chunked(two, 2, "HERA2", 2)]}
    quiet = Receiver(110.0, gain_image=0.1, bad_per_pixel=0, gain_drift_per_h=0.0)
    wet = Opacity(0.055, 0.012, 0.03)
    throw = 16 * MHZ
    bands = tuple(
        simulated_band(f"band_wilma_{k + 1}", h, 4000.0, 2.0, 32, wet, quiet, throw)
        for k, h in enumerate(how["WILMA"])
    )
    return _setup("hera", bands, 9), how


def single(throw_hz: float = 0.0) -> tuple[InstrumentSetup, dict[str, list[Chunked]]]:
    """EMIR with one spectrum; its throw in the frontend's table, in MHz."""
    throws = {"FRQOFF1": 0.5 * throw_hz / MHZ, "FRQOFF2": -0.5 * throw_hz / MHZ}
    e230 = Tuned("E230", 230.538, "LSB", 6250.0, columns=throws)
    how = {"FTS": [Chunked(e230, 1, "E2HLI", 2)]}
    quiet = Receiver(70.0, gain_image=0.05, bad_per_pixel=0, gain_drift_per_h=0.0)
    wet = Opacity(0.055, 0.012, 0.03)
    band = simulated_band("band_fts_1", how["FTS"][0], 6200.0, 2.0, 48, wet, quiet, throw_hz)
    return _setup("emir", (band,), 1), how


def interleaved(
    made: SimulatedScan, how: Sequence[Chunked], scan: int, pairs: bool, **changes: Any
) -> Night:
    """A switched scan, its phases in turn. pairs: two subscans of the simulator become one; else one has both."""
    group = made.scans[0].source
    assert group is not None
    subs = []
    for n, s in enumerate(range(0, group.shape[4], 2 if pairs else 1), 1):
        blocks = [
            _counts(made.scans[0], "source", k)[:, :, 0] for k in ((s, s + 1) if pairs else (s,))
        ]
        dumps = len(blocks) * blocks[0].shape[1]
        counts = np.stack(blocks, axis=2).reshape(len(blocks[0]), dumps)
        second = group.sobsmode[s] == "WSW-OFF"
        phase = np.arange(dumps) % 2 + 1
        if second:
            phase = 3 - phase
        middle = float(group.mjd[0, s]) + np.arange(dumps) / DAY
        when = np.arange(middle[0] - 3 / DAY, middle[-1] + 3 / DAY, 0.5 / DAY)
        still = np.zeros(len(when))
        nod = 0.0 if pairs else (-60.0 if second else 60.0) / 3600.0
        trace = {
            "mjd": when,
            "lon": still + nod,
            "lat": still,
            "az": still + 1.0,
            "el": still + float(group.elevation[0, s]),
        }
        subs.append(Sub(n, "track", middle, 1.0, how[0].spectra(counts), phase, trace))
    lines = how[0].rows(made_band(made), 1)
    return Night(scan, "onOff", [how[0].receiver], lines, subs, phases=2, **changes)


def made_band(made: SimulatedScan) -> BandSetup:
    """The band of a simulated scan of ``single``: axis alone."""
    group = made.scans[0].source
    assert group is not None
    c = group.shape[0]
    width = float(group.freq_res[0, 0])
    signal, image = float(group.signal_freq[0, 0]), float(group.image_freq[0, 0])
    none = Opacity(0.0, 0.0, 0.0)
    return BandSetup("", (signal,), (image,), width * c, c, none, Receiver(1.0))


def _setup(name: str, bands: tuple[BandSetup, ...], pixels: int) -> InstrumentSetup:
    return InstrumentSetup(
        name=name,
        telescope="IRAM-30M",
        site=Site(37.0684132670517, -3.39875641986850, 2851.5),
        bands=bands,
        receivers=1,
        pixels=pixels,
        pixel_spacing_deg=24 / 3600,
        weather=Weather(3.0, pwv_drift_per_h=0.0, t_amb=275.4, p_amb=540.04464),
        line="CO(2-1)",
        timing=Timing(dumps=4, n_on=2, cal_dumps=2),
        loads=Loads(293.5, 80.0),
        f_eff=0.92,
        kinds=("otf",),
        sky_drift="none",
        fill_fraction=0.0,
    )


KINDS = {
    "HOT": "calAmbient",
    "COLD": "calCold",
    "SKY": "calSky",
    "OTF-ON": "onTheFly",
    "OTF-OFF": "track",
    "ON": "track",
    "OFF": "track",
}
OFF_DEG = (-300.0 / 3600.0, 120.0 / 3600.0)
PLACES = [0, 3, 6, 1, 4, 7, 2, 5, 8]
"""Pixel of the simulator at the place of each pixel of HERA (1..9), the array turned by 90 deg."""


def file_of(
    made: SimulatedScan,
    setup: InstrumentSetup,
    backend: str,
    how: Sequence[Chunked],
    scan: int,
    obstype: str,
    **changes: Any,
) -> Night:
    """A simulated scan of one backend as IMBFITS; changes: of the Night, ``by_row``: a row of DATA is of one pixel."""
    by_row = bool(changes.pop("by_row", False))
    angle = changes.pop("angle", None)
    names = [b.name for b in setup.bands]
    mine = [k for k, name in enumerate(names) if name.startswith(f"band_{backend.lower()}_")]
    assert len(mine) == len(how)
    pixels = range(1, setup.pixels + 1)
    rows: list[Row] = []
    for pixel in pixels:
        at = 1 if by_row else (rows[-1].refchan + rows[-1].chans if rows else 1)
        for k, h in zip(mine, how, strict=True):
            rows += h.rows(setup.bands[k], at, pixel)
            at = rows[-1].refchan + rows[-1].chans
    subs = [
        _sub(n, made, (name, index, mode), mine, how, by_row, angle)
        for n, (name, index, mode) in enumerate(subscans(made.scans[0]), 1)
    ]
    receivers = list(dict.fromkeys(id(h.receiver) for h in how))
    tuned = [next(h.receiver for h in how if id(h.receiver) == r) for r in receivers]
    return Night(scan, obstype, tuned, rows, subs, backend=backend, **changes)


def _sub(
    number: int,
    made: SimulatedScan,
    which: tuple[str, int, str],
    mine: Sequence[int],
    how: Sequence[Chunked],
    by_row: bool,
    angle: float | None,
) -> Sub:
    name, s, mode = which
    group = getattr(made.scans[mine[0]], name)
    c_d_a = [_counts(made.scans[k], name, s) for k in mine]
    n_pixels = c_d_a[0].shape[2]
    order = PLACES if n_pixels == 9 else list(range(n_pixels))
    of_pixel = [
        np.concatenate([h.spectra(x[:, :, a]) for h, x in zip(how, c_d_a, strict=True)], axis=1)
        for a in order
    ]
    times = group.mjd[:, s]
    if by_row:
        data = np.stack(of_pixel, axis=1).reshape(-1, of_pixel[0].shape[1])
        middle = np.repeat(times, n_pixels)
    else:
        data, middle = np.concatenate(of_pixel, axis=1), times
    step = 0.4 / DAY
    exposure = float(group.exptime[0, s])
    when = np.arange(times[0] - 3.3 / DAY, times[-1] + 3.3 / DAY, step)
    lon, lat = (np.nan_to_num(z[:, s]) for z in (group.otf_lon, group.otf_lat))
    x, y = (z[0] + (z[-1] - z[0]) / (times[-1] - times[0]) * (when - times[0]) for z in (lon, lat))
    if mode in ("OTF-OFF", "OFF"):
        x, y = x + OFF_DEG[0], y + OFF_DEG[1]
    trace = {
        "mjd": when,
        "lon": x,
        "lat": y,
        "az": np.full(len(when), float(group.azimuth[0, s])),
        "el": np.full(len(when), float(group.elevation[0, s])),
    }
    turn = None
    if angle is not None:
        samples = np.arange(times[0] - 4 / DAY, times[-1] + 9 / DAY, 5 / DAY)
        turn = (samples, np.full(len(samples), angle))
    kind, antenna = KINDS[mode], dict[str, Any]()
    if made.plan.kind == "skydip" and mode == "SKY":
        kind = "airmass"
    if made.plan.kind == "focus" and mode == "ON":
        kind = "onFocus"
        antenna = {"FOTRANSL": "Z", "FOOFFSET": made.plan.source[s].focus_mm}
    sub = Sub(number, kind, middle, exposure, data, None, trace, derotator=turn, antenna=antenna)
    return with_traps(sub, n_pixels if by_row else 1)


def with_traps(sub: Sub, rows: int = 1) -> Sub:
    """A dump before the subscan and one after it, and a bad one after the first; rows: of one dump."""
    begin, end = sub.span
    step = sub.exposure / DAY
    junk = np.full((rows, sub.data.shape[1]), NONSENSE)
    n = len(sub.middle)
    phase = np.ones(n, int) if sub.phase is None else np.asarray(sub.phase)
    first, last = float(sub.middle[0]), float(sub.middle[-1])
    middle = [[first - step] * rows, sub.middle[:rows], [0.5] * rows, sub.middle[rows:]]
    return Sub(
        sub.number,
        sub.kind,
        np.concatenate([*middle, [last + step] * rows]),
        sub.exposure,
        np.concatenate([junk, sub.data[:rows], junk, sub.data[rows:], junk]),
        np.concatenate(
            [[phase[0]] * rows, phase[:rows], [0] * rows, phase[rows:], [phase[-1]] * rows]
        ),
        sub.trace,
        sub.system,
        sub.doppler,
        sub.derotator,
        begin,
        end,
        sub.antenna,
        sub.backend,
    )


def subscans(scan: Scan) -> list[tuple[str, int, str]]:
    """(group, index, mode) of all subscans in order of time."""
    found = []
    for name in ("calibration", "source"):
        group = getattr(scan, name)
        if group is not None:
            found += [(float(group.mjd_mid[i]), name, i, m) for i, m in enumerate(group.sobsmode)]
    return [(name, i, m) for _, name, i, m in sorted(found)]


def _counts(scan: Scan, name: str, s: int) -> npt.NDArray[Any]:
    """Counts [C, D, A] of a subscan of one receiver."""
    group = getattr(scan, name)
    return np.asarray(group.counts.read(0, group.shape[0], s))[:, :, 0]


SMALL = (
    *("mjd", "exptime", "elevation", "azimuth", "tamb", "pamb"),
    *("signal_freq", "image_freq", "freq_res", "ref_channel", "lloadsn"),
)


def native(out: Path, setup: InstrumentSetup, made: Mapping[int, SimulatedScan]) -> Path:
    """The same scans as an L0 store, with f32 counts."""
    create_l0(out, telescope="IRAM-30M", site=dict(setup.site.__dict__), instrument="IMBFITS")
    for number, scan in made.items():
        groups = {s.band: native_groups(s) for s in scan.scans}
        write_l0_scan(out, number, attrs=dict(scan.scans[0].attrs), groups=groups)
    return out


def native_groups(scan: Scan) -> dict[str, GroupArrays]:
    """The groups of a simulated scan."""
    found = {}
    for name in ("source", "calibration"):
        group = getattr(scan, name)
        if group is None:
            continue
        c, s = group.shape[0], group.shape[4]
        counts = np.stack([np.asarray(group.counts.read(0, c, i)) for i in range(s)], axis=4)
        small = {k: getattr(group, k) for k in SMALL}
        small |= {k: getattr(group, k) for k in ("otf_lon", "otf_lat")}
        if group.freq_throw is not None:
            small["freq_throw"] = group.freq_throw
        if group.chop_phase is not None:
            small["chop_phase"] = group.chop_phase
        if name == "calibration":
            small |= {"thot": group.thot, "tcold": group.tcold}
        found[name] = GroupArrays(counts.astype(np.float32), list(group.sobsmode), small)
    return found
