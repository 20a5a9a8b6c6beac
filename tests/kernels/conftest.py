"""The CUDA sources built for the CPU, behind the same host code as on a card."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpucal.kernels.source import FILES, Kernel, source_text
from gpucal.kernels.variants import all_kernels

SHIM = Path(__file__).parent / "shim"


def require(condition: object, reason: str) -> None:
    """Skip with the reason; in continuous integration, fail."""
    if condition:
        return
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def build(file: str, folder: Path) -> dict[Kernel, Any]:
    """Compile all variants of one source into a shared library; returns its functions."""
    kernels = [k for k in all_kernels() if k.file == file]
    entries = [
        f'extern "C" int run_{i}(const unsigned* shape, void** args, int backwards) '
        f"{{ return shim::launch(&{k.expression}, shape, args, backwards); }}\n"
        for i, k in enumerate(kernels)
    ]
    source, library = folder / f"{file}.cpp", folder / f"{file}.so"
    source.write_text('#include "cuda_on_cpu.h"\n' + source_text(file) + "".join(entries))
    command = ["g++", "-std=c++17", "-O2", "-ffp-contract=off", "-shared", "-fPIC"]
    command += ["-Wno-unknown-pragmas", f"-I{SHIM}"]
    subprocess.run([*command, str(source), "-o", str(library)], check=True)
    loaded = ctypes.CDLL(str(library))
    return {k: getattr(loaded, f"run_{i}") for i, k in enumerate(kernels)}


class CpuDevice:
    """Runs kernels in the host's memory. ``backwards``: the last thread of a block goes first."""

    xp = np

    def __init__(self, functions: dict[Kernel, Any]) -> None:
        self._functions = functions
        self.backwards = False
        self.launched: list[Any] = []

    def address(self, array: Any) -> int:
        return int(array.ctypes.data)

    def run(
        self, kernel: Kernel, grid: tuple[int, ...], block: tuple[int, ...], args: Sequence[Any]
    ) -> None:
        self.launched.append((kernel, grid, block))
        assert 0 < np.prod(block) <= 256
        assert all(n > 0 for n in grid)
        held = [
            np.array([a.ctypes.data], np.uint64) if isinstance(a, np.ndarray) else np.array([a])
            for a in args
        ]
        for array in args:
            assert not isinstance(array, np.ndarray) or array.flags.c_contiguous
        pointers = (ctypes.c_void_p * len(held))(*(h.ctypes.data for h in held))
        shape = (ctypes.c_uint * 6)(*(*grid, 1, 1)[:3], *(*block, 1, 1)[:3])
        status = self._functions[kernel](shape, pointers, int(self.backwards))
        assert status == 0, f"{kernel}: threads left while others waited at a barrier"


@pytest.fixture(scope="session")
def shim_functions(tmp_path_factory: pytest.TempPathFactory) -> dict[Kernel, Any]:
    """{kernel: function} of all sources, compiled with g++."""
    require(shutil.which("g++"), "g++ is needed to run the CUDA sources on the CPU")
    folder = tmp_path_factory.mktemp("shim")
    functions: dict[Kernel, Any] = {}
    for file in FILES:
        functions |= build(file, folder)
    return functions


@pytest.fixture(scope="class")
def device(shim_functions: dict[Kernel, Any]) -> CpuDevice:
    return CpuDevice(shim_functions)
