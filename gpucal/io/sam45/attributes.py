"""Attributes of the scans and bands of a SAM45 log."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpucal.io.sam45.arrays import LogParts
from gpucal.io.sam45.bands import Band
from gpucal.io.sam45.pointing import source_position
from gpucal.io.sam45.records import text_of
from gpucal.io.sam45.segments import Segment
from gpucal.io.sam45.times import moment
from gpucal.physics.doppler import LIGHT, to_radio, vframe

_DEFINITIONS = {1: "RADI", 2: "OPTI"}
_FRAMES = {1: "LSR", 2: "HEL"}
_EPOCHS = {"J2000": "icrs", "B1950": "fk4"}
_KEPT = ("clog_id", "cobs_file", "csrc_comment", "cobs_user", "cgroup", "cepoch", "cseq_ptn")


def scan_attributes(parts: LogParts, segment: Segment, velocity: float) -> dict[str, Any]:
    """What the scan is; velocity: of the antenna in the scan, m/s."""
    log, first = parts.log, segment.runs[0]
    attrs: dict[str, Any] = {
        "instmode": "LOAD" if segment.loads else parts.how.upper(),
        "source": text_of(bytes(log.obs["cobj_name"])),
        "date_obs": _utc(float(parts.moments.mjd[first.first])),
        "obs_procedure": "calibration"
        if segment.loads
        else {"otf": "otf"}.get(parts.how, parts.how),
        "n_subscans_planned": len(segment.runs),
        "project": text_of(bytes(log.obs["cproject"])),
        "ref_channel_base": 0,
        "log": log.path.name,
        "log_name": text_of(bytes(log.ctl["clog_name"])),
        "pointing_from": parts.pointing.origin,
        "scan_metadata": {k: text_of(bytes(log.obs[k])) for k in _KEPT},
        "dant_vel_mps": velocity,
    }
    if np.isfinite(parts.pointing.error):
        attrs["tracking_error_arcsec"] = round(parts.pointing.error, 3)
    if segment.borrowed:
        attrs["borrowed_offs"] = segment.borrowed
    return attrs | _direction(parts) | _velocities(parts, velocity)


def _utc(mjd: float) -> str:
    return moment(mjd).isoformat(timespec="seconds")


def _direction(parts: LogParts) -> dict[str, Any]:
    """Where the offsets count from."""
    lon, lat = source_position(parts.log)
    epoch = text_of(bytes(parts.log.obs["cepoch"])).upper() or "J2000"
    if not np.isfinite(lon) or epoch not in _EPOCHS:
        return {}
    return {"source_direction": {"lon_deg": lon, "lat_deg": lat, "frame": _EPOCHS[epoch]}}


def _velocities(parts: LogParts, velocity: float) -> dict[str, Any]:
    """Velocity of the source with its definition, and of its frame as VFRAME: the rest axis comes back from them."""
    obs = parts.log.obs
    source = float(obs["dstrv"])
    words = _DEFINITIONS.get(int(obs["ivdef"])), _FRAMES.get(int(obs["ivref"]))
    if not np.isfinite(source) or None in words:
        return {}
    radio = to_radio(source, str(words[0]))
    # the line of the source appears at its rest frequency in the axis of the log
    site = LIGHT * ((1.0 - radio / LIGHT) / (1.0 - velocity / LIGHT) - 1.0)
    return {
        "velocity_source_kms": source / 1e3,
        "velocity_definition": f"{words[0]}-{words[1]}",
        "velocity_frame_mps": vframe(site),
    }


def band_attributes(band: Band) -> dict[str, Any]:
    """What differs between bands: rest frequency, sideband, and which array is which receiver and pixel."""
    lead = band.lead
    names = [[a.name if a is not None else "" for a in row] for row in band.arrays]
    return {
        "rest_freq_hz": lead.centre if lead.centre > 0 else lead.rest,
        "sideband": lead.sideband,
        "frontend": lead.frontend,
        "arrays": names,
        "polarisations": list(band.polarisations),
        "beams": list(band.beams),
        "attenuation_db": [[a.attenuation_db if a else None for a in row] for row in band.arrays],
    }
