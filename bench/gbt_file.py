"""An SDFITS file as GBT writes them: one ON and one OFF scan, each dump with the diode on and off."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

TEXTS = {
    "OBJECT": "SIMULATED", "TUNIT7": "Counts", "CTYPE1": "FREQ-OBS", "CTYPE2": "RA",
    "CTYPE3": "DEC", "OBSERVER": "bench", "OBSID": "unknown", "FRONTEND": "Rcvr1_2",
    "VELDEF": "OPTI-HEL", "RADESYS": "FK5", "SAMPLER": "A1_0", "SIDEBAND": "U",
    "PROCTYPE": "SIMPLE", "QD_METHOD": "A", "CALTYPE": "LOW", "CALPOSITION": "Unknown",
    "BACKEND": "VEGAS", "PROJID": "BENCH", "TELESCOP": "NRAO_GBT", "SIG": "T",
}  # fmt: skip
"""Columns of text that are the same in all rows."""

NUMBERS = {
    "BANDWID": 23.4375e6, "DURATION": 1.0, "EXPOSURE": 0.98, "TSYS": 1.0, "CRVAL1": 1.42e9,
    "CRVAL2": 180.0, "CRVAL3": 30.0, "TCAL": 1.5, "VFRAME": 0.0, "RVSYS": 0.0,
    "OBSFREQ": 1.42e9, "LST": 40000.0, "AZIMUTH": 200.0, "ELEVATIO": 50.0, "TAMBIENT": 280.0,
    "PRESSURE": 690.0, "HUMIDITY": 0.5, "RESTFREQ": 1.420405e9, "DOPFREQ": 1.420405e9,
    "EQUINOX": 2000.0, "TRGTLONG": 180.0, "TRGTLAT": 30.0, "FEEDXOFF": 0.0, "FEEDEOFF": 0.0,
    "QD_XEL": np.nan, "QD_EL": np.nan, "VELOCITY": 0.0, "FOFFREF1": 0.0, "ADCSAMPF": 3e9,
    "SITELONG": -79.83983, "SITELAT": 38.43312, "SITEELEV": 824.595,
    "ZEROCHAN": np.nan, "TWARM": np.nan, "TCOLD": np.nan,
}  # fmt: skip
COUNTS = {
    "CRVAL4": -5, "FEED": 1, "SRFEED": 0, "SUBREF_STATE": 1, "PROCSIZE": 2, "LASTON": 1,
    "LASTOFF": 2, "QD_BAD": 0, "IFNUM": 0, "PLNUM": 0, "FDNUM": 0, "NSAVE": -1,
}  # fmt: skip


def write_gbt_file(path: Path, rows: int, channels: int) -> None:
    """Write ``rows`` spectra of noisy f32 counts; half of the rows ON, half of each with the diode.

    Raises ValueError when the rows cannot be split in four.
    """
    from astropy.io import fits

    if rows % 4:
        raise ValueError(f"rows is {rows}, expected a multiple of 4.")
    row = np.arange(rows)
    scan, dump, diode = 1 + row // (rows // 2), row % (rows // 2) // 2, row % 2 == 0
    rng = np.random.default_rng(0)
    data = rng.standard_normal((rows, channels), dtype=np.float32)
    # 20 K of system, 1.5 K of noise diode, 1 K of source; dnu t = 1400.
    data *= 0.027
    data += 1.0
    data *= (1e6 * (20.0 + 1.5 * diode + 1.0 * (scan == 1)))[:, None].astype(np.float32)
    on = scan == 1
    values: dict[str, Any] = {name: np.full(rows, text) for name, text in TEXTS.items()}
    values |= {name: np.full(rows, number) for name, number in NUMBERS.items()}
    values |= {name: np.full(rows, n, np.int32) for name, n in COUNTS.items()}
    begin = datetime(2025, 11, 21, tzinfo=UTC)
    times = [
        begin + timedelta(seconds=3000.0 * (s - 1) + float(d))
        for s, d in zip(scan, dump, strict=True)
    ]
    width = NUMBERS["BANDWID"] / channels
    values |= {
        "DATE-OBS": np.array([t.strftime("%Y-%m-%dT%H:%M:%S.00") for t in times]),
        "TIMESTAMP": np.where(on, "2025_11_21_00:00:00", "2025_11_21_00:50:00"),
        "DATA": data,
        "TDIM7": np.full(rows, f"({channels},1,1,1)"),
        "CRPIX1": np.full(rows, channels / 2 + 1.0),
        "CDELT1": np.full(rows, width),
        "FREQRES": np.full(rows, width),
        "SCAN": scan.astype(np.int32),
        "OBSMODE": np.where(on, "OnOff:PSWITCHON:TPWCAL", "OnOff:PSWITCHOFF:TPWCAL"),
        "PROCSCAN": np.where(on, "ON", "OFF"),
        "PROCSEQN": scan.astype(np.int32),
        "CAL": np.where(diode, "T", "F"),
        "INT": dump.astype(np.int32),
        "VSPDELT": np.full(rows, channels / 4.0),
        "VSPRVAL": np.full(rows, 12.0),
        "VSPRPIX": np.full(rows, channels / 2.0),
    }  # fmt: skip
    order = [
        "OBJECT",
        "BANDWID",
        "DATE-OBS",
        "DURATION",
        "EXPOSURE",
        "TSYS",
        "DATA",
        "TDIM7",
        "TUNIT7",
    ]
    columns = [_column(name, values[name]) for name in [*order, *sorted(set(values) - set(order))]]
    table = fits.BinTableHDU.from_columns(columns, name="SINGLE DISH")
    table.header["CTYPE4"] = "STOKES"
    first = fits.PrimaryHDU()
    first.header["ORIGIN"], first.header["TELESCOP"] = "NRAO Green Bank", "NRAO_GBT"
    first.header["INSTRUME"], first.header["SDFITVER"] = "VEGAS", "sdfits ver1.22"
    fits.HDUList([first, table]).writeto(path)


def _column(name: str, values: Any) -> Any:
    """A FITS column whose format follows from the dtype and shape of the values."""
    from astropy.io import fits

    kind = values.dtype.kind
    if kind == "U":
        form = f"{max(1, values.dtype.itemsize // 4)}A"
    elif values.ndim == 2:
        form = f"{values.shape[1]}E"
    else:
        form = "J" if kind == "i" else "D"
    return fits.Column(name=name, format=form, array=values)
