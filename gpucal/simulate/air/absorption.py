"""What a layer of air absorbs: water after Rosenkranz, dry air, ozone lines."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]

HIGHEST_HZ = 1.0e12
"""The list of water lines ends here."""

CUTOFF_GHZ = 750.0
"""Clough's limit of a line's own contribution; further out it belongs to the continuum."""

# centre GHz, strength at 300 K, its exponent, widths GHz/hPa in air and in water, their exponents
WATER_LINES: F64 = np.array(
    [
        (22.2351, 1.310e-14, 2.144, 0.00281, 0.69, 0.01349, 0.61),
        (183.3101, 2.273e-12, 0.668, 0.00281, 0.64, 0.01491, 0.85),
        (321.2256, 8.036e-14, 6.179, 0.00230, 0.67, 0.01080, 0.54),
        (325.1529, 2.694e-12, 1.541, 0.00278, 0.68, 0.01350, 0.74),
        (380.1974, 2.438e-11, 1.048, 0.00287, 0.54, 0.01541, 0.89),
        (439.1508, 2.179e-12, 3.595, 0.00210, 0.63, 0.00900, 0.52),
        (443.0183, 4.624e-13, 5.048, 0.00186, 0.60, 0.00788, 0.50),
        (448.0011, 2.562e-11, 1.405, 0.00263, 0.66, 0.01275, 0.67),
        (470.8890, 8.369e-13, 3.597, 0.00215, 0.66, 0.00983, 0.65),
        (474.6891, 3.263e-12, 2.379, 0.00236, 0.65, 0.01095, 0.64),
        (488.4911, 6.659e-13, 2.852, 0.00260, 0.69, 0.01313, 0.72),
        (556.9360, 1.531e-9, 0.159, 0.00321, 0.69, 0.01320, 1.00),
        (620.7008, 1.707e-11, 2.391, 0.00244, 0.71, 0.01140, 0.68),
        (752.0332, 1.011e-9, 0.396, 0.00306, 0.68, 0.01253, 0.84),
        (916.1712, 4.227e-11, 1.441, 0.00267, 0.70, 0.01275, 0.78),
    ]
)
"""Rosenkranz 1998, Radio Science 33, 919, Table 1 (corrected 1999, ibid. 34, 1025)."""

OZONE_GHZ_HPA, OZONE_EXPONENT = 0.0024, 0.76


def water_absorption(freq_hz: F64, p_hpa: F64, t_k: F64, e_hpa: F64) -> F64:
    """Absorption of water vapour, f64 [L,N], Np/km, of L layers at N frequencies.

    ``freq_hz`` f64 [N]; pressure, temperature and vapour pressure f64 [L]. Fifteen lines with Van Vleck-Weisskopf
    shapes cut off at 750 GHz, and the continuum (Rosenkranz 1998).
    """
    f = freq_hz / 1e9
    theta = 300.0 / t_k
    dry = p_hpa - e_hpa
    total = np.zeros((t_k.size, f.size))
    for centre, strength, exponent, air, air_power, own, own_power in WATER_LINES:
        width = (air * dry * theta**air_power + own * e_hpa * theta**own_power)[:, None]
        height = strength * theta**2.5 * np.exp(exponent * (1.0 - theta))
        base = width / (CUTOFF_GHZ**2 + width**2)
        for away in (f - centre, f + centre):
            near = np.abs(away) < CUTOFF_GHZ
            shape = near * (width / (away**2 + width**2) - base)
            total += height[:, None] * shape * (f / centre) ** 2
    density = 217.0 * e_hpa / t_k  # g/m^3
    continuum = (5.43e-10 * dry * theta**3 + 1.8e-8 * e_hpa * theta**7.5) * e_hpa
    return np.asarray(
        (0.3183e-4 * 3.335e16 * density)[:, None] * total + continuum[:, None] * f * f
    )


def dry_weight(p_hpa: F64, t_k: F64) -> F64:
    """Absorption of oxygen and nitrogen far from the lines, but for a constant, f64 [L], 1/km.

    Collisions of two molecules: p^2, with the exponent of temperature of the nitrogen pairs (Liebe 1989).
    """
    return np.asarray(p_hpa**2 * (300.0 / t_k) ** 3.5)


def ozone_profile(
    freq_hz: F64, centre_hz: float, resolution_hz: float, p_hpa: F64, t_k: F64
) -> F64:
    """A Lorentzian of a pressure-broadened ozone line, f64 [L,N], 1/GHz, in L layers at N frequencies.

    Its cores are as wide as the resolution.
    """
    half = OZONE_GHZ_HPA * p_hpa * (300.0 / t_k) ** OZONE_EXPONENT
    half = np.hypot(half, resolution_hz / 1e9)[:, None]
    away = (freq_hz - centre_hz) / 1e9
    return np.asarray(half / np.pi / (away**2 + half**2))
