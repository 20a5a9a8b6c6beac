"""Sky temperatures against airmass from the raw counts of a skydip.

A skydip is a load scan (calibration/ only) with HOT, COLD and SKY subscans at several elevations; a scan with
source/ is taken too, every subscan of it as sky.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gpucal.backend.protocol import Backend
from gpucal.config import CalibrationConfig
from gpucal.errors import LoadError
from gpucal.physics.atm import AtmosphereTable, pwv_grid
from gpucal.physics.radiometry import T_BACKGROUND
from gpucal.physics.radiometry import airmass as airmass_of
from gpucal.pipeline.reduction.continuum import Continuum
from gpucal.pipeline.reduction.load_scale import LoadScale
from gpucal.procedures.skydip import Lapse, SkydipSeries
from gpucal.products import SpectralSetup
from gpucal.scan import Scan, SubscanGroup
from gpucal.steps.sky_model import ambient_temperatures, layered_sky

MOST_CHANNELS = 256
"""Channels that stand for a band."""


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


def band_lapse(
    table: AtmosphereTable | None,
    setup: SpectralSetup,
    config: CalibrationConfig,
    receiver: int,
    backend: Backend,
) -> Lapse | None:
    """How the sky of a receiver departs from an isothermal one as its opacity grows; None where it does not.

    For each trial PWV the zenith opacity of the band, -ln of the mean transmission of both sidebands with their gains,
    and kappa = sum t (e_b P + e_q P^2 + e_c + e_o3 c_o3) / sum t tau over its channels.
    """
    if table is None or not layered_sky(table, config):
        return None
    nu_sig, nu_img, g_sig, g_img = (
        np.asarray(backend.to_host(x))
        for x in (setup.nu_sig, setup.nu_img, setup.g_sig, setup.g_img)
    )
    axis = receiver if nu_sig.shape[1] > 1 else 0
    stride = max(1, nu_sig.shape[0] // MOST_CHANNELS)
    pwv = pwv_grid(table)[:, None, None]
    sums = np.zeros((3, pwv.size))
    for nu, gain in ((nu_sig, g_sig), (nu_img, g_img)):
        share = float(np.mean(gain))
        if not share:
            continue
        seen = table.channel_opacity(nu[::stride, axis], setup.channel_width, config.ozone_scale)
        assert seen.emission is not None
        c_o3, e_b, e_q, e_c, e_o3 = seen.emission
        tau = (seen.b + seen.q * pwv) * pwv + seen.c
        less = (e_b + e_q * pwv) * pwv + e_c + e_o3 * c_o3
        t = np.exp(-tau)
        sums += share * np.stack([np.mean(x, axis=(1, 2)) for x in (t, t * tau, t * less)])
    through, absorbed, lost = sums
    clear = absorbed > 0
    return Lapse(-np.log(through[clear]), lost[clear] / absorbed[clear]) if clear.any() else None


def skydip_series(
    sky: SkySubscans,
    continuum: Continuum,
    scale: LoadScale | None,
    config: CalibrationConfig,
    lapses: Sequence[Lapse | None] | None = None,
) -> list[SkydipSeries]:
    """One series per pixel, each dump a sample at its own airmass; temperatures are J(nu, T).

    scale: that of ``continuum``; None: counts, for the total-power form whose gain is free. ``lapses``: of each
    receiver, where the sky is layered. ``t_amb`` of a series is that of the spillover.
    """
    t_hot = None if scale is None else scale.t_hot
    _, t_atm, t_amb = ambient_temperatures(sky.group, config, t_hot)
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
            lapse=lapses[r] if lapses is not None else None,
            receiver=r,
            pixel=a,
            label=continuum.label,
            value_unit=continuum.unit,
        )
        for r in range(n_rec)
        for a in range(n_pix)
    ]
