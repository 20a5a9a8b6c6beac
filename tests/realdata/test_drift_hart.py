"""Real drift scans of the 26 m telescope at Hartebeesthoek across Hydra A.

Parked telescope: position = sidereal rate x time x cos(declination), 0 in the middle of the scan. Half-power
north, centre, half-power south; one beam at 12.2 GHz, two beams (+/-) at 8.3 GHz.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gpucal.procedures.pointing import Drift, PointingOptions, reduce_pointing

pytestmark = pytest.mark.realdata
ONE_BEAM = "2013d125_15h48m00s_Cont_mike_HYDRA_A.fits"
TWO_BEAMS = "2013d125_16h03m53s_Cont_mike_HYDRA_A.fits"
SIDEREAL = 15.041067
"""arcsec per s."""


def drifts(folder: Path, name: str) -> list[Drift]:
    """Both polarisations of all drifts of a file, K above the zero of the counters."""
    from astropy.io import fits

    found = []
    with fits.open(folder / "hart" / name) as file:
        chart = file["Chart"].header
        for table in file:
            if table.header.get("SCANTYPE") != "Drift" or table.name == "PRIMARY":
                continue
            data = table.data
            seconds = 86400.0 * (data["MJD"] - 0.5 * (data["MJD"][0] + data["MJD"][-1]))
            rate = SIDEREAL * np.cos(np.deg2rad(np.median(data["Declination"])))
            for channel in (1, 2):
                counts = data[f"Count{channel}"] - table.header[f"HZZERO{channel}"]
                found.append(
                    Drift(
                        "az",
                        np.asarray(rate * seconds, dtype=np.float64),
                        np.asarray(counts / chart[f"HZPERK{channel}"], dtype=np.float64),
                        cross=3600.0 * table.header["STARTY"],
                        receiver=channel - 1,
                        speed=float(rate),
                    )
                )
    return found


def test_one_beam_at_12_ghz(realdata: Path) -> None:
    found = reduce_pointing(drifts(realdata, ONE_BEAM))
    assert len(found.fits) == 6
    assert all(fit.valid for fit in found.fits), [fit.reason for fit in found.fits]
    width = found.mean("az", "fwhm").mean
    assert abs(width.value / 60.0 - 3.5) < 0.25
    assert width.error < 6.0
    # six fits, two polarisations: the errors account for their scatter
    assert found.mean("az", "fwhm").chi2 < 20.5
    centre = [fit for fit in found.fits if fit.cross == 0]
    sides = [fit for fit in found.fits if fit.cross != 0]
    for fit in centre:
        mine = [s.amplitude.value for s in sides if s.receiver == fit.receiver]
        # they are called half-power for a reason
        assert np.mean(mine) / fit.amplitude.value == pytest.approx(0.5, abs=0.06)
    assert centre[0].offset.value == pytest.approx(centre[1].offset.value, abs=10.0)


def test_two_beams_at_8_ghz(realdata: Path) -> None:
    """The positive beam comes last: the negative one lies 15.5 arcmin before it."""
    found = reduce_pointing(
        drifts(realdata, TWO_BEAMS), PointingOptions(throw=-900.0, fit_throw=True)
    )
    assert all(fit.valid for fit in found.fits), [fit.reason for fit in found.fits]
    throws = np.array([fit.throw.value for fit in found.fits])
    assert np.ptp(throws) < 8.0
    assert np.median(throws) == pytest.approx(-931.0, abs=5.0)
    # the beam grows with the wavelength
    width = found.mean("az", "fwhm").mean.value
    narrow = reduce_pointing(drifts(realdata, ONE_BEAM)).mean("az", "fwhm").mean.value
    assert width / narrow == pytest.approx(12.2186 / 8.28, rel=0.06)
    assert found.mean("az", "offset").chi2 < 20.5


def test_one_beam_model_refuses_two_beams(realdata: Path) -> None:
    """The dip of the other beam is seen, and said."""
    found = reduce_pointing(drifts(realdata, TWO_BEAMS))
    assert not any(fit.valid for fit in found.fits)
    assert not found.valid
