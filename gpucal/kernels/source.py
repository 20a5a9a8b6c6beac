"""CUDA source texts with their headers, and their compiler options.

A text without ``#include`` compiles the same with CuPy (whose cache then sees all of it), NVRTC,
nvcc and a C++ compiler.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

FOLDER = Path(__file__).parent

FILES = ("calibrate", "dump_mean", "reference", "chi2", "fold")

ELEMENTWISE = frozenset({"calibrate", "reference", "dump_mean", "fold"})
"""Files compiled without contraction of a * b + c, so that they give the bits of NumPy."""

C_TYPES: dict[np.dtype[Any], str] = {
    np.dtype(np.int32): "int",
    np.dtype(np.uint32): "u32",
    np.dtype(np.float32): "float",
    np.dtype(np.float64): "double",
}
"""Names in the sources of the dtypes that counts and spectra may have."""

_INCLUDE = re.compile(r'^#include "([a-z_]+\.cuh)"\n', re.MULTILINE)


class Kernel(NamedTuple):
    """One variant of a kernel template: a file of ``FILES`` and a C++ expression."""

    file: str
    expression: str


@cache
def source_text(file: str) -> str:
    """CUDA C++ of one of ``FILES``, its headers inserted once each."""
    seen: set[str] = set()

    def insert(name: str) -> str:
        text = (FOLDER / name).read_text(encoding="utf-8").replace("#pragma once\n", "")

        def header(match: re.Match[str]) -> str:
            name = match.group(1)
            if name in seen:
                return ""
            seen.add(name)
            return insert(name)

        return _INCLUDE.sub(header, text)

    return insert(f"{file}.cu")


def compiler_options(file: str) -> tuple[str, ...]:
    """Options for NVRTC and nvcc beside the architecture."""
    contract = "false" if file in ELEMENTWISE else "true"
    return ("--std=c++17", f"--fmad={contract}")
