"""MBFITS for tests, written with astropy from the description of the format, and not from the reader.

A scan is written as one file or as a folder with GROUPING.fits. What the description and public readers warn of is in
every scan: times in TAI, SUBSNUM 0 everywhere and OBSNUM right, a row of counts more than DATAPAR has, -999 for what is
not known, feeds that are not in use, columns of variable length, monitor points of other receivers, texts that end at
a NUL.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from astropy.io import fits

F64 = npt.NDArray[np.float64]
DAY = 86400.0
EPOCH = datetime(1858, 11, 17)
TAI_UTC = 37.0
NONSENSE = 7.7e9
BLANK = -999.0
DOPPLER = 0.99991
EMPTY = fits.PrimaryHDU().header.tostring().encode()
"""A primary header without data."""


def iso(mjd: float) -> str:
    """MJD as the headers write it."""
    when = EPOCH + timedelta(milliseconds=round(mjd * DAY * 1e3))
    return when.isoformat(timespec="milliseconds")


@dataclass
class Baseband:
    """A baseband of a FEBE: sky frequency of the reference pixel (from 1), its image, width of a channel, Hz."""

    number: int
    channels: int
    pixel: float
    signal: float
    image: float
    step: float
    sideband: str = "USB"
    rest: float = 345.79599e9
    velocity: float = 5.0
    cards: dict[str, Any] = field(default_factory=dict)

    def header(self, doppler: float) -> dict[str, Any]:
        """Keywords of ARRAYDATA-MBFITS that describe the axis, without those that the scan gives."""
        cards: dict[str, Any] = {
            "CHANNELS": self.channels,
            "FREQRES": abs(self.step),
            "BANDWID": abs(self.step) * self.channels,
            "MOLECULE": "CO",
            "TRANSITI": "CO(3-2)",
            "RESTFREQ": self.rest,
            "SKYFREQ": self.signal,
            "SIDEBAND": self.sideband,
            "SBSEP": abs(self.signal - self.image),
        }
        axes = {
            "F": (self.signal / doppler, self.step / doppler),
            "I": (self.image / doppler, -self.step / doppler),
            "S": (self.signal, self.step),
            "J": (self.image, -self.step),
        }
        for letter, (value, step) in axes.items():
            cards |= {
                f"1CTYP2{letter}": "FREQ",
                f"1CRPX2{letter}": self.pixel,
                f"1CRVL2{letter}": value,
                f"11CD2{letter}": step,
                f"1CUNI2{letter}": "Hz",
                f"1SPEC2{letter}": "LSRK" if letter in "FI" else "TOPOCENT",
            }
        cards |= {"1SPEC2R": "LSRK", "1CUNI2R": "km/s", "1VSOU2R": self.velocity}
        return cards | self.cards


@dataclass
class Febe:
    """A frontend and backend: basebands, and the feeds in a row of DATA.

    feeds: number of each spectrum in a row (a feed twice: two polarisations); sections of the backend;
    offsets: deg, of all feeds that there are, from feed 1 on; others: FEBEFEED more that are blank
    """

    name: str
    bands: Sequence[Baseband]
    feeds: Sequence[int] = (1,)
    sections: Sequence[int] | None = None
    offsets: Sequence[tuple[float, float]] = ((0.0, 0.0),)
    reference: int = 1
    f_eff: float = 0.95
    gain_image: float = 0.05
    polarisations: str = "N"
    cards: dict[str, Any] = field(default_factory=dict)
    columns: dict[str, tuple[str, Any]] = field(default_factory=dict)

    def table(self, scan: MbScan) -> Table:
        """FEBEPAR-MBFITS: one row."""
        n_feeds, n_bands = len(self.offsets), len(self.bands)
        flat = np.tile(np.array(self.feeds), n_bands)
        sections = np.array(self.sections or range(1, len(self.feeds) + 1))
        each = np.ones(n_feeds * n_bands)
        x, y = (np.array([o[k] for o in self.offsets]) for k in (0, 1))
        columns: dict[str, tuple[str, Any]] = {
            "USEBAND": (f"{n_bands}J", [[b.number for b in self.bands]]),
            "NUSEFEED": (f"{n_bands}J", [[len(self.feeds)] * n_bands]),
            "USEFEED": ("PJ()", _ragged([flat], "i4")),
            "BESECTS": ("PJ()", _ragged([np.tile(sections, n_bands)], "i4")),
            "FEEDTYPE": ("PJ()", _ragged([np.ones(len(flat))], "i4")),
            "FEEDOFFX": (f"{n_feeds}D", [x]),
            "FEEDOFFY": (f"{n_feeds}D", [y]),
            "REFFEED": ("J", [self.reference]),
            "POLTY": (f"{n_feeds}A", [(self.polarisations * n_feeds)[:n_feeds]]),
            "POLA": (f"{n_feeds}E", [np.zeros(n_feeds)]),
            "BEAMEFF": (f"{n_feeds * n_bands}E", [0.7 * each]),
            "ETAFSS": (f"{n_feeds * n_bands}E", [self.f_eff * each]),
            "TCAL": (f"{n_feeds * n_bands}E", [BLANK * each]),
            "GAINIMAG": (f"{n_feeds * n_bands}E", [self.gain_image * each]),
            **self.columns,
        }
        cards = {
            "FEBE": self.name,
            "SCANNUM": scan.number,
            "DATE-OBS": iso(scan.file_time(scan.begin)),
            "FEBEBAND": n_bands,
            "FEBEFEED": n_feeds,
            "NUSEBAND": n_bands,
            "DEWCABIN": "NASMYTH_A",
            "DEWRTMOD": "CABIN",
            "SWTCHMOD": scan.switch,
            "NPHASES": scan.phases,
            "FRTHRWLO": scan.throws[0],
            "FRTHRWHI": scan.throws[1],
            **self.cards,
        }
        return Table("FEBEPAR-MBFITS", columns, cards)


@dataclass
class Sub:
    """A subscan: times (UTC) and pointing of its dumps, and counts [n, feeds, channels] by (FEBE, baseband).

    lon, lat, rotation deg; az, el deg; points: (name, values, units) of the monitor
    """

    number: int
    kind: str
    middle: F64
    exposure: float
    data: dict[tuple[str, int], npt.NDArray[Any]]
    lon: F64 | float = 0.0
    lat: F64 | float = 0.0
    az: F64 | float = 120.0
    el: F64 | float = 50.0
    rotation: F64 | float = 0.0
    phase: npt.NDArray[Any] | int = 1
    mode: str = "TRACK"
    points: Sequence[tuple[str, Sequence[float], str]] = ()
    pars: dict[str, Any] = field(default_factory=dict)
    columns: dict[str, tuple[str, Any]] = field(default_factory=dict)
    arrays: dict[str, Any] = field(default_factory=dict)


@dataclass
class MbScan:
    """A scan to be: what the headers say.

    version; old: OBSTYPE in place of SUBSTYPE (before 1.63); feed_fastest: rows of DATA as before May 2006
    """

    number: int
    kind: str
    febes: Sequence[Febe]
    subs: list[Sub]
    telescope: str = "APEX-12m"
    version: str = "1.65"
    project: str = "T-087.F-0001"
    source: str = "ORION"
    system: str = "TAI"
    ahead: float = TAI_UTC
    phases: int = 1
    switch: str = "NONE"
    throws: tuple[float, float] = (0.0, 0.0)
    wobbler: bool = False
    doppler: float = DOPPLER
    feed_fastest: bool = False
    tdim: bool = True
    head: dict[str, Any] = field(default_factory=dict)
    first: dict[str, Any] = field(default_factory=dict)
    without: Sequence[str] = ()
    spare_rows: bool = True

    @property
    def begin(self) -> float:
        """MJD, UTC."""
        return float(self.subs[0].middle[0]) - 0.5 * self.subs[0].exposure / DAY

    def file_time(self, mjd: Any) -> Any:
        """UTC in the time system of the file."""
        return mjd + self.ahead / DAY if self.system == "TAI" else mjd

    @property
    def old(self) -> bool:
        """Before version 1.63."""
        return float(self.version) < 1.63

    def name(self) -> str:
        """As APEX names its scans."""
        return f"APEX-{self.number}-{iso(self.begin)[:10]}-{self.project}"

    def primary(self) -> Any:
        """The primary header."""
        unit = fits.PrimaryHDU()
        cards = {
            "TELESCOP": self.telescope,
            "MBFTSVER": self.version,
            "OBJECT": self.source,
            "TIMESYS": self.system,
            "MJD-OBS": self.file_time(self.begin),
            "DATE-OBS": iso(self.file_time(self.begin)),
            "PROJID": self.project,
            "SCANNUM": self.number,
            **self.first,
        }
        fill(unit.header, cards)
        return unit

    def scan_table(self) -> Table:
        """SCAN-MBFITS."""
        cards: dict[str, Any] = {
            "TELESCOP": self.telescope,
            "SITELONG": -67.759,
            "SITELAT": -23.00583,
            "SITEELEV": 5105.0,
            "DIAMETER": 12.0,
            "PROJID": self.project,
            "OBSID": "X",
            "SCANNUM": self.number,
            "TIMESYS": self.system,
            "DATE-OBS": iso(self.file_time(self.begin)),
            "MJD": self.file_time(self.begin),
            "LST": 12345.0,
            "NOBS": len(self.subs),
            "NSUBS": len(self.subs),
            "UTC2UT1": -0.1,
            "TAI2UTC": self.ahead,
            "CTYPE1": "RA---SFL",
            "CTYPE2": "DEC--SFL",
            "EQUINOX": 2000.0,
            "CRVAL1": 83.8097,
            "CRVAL2": -5.3724,
            "OBJECT": self.source,
            "BLONGOBJ": 83.8097,
            "BLATOBJ": -5.3724,
            "SCANTYPE": self.kind,
            "SCANMODE": "SAMPLE",
            "WOBUSED": self.wobbler,
            "WOBTHROW": 0.0222 if self.wobbler else 0.0,
            "NFEBE": len(self.febes),
            **self.head,
        }
        return Table("SCAN-MBFITS", {"FEBE": ("17A", [f.name for f in self.febes])}, cards)

    def members(self) -> list[tuple[str, int, str, int, Any]]:
        """As ``tables``, as astropy has them."""
        return [(*m[:4], m[4].unit()) for m in self.tables()]

    def tables(self) -> list[tuple[str, int, str, int, Table]]:
        """(place in the folder, subscan, FEBE, baseband, table) of all tables, in the order of a single file."""
        found = [("SCAN.fits", -999, "", -999, self.scan_table())]
        found += [(f"{f.name}-FEBEPAR.fits", -999, f.name, -999, f.table(self)) for f in self.febes]
        for sub in self.subs:
            n = sub.number
            for f in self.febes:
                for band in f.bands:
                    if (f.name, band.number) in sub.data:
                        place = f"{n}/{f.name}-ARRAYDATA-{band.number}.fits"
                        found.append((place, n, f.name, band.number, self._array(sub, f, band)))
                place = f"{n}/{f.name}-DATAPAR.fits"
                found.append((place, n, f.name, -999, self._datapar(sub, f)))
            found.append((f"{n}/MONITOR.fits", n, "", -999, self._monitor(sub)))
        return [m for m in found if m[4].name not in self.without]

    def write(self, folder: Path, grouped: bool = False) -> Path:
        """The scan as a file, or as a folder."""
        stream = io.BytesIO()
        fits.HDUList([self.primary()]).writeto(stream)
        members = self.tables()
        if not grouped:
            path = folder / f"{self.name()}.fits"
            path.write_bytes(stream.getvalue() + b"".join(m[4].data() for m in members))
            return path
        place = folder / self.name()
        place.mkdir()
        for name, _, _, _, made in members:
            (place / name).parent.mkdir(exist_ok=True)
            (place / name).write_bytes(EMPTY + made.data())
        columns = {
            "MEMBER_POSITION": ("J", [2] * len(members)),
            "MEMBER_LOCATION": ("256A", [m[0] for m in members]),
            "MEMBER_URI_TYPE": ("3A", ["URL"] * len(members)),
            "EXTNAME": ("30A", [m[4].name for m in members]),
            "SUBSNUM": ("J", [m[1] for m in members]),
            "FEBE": ("30A", [m[2] for m in members]),
            "BASEBAND": ("J", [m[3] for m in members]),
        }
        grouping = Table("GROUPING", columns, {"SCANNUM": self.number})
        (place / "GROUPING.fits").write_bytes(stream.getvalue() + grouping.data())
        return place

    def _keys(self, sub: Sub, febe: str = "") -> dict[str, Any]:
        keys: dict[str, Any] = {
            "SCANNUM": self.number,
            "OBSNUM": sub.number,
            "SUBSNUM": 0,
            "DATE-OBS": iso(self.file_time(float(sub.middle[0]))),
        }
        return keys | ({"FEBE": febe} if febe else {})

    def _array(self, sub: Sub, febe: Febe, band: Baseband) -> Table:
        """Counts, and one row more than DATAPAR has."""
        data = np.asarray(sub.data[(febe.name, band.number)], np.float64)
        when = self.file_time(sub.middle)
        if self.spare_rows:
            data = np.concatenate([data, np.full((1, *data.shape[1:]), NONSENSE)])
            when = np.append(when, when[-1] + sub.exposure / DAY)
        n, feeds, channels = data.shape
        axes = f"({channels},{feeds})"
        if self.feed_fastest:
            data, axes = data.transpose(0, 2, 1), f"({feeds},{channels})"
        columns = {"MJD": ("D", when), "DATA": (f"{feeds * channels}E", data.reshape(n, -1))}
        cards = self._keys(sub, febe.name) | {"BASEBAND": band.number, "NUSEFEED": feeds}
        cards |= band.header(self.doppler) | sub.arrays
        return Table("ARRAYDATA-MBFITS", columns, cards, axes if self.tdim else "")

    def _datapar(self, sub: Sub, febe: Febe) -> Table:
        n = len(sub.middle)

        def each(value: Any) -> F64:
            return np.broadcast_to(np.asarray(value, dtype=np.float64), (n,)).copy()

        columns: dict[str, tuple[str, Any]] = {
            "MJD": ("D", self.file_time(sub.middle)),
            "LST": ("D", each(0.0)),
            "INTEGTIM": ("D", each(sub.exposure)),
            "PHASE": ("J", np.broadcast_to(np.asarray(sub.phase), (n,)).astype(int)),
            "LONGOFF": ("D", each(sub.lon)),
            "LATOFF": ("D", each(sub.lat)),
            "AZIMUTH": ("D", each(sub.az)),
            "ELEVATIO": ("D", each(sub.el)),
            "RA": ("D", each(83.8)),
            "DEC": ("D", each(-5.37)),
            "PARANGLE": ("D", each(10.0)),
            "BASLONG": ("D", each(83.8)),
            "BASLAT": ("D", each(60.0)),
            "ROTANGLE": ("D", each(sub.rotation)),
            "MCRVAL1": ("D", each(BLANK)),
            "DFOCUS_X": ("D", each(BLANK)),
            "DFOCUS_Y": ("D", each(BLANK)),
            "DFOCUS_Z": ("D", each(BLANK)),
            **sub.columns,
        }
        cards = self._keys(sub, febe.name)
        cards |= {
            "OBSTYPE" if self.old else "SUBSTYPE": sub.kind,
            "SCANMODE": sub.mode,
            "NINTS": n,
            "OBSTATUS": "OK",
            "DEWANG": BLANK,
            "WOBCOORD": False,
        }
        return Table("DATAPAR-MBFITS", columns, cards | sub.pars)

    def _monitor(self, sub: Sub) -> Table:
        """The points given, each twice with a blank between, and loads of a receiver that is not there."""
        rows: list[tuple[str, Sequence[float], str]] = [("WOBDISPL", [0.0], "deg")]
        for name, values, units in sub.points:
            rows += [
                (name, values, units),
                (name, [BLANK] * len(values), units),
                (name, values, units),
            ]
        rows += [("THOTCOLD_OTHER-XFFTS_1", [222.0, 33.0], "K;K")]
        columns = {
            "MJD": ("D", np.full(len(rows), self.file_time(sub.middle[0]))),
            "MONPOINT": ("30A", [r[0] for r in rows]),
            "MONVALUE": ("PD()", _ragged([r[1] for r in rows], "f8")),
            "MONUNITS": ("32A", [r[2] for r in rows]),
        }
        return Table("MONITOR-MBFITS", columns, self._keys(sub))


def _ragged(rows: Sequence[Any], dtype: str) -> Any:
    found = np.empty(len(rows), dtype=object)
    for k, row in enumerate(rows):
        found[k] = np.asarray(row, dtype=dtype)
    return found


@dataclass
class Table:
    """A binary table to be; tdim: of its second column."""

    name: str
    columns: dict[str, tuple[str, Any]]
    cards: dict[str, Any]
    tdim: str = ""

    def unit(self) -> Any:
        """As astropy has it."""
        made = table(self.name, self.columns, {})
        if self.tdim:
            made.header["TDIM2"] = self.tdim
        fill(made.header, self.cards)
        return made

    def data(self) -> bytes:
        """Its bytes in a file: many scans have the same tables, which are made once."""
        return _bytes_of(pickle.dumps(self))


@lru_cache(maxsize=512)
def _bytes_of(pickled: bytes) -> bytes:
    stream = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), pickle.loads(pickled).unit()]).writeto(stream)
    return stream.getvalue()[2880:]


def table(name: str, columns: dict[str, tuple[str, Any]], cards: dict[str, Any]) -> Any:
    """A binary table; its texts end at a NUL, with rubbish behind it where there is room."""
    made = []
    for key, (form, values) in columns.items():
        array: Any = values
        if form.endswith("A") and form != "1A":
            width = int(form[:-1])
            texts = [str(v).encode() for v in values]
            padded = [(t + b"\0XY" if len(t) + 3 <= width else t) for t in texts]
            array = np.array(padded, dtype=f"S{width}")
        elif not form.startswith("P"):
            types = {"J": np.int32, "D": np.float64, "E": np.float32}
            array = np.asarray(values, dtype=types.get(form[-1]))
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
