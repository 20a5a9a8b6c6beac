"""Emission of the sky from the brightness that am writes beside the opacity; physics section 5."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from gpucal.errors import ImportFormatError
from gpucal.physics.emission import lapse
from gpucal.physics.radiometry import radiation_temperature

F64 = npt.NDArray[np.float64]

_BRIGHTNESS = ("Trj", "Tb")
_OUTPUTS = (
    "f",
    "tau",
    "tx",
    "I",
    "I_diff",
    "Tb",
    "Trj",
    "Trx",
    "Tsys",
    "Y",
    "L",
    "tau_fsl",
    "free_space_loss",
    "k",
)
"""Names that an ``output`` line of am may hold, others are their units."""

POSSIBLE = (-0.2, 1.0)
"""Between a ground layer much colder than the air above it, and a sky that does not emit."""


class AmOutput(NamedTuple):
    """Column and kind of the brightness ("Trj", "Tb", or "" where it is not known), background T0 and ground T, K."""

    brightness: str
    column: int
    background_k: float
    ground_k: float


def configured_output(text: str) -> AmOutput:
    """What an am configuration says of the brightness in its output; "" unless T0 and Tbase are numbers."""
    names: list[str] = []
    background = ground = float("nan")
    for line in text.splitlines():
        words = line.split("#")[0].split()
        if len(words) < 2 or words[0] == "?":
            continue
        if words[0] == "output":
            names = [word for word in words[1:] if word in _OUTPUTS]
        elif words[0] == "T0":
            background = _kelvin(words)
        elif words[0] == "Tbase":
            ground = _kelvin(words)
    kind = next((name for name in _BRIGHTNESS if name in names), "")
    known = names[:2] == ["f", "tau"] and background >= 0 and ground > 0
    return AmOutput(kind if known else "", names.index(kind) if kind else 0, background, ground)


def _kelvin(words: list[str]) -> float:
    """The temperature of a statement, K; NaN where it is no number, or of an unknown unit."""
    unit = words[2] if len(words) > 2 else "K"
    try:
        value = float(words[1])
    except ValueError:
        return float("nan")
    return {"K": value, "C": value + 273.15}.get(unit, float("nan"))


def departure_seen(run: F64, output: AmOutput, path: Path) -> F64:
    """e_b P + e_q P^2 + e_c of one run, f64 [N]: D/g(tau) with D = (1 - t) - J_em/J(T_ground); equation (5.16).

    ``run`` [3,N]: GHz, Np, K. Raises ImportFormatError where brightness and opacity do not belong together.
    """
    freq, tau, seen = run
    nu = freq * 1e9
    t = np.exp(-tau)
    if output.brightness == "Tb":
        warm = seen > 0
        seen = np.where(warm, radiation_temperature(nu, np.where(warm, seen, 1.0)), 0.0)
    if output.background_k > 0:
        seen = seen - radiation_temperature(nu, output.background_k) * t
    lost = (1.0 - t) - seen / radiation_temperature(nu, output.ground_k)
    found = lost / lapse(tau)[0]
    if not np.all((lost >= POSSIBLE[0]) & (lost <= POSSIBLE[1])):
        at = int(np.argmax(np.abs(lost)))
        raise ImportFormatError(
            f"{path}: at {freq[at]:g} GHz the opacity is {tau[at]:.4g} Np but the sky emits {seen[at]:.4g} K, which "
            f"air at {output.ground_k:g} K does not.",
            hint="Give the am output and the configuration that made it; or leave the configuration away.",
        )
    return np.asarray(found, dtype=np.float64)
