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
