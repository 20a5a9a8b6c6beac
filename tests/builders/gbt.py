"""SDFITS files of the GBT made for tests."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

N_CHAN = 16
ARGUS, W_BAND = "RcvrArray75_115", "Rcvr68_92"
Row = dict[str, Any]


def row(scan: int, second: float = 0.0, **changes: Any) -> Row:
    """One SDFITS row of an Argus scan; counts are scan * 1000 + feed * 100 + second + channel."""
    values: Row = {
        "SCAN": scan,
        "IFNUM": 0,
        "PLNUM": 0,
        "FDNUM": 0,
        "SIG": "T",
        "CAL": "F",
        "OBJECT": "DR21",
        "OBSMODE": "Nod:NONE:TPNOCAL",
        "PROCSEQN": 1,
        "PROCSIZE": 2,
        "FRONTEND": ARGUS,
        "EXPOSURE": 1.5,
        "DURATION": 2.0,
        "CRVAL1": 93.0e9,
        "CRPIX1": 9.0,
        "CDELT1": -1.0e5,
        "ELEVATIO": 60.0,
        "AZIMUTH": 120.0,
        "TAMBIENT": 280.0,
        "PRESSURE": 690.0,
        "TWARM": 7.0,
        "CALPOSITION": "Observing",
        "RESTFREQ": 93.17e9,
        "CRVAL2": 100.0,
        "CRVAL3": 60.0,
        "FEEDXOFF": 0.0,
        "FEEDEOFF": 0.0,
        "PROJID": "TEST_01",
    }
    values |= changes
    values["DATE-OBS"] = f"2024-05-01T00:{scan:02d}:{second:05.2f}"
    ramp = np.arange(N_CHAN) + scan * 1000 + values["FDNUM"] * 100 + second
    values.setdefault("DATA", ramp.astype(np.float32))
    return values


def write_table(path: Path, rows: Iterable[Row], drop: str = "", name: str = "SINGLE DISH") -> Path:
    """Write rows as a SINGLE DISH table; SITELAT etc. stand in the header, as in real files."""
    from astropy.io import fits

    rows = list(rows)
    columns = []
    for key in rows[0]:
        if key == drop:
            continue
        values = np.array([r[key] for r in rows])
        code = {"U": "32A", "f": "D", "i": "J"}[values.dtype.kind]
        if key == "DATA":
            code = f"{values.shape[1]}E"
        columns.append(fits.Column(name=key, format=code, array=values))
    table = fits.BinTableHDU.from_columns(columns)
    table.header["EXTNAME"] = name
    for key, value in {"SITELAT": 38.4, "SITELONG": -79.8, "SITEELEV": 824.0}.items():
        table.header[key] = value
    table.header["BACKEND"] = "VEGAS"
    fits.HDUList([fits.PrimaryHDU(), table]).writeto(path)
    return path


def nod(first: int = 5, feeds: tuple[int, ...] = (3, 7), dumps: int = 2) -> list[Row]:
    """A nod: feeds[0] on the source in the first scan, feeds[1] in the second."""
    rows = []
    for position, scan in enumerate((first, first + 1)):
        for feed in feeds:
            away = 0.0 if feeds[position] == feed else 0.02
            rows += [
                row(
                    scan,
                    2.0 * d,
                    FDNUM=feed,
                    PROCSEQN=position + 1,
                    FEEDXOFF=away,
                    CRVAL2=100.0 + away / np.cos(np.pi / 3),
                )
                for d in range(dumps)
            ]
    return rows


def vane(scan: int = 2, feeds: tuple[int, ...] = (3, 7), **changes: Any) -> list[Row]:
    """A vane scan and the sky scan after it."""
    track = {"OBSMODE": "Track:NONE:TPNOCAL", "PROCSIZE": 1, **changes}
    rows = []
    for feed in feeds:
        rows.append(row(scan, FDNUM=feed, OBJECT="VANE", CALPOSITION="Vane", **track))
        rows.append(row(scan + 1, FDNUM=feed, OBJECT="SKY", **track))
    return rows


def w_band_sequence(scan: int) -> list[Row]:
    """CALSEQ: sky, then both positions of the wheel, for both feeds."""
    rows = []
    for feed in (0, 1):
        for position, second in (
            ("Observing", 0.0),
            ("Cold1", 10.0),
            ("Cold2", 20.0),
            ("Moving", 25.0),
        ):
            rows.append(
                row(
                    scan,
                    second,
                    FDNUM=feed,
                    FRONTEND=W_BAND,
                    OBSMODE="CALSEQ:NONE:TPNOCAL",
                    PROCSIZE=1,
                    CALPOSITION=position,
                    TWARM=265.0,
                    CRVAL1=87.0e9,
                )
            )
    return rows
