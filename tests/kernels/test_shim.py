"""The CUDA sources on the CPU, through the host code and launch geometry of a card.

The contract of all kernel sets, then bit for bit against the NumPy twins.
"""

from __future__ import annotations

import ctypes
import mmap
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.groups import known
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from oracle import kernels as oracle
from oracle.kernel_contract import (
    DTYPES,
    KernelContract,
    assert_same_bits,
    filled,
    make_chi2,
    make_counts,
    make_fold,
    scattered,
    spoil,
)

from cpu_fallback import NumpyKernels
from gpucal.kernel_contract.calibrate import CalibrationTile
from gpucal.kernel_contract.chi2 import SkyFits
from gpucal.kernel_contract.dump_mean import SubscanDumps
from gpucal.kernel_contract.fold import FoldTile
from gpucal.kernel_contract.reference import OffPair
from gpucal.kernels import CudaKernels
from gpucal.kernels.source import Kernel

SHIM = Path(__file__).parent / "shim"
TWIN: Any = NumpyKernels()
RUBBISH = 12345.0

shapes = st.one_of(
    st.tuples(st.integers(1, 9), st.integers(1, 70), st.integers(1, 2), st.integers(1, 9)),
    st.tuples(st.integers(1, 3), st.integers(1, 20), st.integers(1, 2), st.integers(1, 180)),
    st.tuples(st.integers(1, 700), st.integers(1, 6), st.just(1), st.integers(1, 2)),
    st.tuples(st.just(1), st.integers(900, 9000), st.just(1), st.integers(1, 3)),
    st.tuples(st.just(2), st.integers(1, 3), st.just(1), st.integers(900, 2100)),
)
"""Ordinary tiles; many pixels; many channels; long slabs of several blocks; odd, wide rows."""

seeds = st.integers(0, 2**32 - 1)
shares = st.sampled_from((0.0, 0.01, 0.5))
some = settings(deadline=None, derandomize=True, max_examples=80)


@pytest.fixture(scope="class")
def xp() -> Any:
    return np


@pytest.fixture(scope="class")
def kernels(device: Any) -> CudaKernels:
    return CudaKernels(device)


class TestContract(KernelContract):
    """All that every kernel set promises."""


