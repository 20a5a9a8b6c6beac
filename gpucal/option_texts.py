"""Options that are written as a word with a number, or as a list: what they allow, and their one spelling."""

from __future__ import annotations

import re
from collections.abc import Iterable
from numbers import Integral
from typing import Any

DEFAULT_STEPS = 16
"""Steps of the rounding in the noise of one dump, where ``noise`` stands alone."""

FEWEST_STEPS, MOST_STEPS = 4, 1024


def codec_text(value: str) -> str:
    """``zstd`` becomes ``zstd:1``; level 0 would mean the default of the library. Raises ValueError."""
    name, _, level = value.partition(":")
    if name == "zstd":
        if level and not (level.lstrip("-").isdigit() and -7 <= int(level) <= 22 and int(level)):
            raise ValueError(f"zstd level is {level!r}, expected -7..22 without 0")
        return f"zstd:{int(level) if level else 1}"
    if name not in ("blosc-lz4", "blosc-zstd", "none") or level:
        raise ValueError(f"codec is {value!r}, expected zstd:LEVEL, blosc-lz4, blosc-zstd or none")
    return name


def precision_text(value: str) -> str:
    """``noise`` becomes ``noise:16``. Raises ValueError."""
    name, colon, steps = value.partition(":")
    if name == "exact" and not colon:
        return name
    if name != "noise" or (colon and not steps.isdecimal()):
        raise ValueError(f"precision is {value!r}, expected exact, noise or noise:K")
    number = int(steps) if colon else DEFAULT_STEPS
    if not FEWEST_STEPS <= number <= MOST_STEPS:
        raise ValueError(
            f"precision is {value!r}, expected noise:K with K from {FEWEST_STEPS} to {MOST_STEPS}"
        )
    return f"noise:{number}"


def steps_of(precision: str) -> int | None:
    """K of ``noise:K``: steps in the noise of one dump; None for ``exact``."""
    name, _, steps = precision.partition(":")
    return int(steps) if name == "noise" else None


def device_list_text(value: str) -> str:
    """Device numbers or names without spaces, or ``all``. Raises ValueError."""
    if value.strip() in ("", "all"):
        return value.strip()
    names = [name.strip() for name in value.split(",")]
    if not all(re.fullmatch(r"\d+|(GPU|MIG)-[\w/-]+", name) for name in names):
        raise ValueError(f"devices is {value!r}, expected all, or device numbers such as 0,1")
    if len(set(names)) < len(names):
        raise ValueError(f"devices is {value!r}, which names a device twice")
    return ",".join(names)


def numbers_text(value: Any) -> Any:
    """A number, or several, as the text that the command line takes: ``[1, 5]`` is "1,5"; all else as it is."""
    several = [value] if isinstance(value, Integral) else value
    if isinstance(several, str) or not isinstance(several, Iterable):
        return value
    listed = list(several)
    if not all(isinstance(n, Integral) and not isinstance(n, bool) for n in listed):
        return value
    return ",".join(str(int(n)) for n in listed) or value
