"""The air over a site: pressure, temperature, water and ozone with height, cut into layers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gpucal.simulate.setup import InstrumentSetup

F64 = npt.NDArray[np.float64]

HPA_PER_TORR = 1.33322368
TOP_KM = 60.0
LAYERS = 60
LAPSE_K_KM = 6.5
TROPOPAUSE_K = 210.0
"""The air cools with height to this temperature, that of the lower stratosphere."""

WARMING_FROM_KM, WARMING_K_KM, STRATOPAUSE_K = 20.0, 2.2, 265.0
WATER_SCALE_KM = 1.8
OZONE_KM, OZONE_WIDTH_KM = 22.0, 5.0
"""Height of most ozone above the sea, and the standard deviation about it."""

AIR_KG_MOL, GAS_CONSTANT, GRAVITY = 0.0289644, 8.314462618, 9.80665
WATER_KG_MOL = 0.01801528


@dataclass(frozen=True, eq=False)
class Air:
    """Air at L altitudes, f64 [L].

    z_km above the sea; p_hpa; t_k; e_hpa water vapour for a PWV of 1 mm; ozone per km, as a share of its column.
    """

    z_km: F64
    p_hpa: F64
    t_k: F64
    e_hpa: F64
    ozone: F64


def layer_edges(setup: InstrumentSetup) -> F64:
    """Altitudes between which the layers lie, from the ground up, f64 [LAYERS + 1], km; thinnest at the ground."""
    ground = setup.site.alt_m / 1e3
    x = np.linspace(0.0, 1.0, LAYERS + 1)
    return np.asarray(ground + (TOP_KM - ground) * (0.1 * x + 0.9 * x**3))


def air_at(setup: InstrumentSetup, z_km: F64) -> Air:
    """The air over the site of ``setup`` at altitudes ``z_km`` [L], with its t_amb (K) and p_amb (Torr) at the ground.

    A lapse rate up to the tropopause, a warming stratosphere, pressure in hydrostatic balance, water with a
    scale height, ozone about 22 km.
    """
    edges = layer_edges(setup)
    fine = np.linspace(edges[0], edges[-1], 3001)
    kelvin = _temperature(setup, fine)
    fall = 1e3 * AIR_KG_MOL * GRAVITY / GAS_CONSTANT / kelvin
    step = np.diff(fine)
    below = np.append(0.0, np.cumsum(0.5 * (fall[1:] + fall[:-1]) * step))
    pressure = HPA_PER_TORR * setup.weather.p_amb * np.exp(-np.interp(z_km, fine, below))
    # g/m^3: 1 mm is 1 kg/m^2
    density = np.exp(-(z_km - edges[0]) / WATER_SCALE_KM) / (
        WATER_SCALE_KM * -np.expm1(-(edges[-1] - edges[0]) / WATER_SCALE_KM)
    )
    t_k = _temperature(setup, z_km)
    vapour = 1e-5 * density * GAS_CONSTANT * t_k / WATER_KG_MOL

    def ozone(z: F64) -> F64:
        return np.asarray(np.exp(-0.5 * ((z - OZONE_KM) / OZONE_WIDTH_KM) ** 2))

    return Air(z_km, pressure, t_k, vapour, ozone(z_km) / np.sum(ozone(fine[:-1]) * step))


def _temperature(setup: InstrumentSetup, z_km: F64) -> F64:
    ground = float(np.float32(setup.weather.t_amb))  # as the store holds it
    kelvin = ground - LAPSE_K_KM * (z_km - setup.site.alt_m / 1e3)
    kelvin = np.maximum(kelvin, min(TROPOPAUSE_K, ground))
    warm = np.minimum(kelvin + WARMING_K_KM * (z_km - WARMING_FROM_KM), max(STRATOPAUSE_K, ground))
    return np.where(z_km > WARMING_FROM_KM, warm, kelvin)
