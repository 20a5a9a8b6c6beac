"""From the raw counts of a skydip to sky temperatures against airmass.

A skydip is a load scan (calibration/ only) with HOT, COLD and SKY subscans at several elevations; a scan with
source/ is taken too, every subscan of it as sky.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from gpucal.config import CalibrationConfig
from gpucal.errors import LoadError
from gpucal.physics.radiometry import T_BACKGROUND
from gpucal.physics.radiometry import airmass as airmass_of
from gpucal.pipeline.reduction.continuum import Continuum, raw_continuum
from gpucal.procedures.skydip import SkydipOptions, SkydipSeries
from gpucal.scan import Scan, SubscanGroup
from gpucal.steps.sky_model import ambient_temperatures

F64 = npt.NDArray[np.float64]
LoadScale = Callable[[], tuple[tuple[F64, F64], Callable[[float], F64]]]


def sky_subscans(scan: Scan) -> tuple[SubscanGroup, list[int]]:
    """The subscans that look at the sky; raises LoadError when there are none."""
    loads = scan.calibration
    if loads is not None and len(loads.select("SKY")) > 1:
        return loads, loads.select("SKY")
    if scan.source is not None:
        return scan.source, list(range(scan.source.shape[4]))
    raise LoadError(
        "there are not two SKY subscans in calibration/, and no source/: this is no skydip.",
        hint="Record the sky at several elevations as SKY.",
        scan=scan.number,
        band=scan.band,
    )


def skydip_series(
    scan: Scan, load_scale: LoadScale, config: CalibrationConfig, options: SkydipOptions
) -> tuple[list[SkydipSeries], Continuum]:
    """One series per pixel, each dump a sample at its own airmass; temperatures are J(nu, T).

    load_scale: the scale of the counts and J(T), see ``RawScan.load_scale``. Without a scale the
    total-power form is fitted to counts where its gain is free; the other forms raise the LoadError.
    """
    group, subscans = sky_subscans(scan)
    t_amb, t_atm = ambient_temperatures(group, config)
    _, _, n_rec, n_pix, _ = group.shape
    try:
        scale, brightness = load_scale()
        j_atm, j_amb, j_bg = (brightness(t) for t in (t_atm, t_amb, T_BACKGROUND))
        continuum = raw_continuum(group, subscans, scan.band, scale)
    except LoadError:
        if options.form != "total-power" or not options.free_gain:
            raise
        j_atm, j_amb, j_bg = (np.full((n_rec, n_pix), t) for t in (t_atm, t_amb, 0.0))
        continuum = raw_continuum(group, subscans, scan.band)
    airmass = np.asarray(airmass_of(continuum.track.elevation, config.airmass), dtype=np.float64)
    series = [
        SkydipSeries(
            airmass=airmass.ravel(),
            values=continuum.values[:, r, a, :].ravel(),
            t_atm=float(j_atm[r, a]),
            t_amb=float(j_amb[r, a]),
            t_bg=float(j_bg[r, a]),
            receiver=r,
            pixel=a,
            label=scan.band,
            value_unit=continuum.unit,
        )
        for r in range(n_rec)
        for a in range(n_pix)
    ]
    return series, continuum
