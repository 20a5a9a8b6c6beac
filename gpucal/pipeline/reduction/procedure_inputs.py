"""Drifts and focus series from the continuum of a scan.

Attributes of a focus scan: ``focus_mm``, one position per subscan of source/, and ``focus_axis``, one name
("z", the default) or one per subscan. Shapes: D dumps, R receivers, A pixels, S subscans.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from gpucal.errors import L0Error
from gpucal.pipeline.reduction.continuum import Continuum
from gpucal.procedures.focus import FocusSeries
from gpucal.procedures.pointing import Drift, PointingOptions, fit_drifts

F64 = npt.NDArray[np.float64]
ARCSEC = 3600.0
DAY_S = 86400.0
STILL_ARCSEC = 0.1
"""A subscan that moves less than this stares."""


def drifts_of(continuum: Continuum) -> list[Drift]:
    """One Drift per moving subscan and pixel; positions in arcsec, of the pixel itself.

    The direction with the larger extent is that of the drift: otf_lon is "az", otf_lat "el". A pixel's position
    is that of the telescope plus its offset in the array.
    """
    _, n_rec, n_pix, n_sub = continuum.values.shape
    moving = [s for s in range(n_sub) if _extent(continuum, s) > STILL_ARCSEC]
    return [_drift(continuum, s, r, a) for s in moving for r, a in np.ndindex(n_rec, n_pix)]


def _extent(continuum: Continuum, s: int) -> float:
    """Distance that the telescope moved in a subscan, arcsec: the larger of both directions."""
    lon, lat = continuum.track.lon[:, s], continuum.track.lat[:, s]
    good = np.isfinite(lon) & np.isfinite(lat)
    return ARCSEC * float(max(np.ptp(lon[good]), np.ptp(lat[good]))) if good.any() else 0.0


def _drift(continuum: Continuum, s: int, r: int, a: int) -> Drift:
    """One subscan as one pixel saw it."""
    track = continuum.track
    lon = ARCSEC * (track.lon[:, s] + track.pixel_lon[r, a, s])
    lat = ARCSEC * (track.lat[:, s] + track.pixel_lat[r, a, s])
    along_lon = np.nanmax(lon) - np.nanmin(lon) >= np.nanmax(lat) - np.nanmin(lat)
    axis, x, other = ("az", lon, lat) if along_lon else ("el", lat, lon)
    good = np.isfinite(x) & np.isfinite(track.mjd[:, s])
    seconds = DAY_S * (track.mjd[good, s] - track.mjd[good, s][0])
    span = float(seconds[-1] - seconds[0])
    moved = float(x[good][-1] - x[good][0])
    return Drift(
        axis=axis,
        positions=x,
        values=continuum.values[:, r, a, s],
        # offsets of an array's pixels never agree to the last digit between drifts
        cross=round(float(np.nanmean(other)), 2),
        sense=1 if moved >= 0 else -1,
        speed=abs(moved) / span if span > 0 else float("nan"),
        value_unit=continuum.unit,
        receiver=r,
        pixel=a,
        label=continuum.label,
    )


def focus_positions(
    attrs: Mapping[str, Any], subscans: Sequence[int]
) -> tuple[F64, tuple[str, ...]]:
    """Focus position (mm) f64 [S] and axis of the L0 subscans asked for.

    Raises L0Error when the scan has no attribute ``focus_mm``, or it is too short.
    """
    given = attrs.get("focus_mm")
    last = max(subscans)
    numbers = isinstance(given, Sequence) and all(isinstance(v, int | float) for v in given)
    if not isinstance(given, Sequence) or not numbers or len(given) <= last:
        raise L0Error(
            f"the scan attribute focus_mm is {given!r}, expected a list of at least {last + 1} "
            "numbers, one per subscan of source/.",
            hint="Write the focus position of each subscan, mm, into focus_mm.",
        )
    axis = attrs.get("focus_axis", "z")
    names = [axis] * (last + 1) if isinstance(axis, str) else list(axis)
    if len(names) <= last:
        raise L0Error(
            f"the scan attribute focus_axis has {len(names)} entries, expected {last + 1}."
        )
    values = np.array([float(given[s]) for s in subscans])
    return values, tuple(str(names[s]) for s in subscans)


class Peak(NamedTuple):
    """Peak at one focus position (mm), in the unit of the continuum; the error is NaN where it is not known."""

    position: float
    value: float
    error: float


def focus_series(
    continuum: Continuum, attrs: Mapping[str, Any], options: PointingOptions
) -> list[FocusSeries]:
    """Peak against focus position, per axis and pixel: Gaussian amplitude where the subscans drift, else
    the mean over the dumps of a subscan that stares.

    The error of a mean is the scatter of its dumps, pooled over all subscans of the pixel, with the noise of
    the reference on top where it is known. With one dump per subscan there is none: the fit takes it from its
    residual.
    """
    where, axes = focus_positions(attrs, continuum.track.subscan.tolist())
    drifting = np.array([_extent(continuum, s) > STILL_ARCSEC for s in range(len(where))])
    made: list[FocusSeries] = []
    for axis in dict.fromkeys(axes):
        mine = np.flatnonzero([a == axis for a in axes])
        for r, a in np.ndindex(*continuum.values.shape[1:3]):
            if drifting[mine].all():
                points = list(_drift_peaks(continuum, where, mine, (r, a), options))
            else:
                points = _stare_peaks(continuum, where, mine, (r, a))
            x, y, errors = (np.array(column) for column in zip(*points, strict=True))
            made.append(
                FocusSeries(
                    axis=axis,
                    positions=x,
                    values=y,
                    errors=errors if np.isfinite(errors).any() else None,
                    value_unit=continuum.unit,
                    receiver=r,
                    pixel=a,
                    label=continuum.label,
                )
            )
    return made


def _drift_peaks(
    continuum: Continuum,
    where: F64,
    mine: npt.NDArray[np.intp],
    pixel: tuple[int, int],
    options: PointingOptions,
) -> Iterator[Peak]:
    """One peak per position and direction: the amplitude of a Gaussian through its drifts."""
    for z in np.unique(where[mine]):
        drifts = [_drift(continuum, int(s), *pixel) for s in mine if where[s] == z]
        for axis in dict.fromkeys(d.axis for d in drifts):
            fit = fit_drifts([d for d in drifts if d.axis == axis], options)
            value = fit.amplitude.value if fit.valid else float("nan")
            yield Peak(float(z), value, fit.amplitude.error)


def _stare_peaks(
    continuum: Continuum, where: F64, mine: npt.NDArray[np.intp], pixel: tuple[int, int]
) -> list[Peak]:
    """One peak per subscan: the mean of its dumps, with the scatter pooled over all of them."""
    values = continuum.values[:, pixel[0], pixel[1], :][:, mine]
    good = np.isfinite(values)
    n = good.sum(axis=0)
    some = np.maximum(n, 1)
    mean = np.where(good, values, 0.0).sum(axis=0) / some
    square = np.where(good, (values - mean) ** 2, 0.0)
    dof = int(np.sum(np.maximum(n - 1, 0)))
    sigma = float(np.sqrt(square.sum() / dof)) if dof > 0 else float("nan")
    excess = continuum.noise.excess[mine] if continuum.noise is not None else np.ones(len(mine))
    errors = sigma * np.sqrt(excess / some)
    means = np.where(n > 0, mean, np.nan)
    columns = where[mine].tolist(), means.tolist(), errors.tolist()
    return [Peak(*row) for row in zip(*columns, strict=True)]
