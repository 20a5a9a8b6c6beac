"""Chunks of an L0 group that are not there: refused, or told of; a chunk that is not there is no number.

Shapes use C channels, D dumps, R receivers, A array pixels, S subscans.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy.typing as npt

from gpucal.errors import L0Error
from gpucal.io.chunks.layout import with_fill
from gpucal.io.l0.nodes import values_of

SHOWN = 5
LOADS = frozenset({"HOT", "COLD", "COL", "ZERO"})
"""Modes in which it does not matter where the telescope points."""

NEVER_ZERO = frozenset({"mjd", "exptime", "signal_freq", "freq_res"})
"""Arrays of which no number is 0: a chunk that is not there was lost, and not left out as one of zeros."""

JUDGED_BY_RULES = frozenset({"image_freq", "thot", "tcold", "load_temp_sig", "load_temp_img"})
"""Arrays in which 0 is refused where it would count, and is written where it does not."""


def lacks_chunks(name: str, node: Any, values: npt.NDArray[Any]) -> str:
    """ "all chunks", "chunks", or "" for none: what of a small array is not there and reads as 0.

    values: the array as stored. A fill value other than 0 is no data anyway. Raises L0Error where 0
    can be no number that was written.
    """
    fill = node.fill_value
    if values.dtype.kind not in "iuf" or fill is None or fill != 0 or (values != 0).all():
        return ""
    lost = (values == 0) & (values_of(name, with_fill(node, 1)) == 1)
    if not lost.any() or name in JUDGED_BY_RULES:
        return ""
    share = "all chunks" if lost.all() else "chunks"
    if name in NEVER_ZERO:
        raise _would_be_zero(share, name)
    return share


def _would_be_zero(share: str, name: str) -> L0Error:
    return L0Error(
        f"{share} of array {name} are not there: its numbers would be read as 0.",
        hint="Restore the chunk files from a copy, or leave this scan out with --scans.",
    )


def lost_arrays(lost: Mapping[str, str], modes: Sequence[str], shape: Sequence[int]) -> list[str]:
    """Warnings about arrays of which chunks are not there, but for those that are 0 as a rule.

    lost: name -> as from ``lacks_chunks``; shape: (C, D, R, A, S). Where zarr-python writes zeros
    it leaves the chunk out: offsets of a single pixel, of a row of pixels, or of a scan that is no
    map, are told of only where a part of their chunks is there; a ref_channel that is no longer that of
    the loads is refused when they are compared. Raises L0Error for an elevation on the
    sky; that of loads may be 0.
    """
    if lost.get("elevation") == "all chunks" and not LOADS.issuperset(m.strip() for m in modes):
        raise _would_be_zero("all chunks", "elevation")
    as_a_rule = {"chop_phase", "azimuth", "ref_channel"}
    if not any(mode.upper().startswith("FSW") for mode in modes):
        as_a_rule |= {"freq_throw"}
    row_or_column = ("pixel_offset_lon" in lost) != ("pixel_offset_lat" in lost)
    if shape[2] * shape[3] == 1 or row_or_column:
        as_a_rule |= {"pixel_offset_lon", "pixel_offset_lat"}
    if not any(mode.upper().startswith("OTF") for mode in modes):
        as_a_rule |= {"otf_lon", "otf_lat"}
    return [
        f"{share} of array {name} are not there: its numbers are taken as 0 there."
        for name, share in lost.items()
        if name != "elevation" and (share != "all chunks" or name not in as_a_rule)
    ]


def lost_subscans(lost: Sequence[int], modes: Sequence[str]) -> list[str]:
    """A warning that names the subscans without any chunk of counts; none without one."""
    if not lost:
        return []
    named = [f"subscan {s} ({modes[s].strip()})" for s in lost[:SHOWN] if s < len(modes)]
    more = f" and {len(lost) - SHOWN} more" if len(lost) > SHOWN else ""
    return [
        f"there is no chunk of counts for {', '.join(named)}{more}: all samples there are no data."
    ]
