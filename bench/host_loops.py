"""Elementwise and reduction kernels of CuPy, built with g++ for NumPy arrays: a check of their texts.

Slow, and only what ``gpucal.kernels.plain`` needs: the first run on a card should find no mistake in it.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

Array = Any

HEADER = """
#include <cmath>
#include <cstddef>
#define __device__
#define __forceinline__ inline
using std::isfinite;
using std::isnan;
static inline unsigned __umulhi(unsigned a, unsigned b) {
    return (unsigned)(((unsigned long long)a * b) >> 32);
}
"""

C_NAMES = {
    "float64": "double",
    "float32": "float",
    "int64": "long long",
    "int32": "int",
    "uint32": "unsigned int",
    "uint16": "unsigned short",
    "bool": "bool",
}


def available() -> bool:
    """Whether a compiler is there."""
    return shutil.which("g++") is not None


class Parameter(NamedTuple):
    """One argument: "raw float64 x" or "T x"."""

    name: str
    kind: str
    raw: bool

    def dtype(self, types: dict[str, str]) -> str:
        """The name of its dtype, that of a letter from ``types``."""
        return types[self.kind] if len(self.kind) == 1 else self.kind


def parameters(text: str) -> list[Parameter]:
    """Arguments from a text such as "raw float64 x, T y"."""
    words = [one.split() for one in text.split(",")]
    return [Parameter(w[-1], w[-2], w[0] == "raw") for w in words]


@cache
def compiled(source: str) -> Any:
    """The function ``run`` of a C++ source."""
    with tempfile.TemporaryDirectory(prefix="gpucal-loops-") as folder:
        path, library = Path(folder, "loop.cpp"), Path(folder, "loop.so")
        path.write_text(HEADER + source)
        command = ["g++", "-std=c++17", "-O1", "-ffp-contract=off", "-shared", "-fPIC"]
        subprocess.run([*command, str(path), "-o", str(library)], check=True)
        return ctypes.CDLL(str(library)).run


def decided(inputs: list[Parameter], args: list[Array]) -> dict[str, str]:
    """dtype of each letter, from the arrays. Raises TypeError where an array has another dtype."""
    types: dict[str, str] = {}
    for parameter, array in zip(inputs, args, strict=True):
        own = np.asarray(array).dtype.name
        if len(parameter.kind) == 1:
            types.setdefault(parameter.kind, own)
        if parameter.dtype(types) != own:
            raise TypeError(f"{parameter.name} is {own}, expected {parameter.dtype(types)}.")
    return types


def call(source: str, sizes: tuple[int, ...], arrays: list[Array]) -> None:
    """Run the function with sizes and the addresses of contiguous arrays."""
    pointers = (ctypes.c_void_p * len(arrays))(*(a.ctypes.data for a in arrays))
    compiled(source)(*(ctypes.c_longlong(n) for n in sizes), pointers)


def declared(parameters: list[Parameter], types: dict[str, str], index: str, first: int) -> str:
    """C++ that gives each argument its name; ``index``: where the sample is."""
    lines = []
    for place, p in enumerate(parameters, first):
        c_name = C_NAMES[p.dtype(types)]
        pointer = f"(({c_name}*)args[{place}])"
        if p.raw:
            lines.append(f"const {c_name}* {p.name} = {pointer};")
        else:
            lines.append(f"{c_name}& {p.name} = {pointer}[{index}];")
    return "\n".join(lines)


def typedefs(types: dict[str, str]) -> str:
    """One for each letter."""
    return "".join(f"typedef {C_NAMES[dtype]} {letter};\n" for letter, dtype in types.items())


class ElementwiseKernel:
    """A loop over broadcast arrays; see ``cupy.ElementwiseKernel``."""

    def __init__(
        self,
        inputs: str,
        outputs: str,
        operation: str,
        name: str,
        preamble: str = "",
        options: tuple[str, ...] = (),
    ) -> None:
        self._inputs, self._outputs = parameters(inputs), parameters(outputs)
        self._operation, self._preamble, self._name = operation, preamble, name

    def __call__(self, *args: Array) -> Any:
        """Results, or the arrays given for them. Raises TypeError for other dtypes or numbers."""
        known = [*self._inputs, *self._outputs]
        if len(args) not in (len(self._inputs), len(known)):
            raise TypeError(f"{self._name} has {len(args)} arguments, expected {len(known)}.")
        types = decided(known[: len(args)], list(args))
        plain = [np.shape(a) for a, p in zip(args, known, strict=False) if not p.raw]
        shape = np.broadcast_shapes(*plain)
        results = list(args[len(self._inputs) :]) or [
            np.empty(shape, p.dtype(types)) for p in self._outputs
        ]
        if any(a.shape != shape for a in results):
            raise ValueError(f"{self._name} gives {shape}, another shape is given for it.")
        held = [
            np.ascontiguousarray(a if p.raw else np.broadcast_to(a, shape))
            for a, p in zip(args, self._inputs, strict=False)
        ]
        written = [np.ascontiguousarray(a) for a in results]
        source = (
            f"{typedefs(types)}{self._preamble}\n"
            'extern "C" void run(long long n, void** args) {\n'
            "for (std::ptrdiff_t i = 0; i < n; ++i) {\n"
            f"{declared(known, types, 'i', 0)}\n{self._operation};\n}} }}\n"
        )
        call(source, (int(np.prod(shape)),), [*held, *written])
        for wanted, own in zip(results, written, strict=True):
            if own is not wanted:
                wanted[...] = own
        return results[0] if len(results) == 1 else tuple(results)


class ReductionKernel:
    """A sum over broadcast arrays; see ``cupy.ReductionKernel``."""

    def __init__(
        self,
        inputs: str,
        output: str,
        term: str,
        reduce: str,
        post: str,
        identity: str,
        name: str,
        reduce_type: str,
        options: tuple[str, ...] = (),
    ) -> None:
        self._inputs, (self._output,) = parameters(inputs), parameters(output)
        self._texts = (term, reduce, post, identity)
        self._type, self._name = reduce_type, name

    def __call__(self, *args: Array, axis: int | None = None) -> Any:
        """The sum over one axis, or over all. Raises TypeError for other dtypes."""
        types = decided(self._inputs, list(args))
        shape = np.broadcast_shapes(*(np.shape(a) for a in args))
        wide = [np.broadcast_to(a, shape) for a in args]
        turned = [a.reshape(1, -1) if axis is None else np.moveaxis(a, axis, -1) for a in wide]
        outer = () if axis is None else turned[0].shape[:-1]
        length = turned[0].shape[-1]
        result = np.empty(outer, self._output.dtype(types))
        term, reduce, post, identity = self._texts
        place = len(args)
        source = (
            f"{typedefs(types)}\n"
            f"static {self._type} reduced({self._type} a, {self._type} b) {{ return {reduce}; }}\n"
            'extern "C" void run(long long n, long long length, void** args) {\n'
            "for (long long o = 0; o < n; ++o) {\n"
            f"{self._type} a = {identity};\n"
            "for (long long j = 0; j < length; ++j) {\n"
            f"{declared(self._inputs, types, 'o * length + j', 0)}\n"
            f"a = reduced(a, ({self._type})({term}));\n}}\n"
            f"{declared([self._output], types, 'o', place)}\n{post};\n}} }}\n"
        )
        call(source, (result.size, length), [*map(np.ascontiguousarray, turned), result])
        return result
