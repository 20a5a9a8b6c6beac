"""Spectra of L1 that were rounded to their noise (``precision`` noise:K), told by their attributes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def rounding_step(attrs: Mapping[str, Any]) -> float | None:
    """The step that the spectra are multiples of, K, from the attributes of the array; None: as computed.

    A sample differs from what was computed by at most half of it, and the variance of that is step^2/12.
    """
    step = attrs.get("quantization_step")
    return None if step is None else float(step)
