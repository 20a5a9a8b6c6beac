"""Attributes of the scans and bands of IMBFITS."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gpucal.io.imbfits.axis import Spectrum
from gpucal.io.imbfits.file import ImbFile
from gpucal.io.imbfits.modes import Observed, Sorted
from gpucal.physics.doppler import LIGHT, to_radio, vframe

_KEPT = (
    *("OBSID", "OPERATOR", "QUEUE", "EXPTIME", "TIPTAUZ", "TIPTAUC", "HUMIDITY", "WINDVEL"),
    *("P1COR", "P2COR", "P7COR", "FOCUSX", "FOCUSY", "FOCUSZ", "RECON"),
    *("WOBTHROW", "WOBCYCLE", "PHASETIM", "SWTCHMOD", "IMBFTSVE"),
)
_FRAMES = {"GLON": "galactic"}
_MODES = {"total": "TP", "wobbler": "WSW", "frequency": "FSW"}


def scan_attributes(file: ImbFile, kinds: Sorted) -> dict[str, Any]:
    """What the scan is: the same for all its bands."""
    planned = int(file.primary.number("N_OBS", file.scan.number("N_OBS", 0.0)))
    found = int(file.primary.number("N_OBSP", planned))
    several = 2 if kinds.switch == "frequency" else 1
    attrs: dict[str, Any] = {
        "instmode": "LOAD" if not kinds.source else _MODES[kinds.switch],
        "source": file.primary.text("OBJECT") or file.scan.text("OBJECT"),
        "date_obs": file.primary.text("DATE-OBS") or file.scan.text("DATE-OBS"),
        "obs_procedure": kinds.procedure,
        "project": file.primary.text("PROJID") or file.scan.text("PROJID"),
        "complete": found >= planned,
        "ref_channel_base": 0,
        "obstype": file.obstype,
        "imbfits_version": file.version,
        "scan_metadata": _metadata(file),
    }
    if planned:
        attrs["n_subscans_planned"] = several * planned
    return attrs | _direction(file, kinds.source) | _focus(kinds)


def _metadata(file: ImbFile) -> dict[str, Any]:
    """Header values that programs may read later: finite numbers and texts."""
    kept: dict[str, Any] = {}
    for key in _KEPT:
        for unit in (file.scan, file.primary):
            value = unit.header.get(key)
            if isinstance(value, str):
                kept[key] = unit.text(key)
            elif isinstance(value, int | float) and np.isfinite(value):
                kept[key] = value
            if key in kept:
                break
    return kept


def _direction(file: ImbFile, source: Sequence[Observed]) -> dict[str, Any]:
    """Where the offsets count from, unless those of the source are along azimuth and elevation."""
    ons = [o for o in source if o.mode not in ("OFF", "OTF-OFF")]
    if not ons or any(o.subscan.trace.horizontal for o in ons):
        return {}
    ctype = file.scan.text("CTYPE1").upper()
    lon, lat = (file.scan.number(k, file.primary.number(k, np.nan)) for k in ("LONGOBJ", "LATOBJ"))
    if not np.isfinite(lon + lat) or abs(lat) > 90.0:
        return {}
    frame = _FRAMES.get(ctype[:4], "")
    if ctype.startswith("RA"):
        frame = {2000.0: "fk5", 1950.0: "fk4"}.get(file.scan.number("EQUINOX", 2000.0), "")
    return {"source_direction": {"lon_deg": lon, "lat_deg": lat, "frame": frame}} if frame else {}


def _focus(kinds: Sorted) -> dict[str, Any]:
    """Positions of the focus of all subscans of a focus scan; OFFs have that of the subscan before."""
    if kinds.procedure != "focus":
        return {}
    told = [o.subscan.trace.focus for o in kinds.source]
    known = [t for t in told if t is not None]
    if not known:
        return {}
    last = known[0]
    axes, values = [], []
    for t in told:
        last = last if t is None else t
        axes.append(last[0])
        values.append(last[1])
    return {"focus_mm": values, "focus_axis": axes}


def band_attributes(file: ImbFile, spectrum: Spectrum, observed: Observed) -> dict[str, Any]:
    """What differs between bands: receiver, line, efficiencies, which backend and chunks."""
    tuning = spectrum.tuning
    attrs: dict[str, Any] = {
        "rest_freq_hz": tuning.rest,
        "line": spectrum.line or tuning.line,
        "frontend": tuning.name,
        "backend": file.backend,
        "part": spectrum.part,
        "band_name": spectrum.band,
        "polarisation": spectrum.polar,
        "sideband": "USB" if spectrum.side > 0 else "LSB",
        "pixels": list(spectrum.pixels),
        "file": file.path.name,
    }
    ends = np.cumsum([piece.count for piece in spectrum.pieces[0]])
    if len(ends) > 1:
        attrs["unit_borders"] = ends[:-1].tolist()
    efficiencies = {"f_eff": tuning.f_eff, "gain_image": tuning.gain_image}
    attrs |= {name: value for name, value in efficiencies.items() if value is not None}
    return attrs | _velocities(file, observed.subscan.trace.doppler)


def _velocities(file: ImbFile, doppler: float) -> dict[str, Any]:
    """Velocity of the source, and of its frame as VFRAME: with it a line of the source has its rest frequency."""
    unit = file.frontend
    source = unit.number("VELOSYS", np.nan)
    convention = {"radio": "RADI", "optical": "OPTI"}.get(unit.text("VELOCONV", "radio").lower())
    frame = {"LSR": "LSR", "HEL": "HEL", "HELIO": "HEL", "BARY": "BAR"}.get(
        unit.text("SPECSYS", "LSR").upper()
    )
    if not np.isfinite(source) or convention is None or frame is None:
        return {}
    radio = to_radio(source * 1e3, convention)
    site = LIGHT * ((1.0 - radio / LIGHT) / doppler - 1.0)
    return {
        "velocity_source_kms": source,
        "velocity_definition": f"{convention}-{frame}",
        "velocity_frame_mps": vframe(site),
    }
