"""Which thread gets which samples, and what is said when there is no device."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpucal.kernel_contract.calibrate import CalibrationTile
from gpucal.kernel_contract.chi2 import SkyFits
from gpucal.kernel_contract.dump_mean import SubscanDumps
from gpucal.kernel_contract.reference import OffPair
from gpucal.kernels import CudaKernels, chi2, dump_mean
from gpucal.kernels.device import CupyDevice
from gpucal.kernels.geometry import (
    MOST_SAMPLES,
    PACKS_PER_THREAD,
    divider,
    pack_phase,
    row_blocks,
    slab_geometry,
)
from gpucal.kernels.source import FILES, Kernel, compiler_options, source_text
from gpucal.kernels.variants import all_kernels


@given(n=st.integers(0, 2**31 - 1), divisor=st.integers(1, 2**28))
def test_division_by_multiplication_is_exact(n: int, divisor: int) -> None:
    d = divider(divisor)
    assert int(d.divisor) == divisor
    for value in (n, n // divisor * divisor, max(0, n // divisor * divisor - 1)):
        high = value * int(d.magic) >> 32
        assert high + value < 2**32
        assert (high + value) >> int(d.shift) == value // divisor


@given(
    channels=st.integers(1, 5000),
    dumps=st.integers(1, 3000),
    pixels=st.integers(1, 3000),
    pack=st.sampled_from((1, 2, 4)),
)
def test_slabs_are_covered_by_threads_that_keep_their_pixels(
    channels: int, dumps: int, pixels: int, pack: int
) -> None:
    g = slab_geometry(channels, dumps, pixels, pack)
    packs = -(-g.samples // pack) + 1
    assert g.samples == dumps * pixels
    assert (g.width * pack) % pixels == 0 or g.width == packs
    assert g.block[0] * g.grid[1] >= g.width > g.block[0] * (g.grid[1] - 1)
    assert g.block[1] * g.grid[0] >= channels > g.block[1] * (g.grid[0] - 1)
    assert g.block[0] * g.block[1] <= 256
    assert -(-packs // g.width) <= PACKS_PER_THREAD


@pytest.mark.parametrize(
    ("channels", "dumps", "pixels"),
    [(512, 600, 128), (2048, 40, 14), (2048, 37, 14), (65536, 60, 2), (65536, 200, 1), (99, 9, 77)],
)
@pytest.mark.parametrize("pack", [1, 2, 4])
def test_ordinary_tiles_leave_few_threads_idle(
    channels: int, dumps: int, pixels: int, pack: int
) -> None:
    g = slab_geometry(channels, dumps, pixels, pack)
    threads = g.grid[0] * g.grid[1] * g.block[0] * g.block[1]
    assert g.width * channels >= 0.85 * threads
    assert g.block[0] * g.block[1] >= 128
    # Packs in the rounds of four that a thread makes, against the packs there are.
    rounds = -(-(g.samples // pack) // (4 * g.width))
    assert g.samples // pack >= 0.5 * rounds * 4 * g.width or rounds > 3


def test_slab_too_long_for_its_index_is_refused() -> None:
    with pytest.raises(ValueError, match="at most 268435456 are supported"):
        slab_geometry(1, MOST_SAMPLES, 2, 4)


def test_phase_of_arrays() -> None:
    assert pack_phase([(256, 4), (512, 8), (768, 2)], 4) == 0
    assert pack_phase([(256 + 12, 4), (512 + 24, 8), (770 + 4, 2)], 4) == 3
    assert pack_phase([(256 + 4, 4), (512, 8)], 4) is None
    assert pack_phase([(257, 4)], 4) is None


@given(channels=st.integers(1, 10**6), pixels=st.integers(32, 5000))
def test_row_blocks_cover_all_pixels(channels: int, pixels: int) -> None:
    grid, block = row_blocks(channels, pixels)
    assert block[0] * grid[1] >= pixels > block[0] * (grid[1] - 1)
    assert block[1] * grid[0] >= channels > block[1] * (grid[0] - 1)
    assert block[0] * block[1] <= 256


@given(
    dumps=st.integers(0, 10**6),
    pixels=st.integers(1, dump_mean.STAGED_BELOW - 1),
    itemsize=st.sampled_from((4, 8)),
)
def test_stages_fit_shared_memory(dumps: int, pixels: int, itemsize: int) -> None:
    channels = 256 // pixels
    chunk, pitch = dump_mean.stage_shape(dumps, pixels, channels, itemsize)
    assert chunk >= 1
    assert chunk * pixels <= pitch
    assert pitch % 2 == 1
    assert channels * pitch * itemsize <= dump_mean.STAGE_BYTES


@pytest.mark.parametrize(
    ("file", "name", "value"),
    [
        ("dump_mean", "STAGE_BYTES", dump_mean.STAGE_BYTES),
        ("chi2", "PART", chi2.PART),
        ("chi2", "LANES", chi2.LANES),
        ("chi2", "FITS", chi2.FITS),
    ],
)
def test_constants_are_those_of_the_source(file: str, name: str, value: int) -> None:
    assert re.findall(rf"constexpr int {name} = (\d+);", source_text(file)) == [str(value)]


def test_sources_are_whole_and_variants_differ() -> None:
    kernels = all_kernels()
    assert len(set(kernels)) == len(kernels)
    assert {k.file for k in kernels} == set(FILES)
    for file in FILES:
        text = source_text(file)
        assert "#include" not in text
        assert text.count(" Pack {") == 1
        assert text.isascii()


REFUSALS = """
from gpucal.kernels import CudaKernels
{before}
try:
    CudaKernels()
