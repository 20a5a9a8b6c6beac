"""IMBFITS for tests, written with astropy from the description of the format, and not from the reader.

A file is one scan of one backend. What the description warns of is in every file: dumps marked as bad with times that
mean nothing, dumps outside the subscan, fast samples of the antenna 2 s from the slow ones that share their row and
pointing elsewhere, texts that end at a NUL with more behind it, edge channels that hold nonsense.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from astropy.io import fits

from gpucal import Scan
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

F64 = npt.NDArray[np.float64]
DAY = 86400.0
EPOCH = datetime(1858, 11, 17)
MHZ, GHZ = 1e6, 1e9
DOPPLER = 0.99988
NONSENSE = 7.7e9
"""Counts of edge channels and bad dumps."""
FAST = 128


def iso(mjd: float) -> str:
    """MJD as the headers write it."""
    when = EPOCH + timedelta(microseconds=round(mjd * DAY * 1e6))
    return when.isoformat(timespec="microseconds")


@dataclass
class Tuned:
    """A row of IMBF-frontend; frequencies in the units of the table."""

    name: str
    rest_ghz: float
    sideband: str
    if_mhz: float
    line: str = "LINE"
    columns: dict[str, Any] = field(default_factory=dict)

    def values(self) -> dict[str, Any]:
        """All columns."""
        return {
            "RECNAME": self.name,
            "LINENAME": self.line,
            "RESTFREQ": self.rest_ghz,
            "BEAMEFF": 0.92,
            "ETAFSS": 0.6,
            "GAINIMAG": 0.05,
            "SIDEBAND": self.sideband,
            "SBSEP": 2 * self.if_mhz / 1e3,
            "WIDENAR": "WIDE",
            "TCOLD": 80.0,
            "THOT": 293.5,
            "IFCENTER": self.if_mhz,
            "BANDWID": 4.0,
            "IFFLIPS": 0,
            "SPECLO": 0.0,
            "TSCALE": "antenna",
            "FRQTHROW": 0.0,
            "FRQOFF1": 0.0,
            "FRQOFF2": 0.0,
            **self.columns,
        }

    @property
    def oscillator(self) -> float:
        """Local oscillator on the sky, Hz."""
        side = 1 if self.sideband == "USB" else -1
        return self.rest_ghz * GHZ * DOPPLER - side * self.if_mhz * MHZ


@dataclass
class Row:
    """A row of the backend's table, IF in MHz."""

    part: int
    refchan: int
    chans: int
    dropped: int
    used: int
    receiver: str
    band: str
    reffreq: float
    spacing: float
    polar: str = "NONE"
    pixel: int = 1
    line: str = "LINE"


@dataclass
class Sub:
    """A subscan: rows of DATA as they will lie in the file, and the track of the telescope.

    middle [n] MJD of each row, integration s; phase [n]; data [n, CHANNELS]
    trace  MJD [m], lon, lat (deg), az, el (rad)
    begin, end: MJD of the subscan; None: of its dumps
    """

    number: int
    kind: str
    middle: F64
    exposure: float
    data: npt.NDArray[Any]
    phase: npt.NDArray[Any] | None = None
    trace: dict[str, F64] = field(default_factory=dict)
    system: str = "projection"
    doppler: float | None = DOPPLER
    derotator: tuple[F64, F64] | None = None
    begin: float | None = None
    end: float | None = None
    antenna: dict[str, Any] = field(default_factory=dict)
    backend: dict[str, Any] = field(default_factory=dict)

    @property
    def span(self) -> tuple[float, float]:
        """MJD of its begin and end."""
        half = 0.5 * self.exposure / DAY
        first = float(self.middle.min()) - half if self.begin is None else self.begin
        return first, float(self.middle.max()) + half if self.end is None else self.end


