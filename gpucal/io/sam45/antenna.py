"""The antenna log: where the telescope pointed, as text, a line per sample.

Columns: time (JST), ra_prog, dec_prog, az_prog, el_prog, az_real, el_real, az_error, el_error, all in deg; the first
line may name them. Source: docs/reference/sam45.md.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gpucal.errors import GpucalWarning, ImportFormatError
from gpucal.io.incoming.file_index import FileIndex
from gpucal.io.incoming.glimpse import Glimpse, glimpse
from gpucal.io.sam45.times import DAY_S, F64, JST_H, local_mjd, local_mjds
from gpucal.physics.sidereal import local_sidereal_time

COLUMNS = (
    *("time", "ra_prog", "dec_prog", "az_prog", "el_prog"),
    *("az_real", "el_real", "az_error", "el_error"),
)
_FACTS = "sam45-antenna/1"
SITE_LAT_DEG, SITE_LON_DEG = 35.9446944, 138.4725556
FITS_DEG = 2.0
"""Elevations agree to this with right ascension, declination and time: precession and refraction are left out."""

LONGEST_GAP_S = 5.0
"""A dump further from the nearest samples on either side has no position."""


@dataclass(frozen=True, eq=False)
class AntennaLog:
    """The samples [N] of an antenna log in order of time: mjd (JST), the others in deg."""

    path: Path
    mjd: F64
    columns: dict[str, F64]

    def at(self, mjd: F64, names: Sequence[str]) -> tuple[list[F64], npt.NDArray[np.bool_]]:
        """Columns at times of any shape (MJD in the zone of the log), deg, linear in time; and where they are known.

        Right ascension and azimuth are followed across 360 deg. Outside the log, and in gaps of it, a value is
        that of the nearest sample, and not known.
        """
        right = np.clip(np.searchsorted(self.mjd, mjd), 1, self.mjd.size - 1)
        left = right - 1
        gap = (self.mjd[right] - self.mjd[left]) * DAY_S
        known = (mjd >= self.mjd[0]) & (mjd <= self.mjd[-1]) & (gap <= LONGEST_GAP_S)
        found = []
        for name in names:
            values = self.columns[name]
            if name.startswith(("ra", "az")):
                values = np.rad2deg(np.unwrap(np.deg2rad(values)))
            found.append(np.interp(mjd, self.mjd, values))
        return found, known

    def tracking_error(self, mjd: F64) -> float:
        """Root mean square of the tracking error at some times, arcsec."""
        (az, el), known = self.at(mjd, ("az_error", "el_error"))
        if not known.any():
            return float("nan")
        return float(3600.0 * np.sqrt(np.mean(az[known] ** 2 + el[known] ** 2)))

    def misfit(self, hours: float) -> float:
        """How far el_prog is from the elevation of ra_prog, dec_prog, deg, if ``hours`` make its times JST.

        The largest of five samples; NaN where there is no right ascension and declination.
        """
        at = np.linspace(0, self.mjd.size - 1, 5).astype(int)
        ra, dec = self.columns["ra_prog"][at], self.columns["dec_prog"][at]
        if not (ra.any() or dec.any()):
            return float("nan")
        utc = self.mjd[at] + (hours - JST_H) / 24.0
        sidereal = np.array([local_sidereal_time(float(t), SITE_LON_DEG) for t in utc]) / 240.0
        lat, dec, angle = (np.deg2rad(x) for x in (SITE_LAT_DEG, dec, sidereal - ra))
        sine = np.sin(lat) * np.sin(dec) + np.cos(lat) * np.cos(dec) * np.cos(angle)
        return float(np.abs(np.rad2deg(np.arcsin(sine)) - self.columns["el_prog"][at]).max())


def looks_like_one(seen: Glimpse) -> bool:
    """Whether one of the first lines of a file is a time and eight numbers."""
    if not seen.head or b"\0" in seen.head[:4096]:
        return False
    lines = seen.head.decode("ascii", "replace").splitlines()[:4]
    return any(_sample(line.split(), finite=False) is not None for line in lines[:3])


def about(path: Path) -> dict[str, Any]:
    """For the index of files: ``span``, first and last MJD (JST) of an antenna log; ``trouble``: why it is none.

    {} for a file that has nothing of an antenna log.
    """
    if not looks_like_one(glimpse(path)):
        return {}
    try:
        log = read_antenna_log(path)
    except ImportFormatError as error:
        return {"trouble": str(error)}
    return {"span": [float(log.mjd[0]), float(log.mjd[-1])]}


def read_antenna_log(path: Path) -> AntennaLog:
    """The whole log; ImportFormatError names the line that cannot be read."""
    try:
        lines = path.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError as error:
        raise ImportFormatError(
            f"the antenna log {path} cannot be read: {error.strerror or error}."
        ) from error
    order = _order(lines[0].split()) if lines else None
    times: list[str] = []
    rows: list[list[float]] = []
    for number, line in enumerate(lines, 1):
        words = line.split()
        if not words or (number == 1 and _sample(words) is None):
            continue
        sample = _sample(words)
        if sample is None:
            raise ImportFormatError(
                f"line {number} of the antenna log {path} is {line[:60]!r}, expected a time and eight angles in "
                "deg: " + ", ".join(COLUMNS[1:]) + ".",
                hint="Correct the line, or leave the log out.",
            )
        times.append(sample[0])
        rows.append(sample[1])
    if len(rows) < 2:
        raise ImportFormatError(
            f"the antenna log {path} holds {len(rows)} samples, expected at least two."
        )
    mjd, table = local_mjds(times), np.array(rows)
    if not (np.diff(mjd) > 0).all():
        at = int(np.flatnonzero(~(np.diff(mjd) > 0))[0])
        raise ImportFormatError(
            f"the times of the antenna log {path} do not increase: {times[at + 1]} comes after {times[at]}.",
            hint="Two logs in one file are to be given one by one.",
        )
    names = order or COLUMNS[1:]
    log = AntennaLog(path, mjd, {name: table[:, k] for k, name in enumerate(names)})
    _check_angles(log)
    return log


def _order(words: list[str]) -> tuple[str, ...] | None:
    """The columns as the first line names them; None where it does not name each of them once."""
    plain = [w.strip("#,").lower() for w in words]
    named = [w for w in plain if w in COLUMNS[1:]]
    return tuple(named) if sorted(named) == sorted(COLUMNS[1:]) else None


def _sample(words: list[str], *, finite: bool = True) -> tuple[str, list[float]] | None:
    """Time and angles of a line; a date and a time may be two words."""
    for n in (1, 2):
        time = "T".join(words[:n])
        if len(words) - n == len(COLUMNS) - 1 and np.isfinite(local_mjd(time)):
            try:
                angles = [float(w) for w in words[n:]]
            except ValueError:
                return None
            return (time, angles) if np.isfinite(angles).all() or not finite else None
    return None


def _check_angles(log: AntennaLog) -> None:
    limits = {
        "el": (-5.0, 95.0),
        "dec": (-90.0, 90.0),
        "az": (-540.0, 540.0),
        "ra": (-360.0, 720.0),
    }
    for name, values in log.columns.items():
        lo, hi = limits[name.partition("_")[0]] if not name.endswith("error") else (-180.0, 180.0)
        bad = (values < lo) | (values > hi)
        if bad.any():
            raise ImportFormatError(
                f"{name} of the antenna log {log.path} is {values[bad][0]:g}, expected {lo:g}..{hi:g} deg.",
                hint="The columns are " + ", ".join(COLUMNS) + ".",
            )


class AntennaLogs:
    """The antenna logs that may belong to some logs: those that were named, else those beside each log."""

    def __init__(self, named: Sequence[Path], index: FileIndex) -> None:
        """named: files, and folders that stand for the antenna logs in them; raises ImportFormatError."""
        self._index = index
        self._beside: dict[Path, list[Path]] = {}
        self._read: tuple[Path, AntennaLog] | None = None
        self._named: list[Path] = []
        self.are_named = bool(named)
        for path in named:
            if not path.exists():
                raise ImportFormatError(f"the antenna log {path} does not exist.")
            if path.is_dir():
                self._named += self._in_folder(path)
                continue
            read_antenna_log(path)  # one that was named and cannot be read is said at once
            self._named.append(path)

    def covering(self, folder: Path, mjd: F64) -> tuple[AntennaLog, float] | None:
        """The log that covers most of the times (MJD, JST), and the hours to add to its own times.

        Those hours are 0, or 9 for one in UTC, whose elevations must be those of its positions then: a log of
        nine hours before is not taken for it. None when no log covers any of the times. Warns
        (GpucalWarning) when the elevations do not fit in JST.
        """
        for hours in (0.0, JST_H):
            covered = []
            for path in self._named if self.are_named else self._in_folder(folder):
                first, last = self._index.facts(path, _FACTS, about).get("span", (0.0, 0.0))
                when = mjd - hours / 24.0
                covered.append((int(((when >= first) & (when <= last)).sum()), path))
            for _, path in sorted((c for c in covered if c[0]), key=lambda c: -c[0]):
                log = self._opened(path)
                misfit = log.misfit(hours)
                if hours and not misfit < FITS_DEG:
                    continue
                if misfit > FITS_DEG:
                    warnings.warn(
                        f"the antenna log {path}: el_prog is up to {misfit:.1f} deg from the elevation of ra_prog "
                        "and dec_prog at its times (JST): is its clock right?",
                        GpucalWarning,
                        stacklevel=4,
                    )
                return log, hours
        return None

    def _opened(self, path: Path) -> AntennaLog:
        if self._read is None or self._read[0] != path:
            self._read = (path, read_antenna_log(path))
        return self._read[1]

    def _in_folder(self, folder: Path) -> list[Path]:
        if folder not in self._beside:
            self._beside[folder] = []
            for path in sorted(p for p in folder.iterdir() if p.is_file()):
                facts = self._index.facts(path, _FACTS, about)
                if "span" in facts:
                    self._beside[folder].append(path)
                elif facts:
                    warnings.warn(facts["trouble"], GpucalWarning, stacklevel=4)
        return self._beside[folder]
