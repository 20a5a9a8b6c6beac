"""Compiles every CUDA kernel without a GPU and prints registers, spills and more: ``--help``.

NVRTC is taken from the wheel ``nvidia-cuda-nvrtc`` or from the system, through ctypes. Where CuPy is
installed, its headers make the plain forms of ``gpucal.kernels.plain`` too, from the text that CuPy makes
of an ElementwiseKernel. Those of a ReductionKernel depend on the launch, so they are left out.
"""

from __future__ import annotations

import argparse
import ctypes
import ctypes.util
import importlib.util
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.host_loops import C_NAMES, parameters, typedefs
from gpucal.kernels.plain import CALIBRATE, FOLD, REFERENCE, Elementwise
from gpucal.kernels.source import FILES, Kernel, compiler_options, source_text
from gpucal.kernels.variants import all_kernels

ARCHITECTURES = ("sm_80", "sm_90", "sm_100")
"""Ampere, Hopper and Blackwell data-centre cards."""

SUCCESS = 0

DIVISION = re.compile(r"\b(?:div|rem)\.[us](?:16|32|64)\b")

PLAIN = ((CALIBRATE, 3), (REFERENCE, 3), (FOLD, 3))
"""Plain forms, and the axes that are left where channels, dumps and pixels are broadcast."""


@dataclass(frozen=True)
class Resources:
    """What ptxas says about one kernel on one architecture."""

    kernel: Kernel
    arch: str
    registers: int
    stack: int
    """Bytes of local memory, which are as slow as spills."""
    spill_stores: int
    spill_loads: int
    shared: int
    """Bytes of shared memory of a block."""
    divisions: int
    """Integer divisions and remainders in the PTX: what an index path should not have."""


@cache
def nvrtc() -> ctypes.CDLL | None:
    """The NVRTC library of the wheel, else of the system; None when there is none."""
    spec = importlib.util.find_spec("nvidia")
    folders = list(spec.submodule_search_locations or []) if spec else []
    names = [
        str(path)
        for folder in folders
        for path in sorted(Path(folder).glob("*/lib/libnvrtc.so.*"), reverse=True)
        if "builtins" not in path.name and "alt" not in path.name
    ]
    names += [found] if (found := ctypes.util.find_library("nvrtc")) else []
    for name in names:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    return None


def _check(library: ctypes.CDLL, status: int, doing: str, log: str = "") -> None:
    """Raise RuntimeError with NVRTC's reason and log unless the call succeeded."""
    if status != SUCCESS:
        library.nvrtcGetErrorString.restype = ctypes.c_char_p
        reason = library.nvrtcGetErrorString(status).decode()
        raise RuntimeError(f"NVRTC cannot {doing}: {reason}. {log}")


def _text(library: ctypes.CDLL, program: ctypes.c_void_p, what: str) -> bytes:
    """Output of a program, such as its log or PTX: NVRTC is asked for the size first."""
    size = ctypes.c_size_t()
    _check(library, getattr(library, f"nvrtcGet{what}Size")(program, ctypes.byref(size)), what)
    buffer = ctypes.create_string_buffer(size.value)
    _check(library, getattr(library, f"nvrtcGet{what}")(program, buffer), what)
    return buffer.raw.rstrip(b"\0")


@dataclass(frozen=True)
class Compiled:
    """The compiler's log and output of one source file; ``names``: kernel -> symbol."""

    log: str
    ptx: str
    names: dict[Kernel, str]


def compile_file(file: str, arch: str) -> Compiled:
    """Compile all variants of one source for ``sm_NN`` (machine code, with PTX beside it).

    Raises RuntimeError when NVRTC is missing or refuses, with its log.
    """
    kernels = [k for k in all_kernels() if k.file == file]
    return compile_text(f"{file}.cu", source_text(file), kernels, arch, compiler_options(file))


def compile_text(
    place: str, source: str, kernels: Sequence[Kernel], arch: str, own_options: Sequence[str]
) -> Compiled:
    """Compile these kernels of a source; see ``compile_file``."""
    library = nvrtc()
    if library is None:
        raise RuntimeError("NVRTC is not here. Install the wheel nvidia-cuda-nvrtc.")
    program = ctypes.c_void_p()
    status = library.nvrtcCreateProgram(
        ctypes.byref(program), source.encode(), place.encode(), 0, None, None
    )
    _check(library, status, f"read {place}")
    try:
        for kernel in kernels:
            status = library.nvrtcAddNameExpression(program, kernel.expression.encode())
            _check(library, status, f"add {kernel.expression}")
        options = [f"--gpu-architecture={arch}", "--ptxas-options=-v", *own_options]
        encoded = (ctypes.c_char_p * len(options))(*(o.encode() for o in options))
        status = library.nvrtcCompileProgram(program, len(options), encoded)
        log = _text(library, program, "ProgramLog").decode()
        _check(library, status, f"compile {place} for {arch}", log)
        names = {}
        for kernel in kernels:
            name = ctypes.c_char_p()
            status = library.nvrtcGetLoweredName(
                program, kernel.expression.encode(), ctypes.byref(name)
            )
            _check(library, status, f"find {kernel.expression}")
            names[kernel] = (name.value or b"").decode()
        return Compiled(log, _text(library, program, "PTX").decode(), names)
    finally:
        library.nvrtcDestroyProgram(ctypes.byref(program))