@dataclass
class Night:
    """A file to be: what the headers say."""

    scan: int
    obstype: str
    receivers: Sequence[Tuned]
    rows: Sequence[Row]
    subs: list[Sub]
    backend: str = "FTS"
    version: str = "2.13"
    project: str = "123-45"
    switch: str = "totalPower"
    phases: int = 1
    stamp: float | None = 0.5
    source: str = "ORION"
    channels: int | None = None
    primary: dict[str, Any] = field(default_factory=dict)
    head: dict[str, Any] = field(default_factory=dict)
    front: dict[str, Any] = field(default_factory=dict)
    offsets: Sequence[tuple[str, float, float]] = ()
    without: Sequence[str] = ()

    @property
    def old(self) -> bool:
        """Whether it is of version 1."""
        return float(self.version) < 2

    def name(self) -> str:
        """The name that the telescope gives."""
        day = iso(self.subs[0].span[0])[:10].replace("-", "")
        word = {"CONT": "continuum"}.get(self.backend, self.backend.lower())
        return f"iram30m-{word}-{day}s{self.scan}-imb.fits"

    def units(self) -> fits.HDUList:
        """All tables, in the order of the version."""
        begin = self.subs[0].span[0]
        primary = fits.PrimaryHDU()
        cards: dict[str, Any] = {
            "TELESCOP": "IRAM 30m",
            "IMBFTSVE": self.version,
            "INSTRUME": self.backend,
            "OBJECT": self.source,
            "TIMESYS": "UTC",
            "DATE-OBS": iso(begin),
            "PROJID": self.project,
            "N_OBS": len(self.subs),
            "N_OBSP": len(self.subs),
            "OBSTYPE": self.obstype,
            **self.primary,
        }
        fill(primary.header, cards)
        made = [primary, *self._heads(begin)]
        for sub in self.subs:
            data, antenna = self._data(sub), self._antenna(sub)
            mirror = table("IMBF-subreflector", {"FOCUS_Z": ("E", [0.0])}, self._keys(sub))
            derotator = [self._derotator(sub)] if sub.derotator is not None else []
            cryostat = [table("IMBF-hera-cryot", {"TEMP": ("E", [4.2])}, self._keys(sub))]
            if self.old:
                made += [antenna, mirror, *cryostat, *derotator, data]
            else:
                made += [data, antenna, mirror, *derotator]
        kept = [u for u in made if u.name.upper() not in [w.upper() for w in self.without]]
        return fits.HDUList(kept)

    def write(self, folder: Path) -> Path:
        """The file, by the telescope's name."""
        path = folder / self.name()
        self.units().writeto(path, overwrite=True)
        return path

    def _heads(self, begin: float) -> list[Any]:
        cards: dict[str, Any] = {
            "SITELONG": -3.39875641986850,
            "SITELAT": 37.0684132670517,
            "SITEELEV": 2851.5,
            "PROJID": self.project,
            "SCANNUM": self.scan,
            "DATE-OBS": iso(begin),
            "MJD": begin,
            "OBJECT": self.source,
            "CTYPE1": "RA---SFL",
            "CTYPE2": "DEC--SFL",
            "EQUINOX": 2000.0,
            "LONGOBJ": 83.8097,
            "LATOBJ": -5.3724,
            "TAMBIENT": 2.25,
            "PRESSURE": 720.0,
            "HUMIDITY": 20.0,
            "THOT": 291.0,
            "SWTCHMOD": self.switch,
            "NOSWITCH": self.phases,
            **self.head,
        }
        front = {
            "SCANNUM": self.scan,
            "DEWRTMOD": "sky",
            "VELOSYS": 9.0,
            "SPECSYS": "LSR",
            "VELOCONV": "radio",
            **self.front,
        }
        values = [r.values() for r in self.receivers]
        columns = {
            k: (form_of(k, [v[k] for v in values]), [v[k] for v in values]) for k in values[0]
        }
        frontend = table("IMBF-frontend", columns, front)
        if self.old:
            return [table("IMBF-scan", self._backend_columns(), cards), frontend]
        offsets = {
            "SYSOFF": ("15A", [o[0] for o in self.offsets]),
            "XOFFSET": ("D", [o[1] for o in self.offsets]),
            "YOFFSET": ("D", [o[2] for o in self.offsets]),
        }
        backend = table("IMBF-backend", self._backend_columns(), {"SCANNUM": self.scan})
        return [table("IMBF-scan", offsets, cards), frontend, backend]

    def _backend_columns(self) -> dict[str, tuple[str, list[Any]]]:
        r = self.rows
        receiver, band = ("REC1", "REC2") if self.old else ("RECEIVER", "BAND")
        columns: dict[str, tuple[str, list[Any]]] = {
            "PART": ("J", [x.part for x in r]),
            "REFCHAN": ("J", [x.refchan for x in r]),
            "CHANS": ("J", [x.chans for x in r]),
            "DROPPED": ("J", [x.dropped for x in r]),
            "USED": ("J", [x.used for x in r]),
            "PIXEL": ("J", [x.pixel for x in r]),
            receiver: ("12A", [x.receiver for x in r]),
            band: ("12A", [x.band for x in r]),
            "POLAR": ("8A", [x.polar for x in r]),
            "REFFREQ": ("E", [x.reffreq for x in r]),
            "SPACING": ("E", [x.spacing for x in r]),
        }
        if not self.old:
            columns["LINENAME"] = ("12A", [x.line for x in r])
        return columns

    def _keys(self, sub: Sub) -> dict[str, Any]:
        first, last = sub.span
        return {
            "SCANNUM": self.scan,
            "OBSNUM": sub.number,
            "DATE-OBS": iso(first),
            "DATE-END": iso(last),
        }

    def _data(self, sub: Sub) -> Any:
        """The counts, with a dump before the subscan, and after the second row one that is bad."""
        n = len(sub.middle)
        phase = np.ones(n, int) if sub.phase is None else np.asarray(sub.phase)
        stamp = 1.0 if self.stamp is None else self.stamp
        mjd = sub.middle + (stamp - 0.5) * sub.exposure / DAY
        keys = self._keys(sub) | {
            "CHANNELS": sub.data.shape[1],
            "NPHASES": self.phases,
            "PHASEONE": "ON",
        }
        if self.stamp is not None:
            keys["TSTAMPED"] = self.stamp
        columns: dict[str, tuple[str, Any]] = {
            "MJD": ("D", mjd),
            "INTEGTIM": ("D", np.full(n, sub.exposure)),
            "ISWITCH": ("J", phase),
            "DATA": (f"{sub.data.shape[1]}E", sub.data),
        }
        word = self.backend
        return table(f"IMBF-backend{word}", columns, keys | sub.backend)

    def _antenna(self, sub: Sub) -> Any:
        t = sub.trace
        m = len(t["mjd"])
        late = t["mjd"][:, None] + (2.0 + np.arange(FAST) / FAST) / DAY
        wild = np.full((m, FAST), 0.123)
        columns: dict[str, tuple[str, Any]] = {
            "MJD": ("D", t["mjd"]),
            "LST": ("D", np.zeros(m)),
            "LONGOFF": ("D", np.deg2rad(t["lon"])),
            "LATOFF": ("D", np.deg2rad(t["lat"])),
            "CAZIMUTH": ("D", t["az"]),
            "CELEVATIO": ("D", t["el"]),
            "TRACEFLAG": ("J", np.zeros(m, int)),
            "MJDFAST": (f"{FAST}D", late),
            "AZIMUTH": (f"{FAST}D", wild),
            "ELEVATIO": (f"{FAST}D", wild),
        }
        keys = self._keys(sub) | {
            "OBSTYPE": self.obstype,
            "SUBSTYPE": sub.kind,
            "SYSTEMOF": sub.system,
            "SUBSXOFF": 0.0,
            "SUBSYOFF": 0.0,
        }
        if sub.doppler is not None:
            keys["DOPPLERC"] = sub.doppler
        return table("IMBF-antenna", columns, keys | sub.antenna)

    def _derotator(self, sub: Sub) -> Any:
        assert sub.derotator is not None
        when, angle = sub.derotator
        columns = {"MJD": ("D", when), "sAct": ("E", angle)}
        return table("IMBF-hera-derot", columns, self._keys(sub))


