"""A sky of layers: opacities for the table, and radiative transfer for the counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from gpucal.errors import ConfigError
from gpucal.io.atmosphere.emission import LevelAbsorption, emission_columns
from gpucal.physics.atm import AtmosphereTable
from gpucal.physics.radiometry import radiation_temperature
from gpucal.simulate.air.absorption import (
    HIGHEST_HZ,
    dry_weight,
    ozone_profile,
    water_absorption,
)
from gpucal.simulate.air.layers import Air, air_at, layer_edges
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
        """J of the air at the ground, f64 [C], K: each layer through all below it; physics equation (13.1)."""
        slant = airmass * ((self.b + self.q * pwv) * pwv + self.c)
        below = np.cumsum(slant, axis=0) - slant
        return np.asarray(np.sum(self.j * np.exp(-below) * -np.expm1(-slant), axis=0))


@dataclass(frozen=True, eq=False)
class Absorption:
    """Absorption at L altitudes and N frequencies, f64 [L,N]: b P + q P^2 + dry + ozone + minor, Np/km."""

    b: F64
    q: F64
    dry: F64
    ozone: F64
    minor: F64

    @property
    def columns(self) -> tuple[F64, F64, F64, F64, F64]:
        return self.b, self.q, self.dry, self.ozone, self.minor


@dataclass(frozen=True, eq=False)
class LayeredSky:
    """L layers on the N knots of frequency of the simulated bands.

    thickness_km, t_k f64 [L]; middle: the absorption in the middle of each; edge: that at the L + 1 altitudes
    between them, whose air is ``edge_air``; band_edges_hz f64 [M,2], pwv_range_mm and attrs as in a table.
    """

    freq_hz: F64
    thickness_km: F64
    t_k: F64
    middle: Absorption
    edge: Absorption
    edge_air: Air
    band_edges_hz: F64
    pwv_range_mm: tuple[float, float]
    attrs: dict[str, object]

    @cached_property
    def table(self) -> AtmosphereTable:
        """What the calibration is given: the opacity of all layers, and the emission that gpucal works out itself from
        the absorption between them."""
        b, q, dry, ozone, minor = (
            np.sum(self.thickness_km[:, None] * column, axis=0) for column in self.middle.columns
        )
        lo, hi = self.pwv_range_mm
        pwv = np.array([lo, np.sqrt(lo * hi), hi])
        edge = self.edge
        wet = np.stack([((edge.b + edge.q * p) * p + edge.dry).T for p in pwv])
        levels = LevelAbsorption(edge.dry.T, wet, edge.ozone.T, edge.minor.T)
        air = self.edge_air
        e_b, e_q, e_c, e_o3 = emission_columns(self.freq_hz, air.z_km, air.t_k, levels, pwv)
        return AtmosphereTable(
            self.freq_hz,
            b,
            q,
            dry,
            ozone,
            minor,
            band_edges_hz=self.band_edges_hz,
            attrs={**self.attrs, "pwv_range_mm": self.pwv_range_mm},
            e_b=e_b,
            e_q=e_q,
            e_c=e_c,
            e_o3=e_o3,
        )

    def channels(self, freq_hz: F64) -> LayeredChannels:
        """The layers in channels centred at ``freq_hz`` f64 [C], linear between knots as a table is read."""

        def read(column: F64) -> F64:
            opacity = self.thickness_km[:, None] * column
            return np.stack([np.interp(freq_hz, self.freq_hz, layer) for layer in opacity])

        b, q, dry, ozone, minor = self.middle.columns
        j = radiation_temperature(freq_hz[None, :], self.t_k[:, None])
        return LayeredChannels(read(b), read(q), read(dry + ozone + minor), np.asarray(j))


def layered_sky(setup: InstrumentSetup) -> LayeredSky:
    """The layers over ``setup`` at all its frequencies.

    Water is computed line by line; in each layer it is a quadratic in P, exact at the night's and at the highest
    PWV. The amounts of dry air and ozone are those of the bands' ``Opacity``.
    Raises ConfigError above 1 THz, where the list of water lines ends.
    """
    edges = layer_edges(setup)
    thickness = np.diff(edges)
    middle, edge = (air_at(setup, z) for z in (0.5 * (edges[1:] + edges[:-1]), edges))
    pieces = segments(setup)
    found = [_segment(setup, piece, (middle, edge), thickness) for piece in pieces]
    knots = [piece.knots() for piece in pieces]
    attrs: dict[str, object] = {
        "model": "layered: water of Rosenkranz 1998; dry air and ozone made up",
        "version": "1",
        "site": setup.telescope,
        "alt_m": setup.site.alt_m,
        "pressure_hpa": float(edge.p_hpa[0]),
        "t_ground_k": float(edge.t_k[0]),
        "profile": f"{thickness.size} layers of the simulator, the whole water profile scaled to the PWV",
    }
    return LayeredSky(
        np.concatenate(knots),
        thickness,
        middle.t_k,
        _joined([pair[0] for pair in found]),
        _joined([pair[1] for pair in found]),
        edge,
        np.array([(f[0], f[-1]) for f in knots]),
        pwv_span(setup),
        attrs,
    )


def _joined(parts: Sequence[Absorption]) -> Absorption:
    """One after the other in frequency."""
    return Absorption(
        *(np.concatenate(x, axis=1) for x in zip(*(p.columns for p in parts), strict=True))
    )


def _segment(
    setup: InstrumentSetup, piece: Segment, airs: tuple[Air, Air], thickness: F64
) -> tuple[Absorption, Absorption]:
    """Absorption in the middle of the layers and between them, in one range of frequency.

    What is made up has the wanted opacity when summed over the layers.
    """
    freq, x, opacity = piece.knots(), piece.position(), piece.opacity
    if freq[-1] > HIGHEST_HZ:
        raise ConfigError(
            f"{setup.name}: a layered sky is asked for at {freq[-1] / 1e9:.6g} GHz, its water lines end at "
            f"{HIGHEST_HZ / 1e9:g} GHz.",
            hint="Simulate this instrument with --sky isothermal.",
        )
    middle = airs[0]
    dry = opacity.dry / np.sum(thickness * dry_weight(middle.p_hpa, middle.t_k))
    minor = MINOR_GASES / np.sum(thickness * middle.p_hpa / middle.t_k)
    lines = []
    for at, strength in OZONE_LINES:
        centre = 0.5 * (freq[0] + freq[-1]) + at * (freq[-1] - freq[0])
        peak = np.sum(thickness * _ozone(middle, np.array([centre]), centre, piece.step)[:, 0])
        lines.append((centre, strength * opacity.ozone_peak / peak))
    found = []
    for air in airs:
        b, q = _water(setup, air, freq)
        found.append(
            Absorption(
                b,
                q,
                dry * dry_weight(air.p_hpa, air.t_k)[:, None] * (1.0 + 0.3 * x),
                np.sum([n * _ozone(air, freq, at, piece.step) for at, n in lines], axis=0),
                np.repeat((minor * air.p_hpa / air.t_k)[:, None], freq.size, axis=1),
            )
        )
    return found[0], found[1]


def _water(setup: InstrumentSetup, air: Air, freq_hz: F64) -> tuple[F64, F64]:
    """b, q f64 [L,N] in Np/km per mm and mm^2: the absorption at the night's and at the highest PWV."""
    one, two = setup.weather.pwv_mm, pwv_span(setup)[1]
    low, high = (
        water_absorption(freq_hz, air.p_hpa, air.t_k, air.e_hpa * p) / p for p in (one, two)
    )
    q = (high - low) / (two - one)
    return low - q * one, q


def _ozone(air: Air, freq_hz: F64, centre_hz: float, step_hz: float) -> F64:
    """One ozone line, f64 [L,N], per km but for its strength."""
    return air.ozone[:, None] * ozone_profile(freq_hz, centre_hz, step_hz, air.p_hpa, air.t_k)
