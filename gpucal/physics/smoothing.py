"""Running median along channels, used to find the level of a band shape."""

from __future__ import annotations

from typing import Any

from array_api_compat import array_namespace

Array = Any


def running_median5(values: Array) -> Array:
    """Median of five neighbours along axis 0, ends repeated; NaN counts as minus infinity.

    ``values`` f64 [C, ...]; returns the same shape. A network of min/max, exact and order-free, so
    that every backend gives the same bits.
    """
    xp = array_namespace(values)
    x = xp.where(xp.isnan(values), -xp.inf, values)
    x = xp.concat([x[:1, ...], x[:1, ...], x, x[-1:, ...], x[-1:, ...]], axis=0)
    n = values.shape[0]
    a, b, c, d, e = (x[i : i + n, ...] for i in range(5))
    a, b = xp.minimum(a, b), xp.maximum(a, b)
    d, e = xp.minimum(d, e), xp.maximum(d, e)
    low = xp.maximum(a, d)
    high = xp.minimum(b, e)
    return xp.maximum(xp.minimum(low, high), xp.minimum(xp.maximum(low, high), c))
