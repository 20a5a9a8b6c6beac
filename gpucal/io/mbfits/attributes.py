"""Attributes of a scan and of its bands, from the headers of MBFITS."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import numpy as np

from gpucal.io.fits.units import MJD_EPOCH, Unit
from gpucal.io.incoming.assumptions import Assumptions
from gpucal.io.mbfits.axis import SkyAxis
from gpucal.io.mbfits.clock import Clock
from gpucal.io.mbfits.dataset import Dataset, is_true, known
from gpucal.io.mbfits.groups import Band
from gpucal.io.mbfits.modes import Observed, Sorted
from gpucal.physics.doppler import LIGHT, vframe

FASTEST_SITE = 6e4
"""m/s: the Earth moves against the standards of rest by less."""
_KEPT = (
    *(
        "OBSID",
        "SCANMODE",
        "SCANGEOM",
        "SCANDIR",
        "WOBTHROW",
        "WOBDIR",
        "WOBCYCLE",
        "WOBMODE",
        "WOBPATT",
    ),
    *("PDELTACA", "PDELTAIE", "FDELTAX", "FDELTAY", "FDELTAZ", "DIAMETER", "TIMESYS", "TAI2UTC"),
)
_MODES = {"total": "TP", "wobbler": "WSW", "frequency": "FSW"}
_FRAMES = {
    "LSR": "LSR",
    "LSRK": "LSR",
    "BARYCENT": "BAR",
    "HELIOCEN": "HEL",
    "BARY": "BAR",
    "HELIO": "HEL",
}
FOCUS_MOVES_MM = 0.01


def scan_attributes(
    dataset: Dataset, kinds: Sorted, clock: Clock, bands: Sequence[Band]
) -> dict[str, Any]:
    """What the scan is: the same for all its bands."""
    several = 2 if kinds.switch == "frequency" else 1
    planned = int(dataset.scan.number("NSUBS", 0.0) or dataset.scan.number("NOBS", 0.0))
    found = len(dataset.subscans)
    attrs: dict[str, Any] = {
        "instmode": _MODES[kinds.switch] if kinds.source else "LOAD",
        "source": dataset.text("OBJECT"),
        "date_obs": _iso(clock.begin),
        "obs_procedure": kinds.procedure,
        "project": dataset.text("PROJID"),
        "ref_channel_base": 0,
        "scantype": dataset.scan.text("SCANTYPE"),
        "mbfits_version": dataset.version,
        "scan_metadata": _metadata(dataset, bands),
    }
    if planned > 0:
        attrs |= {"complete": found >= planned, "n_subscans_planned": several * planned}
    return attrs | _direction(dataset, kinds.source) | _focus(kinds)


def _iso(mjd: float) -> str:
    when = MJD_EPOCH + timedelta(milliseconds=round(mjd * 86400e3))
    return when.replace(tzinfo=None).isoformat(timespec="milliseconds")


def _metadata(dataset: Dataset, bands: Sequence[Band]) -> dict[str, Any]:
    """Header values that programs may read later: finite numbers and texts; PWV of the radiometer, mm."""
    kept: dict[str, Any] = {}
    for key in _KEPT:
        value = dataset.scan.header.get(key)
        if isinstance(value, str):
            kept[key] = dataset.scan.text(key)
        elif isinstance(value, int | float) and known(float(value)):
            kept[key] = value
    water = [x.air.pwv for b in bands for x in b.around.values() if np.isfinite(x.air.pwv)]
    if water:
        kept["PWV"] = float(np.median(water))
    return kept


def is_horizontal(dataset: Dataset, observed: Observed) -> bool:
    """Whether the offsets (LONGOFF, LATOFF) are along azimuth and elevation: USRFRAME, CTYPE1N or CTYPE1."""
    subscan = observed.subscan
    units = [dataset.subscans[subscan.number].monitor, subscan.pars, dataset.scan]
    keywords = ("USRFRAME", "CTYPE1N", "CTYPE1")
    words = [u.text(k).upper() for k in keywords for u in units if u is not None]
    return next((w for w in words if w), "").startswith(("HO", "ALON", "AZ"))


def _direction(dataset: Dataset, source: Sequence[Observed]) -> dict[str, Any]:
    """Where the offsets count from, unless those of the source are along azimuth and elevation."""
    ons = [o for o in source if not o.mode.endswith("OFF") or o.chop is not None]
    if not ons or is_horizontal(dataset, ons[0]) or is_true(dataset.scan, "MOVEFRAM"):
        return {}
    scan = dataset.scan
    pairs = (("BLONGOBJ", "BLATOBJ"), ("CRVAL1", "CRVAL2"))
    lon, lat = next(
        (both for pair in pairs if known(sum(both := tuple(scan.number(k, np.nan) for k in pair)))),
        (np.nan, np.nan),
    )
    if not (known(lon) and known(lat)) or abs(lat) > 90.0:
        return {}
    ctype = scan.text("CTYPE1").upper()
    frame = "galactic" if ctype.startswith("GLON") else ""
    if ctype.startswith("RA"):
        equinox = scan.number("EQUINOX", dataset.primary.number("EQUINOX", 2000.0))
        frame = {2000.0: "fk5", 1950.0: "fk4"}.get(equinox, "")
        frame = "icrs" if dataset.text("RADESYS").upper() == "ICRS" else frame
    return {"source_direction": {"lon_deg": lon, "lat_deg": lat, "frame": frame}} if frame else {}


def _focus(kinds: Sorted) -> dict[str, Any]:
    """Positions of the focus of all subscans of a focus scan, along the axis that was moved; OFFs have that before."""
    if kinds.procedure != "focus" or not kinds.source:
        return {}
    told = {axis: [_mean(o.dumps.values[axis]) for o in kinds.source] for axis in ("x", "y", "z")}
    moved = {a: float(np.nanmax(v) - np.nanmin(v)) for a, v in told.items() if np.isfinite(v).any()}
    axis = max(moved, key=lambda a: moved[a], default="")
    if not axis or moved[axis] < FOCUS_MOVES_MM:
        return {}
    values = told[axis]
    last = next(v for v in values if np.isfinite(v))
    filled = []
    for o, value in zip(kinds.source, values, strict=True):
        last = value if np.isfinite(value) and o.mode != "OFF" else last
        filled.append(last)
    return {"focus_mm": filled, "focus_axis": axis}


def _mean(values: Any) -> float:
    good = values[np.isfinite(values)]
    return float(good.mean()) if good.size else float("nan")


def band_attributes(
    dataset: Dataset, band: Band, lead: Observed, assumed: Assumptions
) -> dict[str, Any]:
    """What differs between bands: receiver, line, efficiencies, velocities."""
    febe, baseband = band.key
    unit = band.units[lead.subscan.number]
    axis = band.axes[lead.subscan.number]
    front, _, back = febe.partition("-")
    attrs: dict[str, Any] = {
        "line": unit.text("TRANSITI") or unit.text("MOLECULE"),
        "febe": febe,
        "frontend": front,
        "backend": back,
        "baseband": baseband,
        "sideband": axis.sideband,
        "pixels": list(band.feeds.pixels),
        "polarisation": "".join(band.feeds.polarisations),
        "file": dataset.lead.parent.name if dataset.grouped else dataset.lead.name,
    }
    if known(axis.rest) and axis.rest > 0:
        attrs["rest_freq_hz"] = axis.rest
    efficiencies = {"f_eff": band.feeds.f_eff, "gain_image": band.feeds.gain_image}
    attrs |= {name: value for name, value in efficiencies.items() if value is not None}
    return attrs | _velocities(unit, axis, assumed)


def _velocities(unit: Unit, axis: SkyAxis, assumed: Assumptions) -> dict[str, Any]:
    """Velocity of the source, and of its frame as VFRAME, so that a line of the source has its rest frequency.

    The rest axis is that of the source or that of its frame: whichever lets the Earth move at a speed that it can have.
    """
    frame = _FRAMES.get((unit.text("1SPEC2R") or unit.text("1SPEC2F")).upper())
    value = unit.number("1VSOU2R", unit.number("1VSOU2F", np.nan))
    if frame is None or not known(value) or not known(axis.doppler):
        return {}
    word = unit.text("1CUNI2R", "km/s").lower().replace(" ", "")
    source = value * (1.0 if word in ("m/s", "ms-1") else 1e3)
    both = {"source": 1.0 - source / LIGHT, "frame": 1.0}
    sites = {name: LIGHT * (moved / axis.doppler - 1.0) for name, moved in both.items()}
    possible = [name for name, site in sites.items() if abs(site) <= FASTEST_SITE]
    if not possible:
        return {}
    chosen = possible[0]
    if len(possible) == 2 and source:
        why = "the rest axis (F) may be that of the source or of its standard of rest"
        chosen = str(assumed.take("rest_axis", "source", why))
    return {
        "velocity_source_kms": source / 1e3,
        "velocity_definition": f"RADI-{frame}",
        "velocity_frame_mps": vframe(sites[chosen]),
    }