def form_of(name: str, values: Sequence[Any]) -> str:
    """Format of a column of the frontend."""
    if isinstance(values[0], str | bytes):
        return "12A"
    if isinstance(values[0], bool | np.bool_):
        return "L"
    if isinstance(values[0], int):
        return "J"
    return "D" if name in ("RESTFREQ", "IFCENTER", "FRQOFF1", "FRQOFF2") else "E"


def table(name: str, columns: dict[str, tuple[str, Any]], cards: dict[str, Any]) -> Any:
    """A binary table; its texts end at a NUL, with rubbish behind it where there is room."""
    made = []
    for key, (form, values) in columns.items():
        array: Any = values
        if form.endswith("A"):
            width = int(form[:-1])
            texts = [v if isinstance(v, bytes) else str(v).encode() for v in values]
            padded = [(t + b"\0XY" if len(t) + 3 <= width else t) for t in texts]
            array = np.array(padded, dtype=f"S{width}")
        made.append(fits.Column(name=key, format=form, array=array))
    unit = fits.BinTableHDU.from_columns(made, name=name)
    unit.header["EXTNAME"] = name
    fill(unit.header, cards)
    return unit


def fill(header: Any, cards: dict[str, Any]) -> None:
    """Put cards into a header; None leaves one out."""
    for key, value in cards.items():
        if value is None:
            header.pop(key, None)
        else:
            header[key] = value


# --- a simulated night ----------------------------------------------------------------------------


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
    """A simulated scan of one backend as IMBFITS; changes: of the Night. ``by_row``: each row of DATA is of one pixel."""
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
    lon, lat = (np.nan_to_num(x[:, s]) for x in (group.otf_lon, group.otf_lat))
    slope = (lon[-1] - lon[0]) / (times[-1] - times[0])
    x, y = lon[0] + slope * (when - times[0]), np.full(len(when), lat[0])
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
    sub = Sub(number, KINDS[mode], middle, exposure, data, None, trace, derotator=turn)
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
