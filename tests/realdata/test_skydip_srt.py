"""A real tip of the SRT at 21 GHz: the opacity of its own program comes back.

Model of srt-single-dish-tools: T = T_atm (1 - e^{-tau A}) + T0, T_atm = 0.683 T_ground + 78 K, unweighted.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gpucal.procedures.results import SkydipResult
from gpucal.procedures.skydip import SkydipOptions, SkydipSeries, reduce_skydip

pytestmark = pytest.mark.realdata
PUBLISHED = (0.05353, 0.05576)


def tip(realdata: Path, fraction: slice = slice(None)) -> SkydipResult:
    """Fit all 14 channels; ``fraction``: which samples."""
    from astropy.io import fits

    with fits.open(realdata / "srt" / "skydip_mod.fits") as file:
        data, kelvin = file["DATA TABLE"].data, file["ANTENNA TEMP TABLE"].data
        ground = float(np.median(data["weather"][:, 1])) + 273.15
        airmass = np.asarray(1.0 / np.sin(data["el"]), dtype=np.float64)
        series = [
            SkydipSeries(
                airmass[fraction],
                np.asarray(kelvin[f"Ch{n}"], dtype=np.float64)[fraction],
                t_atm=0.683 * ground + 78.0,
                pixel=n // 2,
                receiver=n % 2,
            )
            for n in range(14)
        ]
    return reduce_skydip(series, SkydipOptions("total-power"))


def test_opacity_is_that_of_the_telescope_s_program(realdata: Path) -> None:
    found = tip(realdata)
    for fit, tau in zip(found.fits, PUBLISHED, strict=False):
        assert fit.valid, fit.reason
        assert fit.tau.value == pytest.approx(tau, rel=0.01)
        # all digits that are published
        assert fit.tau.value == pytest.approx(tau, abs=1.1e-5)
        assert 60.0 < fit.t0.value < 90.0
        assert fit.quality.n == 7498


def test_broken_channels_are_named_and_the_others_agree(realdata: Path) -> None:
    """Four of 14 channels of this file are broken: gain jumps in 3 and 7, no sky in 5 and 13."""
    found = tip(realdata)
    broken = [n for n, fit in enumerate(found.fits) if not fit.valid]
    assert broken == [3, 5, 7, 13]
    for n in (3, 5, 7):
        assert "the model does not describe the data" in found.fits[n].reason
    assert "the opacity is not positive" in found.fits[13].reason
    taus = np.array([fit.tau.value for fit in found.fits if fit.valid])
    assert np.ptp(taus) / np.median(taus) < 0.25
    assert found.mean("airmass", "tau").n == 10


def test_the_half_at_low_elevation_sees_the_same_sky(realdata: Path) -> None:
    """What the formal error leaves out: the model is not perfect over all airmasses."""
    whole, half = tip(realdata).fits[0], tip(realdata, slice(3749, None)).fits[0]
    assert half.tau.value == pytest.approx(whole.tau.value, rel=0.2)
    assert abs(half.tau.value - whole.tau.value) > 3 * whole.tau.error
