"""Real am output as a sky: its opacities and brightness at the zenith, its levels of air for other airmasses."""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from builders.layered.sky import LayeredAir, Levels, line_absorption, smooth_absorption

F64 = npt.NDArray[np.float64]
AIR_KG, GAS_CONSTANT, GRAVITY = 0.028964, 8.314462618, 9.80665
BOLTZMANN = 1.380649e-23
PER_MBAR_MM = 100.0 / GRAVITY * 18.01528 / 28.964
"""PWV in mm of one mbar of air per unit of the mixing ratio of water."""


@dataclass(frozen=True, eq=False)
class AmRun:
    """One run for the zenith, without background.

    nu_hz, tau, brightness  f64 [N]: Hz, Np, K (Rayleigh-Jeans)
    p_hpa, t_k              f64 [L]: the bottoms of the layers, from the ground up
    water, ozone            f64 [L]: mixing ratios of the layer above each bottom
    """

    nu_hz: F64
    tau: F64
    brightness: F64
    p_hpa: F64
    t_k: F64
    water: F64
    ozone: F64

    @property
    def pwv_mm(self) -> float:
        """The sum over the layers that am makes with its constant gravity."""
        above = np.append(self.p_hpa[1:], 0.0)
        return float(np.sum(self.water * (self.p_hpa - above)) * PER_MBAR_MM)

    @property
    def t_ground(self) -> float:
        return float(self.t_k[0])

    def effective(self, nu_hz: F64) -> F64:
        """J of the air over (1 - t), at the zenith, f64 [C], K."""
        tau = np.interp(nu_hz, self.nu_hz, self.tau)
        return np.asarray(np.interp(nu_hz, self.nu_hz, self.brightness) / -np.expm1(-tau))


def read_am(output: Path) -> AmRun:
    """Read NAME.txt.gz and the configuration NAME.amc beside it."""
    with gzip.open(output) as stream:
        columns = np.loadtxt(stream, dtype=np.float64)
    config = output.with_name(output.name.removesuffix(".txt.gz") + ".amc").read_text()
    layers = []
    for block in config.split("\nlayer ")[1:]:
        words = [line.split() for line in block.splitlines() if line.strip()]
        known = {w[0]: float(w[1]) for w in words if w[0] in ("Pbase", "Tbase")}
        known |= {w[1]: float(w[3]) for w in words if w[0] == "column" and len(w) > 3}
        layers.append([known[name] for name in ("Pbase", "Tbase", "h2o", "o3")])
    p, t, water, ozone = np.array(layers[::-1]).T
    return AmRun(columns[:, 0] * 1e9, columns[:, 1], columns[:, 2], p, t, water, ozone)


def am_layers(run: AmRun, nu_hz: F64) -> LayeredAir:
    """The layers of ``run`` over channels at ``nu_hz``, absorbing as pyrtlib has it."""
    p = np.sqrt(run.p_hpa[:-1] * run.p_hpa[1:])
    t = 0.5 * (run.t_k[:-1] + run.t_k[1:])
    step = np.log(run.p_hpa[:-1] / run.p_hpa[1:])
    # the mean of p over a layer of exponential pressure, so that its mass is right
    p = (run.p_hpa[:-1] - run.p_hpa[1:]) / step
    km = step * GAS_CONSTANT * t / (AIR_KG * GRAVITY) / 1e3
    density = 100.0 * p / (BOLTZMANN * t)
    gases = {"o3": run.ozone[:-1] * density, "co": 1e-7 * density, "n2o": 3.2e-7 * density}
    air = Levels(np.zeros(p.size), p, t, run.water[:-1] * p, gases)
    middle, half = 0.5 * (nu_hz[0] + nu_hz[-1]), 0.5 * abs(nu_hz[-1] - nu_hz[0])
    at = np.cos(np.pi * (np.arange(4) + 0.5) / 4)
    cubic = np.polynomial.polynomial.polyfit(
        at, smooth_absorption(air, middle + half * at, 1.0).T, 3
    )
    smooth = np.polynomial.polynomial.polyval((nu_hz - middle) / half, cubic)
    ozone, others = line_absorption(air, nu_hz)
    per_km = smooth + ozone + others
    return LayeredAir(nu_hz, run.t_k, per_km * km[:, None], np.sum(ozone * km[:, None], axis=0))


@dataclass(frozen=True, eq=False)
class AmAir(LayeredAir):
    """Layers whose opacity at the zenith is am's; their emission is brought to am's there by ``factor`` f64 [C].

    Only the change of emission with airmass is then that of the layers.
    """

    factor: F64

    def emission(self, airmass: float) -> F64:
        return np.asarray(self.factor * super().emission(airmass))


def am_air(run: AmRun, nu_hz: F64) -> AmAir:
    """The sky of ``run`` over channels at ``nu_hz`` f64 [C], which lie on am's own grid."""
    found = np.searchsorted(run.nu_hz, nu_hz - 1.0)
    assert np.allclose(run.nu_hz[found], nu_hz, rtol=0, atol=1.0)
    plain = am_layers(run, nu_hz)
    tau = plain.tau * (run.tau[found] / plain.zenith)
    scaled = LayeredAir(nu_hz, plain.t_k, tau, plain.ozone)
    factor = run.brightness[found] / scaled.emission(1.0)
    return AmAir(nu_hz, plain.t_k, tau, plain.ozone, factor)
