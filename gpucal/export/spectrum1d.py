"""Calibrated spectra as ``specutils.Spectrum``, for notebooks; specutils is imported only when used."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from gpucal.axes import UNUSABLE
from gpucal.errors import L1Error
from gpucal.export.frames import Pointing, Site, number, scan_frame
from gpucal.io.l1.memory_scan import MemoryScan
from gpucal.io.l1.reader import L1Scan
from gpucal.io.l1.rounded import rounding_step
from gpucal.io.l1.stored_t_sys import StoredTSys
from gpucal.physics.doppler import LIGHT

F64 = npt.NDArray[np.float64]
Average = Literal["subscans", "dumps", "none"]


@dataclass(frozen=True, eq=False)
class _Rows:
    """Spectra of one pixel: flux f64 [N,C] K, sigma f64 [N,C] K, bad bool [N,C], flags u16 [N,C]."""

    flux: F64
    sigma: F64
    bad: npt.NDArray[np.bool_]
    flags: npt.NDArray[np.uint16]


def to_spectrum1d(
    scan: L1Scan | MemoryScan,
    *,
    receiver: int = 0,
    pixel: int = 0,
    subscan: int | None = None,
    average: Average = "subscans",
) -> Any:
    """Return the spectra of one pixel of an L1 scan (or of a band of it) as ``specutils.Spectrum``.

    average: "subscans" one spectrum [C] of all dumps of all ON subscans (of ``subscan`` when given);
    "dumps" one per subscan [S,C]; "none" every dump [S*D,C], subscan by subscan. ``subscan`` counts along
    the subscan axis of L1. Weights are t/T_sys*^2 per channel.

    Flux T_A* in K; uncertainty ``StdDevUncertainty`` 1/sqrt(sum dnu t/T_sys*^2), the noise of the ON alone
    (radiometer equation); mask True where no dump has a valid sample. The spectral axis, Hz, is in the
    velocity frame of the source where the motion of the site against it can be told
    (``meta["velocity_frame"]``), else topocentric; with the rest value, so that ``.velocity`` is the radio
    velocity in that frame. The velocity of the source is ``meta["radial_velocity"]``: as the radial
    velocity of the Spectrum, specutils would shift ``.velocity`` by it.
    ``meta["rounding_step"]``: step of spectra that were rounded to their noise.
    Raises L1Error without specutils, or for an index that is not there.
    """
    try:
        from astropy import units
        from astropy.nddata import StdDevUncertainty
        from specutils import Spectrum
    except ImportError as error:
        raise L1Error(
            "specutils is not installed.", hint="Install it with: pip install specutils"
        ) from error
    chosen = _check(scan, receiver, pixel, subscan, average)
    rows = _average(scan, receiver, pixel, chosen, average)
    keep = slice(None) if average != "subscans" else 0
    axis, known, meta = _spectral(scan, receiver, chosen)
    meta |= {"receiver": receiver, "pixel": pixel, "flags": rows.flags[keep]}
    step = rounding_step(scan["spectra"].attrs)
    if step is not None:
        meta["rounding_step"] = step * units.K
    if "radial_velocity" in meta:
        meta["radial_velocity"] = meta["radial_velocity"] * units.m / units.s
    if "rest_value" in known:
        known["rest_value"] = known["rest_value"] * units.Hz
        known["velocity_convention"] = "radio"
    if axis.size > 1 and axis[1] < axis[0]:  # specutils wants an axis that rises
        axis = axis[::-1]
        rows = _Rows(
            rows.flux[:, ::-1], rows.sigma[:, ::-1], rows.bad[:, ::-1], rows.flags[:, ::-1]
        )
        meta["flags"] = rows.flags[keep]
    return Spectrum(
        flux=rows.flux[keep] * units.K,
        spectral_axis=axis * units.Hz,
        uncertainty=StdDevUncertainty(rows.sigma[keep] * units.K),
        mask=rows.bad[keep],
        meta=meta,
        **known,
    )


def _check(
    scan: L1Scan | MemoryScan, receiver: int, pixel: int, subscan: int | None, average: str
) -> list[int]:
    """The ON subscans asked for; raises L1Error for what the scan does not have."""
    if not isinstance(scan, L1Scan | MemoryScan):
        raise L1Error(
            f"scan is a {type(scan).__name__}, expected a calibrated scan.",
            hint="Take gpucal.open_l1(path)[number].",
        )
    if scan.bands:
        raise L1Error(
            f"the scan has the bands {', '.join(scan.bands)}.",
            hint=f"Give one of them: store[{scan.number}, {scan.bands[0]!r}].",
            scan=scan.number,
        )
    _, _, receivers, pixels, subscans = scan["spectra"].shape
    for name, value, size in (
        ("receiver", receiver, receivers),
        ("pixel", pixel, pixels),
        ("subscan", 0 if subscan is None else subscan, subscans),
    ):
        if not isinstance(value, int | np.integer) or not 0 <= value < size:
            raise L1Error(f"there is no {name} {value!r}, only 0 to {size - 1}.", scan=scan.number)
    if average not in ("subscans", "dumps", "none"):
        raise L1Error(f"average is {average!r}, expected subscans, dumps or none.")
    return list(range(subscans)) if subscan is None else [subscan]


def _average(
    scan: L1Scan | MemoryScan, receiver: int, pixel: int, chosen: list[int], average: str
) -> _Rows:
    """Read one subscan after the other; sums with weights t/T_sys*^2, K^-2 s."""
    parts = []
    for s in chosen:
        values = np.asarray(scan["spectra"][:, :, receiver, pixel, s], dtype=np.float64).T
        flags = np.asarray(scan["flags"][:, :, receiver, pixel, s]).T
        time = np.broadcast_to(np.asarray(scan["exptime"][...])[..., s], values.shape[:1])
        weight = time[:, None] * _t_sys_star(scan, receiver, pixel, s)[None] ** -2.0
        good = np.isfinite(values) & ((flags & int(UNUSABLE)) == 0) & (weight > 0)
        total, norm = np.where(good, values * weight, 0.0), np.where(good, weight, 0.0)
        if average == "none":
            parts.append((total, norm, flags))
        else:
            sums = total.sum(axis=0)[None], norm.sum(axis=0)[None]
            parts.append((*sums, np.bitwise_or.reduce(flags, axis=0)[None]))
    total, norm, flags = (np.concatenate(part) for part in zip(*parts, strict=True))
    if average == "subscans":
        total, norm = total.sum(axis=0)[None], norm.sum(axis=0)[None]
        flags = np.bitwise_or.reduce(flags, axis=0)[None]
    bad = norm <= 0
    flux = np.divide(total, norm, out=np.full(total.shape, np.nan), where=~bad)
    width = _noise_width(scan, receiver)
    sigma = np.divide(1.0, np.sqrt(width * norm), out=np.full(total.shape, np.nan), where=~bad)
    return _Rows(flux, sigma, bad, flags)


def _t_sys_star(scan: L1Scan | MemoryScan, receiver: int, pixel: int, subscan: int) -> F64:
    """T_sys* f64 [C], K.

    Without one all channels weigh the same and the uncertainty is that of 1 K.
    """
    nothing = np.ones(scan["spectra"].shape[0])
    stored = StoredTSys(scan, missing=1.0)
    if not stored.known:
        return nothing
    star = stored.star(subscan, place=(receiver, pixel))
    return star if np.isfinite(star).any() else nothing


def _noise_width(scan: L1Scan | MemoryScan, receiver: int) -> float:
    """Median noise bandwidth of a channel, Hz; 1 for a single channel."""
    frequency = _frequency(scan, receiver)
    if frequency.size < 2:
        return 1.0
    factor = float(scan.attrs.get("noise_bandwidth", 1.0))
    return float(np.median(np.abs(np.diff(frequency)))) * factor


def _frequency(scan: L1Scan | MemoryScan, receiver: int) -> F64:
    """Frequency f64 [C], Hz, of a receiver; L1 has one axis for all receivers where they agree."""
    values = np.asarray(scan["frequency"][...], dtype=np.float64)
    values = values.reshape(values.shape[0], -1)
    return np.asarray(values[:, min(receiver, values.shape[1] - 1)])


def _spectral(
    scan: L1Scan | MemoryScan, receiver: int, chosen: list[int]
) -> tuple[F64, dict[str, Any], dict[str, Any]]:
    """Spectral axis in Hz, keywords of Spectrum (SI numbers), meta data."""
    attrs = scan.attrs
    axis = _frequency(scan, receiver)
    known: dict[str, Any] = {}
    root = dict(scan.store_attrs)
    frame = scan_frame(attrs, _site(root), _pointing(scan, chosen))
    moving = frame.site_velocity[np.isfinite(frame.site_velocity)]
    told, source = "TOPOCENT", {}
    rest = number(attrs.get("rest_freq_hz"))
    if rest > 0:
        known["rest_value"] = rest
        if moving.size:
            told = frame.frame
            axis = axis * (1.0 + float(moving.mean()) / LIGHT)
            if np.isfinite(frame.velocity):
                source["radial_velocity"] = frame.velocity
    names = ("source", "line", "mode", "project", "date_obs")
    meta = {name: attrs[name] for name in names if attrs.get(name)}
    meta |= {**source, "scan": scan.number, "band": scan.band, "velocity_frame": told}
    meta |= {k: root[k] for k in ("telescope", "instrument") if root.get(k)}
    return axis, known, meta


def _site(root: dict[str, Any]) -> Site:
    site = root.get("site") or {}
    return Site(*(number(site.get(key)) for key in ("lat_deg", "lon_deg", "alt_m")))


def _pointing(scan: L1Scan | MemoryScan, chosen: list[int]) -> Pointing:
    _, dumps, _, _, subscans = scan["spectra"].shape
    arrays = []
    for name in ("mjd", "azimuth", "elevation", "otf_lon", "otf_lat"):
        values = np.asarray(scan[name][...], dtype=np.float64) if name in scan else np.nan
        arrays.append(np.broadcast_to(values, (dumps, subscans))[:, chosen])
    return Pointing(*arrays)
