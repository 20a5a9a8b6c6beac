"""Which sizes C, D, R, A, S a group has, where its arrays disagree, and whether axes are reversed or permuted.

Shapes use C channels, D dumps, R receivers, A array pixels, S subscans.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gpucal.axes import AXES
from gpucal.errors import GpucalError, L0Error
from gpucal.io.l0.schema import ARRAYS, COUNTS, check_array, check_axis_order

Shape = tuple[int, ...]


@dataclass
class Shapes:
    """Sizes of the five axes of a group by letter, 0 where not known, and what is wrong with the counts."""

    sizes: dict[str, int]
    faults: list[GpucalError] = field(default_factory=list)

    def wanted(self, name: str) -> str:
        """The shapes that an array may have, in words."""
        return " or ".join(str(tuple(self.sizes[d] for d in dims)) for dims in ARRAYS[name].dims)

    def fault_of(self, name: str, node: Any) -> GpucalError | None:
        """What is wrong with shape, type or order of the axes of a small array."""
        shape = tuple(node.shape)
        try:
            check_array(name, shape, np.dtype(node.dtype), [self.sizes[d] for d in "CDRAS"])
            check_axis_order(name, node)
        except GpucalError as error:
            turned = [
                dims
                for dims in ARRAYS[name].dims
                if len(shape) > 1 and shape[::-1] == tuple(self.sizes[d] for d in dims)
            ]
            if turned and not error.hint:
                error.message = error.message.rstrip(".") + ": its axes are reversed."
                error.hint = "Transpose it."
            return error
        return None


def _words(shape: Shape) -> str:
    return f"({', '.join(str(n) for n in shape)})"


def sizes_of(shapes: Mapping[str, Shape], n_modes: int) -> Shapes:
    """The sizes of a group from the shapes of its arrays and the number of its observing modes (0: not known).

    The counts say it, unless the small arrays agree on another order of the same sizes.
    """
    votes = _votes(shapes, n_modes)
    counts = shapes.get(COUNTS)
    if counts is None:
        text = f"array {COUNTS} is missing, expected counts [C, D, R, A, S]."
        return Shapes({axis: votes.get(axis, 1) for axis in "CDRAS"}, [L0Error(text)])
    if len(counts) != 5:
        text = f"array {COUNTS} has shape {_words(counts)}, expected five axes [C, D, R, A, S]."
        return Shapes({axis: votes.get(axis, 1) for axis in "CDRAS"}, [L0Error(text)])
    if 0 in counts:
        empty = AXES[counts.index(0)]
        text = f"array {COUNTS} has shape {_words(counts)}: there is no {empty} in it."
        return Shapes(dict(zip("CDRAS", counts, strict=True)), [L0Error(text)])
    if _agrees(counts, votes):
        return Shapes(dict(zip("CDRAS", counts, strict=True)))
    orders = [order for order in _orders() if _agrees([counts[i] for i in order], votes)]
    if not orders:
        return Shapes(dict(zip("CDRAS", counts, strict=True)))
    order = orders[0]
    right = tuple(counts[i] for i in order)
    reversed_ = order == (4, 3, 2, 1, 0)
    found = "".join("CDRAS"[order.index(i)] for i in range(5))
    how = "reversed" if reversed_ else f"in the order [{', '.join(found)}]"
    fault = L0Error(
        f"array {COUNTS} has shape {_words(counts)}: its axes look {how}, expected "
        f"{_words(right)} = [C, D, R, A, S] from the other arrays.",
        hint="Transpose it.",
    )
    return Shapes(dict(zip("CDRAS", right, strict=True)), [fault])


def _orders() -> list[Shape]:
    """All orders of five axes, the reversed one first, then those that move the fewest."""
    identity = tuple(range(5))
    moved = sorted(
        itertools.permutations(identity),
        key=lambda order: sum(a != b for a, b in zip(order, identity, strict=True)),
    )
    return [identity[::-1], *moved[1:]]


def _agrees(sizes: Any, votes: Mapping[str, int]) -> bool:
    return all(votes.get(axis, n) == n for axis, n in zip("CDRAS", sizes, strict=True))


def _votes(shapes: Mapping[str, Shape], n_modes: int) -> dict[str, int]:
    """The size of each axis that most of the small arrays have; axes that none of them has are left out.

    An array whose last axis is not the subscans, but its first is, is taken as transposed.
    """
    ends = Counter(s[-1] for name, s in shapes.items() if name != COUNTS and len(s) == 1)
    n_subscans = n_modes or (ends.most_common(1)[0][0] if ends else 0)
    heard: dict[str, Counter[int]] = {axis: Counter() for axis in "CDRAS"}
    for name, shape in shapes.items():
        dims = next((d for d in ARRAYS[name].dims if len(d) == len(shape)), "")
        if name == COUNTS or not dims:
            continue
        turned = dims[-1] == "S" and shape[-1] != n_subscans and shape[0] == n_subscans
        for axis, n in zip(dims, shape[::-1] if turned else shape, strict=True):
            heard[axis][n] += 1
    votes = {axis: count.most_common(1)[0][0] for axis, count in heard.items() if count}
    return {**votes, "S": n_subscans} if n_subscans else votes
