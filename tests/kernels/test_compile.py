"""Every kernel compiles for every architecture, with no spill and no division in its index path.

The compiler's numbers are printed (``-s`` shows them), so a log of the suite keeps them.
"""

from __future__ import annotations

import importlib
import os
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from gpucal.kernels.source import ELEMENTWISE, FILES, Kernel, compiler_options, source_text
from gpucal.kernels.variants import all_kernels

ROOT = Path(__file__).parents[2]
ARCHITECTURES = ("sm_80", "sm_90", "sm_100")
DIVISION = re.compile(r"\b(?:div|rem)\.[a-z0-9.]+")


@pytest.fixture(scope="module")
def compile_log() -> Any:
    """The module ``bench.gpu.compile_log``; the test needs NVRTC."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT))
        module = importlib.import_module("bench.gpu.compile_log")
    if module.nvrtc() is None:
        reason = "NVRTC is needed to compile the kernels: install nvidia-cuda-nvrtc"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return module


@pytest.fixture(scope="module")
def compiled(compile_log: Any) -> Any:
    return cache(compile_log.compile_file)


def entries(one: Any) -> dict[str, str]:
    """{expression: PTX of the kernel}."""
    pieces = re.split(r"\.entry (\w+)\(", one.ptx)
    bodies = dict(zip(pieces[1::2], pieces[2::2], strict=True))
    return {kernel.expression: bodies[name] for kernel, name in one.names.items()}


@pytest.mark.parametrize("file", FILES)
def test_no_register_spills(
    compile_log: Any, compiled: Any, file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    found = [r for a in ARCHITECTURES for r in compile_log.resources(compiled(file, a), a)]
    with capsys.disabled():
        compile_log.show(found, Console(width=120))
    kernels = [k for k in all_kernels() if k.file == file]
    assert len(found) == len(kernels) * len(ARCHITECTURES)
    assert not [r for r in found if r.stack or r.spill_stores or r.spill_loads]
    # 256 threads of 128 registers are half of what a multiprocessor holds: two blocks at least.
    assert max(r.registers for r in found) <= 128
    assert max(r.shared for r in found) <= 48 << 10


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_index_path_has_no_division(compiled: Any, arch: str) -> None:
    for file in FILES:
        for expression, body in entries(compiled(file, arch)).items():
            found = set(DIVISION.findall(body))
            # A mean is a sum divided by a number, and folding a mean with weights.
            means = file in ("dump_mean", "fold")
            assert found == ({"div.rn.f64"} if means else set()), expression


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_elementwise_kernels_round_as_numpy_does(compiled: Any, arch: str) -> None:
    for file in sorted(ELEMENTWISE):
        for expression, body in entries(compiled(file, arch)).items():
            assert "fma.rn" not in body, expression
    assert "fma.rn.f64" in compiled("chi2", arch).ptx


@pytest.mark.parametrize("file", sorted(ELEMENTWISE))
def test_subnormal_numbers_stay_with_the_options_of_cupy(compile_log: Any, file: str) -> None:
    """CuPy puts -ftz=true after our options; what is converted from or to f32 must not become 0 by it."""
    kernels = [k for k in all_kernels() if k.file == file]
    options = (*compiler_options(file), "-ftz=true")
    one = compile_log.compile_text(f"{file}.cu", source_text(file), kernels, "sm_90", options)
    assert not re.findall(r"cvt\.\S*ftz\S*", one.ptx)
    plain = "__global__ void f(const float* x, double* y) { *y = (double)*x; }"
    named = [Kernel("f", "f")]
    assert "cvt.ftz.f64.f32" in compile_log.compile_text("f", plain, named, "sm_90", options).ptx


@pytest.mark.parametrize(
    ("expression", "load", "store"),
    [
        ("calibrate<int, float, false, 4, 4>", "v4.b32", "v4.b32"),
        ("calibrate<float, float, false, 4, 4>", "v4.b32", "v4.b32"),
        ("calibrate<int, double, false, 2, 4>", "v2.b32", "v2.b64"),
        ("calibrate<double, float, false, 2, 4>", "v2.b64", "v2.b32"),
        ("calibrate<double, double, true, 2, 4>", "v2.b64", "v2.b64"),
    ],
)
def test_packs_move_at_once_and_loads_go_ahead(
    compiled: Any, expression: str, load: str, store: str
) -> None:
    body = re.sub(
        r"\.(?:[uf])(\d\d)\b", r".b\1", entries(compiled("calibrate", "sm_90"))[expression]
    )
    accesses = re.findall(r"(ld|st)\.global(?:\.nc)?\.(v\d\.b\d\d)", body)
    loads = [i for i, access in enumerate(accesses) if access == ("ld", load)]
    stores = [i for i, access in enumerate(accesses) if access == ("st", store)]
    assert len(loads) >= 4
    assert len(stores) == 4
    assert loads[3] < stores[0]


def test_blend_stores_16_bytes(compiled: Any) -> None:
    body = entries(compiled("reference", "sm_90"))["blend<2>"]
    assert re.search(r"st\.global\.v2\.[bf]64", body)


def test_spills_would_be_seen(compile_log: Any) -> None:
    text = (
        "ptxas info    : Compiling entry function 'a' for 'sm_90'\n"
        "ptxas         .    16 bytes stack frame, 12 bytes spill stores, 8 bytes spill loads\n"
        "ptxas info    : Used 40 registers, used 1 barriers, 36864 bytes smem\n"
        "ptxas info    : Compiling entry function 'b' for 'sm_90'\n"
        "ptxas         .    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads\n"
        "ptxas info    : Used 30 registers, used 0 barriers\n"
    )
    kernels = all_kernels()[:3]
    one = compile_log.Compiled(text, "", {kernels[0]: "a", kernels[1]: "b"})
    first, second = compile_log.resources(one, "sm_90")
    assert (first.registers, first.stack, first.spill_stores) == (40, 16, 12)
    assert (first.spill_loads, first.shared) == (8, 36864)
    assert (second.registers, second.stack, second.shared) == (30, 0, 0)
    with pytest.raises(RuntimeError, match="says nothing"):
        compile_log.resources(compile_log.Compiled(text, "", {kernels[2]: "c"}), "sm_90")


def test_compiler_errors_are_told(
    compile_log: Any, compiled: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert compiled("reference", "sm_90").log
    monkeypatch.setattr(compile_log, "source_text", lambda file: "__global__ void f( {")
    with pytest.raises(RuntimeError, match=r"cannot compile reference\.cu for sm_90.*error"):
        compile_log.compile_file("reference", "sm_90")


def test_command_line(compile_log: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert compile_log.main(["reference", "--arch", "sm_90"]) == 0
    assert "blend<2>" in capsys.readouterr().out
