"""Rows of results as lines of the text logs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from gpucal.online.site.tables import MEAN

_LOGGED = {
    "offset": "arcsec",
    "width": "arcsec",
    "amplitude": "K",
    "position": "mm",
    "peak": "K",
    "t_rec": "K",
    "t_sys": "K",
    "t_sys_star": "K",
    "pwv": "mm",
    "tau": "Np",
    "f_eff": "",
    "rms": "K",
    "rms_expected": "K",
}
"""What a line tells, in this order, with units."""


def log_line(row: Mapping[str, Any], source: str, *, cancelled: bool = False) -> str:
    """One result as one line of text: time, scan, place, values with errors and units."""
    parts = [
        f"mjd {row['mjd']:.5f}" if is_known(row.get("mjd")) else "mjd -",
        f"scan {row['scan']}",
    ]
    parts += [source] if source else []
    parts += [str(row[k]) for k in ("direction", "axis") if row.get(k)]
    everywhere = row["pixel"] == MEAN
    parts.append(
        "mean" if everywhere else f"{row['band']} r{row['receiver']} p{row['pixel']}".strip()
    )
    for name, unit in _LOGGED.items():
        if name in row and is_known(row[name]):
            error = row.get(f"{name}_error")
            text = f"{name} {row[name]:.4g}"
            text += f" +- {error:.2g}" if is_known(error) else ""
            parts.append(f"{text} {unit}".rstrip())
    if not row.get("valid", True):
        parts.append(f"INVALID: {row.get('reason') or 'no reason given'}")
    return "  ".join(parts) + ("  (cancelled)" if cancelled else "")


def is_known(value: Any) -> bool:
    """Whether a value of a row is a finite number."""
    return isinstance(value, int | float) and math.isfinite(value)
