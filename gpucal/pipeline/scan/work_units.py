"""Division of the work on one scan: channel blocks of L1, and the units that a worker takes at a time.

The blocks depend on the shape of the scan alone, so that L1 does too. The units follow the raw chunks and the memory
there is. Shapes: C channels, D dumps, R receivers, A pixels, S subscans.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from gpucal.steps.solution import ScanSolution

L1_CHUNK_BYTES = 16 << 20
"""Upper bound of one chunk of spectra, as f64; fixed, so that L1 depends on the shape alone."""

T_SYS_CHUNK_BYTES = 16 << 20
"""The same for one chunk of T_sys."""


@dataclass(frozen=True)
class Unit:
    """The work of one worker at a time: blocks of channels of outputs that share raw chunks."""

    outputs: tuple[int, ...]
    blocks: tuple[tuple[int, int], ...]


class UnitSize(NamedTuple):
    """Bytes in memory while a unit is in work, and its outputs."""

    nbytes: int
    outputs: int


def block_channels(n_channels: int, per_channel: int) -> int:
    """Channels in a chunk of L1: a power of two below L1_CHUNK_BYTES, or all.

    ``per_channel``: bytes of one channel of one subscan, as f64.
    """
    most = max(1, L1_CHUNK_BYTES // max(1, per_channel))
    return n_channels if most >= n_channels else 1 << int(math.log2(most))


def l1_blocks(solution: ScanSolution) -> list[tuple[int, int]]:
    """The channel blocks of the spectra of this scan."""
    c, d, r, a, _ = solution.output_shape
    return cut(c, block_channels(c, d * r * a * 8))


def cut(n: int, step: int) -> list[tuple[int, int]]:
    """The range 0..n cut into (start, stop) of ``step`` each, the last one shorter."""
    return [(i, min(i + step, n)) for i in range(0, n, step)]


def t_sys_blocks(solution: ScanSolution) -> list[tuple[int, int]]:
    """The channel blocks of ``t_sys`` of this scan."""
    c, _, r, a, _ = solution.output_shape
    step = max(1, T_SYS_CHUNK_BYTES // (r * a * 8))
    return cut(c, c if step >= c else 1 << int(math.log2(step)))


def unit_bytes(solution: ScanSolution, outputs: Sequence[int]) -> int:
    """Memory that a unit takes: windows of raw counts, spectra, flags and their encoded form."""
    counts = solution.group.counts
    _, d, r, a, _ = counts.shape
    step = l1_blocks(solution)[0][1]
    window = min(counts.shape[0], step + counts.chunks[0] + channels_around(solution))
    subscans = {s for j in outputs for s in solution.pairing.recipes[j].subscans()}
    samples = d * r * a
    return samples * (len(subscans) * window * counts.dtype.itemsize + 2 * step * (8 + 2))


def plan_units(solution: ScanSolution, budget: int) -> list[Unit]:
    """Cut the work so that a raw chunk is decoded by one worker, within ``budget`` bytes each.

    Neighbouring outputs whose ON lie in one raw chunk go together as far as the budget allows; so do as
    many blocks of channels as cover whole raw chunks, and all of them where blocks overlap (folding). For
    each block the outputs come in ascending order, however they are cut.
    """
    chunks = solution.group.counts.chunks
    groups: list[tuple[tuple[int, ...], list[int]]] = []
    for j, recipe in enumerate(solution.pairing.recipes):
        key = tuple(s // chunks[4] for s in recipe.subscans())
        if groups and groups[-1][0] == key and unit_bytes(solution, [*groups[-1][1], j]) <= budget:
            groups[-1][1].append(j)
        else:
            groups.append((key, [j]))
    blocks = l1_blocks(solution)
    step = blocks[0][1]
    together = math.lcm(chunks[0], step) // step
    if channels_around(solution):
        together = len(blocks)
    return [
        Unit(tuple(outputs), tuple(blocks[i : i + together]))
        for _, outputs in groups
        for i in range(0, len(blocks), together)
    ]


def largest_unit(solution: ScanSolution, units: Sequence[Unit]) -> UnitSize:
    """The unit that takes the most memory."""
    return max(UnitSize(unit_bytes(solution, u.outputs), len(u.outputs)) for u in units)


def channels_around(solution: ScanSolution) -> int:
    """Channels on both sides of a block that are needed for it: only folding needs any."""
    return max(sum(recipe.channels_around()) for recipe in solution.pairing.recipes)
