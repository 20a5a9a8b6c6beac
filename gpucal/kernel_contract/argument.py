"""Roles, shapes, dtypes and units of the arrays of a kernel, and their check."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, get_args, get_type_hints

import numpy as np

from gpucal.axes import FLAG_DTYPE

Array = Any
"""An array of the backend's namespace: NumPy's or CuPy's."""

Dtypes = tuple[np.dtype[Any], ...]
Axes = tuple[str, ...]
Sizes = dict[str, int]

COUNTS: Dtypes = tuple(np.dtype(name) for name in ("int32", "uint32", "float32", "float64"))
SPECTRA: Dtypes = (np.dtype(np.float64), np.dtype(np.float32))
FLAGS: Dtypes = (FLAG_DTYPE,)
F64: Dtypes = (np.dtype(np.float64),)
I64: Dtypes = (np.dtype(np.int64),)
BOOL: Dtypes = (np.dtype(np.bool_),)

ODD = "2h+1"
"""An axis of an odd number of samples."""


@dataclass(frozen=True)
class Argument:
    """One array of a kernel. ``shapes``: those that it may have, as letters of axes."""

    role: Literal["in", "out"]
    dtypes: Dtypes
    shapes: tuple[Axes, ...]
    unit: str
    optional: bool

    def check(self, name: str, array: Array, sizes: Sizes) -> None:
        """Raise ValueError unless shape and dtype fit; ``sizes`` of axes known so far, extended."""
        for axes in self.shapes:
            found = _fit(axes, array.shape, sizes)
            if found is not None:
                sizes.update(found)
                break
        else:
            expected = " or ".join(_told(axes, sizes) for axes in self.shapes)
            raise ValueError(f"{name} has shape {tuple(array.shape)}, expected {expected}.")
        if array.dtype not in self.dtypes:
            expected = " or ".join(str(dtype) for dtype in self.dtypes)
            raise ValueError(f"{name} is {array.dtype}, expected {expected}.")


def given(dtypes: Dtypes, *shapes: str, unit: str = "1", optional: bool = False) -> Argument:
    """An array that a kernel reads and never edits; ``optional``: it may be None."""
    return Argument("in", dtypes, tuple(tuple(s.split()) for s in shapes), unit, optional)


def written(dtypes: Dtypes, *shapes: str, unit: str = "1") -> Argument:
    """An array that a kernel fills, whatever it held before."""
    return Argument("out", dtypes, tuple(tuple(s.split()) for s in shapes), unit, False)


@dataclass(frozen=True)
class Contract:
    """Contract of a kernel, for all its implementations.

    value: the tuple of named arrays that it takes; definition: the result, slow and plain; first:
    the argument whose shape is read first, where the first one does not tell the sizes of its axes;
    same_bits: whether every implementation gives the bits of the definition, or its value but for
    rounding.
    """

    kernel: str
    value: type[tuple[Any, ...]]
    definition: Callable[[Any], Any]
    first: str = ""
    same_bits: bool = True

    @cached_property
    def arguments(self) -> dict[str, Argument]:
        """The arrays by name, in the order in which they are checked; plain numbers are left out."""
        hints = get_type_hints(self.value, include_extras=True)
        found = {
            name: note
            for name, hint in hints.items()
            for note in get_args(hint)[1:]
            if isinstance(note, Argument)
        }
        return {name: found[name] for name in sorted(found, key=lambda n: n != self.first)}

    def check(self, value: tuple[Any, ...]) -> None:
        """Raise ValueError, naming the argument, unless all arrays fit each other and the contract."""
        sizes: Sizes = {}
        for name, argument in self.arguments.items():
            array = getattr(value, name)
            if array is not None or not argument.optional:
                argument.check(name, array, sizes)


def _fit(axes: Axes, shape: tuple[int, ...], sizes: Sizes) -> Sizes | None:
    """The sizes known so far with those that this shape adds; None where it contradicts them."""
    if len(axes) != len(shape):
        return None
    found = dict(sizes)
    for axis, n in zip(axes, shape, strict=True):
        if axis == ODD:
            fits = n % 2 == 1
        elif axis.isdigit():
            fits = n == int(axis)
        else:
            fits = found.setdefault(axis, n) == n
        if not fits:
            return None
    return found


def _told(axes: Axes, sizes: Sizes) -> str:
    """A shape for a message: "[c, D] = (2, D)"."""
    known = [str(sizes.get(axis, axis)) for axis in axes]
    letters = f"[{', '.join(axes)}]" if axes else "a scalar"
    return letters if list(axes) == known else f"{letters} = ({', '.join(known)})"