def cupy_headers() -> Path | None:
    """The folder of CuPy's headers, without importing it; None where it is not installed."""
    spec = importlib.util.find_spec("cupy")
    places = list(spec.submodule_search_locations or []) if spec else []
    folders = [Path(place, "_core", "include") for place in places]
    return next((f for f in folders if (f / "cupy" / "carray.cuh").exists()), None)


def plain_source(kernel: Elementwise, axes: int, types: dict[str, str]) -> str:
    """What CuPy makes of an ElementwiseKernel on arrays broadcast over ``axes`` axes."""
    arguments, places = [], []
    scalars = kernel.scalars()
    for p in (*parameters(kernel.inputs), *parameters(kernel.outputs)):
        name = C_NAMES[p.dtype(types)]
        if p.name in scalars:
            arguments.append(f"const {name} {p.name}")
        elif p.raw:
            arguments.append(f"const CArray<{name}, 1, 1, 1> {p.name}")
        else:
            arguments.append(f"CArray<{name}, {axes}, 0, 1> _raw_{p.name}")
            places.append(f"{name} &{p.name} = _raw_{p.name}[_ind.get()];")
    return (
        f"#include <cupy/carray.cuh>\n{typedefs(types)}{kernel.preamble}\n"
        f'extern "C" __global__ void {kernel.name}({", ".join(arguments)}, '
        f"CIndexer<{axes}, 1> _ind) {{\n#pragma unroll 1\nCUPY_FOR(i, _ind.size()) {{\n"
        f"_ind.set(i);\n{chr(10).join(places)}\n{kernel.operation};\n}} }}\n"
    )


def plain_forms(arch: str) -> Iterator[Resources]:
    """The ElementwiseKernels, int32 counts to f64; nothing where CuPy's headers are missing."""
    headers = cupy_headers()
    for kernel, axes in PLAIN if headers else ():
        source = plain_source(kernel, axes, {"C": "int32", "O": "float64"})
        place = f"{kernel.name}.cu"
        one = [Kernel(kernel.name, kernel.name)]
        options = ("--std=c++17", f"-I{headers}")
        yield from resources(compile_text(place, source, one, arch, options), arch)


def bodies(compiled: Compiled) -> dict[str, str]:
    """{symbol: PTX of the kernel}."""
    pieces = re.split(r"\.entry (\w+)\(", compiled.ptx)
    return dict(zip(pieces[1::2], pieces[2::2], strict=True))


def resources(compiled: Compiled, arch: str) -> list[Resources]:
    """Read the log of ptxas. Raises RuntimeError when a kernel is not in it."""
    found = []
    ptx = bodies(compiled)
    for kernel, name in compiled.names.items():
        start = compiled.log.find(f"entry function '{name}'")
        end = compiled.log.find("entry function", start + 20)
        text = compiled.log[start : end if end > 0 else None] if start >= 0 else ""
        registers = re.search(r"Used (\d+) registers", text)
        spills = re.search(
            r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", text
        )
        if registers is None or spills is None:
            raise RuntimeError(f"the log of ptxas says nothing about {kernel.expression}.")
        shared = re.search(r"(\d+) bytes smem", text)
        stack, stores, loads = (int(n) for n in spills.groups())
        size = int(shared.group(1)) if shared else 0
        divisions = len(DIVISION.findall(ptx.get(name, "")))
        used = int(registers.group(1))
        found.append(Resources(kernel, arch, used, stack, stores, loads, size, divisions))
    return found


def show(found: Sequence[Resources], console: Console) -> None:
    """Print one line a kernel, with a column of registers for each architecture."""
    arches = list(dict.fromkeys(r.arch for r in found))
    table = Table(
        title="registers (bytes of stack + spills), shared bytes of a block, integer divisions in PTX"
    )
    table.add_column("kernel")
    for heading in (*arches, "shared", "divisions"):
        table.add_column(heading, justify="right")
    for kernel in dict.fromkeys(r.kernel for r in found):
        own = {r.arch: r for r in found if r.kernel == kernel}
        cells = []
        for arch in arches:
            r = own[arch]
            cells.append(f"{r.registers} ({r.stack}+{r.spill_stores + r.spill_loads})")
        most = [
            str(max(n)) for n in zip(*((r.shared, r.divisions) for r in own.values()), strict=True)
        ]
        table.add_row(kernel.expression, *cells, *most)
    console.print(table)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line: ``python -m bench.gpu.compile_log [--arch sm_90].. [FILE..]``."""
    parser = argparse.ArgumentParser(description="Registers and spills of the CUDA kernels.")
    parser.add_argument("file", nargs="*", help=f"of {', '.join(FILES)}; all when none")
    parser.add_argument("--arch", action="append", help="may be repeated; sm_80, sm_90, sm_100")
    options = parser.parse_args(argv)
    found = [
        line
        for file in options.file or FILES
        for arch in options.arch or ARCHITECTURES
        for line in resources(compile_file(file, arch), arch)
    ]
    arches = options.arch or ARCHITECTURES
    plain = [] if options.file else [line for arch in arches for line in plain_forms(arch)]
    console = Console(width=None if sys.stdout.isatty() else 120)
    show([*found, *plain], console)
    if not plain and not options.file:
        console.print("plain forms: left out, CuPy's headers are not here")
    return 1 if any(r.stack or r.spill_stores or r.spill_loads for r in found) else 0


if __name__ == "__main__":
    sys.exit(main())
