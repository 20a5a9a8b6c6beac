"""A sky of layers: opacities for the table, and radiative transfer for the counts."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from gpucal.errors import ConfigError
from gpucal.physics.atm import AtmosphereTable
from gpucal.physics.radiometry import radiation_temperature
from gpucal.simulate.air.absorption import (
    HIGHEST_HZ,
    dry_weight,
    ozone_profile,
    water_absorption,
)
from gpucal.simulate.air.layers import AirLayers, air_layers
from gpucal.simulate.setup import InstrumentSetup
from gpucal.simulate.sky import OZONE_LINES, Segment, pwv_span, segments

F64 = npt.NDArray[np.float64]

MINOR_GASES = 1e-4


@dataclass(frozen=True, eq=False)
class LayeredChannels:
    """C channels seen through L layers, from the ground up: opacity d = b P + q P^2 + c of each.

    b, q, c f64 [L,C]: Np/mm, Np/mm^2, Np at the zenith; j f64 [L,C] K: J of each layer's temperature.
    """

    b: F64
    q: F64
    c: F64
    j: F64

    def emission(self, pwv: float, airmass: float) -> F64:
        """J of the air at the ground, f64 [C], K: each layer through all below it; physics equation (12.1)."""
        slant = airmass * ((self.b + self.q * pwv) * pwv + self.c)
        below = np.cumsum(slant, axis=0) - slant
        return np.asarray(np.sum(self.j * np.exp(-below) * -np.expm1(-slant), axis=0))


@dataclass(frozen=True, eq=False)
class LayeredSky:
    """The layers on the knots of frequency of the simulated bands.

    freq_hz f64 [N] Hz; b, q, dry, ozone, minor f64 [L,N]: as the columns of a table, of each layer; band_edges_hz
    f64 [M,2]; attrs as in a table.
    """

    air: AirLayers
    freq_hz: F64
    b: F64
    q: F64
    dry: F64
    ozone: F64
    minor: F64
    band_edges_hz: F64
    attrs: dict[str, object]

    @cached_property
    def table(self) -> AtmosphereTable:
        """The opacities of all layers together: what the calibration is given."""
        b, q, dry, ozone, minor = (
            np.sum(x, axis=0) for x in (self.b, self.q, self.dry, self.ozone, self.minor)
        )
        return AtmosphereTable(
            self.freq_hz,
            b,
            q,
            dry,
            ozone,
            minor,
            band_edges_hz=self.band_edges_hz,
            attrs=self.attrs,
        )

    def channels(self, freq_hz: F64) -> LayeredChannels:
        """The layers in channels centred at ``freq_hz`` f64 [C], linear between knots as a table is read."""

        def read(column: F64) -> F64:
            return np.stack([np.interp(freq_hz, self.freq_hz, layer) for layer in column])

        j = radiation_temperature(freq_hz[None, :], self.air.t_k[:, None])
        rest = self.dry + self.ozone + self.minor
        return LayeredChannels(read(self.b), read(self.q), read(rest), np.asarray(j))


def layered_sky(setup: InstrumentSetup) -> LayeredSky:
    """The layers over ``setup`` at all its frequencies.

    Water is computed line by line; in each layer it is a quadratic in P, exact at the night's and at the highest
    PWV. The amounts of dry air and ozone are those of the bands' ``Opacity``.
    Raises ConfigError above 1 THz, where the list of water lines ends.
    """
    air = air_layers(setup)
    pieces = [_segment(setup, air, piece) for piece in segments(setup)]
    freq = np.concatenate([piece[0] for piece in pieces])
    b, q, dry, ozone, minor = (
        np.concatenate([piece[1][i] for piece in pieces], axis=1) for i in range(5)
    )
    edges = np.array([(piece[0][0], piece[0][-1]) for piece in pieces])
    attrs: dict[str, object] = {
        "model": "layered: water of Rosenkranz 1998; dry air and ozone made up",
        "version": "1",
        "site": setup.telescope,
        "alt_m": setup.site.alt_m,
        "pressure_hpa": float(air.p_hpa[0]),
        "t_ground_k": float(np.float32(setup.weather.t_amb)),
        "pwv_range_mm": pwv_span(setup),
        "profile": f"{air.t_k.size} layers of the simulator, the whole water profile scaled to the PWV",
    }
    return LayeredSky(air, freq, b, q, dry, ozone, minor, edges, attrs)


def _segment(
    setup: InstrumentSetup, air: AirLayers, piece: Segment
) -> tuple[F64, tuple[F64, F64, F64, F64, F64]]:
    """Knots f64 [n] of one range of frequency, and b, q, dry, ozone, minor f64 [L,n] there."""
    freq, x, opacity = piece.knots(), piece.position(), piece.opacity
    if freq[-1] > HIGHEST_HZ:
        raise ConfigError(
            f"{setup.name}: a layered sky is asked for at {freq[-1] / 1e9:.6g} GHz, its water lines end at "
            f"{HIGHEST_HZ / 1e9:g} GHz.",
            hint="Simulate this instrument with --sky isothermal.",
        )
    one, two = setup.weather.pwv_mm, pwv_span(setup)[1]
    low, high = (
        air.thickness_km[:, None]
        * water_absorption(freq, air.p_hpa, air.t_k, air.e_hpa * pwv)
        / pwv
        for pwv in (one, two)
    )
    q = (high - low) / (two - one)
    weight = air.thickness_km * dry_weight(air.p_hpa, air.t_k)
    dry = (weight / weight.sum())[:, None] * opacity.dry * (1.0 + 0.3 * x)
    mass = air.thickness_km * air.p_hpa / air.t_k
    minor = np.repeat((MINOR_GASES * mass / mass.sum())[:, None], freq.size, axis=1)
    return freq, (low - q * one, q, dry, _ozone(air, piece), minor)


def _ozone(air: AirLayers, piece: Segment) -> F64:
    """Ozone lines f64 [L,n], the strongest of which reaches the band's ``ozone_peak`` in its centre."""
    freq = piece.knots()
    total = np.zeros((air.t_k.size, freq.size))
    for at, strength in OZONE_LINES:
        centre = 0.5 * (freq[0] + freq[-1]) + at * (freq[-1] - freq[0])

        share = air.ozone_share[:, None]
        peak, line = (
            share * ozone_profile(nu, centre, piece.step, air.p_hpa, air.t_k)
            for nu in (np.array([centre]), freq)
        )
        total += strength * piece.opacity.ozone_peak / np.sum(peak) * line
    return total
