"""The plain kernels, built with g++ instead of CuPy: the same contract, and the bits of NumPy."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from oracle.kernel_contract import (
    KernelContract,
    assert_same_bits,
    filled,
    make_chi2,
    make_counts,
    make_fold,
    spoil,
)

from cpu_fallback import NumpyKernels
from gpucal.kernel_contract.calibrate import CalibrationTile
from gpucal.kernel_contract.chi2 import SkyFits
from gpucal.kernel_contract.dump_mean import SubscanDumps
from gpucal.kernel_contract.fold import FoldTile
from gpucal.kernel_contract.reference import OffPair
from gpucal.kernels.plain import PlainKernels

ROOT = Path(__file__).parents[2]
TWIN: Any = NumpyKernels()


@pytest.fixture(scope="module")
def loops() -> Any:
    """``bench.host_loops``, which stands for CuPy."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT))
        module = importlib.import_module("bench.host_loops")
    if not module.available():
        pytest.skip("g++ is needed to build the plain kernels without a card")
    return module


@pytest.fixture(scope="class")
def kernels(loops: Any) -> PlainKernels:
    return PlainKernels(np, loops)


@pytest.fixture(scope="class")
def xp() -> Any:
    return np


class TestContract(KernelContract):
    """All that every kernel set promises."""


class TestTwins:
    """The bits of NumPy; chi2 to 1e-12."""

    @pytest.mark.parametrize("per_dump", [False, True])
    @pytest.mark.parametrize("dtype", ["int32", "uint32", "float32", "float64"])
    def test_tiles(self, kernels: Any, dtype: str, per_dump: bool) -> None:
        rng = np.random.default_rng(1)
        shape = (37, 11, 2, 5)
        row = (shape[0], *shape[2:])
        counts = make_counts(rng, shape, dtype, 0.05)
        off1, off2 = (spoil(rng, rng.normal(3e4, 1e3, row), 0.05) for _ in range(2))
        weight = np.asarray(rng.random(shape[1]) if per_dump else rng.random())
        factor = spoil(rng, rng.normal(0.01, 0.001, row), 0.05)
        flags = np.where(rng.random(row) < 0.1, rng.integers(0, 4096, row), 0).astype(np.uint16)
        valid = rng.random(shape[1]) < 0.8
        found = []
        for own in (kernels, TWIN):
            for out_dtype in (np.float32, np.float64):
                reference = own.reference(filled(OffPair, off1, off2, weight))
                out = np.empty(shape, out_dtype), np.empty(shape, np.uint16)
                tile = filled(CalibrationTile, counts, reference, factor, flags, *out)
                lost = own.calibrate(tile)
                means = (
                    *own.dump_mean(SubscanDumps(counts)),
                    *own.dump_mean(SubscanDumps(counts, valid)),
                )
                found.append((np.array(lost), reference, *out, *means))
        for one, other in ((found[0], found[2]), (found[1], found[3])):
            for a, b in zip(one, other, strict=True):
                assert_same_bits(a, b)

    @pytest.mark.parametrize("out_dtype", [np.float32, np.float64])
    def test_fold(self, kernels: Any, out_dtype: Any) -> None:
        shape = (41, 5, 2, 3)
        arrays = make_fold(np.random.default_rng(2), shape, 40, 16, "mixed", 0.01)
        found = []
        for own in (kernels, TWIN):
            out = np.empty(shape, out_dtype), np.empty(shape, np.uint16)
            found.append((np.array(own.fold(filled(FoldTile, *arrays, *out))), *out))
        for one, other in zip(*found, strict=True):
            assert_same_bits(one, other)

    @pytest.mark.parametrize("shared", [(True, True, True), (False, False, True)])
    def test_chi2(self, kernels: Any, shared: tuple[bool, bool, bool]) -> None:
        case = make_chi2(np.random.default_rng(7), 700, 3, 4, 2, shared)
        found = kernels.chi2(filled(SkyFits, *case, derivatives=True))
        expected = TWIN.chi2(filled(SkyFits, *case, derivatives=True))
        np.testing.assert_allclose(found[[0, 3]], expected[[0, 3]], rtol=1e-12)
        scale = np.abs(expected).max(axis=(1, 2), keepdims=True)
        assert np.all(np.abs(found - expected) <= 1e-10 * scale)
