"""Compute the numbers and curves of a look from a calibrated scan, or from its counts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gpucal.axes import FILL_INT32
from gpucal.online.looks.look import F64, BandLook
from gpucal.pipeline.scan.averaging import AveragedScan
from gpucal.scan import SubscanGroup


def calibrated_look(result: AveragedScan) -> BandLook:
    """The look at one band of a scan that was calibrated and averaged, in K."""
    host = result.solution.backend.to_host
    group = result.solution.group
    on = [int(s) for s in result.solution.pairing.on_index]
    quality = result.quality
    cold = result.solution.loads.cold is not None
    return BandLook(
        band=result.solution.scan.band,
        unit="K",
        frequency=np.asarray(host(result.solution.setup.nu_sig), dtype=np.float64)[:, 0],
        spectrum=result.spectrum,
        continuum=result.continuum,
        lon=group.otf_lon[: result.continuum.shape[0], on],
        lat=group.otf_lat[: result.continuum.shape[0], on],
        mjd=group.mjd[: result.continuum.shape[0], on],
        pixel_lon=group.pixel_offset_lon[..., on[0]],
        pixel_lat=group.pixel_offset_lat[..., on[0]],
        t_sys=result.t_sys if cold else np.full_like(result.t_sys, np.nan),
        t_sys_star=result.t_sys_star,
        t_rec=result.t_rec,
        rms=_rms(result.spectrum),
        # that of the mean over the dumps of one subscan; the reference is shared, so this is a lower limit
        rms_expected=np.asarray(quality["rms_expected"]) / np.sqrt(result.continuum.shape[3]),
        modes=tuple(group.sobsmode[s] for s in on),
        pwv=float(quality["pwv"]),
        pwv_error=float(quality["pwv_error"]),
        tau=result.tau,
    )


def counts_look(group: SubscanGroup, subscans: Sequence[int], band: str) -> BandLook:
    """The look at raw counts: loads, or data that cannot be calibrated yet. Fill values are left out."""
    c, d, r, a, _ = group.shape
    continuum = np.full((d, r, a, len(subscans)), np.nan)
    total, seen = np.zeros((c, r, a)), np.zeros((c, r, a))
    for i, s in enumerate(subscans):
        block = group.counts.read(0, c, s)
        good = block != FILL_INT32 if block.dtype.kind == "i" else np.isfinite(block)
        values = np.where(good, block, 0).astype(np.float64)
        total += values.sum(axis=1)
        seen += good.sum(axis=1)
        n = good.sum(axis=0)
        continuum[..., i] = np.where(n > 0, values.sum(axis=0) / np.maximum(n, 1), np.nan)
    spectrum = np.where(seen > 0, total / np.maximum(seen, 1), np.nan)
    places = list(subscans)
    unknown = np.full((r, a), np.nan)
    offset = np.arange(c) - group.ref_channel[0, places[0]]
    return BandLook(
        band=band,
        unit="counts",
        frequency=group.signal_freq[0, places[0]] + offset * group.freq_res[0, places[0]],
        spectrum=spectrum,
        continuum=continuum,
        lon=group.otf_lon[:, places],
        lat=group.otf_lat[:, places],
        mjd=group.mjd[:, places],
        pixel_lon=group.pixel_offset_lon[..., places[0]],
        pixel_lat=group.pixel_offset_lat[..., places[0]],
        t_sys=unknown,
        t_rec=unknown,
        rms=unknown,
        rms_expected=unknown,
        modes=tuple(group.sobsmode[s] for s in places),
    )


def _rms(spectrum: F64) -> F64:
    """Scatter from differences of neighbouring channels, so that lines do not count; f64 [R,A]."""
    steps = np.diff(spectrum, axis=0)
    good = np.isfinite(steps)
    n = good.sum(axis=0)
    square = np.where(good, steps**2, 0.0).sum(axis=0)
    return np.where(n > 0, np.sqrt(square / np.maximum(n, 1) / 2), np.nan)
