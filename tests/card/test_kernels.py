"""The kernels on a card: their contract, and the bits of NumPy."""

from __future__ import annotations

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
    to_host,
)

from cpu_fallback import NumpyKernels
from gpucal.kernel_contract.calibrate import CalibrationTile
from gpucal.kernel_contract.chi2 import SkyFits
from gpucal.kernel_contract.dump_mean import SubscanDumps
from gpucal.kernel_contract.fold import FoldTile
from gpucal.kernel_contract.reference import OffPair


class TestContractOnCard(KernelContract):
    """All that every kernel set promises."""


class TestTwinsOnCard:
    """The bits of NumPy on tiles that fill many blocks; chi2 to 1e-12."""

    @pytest.mark.parametrize("per_dump", [False, True])
    @pytest.mark.parametrize("dtype", ["int32", "uint32", "float32", "float64"])
    @pytest.mark.parametrize("shape", [(300, 200, 2, 64), (2000, 37, 2, 7), (30000, 61, 1, 1)])
    def test_tiles(
        self,
        kernels: Any,
        xp: Any,
        shape: tuple[int, int, int, int],
        dtype: str,
        per_dump: bool,
    ) -> None:
        rng = np.random.default_rng(1)
        row = (shape[0], *shape[2:])
        counts = make_counts(rng, shape, dtype, 0.001)
        off1, off2 = (spoil(rng, rng.normal(3e4, 1e3, row), 0.001) for _ in range(2))
        weight = np.asarray(rng.random(shape[1]) if per_dump else rng.random())
        factor = rng.normal(0.01, 0.001, row)
        flags = np.where(rng.random(row) < 0.01, rng.integers(0, 4096, row), 0).astype(np.uint16)
        found = []
        own: Any
        for own, space in ((kernels, xp), (NumpyKernels(2), np)):
            tile = [space.asarray(a) for a in (counts, off1, off2, factor, flags)]
            reference = own.reference(filled(OffPair, *tile[1:3], space.asarray(weight)))
            out = space.empty(shape, dtype=np.float32), space.empty(shape, dtype=np.uint16)
            lost = own.calibrate(filled(CalibrationTile, tile[0], reference, *tile[3:], *out))
            means = own.dump_mean(SubscanDumps(tile[0]))
            found.append((np.array(lost), reference, *out, *means))
        for one, other in zip(*found, strict=True):
            assert_same_bits(one, other)

    @pytest.mark.parametrize("shape", [(300, 200, 2, 64), (2000, 37, 2, 7), (30000, 61, 1, 1)])
    def test_fold(self, kernels: Any, xp: Any, shape: tuple[int, int, int, int]) -> None:
        arrays = make_fold(np.random.default_rng(2), shape, 40, 16, "mixed", 0.001)
        found = []
        own: Any
        for own, space in ((kernels, xp), (NumpyKernels(2), np)):
            out = space.empty(shape, dtype=np.float32), space.empty(shape, dtype=np.uint16)
            lost = own.fold(filled(FoldTile, *(space.asarray(a) for a in arrays), *out))
            found.append((np.array(lost), *out))
        for one, other in zip(*found, strict=True):
            assert_same_bits(one, other)

    @pytest.mark.parametrize("shared", [(True, True, True), (False, False, True)])
    def test_chi2(self, kernels: Any, xp: Any, shared: tuple[bool, bool, bool]) -> None:
        case = make_chi2(np.random.default_rng(7), 8192, 3, 40, 1, shared)
        arrays = [a if np.ndim(a) == 0 else xp.asarray(a) for a in case]
        found, again = (
            to_host(kernels.chi2(filled(SkyFits, *arrays, derivatives=True))) for _ in range(2)
        )
        expected = NumpyKernels(2).chi2(filled(SkyFits, *case, derivatives=True))
        np.testing.assert_allclose(found[[0, 3]], expected[[0, 3]], rtol=1e-12)
        assert_same_bits(again, found)

    def test_subnormal_numbers(self, kernels: Any, xp: Any) -> None:
        """CuPy compiles with -ftz=true; a count of f32 must not become 0 by it, nor a spectrum."""
        counts = np.array([1e-40, -3e-42, 1e-45, 2.0], np.float32).reshape(2, 2, 1, 1)
        row = np.ones((2, 1, 1))
        arrays = (counts, 0.0 * row, row, np.zeros(row.shape, np.uint16))
        found = []
        own: Any
        for own, space in ((kernels, xp), (NumpyKernels(1), np)):
            tile = [space.asarray(a) for a in arrays]
            out = space.empty(counts.shape, dtype=np.float32), space.empty(counts.shape, np.uint16)
            own.calibrate(filled(CalibrationTile, *tile, *out))
            found.append((*out, *own.dump_mean(SubscanDumps(tile[0]))))
        for one, other in zip(*found, strict=True):
            assert_same_bits(one, other)
        assert found[1][0].ravel()[0] != 0