except Exception as error:
    print(type(error).__name__, error)
"""


@pytest.mark.parametrize(
    ("before", "message"),
    [
        ("import sys; sys.modules['cupy'] = None", "cannot be imported"),
        (
            "import sys, types; m = sys.modules['cupy'] = types.ModuleType('cupy')\n"
            "class E(RuntimeError): pass\n"
            "def count(): raise E('no driver')\n"
            "m.cuda = types.SimpleNamespace(runtime=types.SimpleNamespace("
            "CUDARuntimeError=E, getDeviceCount=count))",
            "no usable CUDA device: no driver",
        ),
        (
            "import sys, types; m = sys.modules['cupy'] = types.ModuleType('cupy')\n"
            "m.cuda = types.SimpleNamespace(runtime=types.SimpleNamespace("
            "CUDARuntimeError=OSError, getDeviceCount=lambda: 0))",
            "finds no CUDA device",
        ),
    ],
)
def test_what_is_missing_is_said(before: str, message: str) -> None:
    run = subprocess.run(
        [sys.executable, "-c", REFUSALS.format(before=before)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.startswith("BackendError")
    assert message in run.stdout


class FakeModule:
    """Stands for cupy.RawModule and notes how it is used."""

    made: list[Any] = []

    def __init__(
        self, code: str, options: tuple[str, ...], name_expressions: tuple[str, ...]
    ) -> None:
        self.made.append((code, options, name_expressions))

    def get_function(self, name: str) -> Callable[..., None]:
        return lambda grid, block, args: self.made.append((name, grid, block, args))


def test_cupy_device_compiles_each_kernel_once(monkeypatch: pytest.MonkeyPatch) -> None:
    cupy: Any = types.ModuleType("cupy")
    runtime = types.SimpleNamespace(CUDARuntimeError=OSError, getDeviceCount=lambda: 1)
    cupy.cuda, cupy.RawModule = types.SimpleNamespace(runtime=runtime), FakeModule
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    monkeypatch.setattr(FakeModule, "made", [])
    device = CupyDevice()
    kernel = Kernel("reference", "blend<2>")
    callers = [
        threading.Thread(target=device.run, args=(kernel, (3, 1), (64, 4), [np.int32(i)]))
        for i in range(4)
    ]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    modules = [m for m in FakeModule.made if len(m) == 3]
    assert modules == [(source_text("reference"), compiler_options("reference"), ("blend<2>",))]
    launches = [m for m in FakeModule.made if len(m) == 4]
    assert sorted(args for *_, args in launches) == [(i,) for i in range(4)]
    assert {m[:3] for m in launches} == {("blend<2>", (3, 1), (64, 4))}
    array = types.SimpleNamespace(data=types.SimpleNamespace(ptr=4096))
    assert device.address(array) == 4096


def test_arrays_that_do_not_fit_are_refused(device: Any) -> None:
    kernels = CudaKernels(device)
    row, counts = np.zeros((2, 1, 1)), np.zeros((2, 3, 1, 1), np.int32)
    half = np.float64(0.5)
    good = {
        "counts": counts,
        "reference": row,
        "factor": row,
        "base_flags": row.astype(np.uint16),
        "out": np.zeros(counts.shape),
        "out_flags": np.zeros(counts.shape, np.uint16),
    }
    for change, message in (
        ({"counts": counts[0]}, "counts has shape"),
        ({"counts": counts.astype(np.int64)}, "counts is int64"),
        ({"reference": np.zeros((2, 4, 1, 1))}, "reference has shape"),
        ({"factor": row.astype(np.float32)}, "factor is float32"),
        ({"base_flags": row.astype(np.int32)}, "base_flags is int32"),
        ({"out": np.zeros((2, 3, 1, 2))}, "out has shape"),
        ({"out_flags": np.zeros(counts.shape, np.uint8)}, "out_flags is uint8"),
    ):
        with pytest.raises(ValueError, match=message):
            kernels.calibrate(CalibrationTile(**(good | change)))
    for call, message in (
        (lambda: kernels.dump_mean(SubscanDumps(counts[0])), "counts has shape"),
        (lambda: kernels.dump_mean(SubscanDumps(counts, np.ones(2, bool))), "valid has shape"),
        (lambda: kernels.dump_mean(SubscanDumps(counts, np.ones(3, "i1"))), "valid is int8"),
        (lambda: kernels.reference(OffPair(row, np.zeros((3, 1, 1)), half)), "off2 has shape"),
        (lambda: kernels.reference(OffPair(row, row, np.zeros((2, 2)))), "weight has shape"),
        (lambda: kernels.chi2(SkyFits(row, 1.0, row, row, row, row)), "observed has shape"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    observed, grid = np.zeros((4, 2)), np.zeros((3, 2))
    amplitude, opacity = np.zeros((2, 4, 2)), np.zeros((3, 2, 1, 4, 1))
    for place, name in ((0, "pwv"), (3, "weight"), (4, "amplitude"), (5, "opacity")):
        bad: list[Any] = [grid, 1.0, observed, observed, amplitude, opacity]
        bad[place] = bad[place][..., None]
        with pytest.raises(ValueError, match=name):
            kernels.chi2(SkyFits(*bad))
    with pytest.raises(ValueError, match="at most 65535"):
        kernels.chi2(SkyFits(np.ones((65536, 2)), 1.0, observed, observed, amplitude, opacity))
