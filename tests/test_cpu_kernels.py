"""The NumPy kernels under the contract, and what only they promise: threads, blocks, scratch."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from oracle.kernel_contract import (
    KernelContract,
    assert_same_bits,
    filled,
    make_chi2,
    make_counts,
    make_fold,
    spoil,
)

import cpu_fallback.calibrate
import cpu_fallback.chi2
import cpu_fallback.dump_mean
import cpu_fallback.fold
import cpu_fallback.reference
from cpu_fallback import NumpyKernels
from cpu_fallback.workers import Workers
from gpucal.kernel_contract.calibrate import CalibrationTile
from gpucal.kernel_contract.chi2 import SkyFits
from gpucal.kernel_contract.dump_mean import SubscanDumps
from gpucal.kernel_contract.fold import FoldTile
from gpucal.kernel_contract.reference import OffPair


@pytest.fixture(scope="class")
def xp() -> Any:
    return np


class TestOneThread(KernelContract):
    @pytest.fixture(scope="class")
    @classmethod
    def kernels(cls) -> NumpyKernels:
        return NumpyKernels()


class TestTwoThreads(KernelContract):
    @pytest.fixture(scope="class")
    @classmethod
    def kernels(cls) -> NumpyKernels:
        return NumpyKernels(threads=2)


class TestSmallBlocks(KernelContract):
    """The contract again with blocks of a few samples, so that every cut is made."""

    @pytest.fixture(scope="class")
    @classmethod
    def kernels(cls) -> Iterator[NumpyKernels]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(cpu_fallback.calibrate, "BLOCK_BYTES", 300)
            patch.setattr(cpu_fallback.calibrate, "SMALLEST_BLOCK", 8)
            patch.setattr(cpu_fallback.dump_mean, "BLOCK_SAMPLES", 16)
            patch.setattr(cpu_fallback.dump_mean, "EXACT_DUMPS", 4)
            patch.setattr(cpu_fallback.reference, "BLOCK_SAMPLES", 16)
            patch.setattr(cpu_fallback.fold, "BLOCK_SAMPLES", 16)
            patch.setattr(cpu_fallback.fold, "ROW_SAMPLES", 4)
            patch.setattr(cpu_fallback.chi2, "BLOCK_CHANNELS", 4)
            patch.setattr(cpu_fallback.chi2, "BLOCK_ROWS", 2)
            yield NumpyKernels(threads=3)


def results(kernels: Any, seed: int = 6) -> list[NDArray[Any]]:
    """All kernels on one set of inputs large enough for several blocks."""
    rng = np.random.default_rng(seed)
    shape, row = (300, 60, 2, 9), (300, 2, 9)
    counts = make_counts(rng, shape, "int32", 0.0001)
    floats = make_counts(rng, shape, "float32", 0.0001)
    off1, off2 = (spoil(rng, rng.normal(3e4, 10.0, row), 0.01) for _ in range(2))
    factor = rng.normal(0.01, 0.001, row)
    flags = np.where(rng.random(row) < 0.1, 1, 256).astype(np.uint16)
    found = []
    for x in (counts, floats):
        out, out_flags = np.empty(shape), np.empty(shape, np.uint16)
        lost = kernels.calibrate(CalibrationTile(x, off1, factor, flags, out, out_flags))
        found += [out, out_flags, np.array(lost), *kernels.dump_mean(SubscanDumps(x))]
    found.append(kernels.reference(OffPair(off1, off2, np.linspace(0, 1, 60))))
    for shared in ((True, True, True), (False, True, True), (False, False, False)):
        fits = filled(SkyFits, *make_chi2(rng, 9000, 3, 2, 1, shared), derivatives=True)
        found.append(kernels.chi2(fits))
    fold = make_fold(rng, shape, 30, 16, "mixed", 1e-4)
    out, out_flags = np.empty(shape), np.empty(shape, np.uint16)
    lost = kernels.fold(filled(FoldTile, *fold, out, out_flags))
    return [*found, out, out_flags, np.array(lost)]


def test_results_do_not_depend_on_threads() -> None:
    alone = results(NumpyKernels(threads=1))
    for threads in (2, 5):
        for one, other in zip(results(NumpyKernels(threads)), alone, strict=True):
            assert_same_bits(one, other)


def test_one_object_serves_several_callers() -> None:
    kernels = NumpyKernels(threads=2)
    expected = results(kernels)
    found = {}
    callers = [
        threading.Thread(target=lambda i=i: found.update({i: results(kernels)})) for i in range(3)
    ]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert len(found) == 3
    for result in found.values():
        for one, other in zip(result, expected, strict=True):
            assert_same_bits(one, other)


@pytest.mark.parametrize("out_dtype", [np.float64, np.float32])
def test_output_may_be_a_view_and_nothing_else_is_written(out_dtype: Any) -> None:
    rng = np.random.default_rng(1)
    counts = make_counts(rng, (6, 5, 2, 3), "int32", 0.1)
    rows = rng.normal(1.0, 0.1, (6, 2, 3))
    flags = rng.integers(0, 2, (6, 2, 3)).astype(np.uint16)
    direct, direct_flags = np.empty(counts.shape, out_dtype), np.empty(counts.shape, np.uint16)
    wide = np.full((*counts.shape, 3), -1.0, out_dtype)
    wide_flags = np.full((*counts.shape, 3), 77, np.uint16)
    kernels = NumpyKernels()
    tile = CalibrationTile(counts, rows, rows, flags, direct, direct_flags)
    kernels.calibrate(tile)
    kernels.calibrate(tile._replace(out=wide[..., 1], out_flags=wide_flags[..., 1]))
    assert_same_bits(wide[..., 1], direct)
    assert_same_bits(wide_flags[..., 1], direct_flags)
    assert (wide[..., ::2] == -1.0).all()
    assert (wide_flags[..., ::2] == 77).all()


def test_float_means_add_in_the_order_of_the_dumps() -> None:
    # 1e16 + 1 + 1 loses both ones when added in this order, and only then.
    for pixels in (1, 2, 8, 20):
        counts = np.zeros((3, 9, 1, pixels))
        counts[:, 0], counts[:, 1:] = 1e16, 1.0
        mean, _ = NumpyKernels().dump_mean(SubscanDumps(counts))
        assert (mean == 1e16 / 9).all()


def test_a_grid_broadcast_to_all_fits_is_one_grid() -> None:
    pwv, *rest = make_chi2(np.random.default_rng(8), 5000, 20, 3, 1, (True, True, True))
    wide = np.broadcast_to(pwv, (20, 3))
    kernels = NumpyKernels()
    fits = filled(SkyFits, pwv, *rest, derivatives=True)
    one = kernels.chi2(fits)
    assert_same_bits(kernels.chi2(fits._replace(pwv=wide)), one)
    copied = kernels.chi2(fits._replace(pwv=wide.copy()))
    np.testing.assert_allclose(copied, one, rtol=1e-12, atol=0)


def test_an_error_in_a_worker_reaches_the_caller() -> None:
    def fail(block: object) -> None:
        raise ZeroDivisionError(block)

    for threads in (1, 3):
        with pytest.raises(ZeroDivisionError):
            Workers(threads).run(fail, [1, 2, 3, 4])


def test_scratch_is_reused_and_grows() -> None:
    workers = Workers()
    first = workers.scratch("a", (10,), np.float64)
    assert np.shares_memory(first, workers.scratch("a", (5,), np.int32))
    assert not np.shares_memory(first, workers.scratch("b", (5,), np.int32))
    assert workers.scratch("a", (40, 2), np.float64).shape == (40, 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"counts": np.zeros((2, 3, 1), np.int32)}, "counts has shape"),
        ({"counts": np.zeros((2, 3, 1, 1), np.int64)}, "counts is int64"),
        ({"reference": np.zeros((2, 4, 1, 1))}, "reference has shape"),
        ({"factor": np.zeros((2, 1, 1), np.float32)}, "factor is float32"),
        ({"base_flags": np.zeros((2, 1, 1), np.int32)}, "base_flags is int32"),
        ({"out": np.zeros((2, 3, 1, 2))}, "out has shape"),
        ({"out_flags": np.zeros((2, 3, 1, 1), np.uint8)}, "out_flags is uint8"),
    ],
)
def test_calibrate_refuses_what_does_not_fit(change: dict[str, Any], message: str) -> None:
    arguments = {
        "counts": np.zeros((2, 3, 1, 1), np.int32),
        "reference": np.zeros((2, 1, 1)),
        "factor": np.zeros((2, 1, 1)),
        "base_flags": np.zeros((2, 1, 1), np.uint16),
        "out": np.zeros((2, 3, 1, 1)),
        "out_flags": np.zeros((2, 3, 1, 1), np.uint16),
    }
    with pytest.raises(ValueError, match=message):
        NumpyKernels().calibrate(CalibrationTile(**(arguments | change)))


def test_other_kernels_refuse_what_does_not_fit() -> None:
    kernels: Any = NumpyKernels()
    with pytest.raises(ValueError, match="counts has shape"):
        kernels.dump_mean(SubscanDumps(np.zeros((2, 3), np.int32)))
    with pytest.raises(ValueError, match="counts is int64"):
        kernels.dump_mean(SubscanDumps(np.zeros((2, 3, 1, 1), np.int64)))
    counts, off, half = np.zeros((2, 3, 1, 1), np.int32), np.zeros((2, 1, 1)), np.float64(0.5)
    with pytest.raises(ValueError, match=r"valid has shape \(2,\), expected \[D\] = \(3\)"):
        kernels.dump_mean(SubscanDumps(counts, np.ones(2, bool)))
    with pytest.raises(ValueError, match="valid is int8, expected bool"):
        kernels.dump_mean(SubscanDumps(counts, np.ones(3, "i1")))
    with pytest.raises(ValueError, match="off1 has shape"):
        kernels.reference(OffPair(off[0], off, half))
    with pytest.raises(ValueError, match="off2 has shape"):
        kernels.reference(OffPair(off, np.zeros((3, 1, 1)), half))
    with pytest.raises(ValueError, match="weight has shape"):
        kernels.reference(OffPair(off, off, np.zeros((2, 2))))
    good = make_chi2(np.random.default_rng(0), 4, 2, 3, 1, (False, False, False))
    for place, name in (
        (0, "pwv"),
        (2, "observed"),
        (3, "weight"),
        (4, "amplitude"),
        (5, "opacity"),
    ):
        bad = list(good)
        bad[place] = bad[place][..., :2]
        with pytest.raises(ValueError, match=name if name != "observed" else "pwv"):
            kernels.chi2(filled(SkyFits, *bad))
        bad[place] = good[place].astype(np.float32)
        with pytest.raises(ValueError, match=f"{name} is float32, expected float64"):
            kernels.chi2(filled(SkyFits, *bad))
    arrays = make_fold(np.random.default_rng(0), (4, 2, 3, 5), 2, 1, "mixed", 0.0)
    arrays += [np.zeros((4, 2, 3, 5)), np.zeros((4, 2, 3, 5), np.uint16)]
    tile = filled(FoldTile, *arrays)
    for name, array in tile._asdict().items():
        wrong = array[:-1] if name != "out" else array[..., :-1]
        said = {"spectra": "flags has shape", "out": "spectra has shape"}.get(name, f"{name} has")
        with pytest.raises(ValueError, match=said):
            kernels.fold(tile._replace(**{name: wrong}))
        with pytest.raises(ValueError, match=f"{name} is int8"):
            kernels.fold(tile._replace(**{name: array.astype("i1")}))
    with pytest.raises(ValueError, match="threads is 0"):
        NumpyKernels(threads=0)


def test_needs_neither_cupy_nor_the_steps() -> None:
    code = (
        "import sys, cpu_fallback; "
        "loaded = [m for m in sys.modules if m.split('.')[0] in ('cupy', 'scipy', 'zarr')"
        " or m.startswith(('gpucal.steps', 'gpucal.io', 'gpucal.physics', 'gpucal.backend'))]; "
        "assert not loaded, loaded"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
