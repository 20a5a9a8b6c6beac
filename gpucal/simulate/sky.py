"""The sky over a simulated telescope: synthetic opacity table, source, conditions in time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gpucal.physics.atm import AtmosphereTable
from gpucal.physics.frequency import frequency_axes
from gpucal.simulate.setup import BandSetup, InstrumentSetup, Line, Opacity

F64 = npt.NDArray[np.float64]

TABLE_STEPS_PER_CHANNEL = 1.25
"""Below 2, so that a channel's opacity is that of its centre and no rule of averaging enters."""

OZONE_LINES = ((-0.37, 0.6), (0.08, 1.0), (0.33, 0.3))
"""Place in the range of frequency, and strength, of each made-up ozone line."""


def band_axes(band: BandSetup) -> tuple[F64, F64]:
    """Signal and image sky frequency, two f64 [C,R], Hz; physics equations (1.1) and (1.2)."""
    n = len(band.signal_freq)
    nu_sig, nu_img = frequency_axes(
        np.array(band.signal_freq),
        np.array(band.image_freq),
        np.full(n, band.freq_res),
        np.full(n, band.ref_channel),
        band.channels,
        np,
    )
    return nu_sig, nu_img


def line_spectrum(lines: Sequence[Line], freq_hz: F64) -> F64:
    """T_A* of the source's peak at any sky frequency (Hz), K, same shape."""
    total = np.zeros(np.shape(freq_hz))
    for line in lines:
        x = (freq_hz - line.freq_hz) / line.fwhm_hz
        total += line.peak_k * np.exp(-4.0 * np.log(2.0) * x * x)
    return total


def source_map(lon_deg: F64, lat_deg: F64, fwhm_deg: float) -> F64:
    """Brightness of the source relative to its peak at (lon, lat), a circular Gaussian."""
    r2 = (lon_deg**2 + lat_deg**2) / fwhm_deg**2
    return np.asarray(np.exp(-4.0 * np.log(2.0) * r2))


@dataclass(frozen=True, eq=False)
class Conditions:
    """Elevation, PWV and gain as functions of time for a night that starts at MJD ``mjd0``."""

    setup: InstrumentSetup
    mjd0: float

    def elevation(self, mjd: F64 | float) -> F64:
        """Elevation, rad, rounded to float32 as the store holds it, so that truth and store agree exactly."""
        w = self.setup.weather
        phase = 2.0 * np.pi * (np.asarray(mjd) - self.mjd0)
        el = np.deg2rad(w.elevation_deg + w.elevation_swing_deg * np.sin(phase))
        return np.asarray(el, dtype=np.float32).astype(np.float64)

    def azimuth(self, mjd: F64 | float) -> F64:
        """Azimuth, rad; moves with the rotation of the sky."""
        az = np.deg2rad(150.0) + 2.0 * np.pi * (np.asarray(mjd) - self.mjd0)
        return np.asarray(az % (2.0 * np.pi), dtype=np.float32).astype(np.float64)

    def pwv(self, mjd: float) -> float:
        """Precipitable water, mm."""
        w = self.setup.weather
        return float(w.pwv_mm * np.exp(w.pwv_drift_per_h * (mjd - self.mjd0) * 24.0))

    def gain(self, band: BandSetup, mjd: F64) -> F64:
        """Gain relative to the start of the night; linear in time."""
        hours = (np.asarray(mjd) - self.mjd0) * 24.0
        return np.asarray(1.0 + band.receiver.gain_drift_per_h * hours)


@dataclass(frozen=True)
class Segment:
    """A range of frequency that a table must hold: low, high and step between knots, Hz, and its opacity."""

    low: float
    high: float
    step: float
    opacity: Opacity

    def knots(self) -> F64:
        """Evenly spaced knots from ``low`` to at least ``high``, f64 [n], Hz."""
        n = max(8, int(np.ceil((self.high - self.low) / self.step)) + 1)
        return np.asarray(self.low + self.step * np.arange(n), dtype=np.float64)

    def position(self) -> F64:
        """Place of each knot in the range, f64 [n], about -0.5..0.5."""
        freq = self.knots()
        return np.asarray((freq - freq.mean()) / (freq[-1] - freq[0]))


def pwv_span(setup: InstrumentSetup) -> tuple[float, float]:
    """Range of PWV, mm, in which a table of ``setup`` is to hold."""
    return setup.weather.pwv_mm / 5.0, setup.weather.pwv_mm * 5.0


def synthetic_table(setup: InstrumentSetup) -> AtmosphereTable:
    """An opacity table for all sidebands of ``setup``, made up but of the usual shape.

    tau = A (b P + q P^2 + c): a wet continuum with a broad line, a small self-broadening term q,
    dry air, and narrow ozone lines. One band of table per sideband, apart when they do not overlap.
    """
    pieces = []
    for piece in segments(setup):
        freq, x, opacity = piece.knots(), piece.position(), piece.opacity
        b = opacity.water_per_mm * (1.0 + 0.2 * x + 0.6 / (1.0 + ((x - 0.1) / 0.15) ** 2))
        q = 0.02 * b * b / (1.0 + b)
        dry = opacity.dry * (1.0 + 0.3 * x)
        width = max(0.004, 3.0 * piece.step / (freq[-1] - freq[0]))
        ozone = sum(
            strength * opacity.ozone_peak / (1.0 + ((x - at) / width) ** 2)
            for at, strength in OZONE_LINES
        )
        minor = np.full(freq.size, 1e-4)
        pieces.append((freq, b, q, dry, np.asarray(ozone), minor))
    freq, b, q, dry, ozone, minor = (
        np.concatenate(column).astype(np.float64) for column in zip(*pieces, strict=True)
    )
    attrs = {
        "model": "synthetic",
        "version": "1",
        "site": setup.telescope,
        "alt_m": setup.site.alt_m,
        "pwv_range_mm": pwv_span(setup),
        "profile": "none: coefficients made up for simulated nights",
    }
    edges = np.array([(piece[0][0], piece[0][-1]) for piece in pieces])
    return AtmosphereTable(freq, b, q, dry, ozone, minor, band_edges_hz=edges, attrs=attrs)


def segments(setup: InstrumentSetup) -> list[Segment]:
    """The frequency ranges that are needed, sorted and merged."""
    found = []
    for band in setup.bands:
        step = abs(band.freq_res) / TABLE_STEPS_PER_CHANNEL
        margin = 1.05 * abs(band.throw_hz) + 4.3 * step
        for axis in band_axes(band):
            for receiver in range(axis.shape[1]):
                nu = axis[:, receiver]
                low, high = float(nu.min()) - margin, float(nu.max()) + margin
                found.append(Segment(low, high, step, band.opacity))
    found.sort(key=lambda item: item.low)
    merged = [found[0]]
    for one in found[1:]:
        last = merged[-1]
        step = max(one.step, last.step)
        if one.low <= last.high + step:
            merged[-1] = Segment(last.low, max(one.high, last.high), step, last.opacity)
        else:
            merged.append(one)
    return merged
