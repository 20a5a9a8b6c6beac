"""Sky temperatures against airmass from the raw counts of a skydip.

A skydip is a load scan (calibration/ only) with HOT, COLD and SKY subscans at several elevations; a scan with
source/ is taken too, every subscan of it as sky.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gpucal.config import CalibrationConfig
from gpucal.errors import LoadError
from gpucal.physics.radiometry import T_BACKGROUND
from gpucal.physics.radiometry import airmass as airmass_of
from gpucal.pipeline.reduction.continuum import Continuum
from gpucal.pipeline.reduction.load_scale import LoadScale
from gpucal.procedures.skydip import SkydipSeries
from gpucal.scan import Scan, SubscanGroup
from gpucal.steps.sky_model import ambient_temperatures


@dataclass(frozen=True, eq=False)
class SkySubscans:
    """The subscans of a group that look at the sky."""

    group: SubscanGroup
    subscans: list[int]


def sky_of(scan: Scan) -> SkySubscans:
    """The subscans that look at the sky; raises LoadError when there are none."""
    loads = scan.calibration
    if loads is not None and len(loads.select("SKY")) > 1:
        return SkySubscans(loads, loads.select("SKY"))
    if scan.source is not None:
        return SkySubscans(scan.source, list(range(scan.source.shape[4])))
    raise LoadError(
        "there are not two SKY subscans in calibration/, and no source/: this is no skydip.",
        hint="Record the sky at several elevations as SKY.",
        scan=scan.number,
        band=scan.band,
    )


def skydip_series(
    sky: SkySubscans, continuum: Continuum, scale: LoadScale | None, config: CalibrationConfig
) -> list[SkydipSeries]:
    """One series per pixel, each dump a sample at its own airmass; temperatures are J(nu, T).

    scale: that of ``continuum``; None: counts, for the total-power form whose gain is free.
    """
    t_amb, t_atm = ambient_temperatures(sky.group, config)
    _, _, n_rec, n_pix, _ = sky.group.shape
    if scale is not None:
        j_atm, j_amb, j_bg = (scale.brightness(t) for t in (t_atm, t_amb, T_BACKGROUND))
    else:
        j_atm, j_amb, j_bg = (np.full((n_rec, n_pix), t) for t in (t_atm, t_amb, 0.0))
    airmass = np.asarray(airmass_of(continuum.track.elevation, config.airmass), dtype=np.float64)
    return [
        SkydipSeries(
            airmass=airmass.ravel(),
            values=continuum.values[:, r, a, :].ravel(),
            t_atm=float(j_atm[r, a]),
            t_amb=float(j_amb[r, a]),
            t_bg=float(j_bg[r, a]),
            receiver=r,
            pixel=a,
            label=continuum.label,
            value_unit=continuum.unit,
        )
        for r in range(n_rec)
        for a in range(n_pix)
    ]
