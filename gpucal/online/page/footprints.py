"""T_rec, T_sys and rms of the array, pixel by pixel."""

from __future__ import annotations

import math
import threading
import zipfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gpucal.errors import OnlineError
from gpucal.online.looks.look import Look, load_look
from gpucal.online.page.latest_results import MEDIANS
from gpucal.online.page.result_queries import Row, last_scan, newest_scans
from gpucal.online.site.config import OnlineConfig
from gpucal.online.site.results import Results

ARCSEC = 3600.0
SHOWN = ("t_rec", "t_sys", "t_sys_star", "rms", "rms_expected")


class Footprints:
    """T_rec, T_sys and rms of the newest calibration and spectra, at the places of the pixels."""

    def __init__(self, config: OnlineConfig) -> None:
        self.config = config
        self._lock = threading.Lock()
        self._known: tuple[tuple[str, int], Look] | None = None

    def latest(self, results: Results) -> list[Row]:
        """One entry per band and receiver: {project, band, receiver, placed, look, pixels, scans}.

        pixels: {pixel, x, y, t_rec, t_sys, t_sys_star, rms, rms_expected, valid, reason}; x and y in arcsec, or
        the columns and rows of a square grid where placed is False; K. scans: value -> the scan it is of.
        """
        newest = newest_scans(results, MEDIANS, 1)
        if not newest:
            return []
        project = newest[0][0]
        merged: dict[tuple[str, int], dict[int, Row]] = defaultdict(dict)
        scans: dict[str, int] = {}
        # The newest comes last and wins, value by value: loads alone tell nothing of the sky.
        last = [(last_scan(results, table, project), table) for table in MEDIANS]
        for (_, scan), table in sorted((found, table) for found, table in last if found):
            rows = results.rows(table, project=project, scan=scan)
            for row in rows:
                _merge(merged[str(row["band"]), int(row["receiver"])], row)
            scans |= {n: scan for n in SHOWN if any(row.get(n) is not None for row in rows)}
        look = self._newest_look(project)
        entries = []
        for (band, receiver), pixels in sorted(merged.items()):
            x, y, placed = _places(look, band, receiver, sorted(pixels))
            listed = [{**pixels[p], "x": x[i], "y": y[i]} for i, p in enumerate(sorted(pixels))]
            name = f"scan {look.scan}" if look is not None and placed else ""
            head = {"project": project, "band": band, "receiver": receiver, "scans": scans}
            entries.append({**head, "placed": placed, "look": name, "pixels": listed})
        return entries

    def _newest_look(self, project: str) -> Look | None:
        """The look that was written last; one that cannot be read is passed over."""
        dated = []
        for path in self.config.work_of("calibration", project).glob("*.npz"):
            try:
                dated.append((path.stat().st_mtime_ns, path))
            except OSError:
                continue
        for when, path in sorted(dated, reverse=True)[:5]:
            with self._lock:
                if self._known is not None and self._known[0] == (str(path), when):
                    return self._known[1]
            if not zipfile.is_zipfile(path):
                continue
            try:
                look = load_look(path)
            except (OnlineError, zipfile.BadZipFile, TypeError):
                continue
            if not look.bands:
                continue
            with self._lock:
                self._known = ((str(path), when), look)
            return look
        return None


def _merge(pixels: dict[int, Row], row: Mapping[str, Any]) -> None:
    """Add the values of a row to its pixel."""
    pixel = int(row["pixel"])
    if pixel < 0:
        return
    known = pixels.setdefault(
        pixel, {"pixel": pixel, **dict.fromkeys(SHOWN), "valid": True, "reason": ""}
    )
    known.update({n: row[n] for n in SHOWN if row.get(n) is not None})
    if not row["valid"]:
        known["valid"] = False
        known["reason"] = str(row["reason"])


def _places(
    look: Look | None, band: str, receiver: int, pixels: Sequence[int]
) -> tuple[list[float], list[float], bool]:
    """Offsets in arcsec from a look, else a square grid in the order of the pixels."""
    for found in look.bands if look is not None else ():
        receivers, count = found.pixel_lon.shape
        if found.band != band or receiver >= receivers or not pixels or max(pixels) >= count:
            continue
        together = ARCSEC * np.stack(
            [found.pixel_lon[receiver, pixels], found.pixel_lat[receiver, pixels]], axis=1
        )
        distinct = len(np.unique(together.round(4), axis=0)) == len(pixels)
        if np.isfinite(together).all() and distinct:
            return together[:, 0].tolist(), together[:, 1].tolist(), True
    side = max(1, math.ceil(math.sqrt(len(pixels))))
    columns = [float(i % side) for i in range(len(pixels))]
    return columns, [-float(i // side) for i in range(len(pixels))], False
