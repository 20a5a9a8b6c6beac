"""Layers of air over a site: pressure, temperature, water and ozone with height."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gpucal.simulate.setup import InstrumentSetup

F64 = npt.NDArray[np.float64]

HPA_PER_TORR = 1.33322368
TOP_KM = 60.0
LAYERS = 45
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
class AirLayers:
    """L layers from the ground up, each with the values of its middle, f64 [L].

    thickness_km; p_hpa; t_k; e_hpa water vapour for a PWV of 1 mm; ozone_share of the column of ozone, sum 1.
    """

    thickness_km: F64
    p_hpa: F64
    t_k: F64
    e_hpa: F64
    ozone_share: F64


def air_layers(setup: InstrumentSetup) -> AirLayers:
    """The air over the site of ``setup``, with its t_amb (K) and p_amb (Torr) at the ground.

    A lapse rate up to the tropopause, a warming stratosphere, pressure in hydrostatic balance, water with a
    scale height, ozone about 22 km. Layers are thinnest at the ground.
    """
    ground = setup.site.alt_m / 1e3
    x = np.linspace(0.0, 1.0, LAYERS + 1)
    edges = ground + (TOP_KM - ground) * (0.1 * x + 0.9 * x**3)
    middle, thickness = 0.5 * (edges[1:] + edges[:-1]), np.diff(edges)
    t_ground = float(np.float32(setup.weather.t_amb))  # as the store holds it
    kelvin = np.maximum(t_ground - LAPSE_K_KM * (middle - ground), min(TROPOPAUSE_K, t_ground))
    warm = kelvin + WARMING_K_KM * (middle - WARMING_FROM_KM)
    high = middle > WARMING_FROM_KM
    kelvin = np.where(high, np.minimum(warm, max(STRATOPAUSE_K, t_ground)), kelvin)
    fall = 1e3 * AIR_KG_MOL * GRAVITY / GAS_CONSTANT * thickness / kelvin
    pressure = HPA_PER_TORR * setup.weather.p_amb * np.exp(0.5 * fall - np.cumsum(fall))
    density = np.exp(-(middle - ground) / WATER_SCALE_KM)
    density = density / np.sum(density * thickness)  # g/m^3: 1 mm is 1 kg/m^2
    vapour = 1e-5 * density * GAS_CONSTANT * kelvin / WATER_KG_MOL
    ozone = thickness * np.exp(-0.5 * ((middle - OZONE_KM) / OZONE_WIDTH_KM) ** 2)
    return AirLayers(thickness, pressure, kelvin, vapour, ozone / np.sum(ozone))
