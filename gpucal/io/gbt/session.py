"""The rows of a session: files and folders read, dated, flagged, selected."""

from __future__ import annotations

import re
import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gpucal.errors import GpucalWarning, ImportFormatError
from gpucal.io.fits.sdfits_read import SdfitsRows, read_sdfits
from gpucal.io.gbt.arrays import ARGUS
from gpucal.io.gbt.flags import flagged_channels

REQUIRED = (
    *("SCAN", "IFNUM", "PLNUM", "FDNUM", "SIG", "CAL", "OBJECT", "OBSMODE", "PROCSEQN"),
    *("PROCSIZE", "FRONTEND", "DATE-OBS", "EXPOSURE", "CRVAL1", "CRPIX1", "CDELT1"),
    *("ELEVATIO", "AZIMUTH", "TAMBIENT"),
)
_NUMBERS = (
    *("DURATION", "TWARM", "TCOLD", "RESTFREQ", "VELOCITY", "VFRAME", "PRESSURE", "HUMIDITY"),
    *("CRVAL2", "CRVAL3", "FEEDXOFF", "FEEDEOFF", "BANDWID"),
    *("SITELONG", "SITELAT", "SITEELEV", "VSPDELT", "VSPRVAL", "VSPRPIX", "TIME"),
)
_TEXTS = (
    *("PROJID", "OBSERVER", "BACKEND", "MOLECULE", "VELDEF", "PROCSCAN", "PROCTYPE"),
    *("CTYPE2", "CTYPE3", "RADESYS", "SAMPLER", "SIDEBAND", "TIMESTAMP"),
)
OPTIONAL: Mapping[str, Any] = {
    **dict.fromkeys(_NUMBERS, np.nan),
    **dict.fromkeys(_TEXTS, ""),
    "CALPOSITION": "Observing",
    "CTYPE1": "FREQ-OBS",
}
EXCHANGED_UNTIL = 58413.8125
"""MJD of 2018-10-22 19:30 UT. Source: the observatory's note on the swap of Argus beams 2 and 3."""
DAY = re.compile(r"\d{4}-\d\d-\d\d")
LEAP = re.compile(r"(.*T\d\d:\d\d:)60(\.\d*)?")


def session_rows(
    paths: Sequence[Path],
    *,
    flags: bool = True,
    scans: Collection[int] | None = None,
    bands: Collection[int] | None = None,
) -> tuple[SdfitsRows, list[Path]]:
    """The rows of some files with the column MJD (middle of the integration), and the flag files used.

    ``flags``: whether what the flag files beside the SDFITS files name, and what the column FLAGS of other
    programs marks, becomes NaN; ``scans``,
    ``bands``: only these SCAN and IFNUM. Raises ImportFormatError as ``read_sdfits`` does, and when no row
    is left; warns (GpucalWarning) about spectra of zeros, which become NaN, and about exchanged feeds.
    """
    rows = _read_rows(paths)
    if not flags:
        rows = replace(rows, marks=())
    used: list[Path] = []
    # Flag files count the rows of whole files, so they come before the selection.
    if flags:
        rows, used = _with_flags(rows)
    rows = _without_zeros(_selected(rows, scans, bands))
    _warn_about_exchanged_feeds(rows)
    return rows, used


def _read_rows(files: Sequence[str | Path]) -> SdfitsRows:
    rows = read_sdfits(files, REQUIRED, OPTIONAL)
    rows = replace(rows, columns={**rows.columns, "DATE-OBS": _dates(rows)})
    start = np.array([_mjd(text) for text in rows["DATE-OBS"].tolist()])
    length = np.where(np.isfinite(rows["DURATION"]), rows["DURATION"], rows["EXPOSURE"])
    return replace(rows, columns={**rows.columns, "MJD": start + 0.5 * length / 86400.0})


