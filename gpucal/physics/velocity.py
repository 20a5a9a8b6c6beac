"""Velocity of a line from the sky frequency, for scans whose attributes allow it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

C_KMS = 299792.458
NEAR = 1.0
"""The rest frequency may lie this many bandwidths outside the band."""


FRAMES = {
    "BAR": "barycentric",
    "HEL": "heliocentric",
    "TOP": "topocentric",
    "OBS": "topocentric",
    "LSD": "LSRD",
    "LSK": "LSR",
    "GEO": "geocentric",
    "GAL": "galactocentric",
    "COB": "CMB",
}
"""Second half of VELDEF of SDFITS, in words; LSR stays."""


@dataclass(frozen=True)
class VelocityScale:
    """Radio velocity v = c (1 - nu doppler / rest), km/s, of topocentric frequencies nu, Hz.

    doppler = sqrt((1+b)/(1-b)), b = velocity of the frame / c, moves a topocentric frequency into the
    frame ``frame`` ("LSR", "topocentric", ...); 1 where the frame's motion is not known.
    """

    rest: float
    doppler: float
    frame: str

    @property
    def label(self) -> str:
        """Text of an axis."""
        return f"radio velocity, {self.frame} [km/s]"

    def velocity(self, frequency: Any) -> Any:
        """Velocity of a topocentric frequency in Hz, km/s."""
        return C_KMS * (1.0 - np.asarray(frequency) * self.doppler / self.rest)

    def frequency(self, velocity: Any) -> Any:
        """Topocentric frequency of a velocity in km/s, Hz."""
        return self.rest * (1.0 - np.asarray(velocity) / C_KMS) / self.doppler


def velocity_scale(
    attrs: Mapping[str, Any], frequency: npt.NDArray[np.float64]
) -> VelocityScale | None:
    """The scale that the attributes of a scan allow, None when there is none.

    Needs ``rest_freq_hz`` in or near the band (``frequency``, Hz, [C,...]); ``velocity_frame_mps`` (velocity
    of the frame towards the source as GBT's VFRAME) gives the frame of ``velocity_definition``.
    """
    rest = _number(attrs.get("rest_freq_hz"))
    finite = frequency[np.isfinite(frequency)]
    if not rest > 0 or finite.size < 2:
        return None
    low, high = float(finite.min()), float(finite.max())
    margin = NEAR * (high - low)
    beta = _number(attrs.get("velocity_frame_mps")) / (1e3 * C_KMS)
    known = bool(np.isfinite(beta)) and abs(beta) < 0.01
    doppler = float(np.sqrt((1 + beta) / (1 - beta))) if known else 1.0
    source = _number(attrs.get("velocity_source_kms"))
    line = rest * (1.0 - (source if np.isfinite(source) else 0.0) / C_KMS) / doppler
    if not low - margin <= line <= high + margin:
        return None
    code = str(attrs.get("velocity_definition", "")).partition("-")[2].strip()
    frame = FRAMES.get(code, code or "frame of the source")
    return VelocityScale(rest, doppler, frame if known else "topocentric")


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return float("nan")
