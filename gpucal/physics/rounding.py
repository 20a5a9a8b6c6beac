"""A measured value and its error as text, with the digits that the error leaves."""

from __future__ import annotations

import math

TWO_DIGITS = 3.55
"""An error has two digits while its first ones are below this, else one: 0.12 and 0.035, but 0.04 (the rule of the
Particle Data Group)."""


def with_error(value: float, error: float, *, unknown: str = ".3g", sign: str = "±") -> str:
    """``value`` ± ``error``: "1.23 ± 0.04"; without an error ``value`` in the format ``unknown``."""
    if not math.isfinite(error) or error <= 0:
        return format(value, unknown)
    power = math.floor(math.log10(error))
    digits = min(9, max(0, (1 if round(error / 10**power, 2) < TWO_DIGITS else 0) - power))
    return f"{value:.{digits}f} {sign} {error:.{digits}f}"