def _dates(rows: SdfitsRows) -> npt.NDArray[np.str_]:
    """DATE-OBS [N]; the SDFITS convention also knows a day alone, with the seconds of the day in TIME.

    A day without them says too little: it becomes one that cannot be read.
    """
    dates = rows["DATE-OBS"].astype("U32")
    for i in np.flatnonzero([DAY.fullmatch(text) is not None for text in dates.tolist()]).tolist():
        seconds = rows["TIME"][i]
        if seconds.dtype.kind in "if" and 0 <= seconds < 86401:
            moment = np.datetime64(dates[i], "us") + np.timedelta64(
                round(float(seconds) * 1e6), "us"
            )
            dates[i] = str(moment)
        else:
            dates[i] += " without a time"
    return dates


def _mjd(text: str) -> float:
    """MJD of DATE-OBS, the start of the integration, UTC; NaN where it cannot be read.

    Second 60 is the leap second, or one that was rounded up: the end of its minute.
    """
    text = re.sub(r"(Z|[+-]00:?00)$", "", text) if "T" in text else text
    leap = LEAP.fullmatch(text)
    if leap is not None:
        text = f"{leap[1]}59{leap[2] or ''}"
    try:
        # MJD 0 is 1858-11-17
        start = np.datetime64(text, "us") - np.datetime64("1858-11-17T00:00:00", "us")
    except ValueError:
        return float("nan")
    days = float(start / np.timedelta64(1, "us")) / 86400e6
    return days + 1.0 / 86400.0 if leap is not None else days


def _with_flags(rows: SdfitsRows) -> tuple[SdfitsRows, list[Path]]:
    """The rows with the flags of the files beside them, and those files."""
    table_of = {path: [t for t, p in enumerate(rows.files) if p == path] for path in rows.files}
    index = [(path, np.nonzero(np.isin(rows.table, t))[0]) for path, t in table_of.items()]
    flagged, used = flagged_channels(index, rows.columns)
    return replace(rows, flagged=flagged), used


def _selected(
    rows: SdfitsRows, scans: Collection[int] | None, bands: Collection[int] | None
) -> SdfitsRows:
    """The rows of the wanted scans and IFNUM alone."""
    keep = np.ones(len(rows), dtype=bool)
    for name, wanted in (("SCAN", scans), ("IFNUM", bands)):
        if wanted is None:
            continue
        keep &= np.isin(rows[name], sorted(wanted))
        if not keep.any():
            there = ", ".join(str(n) for n in np.unique(rows[name]).tolist())
            asked = ", ".join(str(n) for n in sorted(wanted))
            raise ImportFormatError(
                f"the files hold no row with {name} {asked}.", hint=f"{name} there: {there}."
            )
    return rows if keep.all() else rows.only(np.nonzero(keep)[0])


def _warn_about_exchanged_feeds(rows: SdfitsRows) -> None:
    """Until a cable was found, Argus beams 2 and 3 (FDNUM 1 and 2) stood for each other."""
    old = (rows["FRONTEND"] == ARGUS) & (rows["MJD"] < EXCHANGED_UNTIL)
    feeds = np.intersect1d(rows["FDNUM"][old], (1, 2)).tolist()
    if not feeds:
        return
    numbers = rows["SCAN"][old & np.isin(rows["FDNUM"], feeds)]
    warnings.warn(
        f"scans {numbers.min()} to {numbers.max()}: until 2018-10-22 19:30 UT Argus beams 2 and 3 (FDNUM "
        f"1 and 2; FDNUM {' and '.join(map(str, feeds))} here) were exchanged by a cable: their counts are "
        "right, but each has the position of the other, unless the file was corrected (swap23).",
        GpucalWarning,
        stacklevel=3,
    )


def _without_zeros(rows: SdfitsRows) -> SdfitsRows:
    """Spectra of zeros are no counts: they are flagged in all channels, and read as NaN."""
    zero = [int(i) for i in rows.zeros()]
    for scan in np.unique(rows["SCAN"][zero]).tolist():
        n = int((rows["SCAN"][zero] == scan).sum())
        warnings.warn(
            f"scan {scan}: {n} spectra are 0 in all channels: they are blank (NaN) in the store.",
            GpucalWarning,
            stacklevel=3,
        )
    whole = {i: [(0, int(rows.n_channels[i]) - 1)] for i in zero}
    return replace(rows, flagged={**rows.flagged, **whole}) if zero else rows
