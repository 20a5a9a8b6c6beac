"""Absorption of molecular lines in the Voigt profile, for gases that the models of water and oxygen leave out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import wofz

F64 = npt.NDArray[np.float64]

PLANCK = 6.62607015e-34
BOLTZMANN = 1.380649e-23
LIGHT = 299792458.0
AMU = 1.66053906660e-27
DEBYE2_SI = 1e-49
"""(1 debye)^2 / (4 pi eps_0) = 1e-36 erg cm^3, in J m^3."""

C2_CM_K = 1.438776877
"""Second radiation constant, cm K."""

CORE_WIDTHS = 200.0
"""Beyond this many Doppler widths the Voigt profile equals the Lorentzian to 1e-4."""


@dataclass(frozen=True, eq=False)
class LineList:
    """Parameters of L lines at one temperature, as ``absorption`` needs them.

    freq_ghz  [L] GHz; strength [L] m^2 Hz per molecule; width_ghz [L] half width at half maximum, GHz.
    """

    freq_ghz: F64
    strength: F64
    width_ghz: F64


@dataclass(frozen=True)
class LinearRotor:
    """A linear molecule in its ground state: constants of one isotopologue.

    b_ghz, d_ghz rotational constants; dipole_debye; modes (wavenumber cm^-1, degeneracy) of the
    vibrational partition sum; gamma_mhz_hpa air broadening (half width) at 296 K and its exponent.
    """

    b_ghz: float
    d_ghz: float
    dipole_debye: float
    mass_amu: float
    abundance: float
    modes: tuple[tuple[float, int], ...]
    gamma_mhz_hpa: float
    exponent: float


CARBON_MONOXIDE = LinearRotor(
    57.635968, 1.83505e-4, 0.11011, 28.0, 0.98654, ((2143.3, 1),), 2.15, 0.74
)
NITROUS_OXIDE = LinearRotor(
    12.5616339,
    5.2793e-6,
    0.16083,
    44.0,
    0.99033,
    ((588.8, 2), (1284.9, 1), (2223.8, 1)),
    2.35,
    0.75,
)


def rotor_lines(rotor: LinearRotor, temperature_k: float, pressure_hpa: float, n: int) -> LineList:
    """The first ``n`` rotational lines J+1 <- J of a linear molecule.

    Townes & Schawlow, Microwave Spectroscopy, ch. 1: nu = 2B(J+1) - 4D(J+1)^3 and, per molecule,
    S = (8 pi^3 mu^2 nu / 3hc) (J+1)/Q exp(-E_J/kT) (1 - exp(-h nu/kT)).
    """
    j = np.arange(n, dtype=np.float64)
    freq = 2 * rotor.b_ghz * (j + 1) - 4 * rotor.d_ghz * (j + 1) ** 3
    kt_ghz = BOLTZMANN * temperature_k / PLANCK / 1e9
    levels = np.arange(200, dtype=np.float64)
    term = rotor.b_ghz * levels * (levels + 1)
    partition = np.sum((2 * levels + 1) * np.exp(-term / kt_ghz))
    for wavenumber, degeneracy in rotor.modes:
        partition *= (1 - np.exp(-C2_CM_K * wavenumber / temperature_k)) ** -degeneracy
    moment = 8 * np.pi**3 * rotor.dipole_debye**2 * DEBYE2_SI / (3 * PLANCK * LIGHT)
    lower = np.exp(-rotor.b_ghz * j * (j + 1) / kt_ghz)
    strength = moment * freq * 1e9 * (j + 1) / partition * lower * -np.expm1(-freq / kt_ghz)
    width = rotor.gamma_mhz_hpa * 1e-3 * pressure_hpa * (296.0 / temperature_k) ** rotor.exponent
    return LineList(freq, rotor.abundance * strength, np.full(n, width))


def absorption(
    freq_ghz: F64, lines: LineList, density: float, temperature_k: float, mass_amu: float
) -> F64:
    """Absorption coefficient, Np/km, f64 [N], of ``density`` molecules/m^3 at ``freq_ghz`` [N].

    Voigt core, Van Vleck-Weisskopf wings: (nu/nu_0)^2 [V(nu-nu_0) + L(nu+nu_0)]. Lines are not cut off.
    """
    out = np.zeros(freq_ghz.shape)
    doppler = lines.freq_ghz * np.sqrt(2 * BOLTZMANN * temperature_k / (mass_amu * AMU)) / LIGHT
    for centre, strength, width, beta in zip(
        lines.freq_ghz, lines.strength, lines.width_ghz, doppler, strict=True
    ):
        offset = freq_ghz - centre
        shape = (
            width / np.pi * (1 / (offset**2 + width**2) + 1 / ((freq_ghz + centre) ** 2 + width**2))
        )
        # freq_ghz rises, so the core is one slice
        reach = CORE_WIDTHS * beta
        core = slice(*np.searchsorted(freq_ghz, [centre - reach, centre + reach]))
        x = offset[core]
        voigt = wofz((x + 1j * width) / beta).real / (beta * np.sqrt(np.pi))
        shape[core] += voigt - width / np.pi / (x**2 + width**2)
        out += strength * (freq_ghz / centre) ** 2 * shape
    return out * density * 1e3 * 1e-9
