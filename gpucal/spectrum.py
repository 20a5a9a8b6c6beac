"""One calibrated spectrum with everything that a FITS or CLASS header needs.

What leaves gpucal leaves it as ``Spectrum``: the exporters take nothing else, and the readers of CLASS
files give it back. Channels run from 0; NaN = not known, in headers as in spectra.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]
NAN = float("nan")
Frame = Literal[
    "LSRK", "LSRD", "HELIOCEN", "BARYCENT", "GEOCENTR", "GALACTOC", "CMBDIPOL", "TOPOCENT", ""
]
"""Frames of rest, named as by SPECSYS in FITS; "" not known."""


@dataclass(frozen=True, eq=False)
class Spectrum:
    """A spectrum [C] of one receiver and one pixel, a dump or an average.

    values           f64 [C]  K, NaN = blank
    scale            "ta" (T_A*), "tmb" (T_mb) or "" (unknown, K all the same)
    frequency, frequency_step   Hz: topocentric sky frequency of channel ``ref_channel`` and width of a channel
                     in the signal sideband, negative where the axis runs down
    image_frequency  Hz at ``ref_channel``; its axis runs the other way
    ref_channel      0-based, may be fractional
    rest_frequency   Hz, of the line
    velocity         m/s: velocity of the source in ``velocity_frame``, radio convention
    velocity_frame   as SPECSYS in FITS: "LSRK", "LSRD", "HELIOCEN", "BARYCENT", "GEOCENTR", "GALACTOC",
                     "CMBDIPOL", "TOPOCENT"; "" not known
    site_velocity    m/s: radial velocity of the frame's origin as seen from the telescope, positive
                     receding; frequency in that frame = frequency (1 + site_velocity / c), NaN = not known
    scan, subscan, dump, receiver, pixel   as in L0; -1 = averaged over
    mjd              d, UTC, middle;  exptime s, summed over what was averaged
    azimuth, elevation   rad;  ra, dec   deg, ICRS, of the source (without offsets)
    offset_lon, offset_lat  deg, of this pixel from the source
    t_sys            K, median over channels, T_sys* of the signal sideband
    t_rec            K, median over channels;  tau_signal, tau_image  Np, zenith, middle channel
    pwv              mm;  tamb K;  pamb Torr
    f_eff, b_eff     forward and main-beam efficiency;  gain_image  g_image / g_signal
    rounding         K, step that the samples of a dump were rounded to, on ``scale``; NaN = as computed
    t_hot, t_cold    K;  counts_hot, counts_cold, counts_sky  counts, means over channels
    """

    values: F64
    frequency: float
    frequency_step: float
    ref_channel: float
    rest_frequency: float = NAN
    image_frequency: float = NAN
    scale: Literal["ta", "tmb", ""] = "ta"
    source: str = ""
    line: str = ""
    telescope: str = ""
    instrument: str = ""
    project: str = ""
    observer: str = ""
    procedure: str = ""
    band: str = ""
    scan: int = -1
    subscan: int = -1
    dump: int = -1
    receiver: int = -1
    pixel: int = -1
    mjd: float = NAN
    exptime: float = NAN
    velocity: float = NAN
    velocity_frame: Frame = "LSRK"
    site_velocity: float = NAN
    azimuth: float = NAN
    elevation: float = NAN
    ra: float = NAN
    dec: float = NAN
    offset_lon: float = 0.0
    offset_lat: float = 0.0
    site_lat: float = NAN
    site_lon: float = NAN
    site_alt: float = NAN
    t_sys: float = NAN
    t_rec: float = NAN
    tau_signal: float = NAN
    tau_image: float = NAN
    pwv: float = NAN
    tamb: float = NAN
    pamb: float = NAN
    f_eff: float = NAN
    b_eff: float = NAN
    gain_image: float = NAN
    t_hot: float = NAN
    t_cold: float = NAN
    counts_hot: float = NAN
    counts_cold: float = NAN
    counts_sky: float = NAN
    rounding: float = NAN

    @property
    def frequencies(self) -> F64:
        """Topocentric frequency of each channel, f64 [C], Hz."""
        channels = np.arange(self.values.size, dtype=np.float64)
        return np.asarray(self.frequency + (channels - self.ref_channel) * self.frequency_step)