def moved(array: NDArray[Any], offset: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """The same values ``offset`` samples into a larger array, and that array."""
    whole = np.full(array.size + offset + 9, 77, array.dtype)
    place = whole[offset : offset + array.size].reshape(array.shape)
    place[...] = array
    return place, whole


def untouched(whole: NDArray[Any], offset: int, size: int) -> bool:
    return bool((whole[:offset] == 77).all() and (whole[offset + size :] == 77).all())


def make_tile(
    rng: np.random.Generator, shape: tuple[int, ...], dtype: str, per_dump: bool, share: float
) -> list[NDArray[Any]]:
    row = (shape[0], *shape[2:])
    flags = np.where(rng.random(row) < share, rng.integers(0, 4096, row), 0).astype(np.uint16)
    return [
        make_counts(rng, shape, dtype, share),
        spoil(rng, rng.normal(3e4, 10.0, shape if per_dump else row), share),
        spoil(rng, rng.normal(0.01, 0.001, row), share),
        flags,
    ]


class TestTwins:
    """The same bits as NumPy, with nothing written outside the output."""

    @some
    @given(
        shape=shapes,
        seed=seeds,
        dtype=st.sampled_from(DTYPES),
        out_dtype=st.sampled_from((np.float32, np.float64)),
        per_dump=st.booleans(),
        share=shares,
        offsets=st.one_of(
            st.integers(0, 8).map(lambda n: [n] * 4), st.lists(st.integers(0, 8), min_size=4)
        ),
    )
    def test_calibrate(
        self,
        kernels: Any,
        device: Any,
        shape: tuple[int, ...],
        seed: int,
        dtype: str,
        out_dtype: Any,
        per_dump: bool,
        share: float,
        offsets: list[int],
    ) -> None:
        rng = np.random.default_rng(seed)
        arrays = make_tile(rng, shape, dtype, per_dump, share)
        expected = np.empty(shape, out_dtype), np.empty(shape, np.uint16)
        lost = TWIN.calibrate(filled(CalibrationTile, *arrays, *expected))
        places = [moved(a, n) for a, n in zip((*arrays[:2], *expected), offsets, strict=False)]
        places[2][0][...] = RUBBISH
        places[3][0][...] = 0xFFFF
        for device.backwards in (False, True):
            found = kernels.calibrate(
                CalibrationTile(
                    *(places[0][0], places[1][0], *arrays[2:], places[2][0], places[3][0])
                )
            )
            assert found == lost
            for i, one in enumerate(expected):
                place, whole = places[2 + i]
                assert_same_bits(place, one)
                assert untouched(whole, offsets[2 + i], one.size)
                place[...] = 0x7777

    @pytest.mark.parametrize(
        ("offsets", "expression"),
        [
            ((0, 0, 0), "calibrate<int, float, false, 4, 4>"),
            ((3, 3, 3), "calibrate<int, float, false, 4, 4>"),
            ((0, 4, 8), "calibrate<int, float, false, 4, 4>"),
            ((0, 1, 0), "calibrate<int, float, false, 1, 4>"),
        ],
    )
    def test_packs_where_addresses_allow(
        self,
        kernels: Any,
        device: Any,
        offsets: tuple[int, int, int],
        expression: str,
    ) -> None:
        arrays = make_tile(np.random.default_rng(0), (3, 50, 1, 7), "int32", False, 0.0)
        shape = arrays[0].shape
        buffers = [
            moved(a, n)[0]
            for a, n in zip(
                (arrays[0], np.empty(shape, "f4"), np.empty(shape, "u2")), offsets, strict=True
            )
        ]
        # Allocations of NumPy begin at 16 bytes, those of CUDA at 256.
        device.launched.clear()
        kernels.calibrate(CalibrationTile(buffers[0], *arrays[1:], *buffers[1:]))
        assert device.launched[0][0].expression == expression

    def test_output_may_be_a_view(self, kernels: Any) -> None:
        rng = np.random.default_rng(1)
        arrays = make_tile(rng, (6, 5, 2, 3), "int32", False, 0.1)
        expected = np.empty((6, 5, 2, 3)), np.empty((6, 5, 2, 3), np.uint16)
        TWIN.calibrate(filled(CalibrationTile, *arrays, *expected))
        found = [scattered(np.zeros_like(a)) for a in expected]
        kernels.calibrate(filled(CalibrationTile, *(scattered(a) for a in arrays), *found))
        for one, other in zip(found, expected, strict=True):
            assert_same_bits(one, other)
            assert (known(one.base)[..., 1] == 0).all()

    @some
    @given(
        shape=shapes,
        seed=seeds,
        dtype=st.sampled_from(DTYPES),
        masked=st.sampled_from((None, 0.0, 0.5)),
        share=shares,
    )
    def test_dump_mean(
        self,
        kernels: Any,
        device: Any,
        shape: tuple[int, ...],
        seed: int,
        dtype: str,
        masked: float | None,
        share: float,
    ) -> None:
        rng = np.random.default_rng(seed)
        counts = make_counts(rng, shape, dtype, share)
        valid = None if masked is None else rng.random(shape[1]) >= masked
        dumps = SubscanDumps(counts, valid)
        expected, number = TWIN.dump_mean(dumps)
        for device.backwards in (False, True):
            mean, n = kernels.dump_mean(dumps)
            assert_same_bits(n, number)
            assert_same_bits(mean, expected)

    @some
    @given(shape=shapes, seed=seeds, per_dump=st.booleans(), share=shares, ends=st.booleans())
    def test_reference(
        self,
        kernels: Any,
        device: Any,
        shape: tuple[int, ...],
        seed: int,
        per_dump: bool,
        share: float,
        ends: bool,
    ) -> None:
        rng = np.random.default_rng(seed)
        row = (shape[0], *shape[2:])
        off1, off2 = (spoil(rng, rng.normal(3e4, 1e3, row), share) for _ in range(2))
        weight = rng.random(shape[1] if per_dump else None)
        if ends and per_dump:
            weight[:: max(1, shape[1] // 5)] = rng.choice([0.0, 1.0])
        offs = OffPair(off1, off2, np.asarray(weight))
        expected = TWIN.reference(offs)
        for device.backwards in (False, True):
            assert_same_bits(kernels.reference(offs), expected)

    @some
    @given(
        shape=shapes,
        seed=seeds,
        around=st.integers(0, 40),
        form=st.sampled_from(("whole", "between", "mixed")),
        through=st.booleans(),
        out_dtype=st.sampled_from((np.float32, np.float64)),
        share=shares,
    )
    def test_fold(
        self,
        kernels: Any,
        device: Any,
        shape: tuple[int, ...],
        seed: int,
        around: int,
        form: str,
        through: bool,
        out_dtype: Any,
        share: float,
    ) -> None:
        rng = np.random.default_rng(seed)
        arrays = make_fold(rng, shape, around, 16, form, share)
        arrays[5] = arrays[5] if through else None
        expected = np.empty(shape, out_dtype), np.empty(shape, np.uint16)
        lost = TWIN.fold(filled(FoldTile, *arrays, *expected))
        places = [moved(a, 3) for a in expected]
        for device.backwards in (False, True):
            for place, _ in places:
                place[...] = 0x7777
            assert kernels.fold(filled(FoldTile, *arrays, *(place for place, _ in places))) == lost
            for (place, whole), one in zip(places, expected, strict=True):
                assert_same_bits(place, one)
                assert untouched(whole, 3, one.size)

    def test_fold_with_more_tiles_than_a_grid_holds(
        self, kernels: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("gpucal.kernels.fold.MOST_TILES", 2)
        shape = (9, 301, 1, 7)
        arrays = make_fold(np.random.default_rng(3), shape, 20, 16, "mixed", 0.01)
        expected = np.empty(shape), np.empty(shape, np.uint16)
        found = [np.full_like(a, 7) for a in expected]
        lost = TWIN.fold(filled(FoldTile, *arrays, *expected))
        assert kernels.fold(filled(FoldTile, *arrays, *found)) == lost
        for one, other in zip(found, expected, strict=True):
            assert_same_bits(one, other)

    def test_fold_into_a_view(self, kernels: Any) -> None:
        shape = (6, 5, 2, 3)
        arrays = make_fold(np.random.default_rng(1), shape, 4, 2, "mixed", 0.1)
        expected = np.empty(shape), np.empty(shape, np.uint16)
        TWIN.fold(filled(FoldTile, *arrays, *expected))
        found = [scattered(np.zeros_like(a)) for a in expected]
        kernels.fold(filled(FoldTile, *(scattered(a) for a in arrays), *found))
        for one, other in zip(found, expected, strict=True):
            assert_same_bits(one, other)
            assert (known(one.base)[..., 1] == 0).all()

    @pytest.mark.parametrize("fits", [1, 5, 33, 70])
    @pytest.mark.parametrize("trials", [1, 9])
    @pytest.mark.parametrize(
        "shared", [(True, True, True), (True, False, True), (False, True, True), (False,) * 3]
    )
    def test_chi2(
        self,
        kernels: Any,
        device: Any,
        fits: int,
        trials: int,
        shared: tuple[bool, bool, bool],
    ) -> None:
        """To 1 ulp times the root of the number of channels, in every order of threads."""
        rng = np.random.default_rng(fits)
        channels = 300
        case = make_chi2(rng, channels, trials, fits, 2, shared)
        case[3][rng.random(case[3].shape) < 0.1] = 0.0
        case[2][case[3] == 0.0] = np.nan
        few = slice(0, 2)
        sizes = oracle.chi2(*(a[..., few] if np.ndim(a) else a for a in case))[1]
        limit = np.finfo(float).eps * np.sqrt(channels) * sizes
        value, four = filled(SkyFits, *case), filled(SkyFits, *case, derivatives=True)
        full = kernels.chi2(four)
        assert (np.abs(full - TWIN.chi2(four))[..., few] <= limit).all()
        plain = kernels.chi2(value)
        assert (np.abs(plain - TWIN.chi2(value))[..., few] <= limit[0]).all()
        device.backwards = True
        try:
            assert_same_bits(kernels.chi2(four), full)
            assert_same_bits(kernels.chi2(value), plain)
        finally:
            device.backwards = False

    @pytest.mark.parametrize("derivatives", [False, True])
    def test_chi2_of_a_fit_does_not_depend_on_the_others(
        self, kernels: Any, derivatives: bool
    ) -> None:
        case = make_chi2(np.random.default_rng(2), 700, 3, 40, 1, (False, True, True))
        together = kernels.chi2(filled(SkyFits, *case, derivatives))
        for piece in (slice(0, 7), slice(7, 8), slice(8, 40)):
            own = [
                case[0][:, piece],
                case[1],
                *(np.ascontiguousarray(a[:, piece]) for a in case[2:4]),
            ]
            found = kernels.chi2(filled(SkyFits, *own, *case[4:], derivatives))
            assert_same_bits(found, together[..., piece])

    def test_a_grid_broadcast_to_all_fits_is_one_grid(self, kernels: Any, device: Any) -> None:
        pwv, *rest = make_chi2(np.random.default_rng(8), 500, 20, 3, 1, (True, True, True))
        fits = SkyFits(pwv, *rest)
        one = kernels.chi2(fits)
        device.launched.clear()
        assert_same_bits(kernels.chi2(fits._replace(pwv=np.broadcast_to(pwv, (20, 3)))), one)
        assert device.launched[0][0].expression == "chi2_shared<1, 8>"


def guarded(array: NDArray[Any], side: str) -> NDArray[Any]:
    """A copy with an unreadable page right before ("front") or after ("back") it."""
    page = mmap.PAGESIZE
    pages = -(-array.nbytes // page)
    memory = np.frombuffer(mmap.mmap(-1, (pages + 1) * page), np.uint8)
    wall, start = (pages * page, pages * page - array.nbytes) if side == "back" else (0, page)
    place = memory[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    place[...] = array
    address = ctypes.c_void_p(memory.ctypes.data + wall)
    assert ctypes.CDLL(None).mprotect(address, ctypes.c_size_t(page), 0) == 0
    return place


@pytest.mark.parametrize("side", ["front", "back"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "shape", [(3, 23, 1, 7), (70, 9, 1, 3), (2, 501, 1, 1), (3, 5, 2, 35), (1, 3, 1, 901)]
)
def test_nothing_is_touched_outside_the_arrays(
    shim_functions: dict[Kernel, Any],
    device: Any,
    shape: tuple[int, int, int, int],
    dtype: str,
    side: str,
) -> None:
    """A stray read or write ends the process here, as it may on a card."""
    assert shim_functions
    rng = np.random.default_rng(4)
    kernels: Any = CudaKernels(device)
    for per_dump in (False, True):
        arrays = [guarded(a, side) for a in make_tile(rng, shape, dtype, per_dump, 0.1)]
        expected = np.empty(shape), np.empty(shape, np.uint16)
        found = [guarded(a, side) for a in expected]
        device.launched.clear()
        lost = TWIN.calibrate(filled(CalibrationTile, *arrays, *expected))
        assert kernels.calibrate(filled(CalibrationTile, *arrays, *found)) == lost
        assert "true, 2" in device.launched[0][0].expression or not per_dump
        for one, other in zip(found, expected, strict=True):
            assert_same_bits(one, other)
    valid = guarded(rng.random(shape[1]) < 0.7, side)
    dumps = SubscanDumps(arrays[0], valid)
    for one, other in zip(kernels.dump_mean(dumps), TWIN.dump_mean(dumps), strict=True):
        assert_same_bits(one, other)
    rows = [guarded(rng.normal(size=arrays[2].shape), side) for _ in range(2)]
    offs = filled(OffPair, *rows, guarded(rng.random(shape[1]), side))
    assert_same_bits(kernels.reference(offs), TWIN.reference(offs))
    fold = [guarded(a, side) for a in make_fold(rng, shape, 3, 16, "mixed", 0.01)]
    assert kernels.fold(filled(FoldTile, *fold, *found)) == TWIN.fold(
        filled(FoldTile, *fold, *expected)
    )
    for one, other in zip(found, expected, strict=True):
        assert_same_bits(one, other)


@pytest.mark.parametrize("side", ["front", "back"])
@pytest.mark.parametrize("shared", [(True, True, True), (False, True, True), (False,) * 3])
def test_chi2_reads_nothing_outside_its_arrays(
    device: Any, shared: tuple[bool, bool, bool], side: str
) -> None:
    pwv, airmass, *arrays = make_chi2(np.random.default_rng(5), 131, 9, 5, 2, shared)
    arrays = [guarded(a, side) for a in arrays]
    for derivatives in (False, True):
        fits = filled(SkyFits, guarded(pwv, side), airmass, *arrays, derivatives)
        found, expected = CudaKernels(device).chi2(fits), TWIN.chi2(fits)
        np.testing.assert_allclose(found, expected, rtol=1e-11)


def test_shim_finds_a_thread_that_skips_a_barrier(
    tmp_path: Path, shim_functions: dict[Kernel, Any]
) -> None:
    assert shim_functions
    (tmp_path / "broken.cpp").write_text(
        '#include "cuda_on_cpu.h"\n'
        "__global__ void k(int* n) { if (threadIdx.x < (unsigned)*n) __syncthreads(); }\n"
        'extern "C" int run(const unsigned* s, void** a) { return shim::launch(&k, s, a, 0); }\n'
    )
    library = tmp_path / "broken.so"
    command = ["g++", "-std=c++17", "-O2", "-shared", "-fPIC", f"-I{SHIM}"]
    subprocess.run([*command, str(tmp_path / "broken.cpp"), "-o", str(library)], check=True)
    run = ctypes.CDLL(str(library)).run
    shape = (ctypes.c_uint * 6)(2, 1, 1, 8, 1, 1)
    for waiting, status in ((8, 0), (0, 0), (7, 1)):
        number = np.array([waiting], np.int32)
        address = ctypes.c_void_p(number.ctypes.data)
        assert run(shape, (ctypes.c_void_p * 1)(ctypes.addressof(address))) == status
