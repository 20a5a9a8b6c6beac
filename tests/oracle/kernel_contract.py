"""What every KernelSet promises, against the scalar oracle.

A test class inherits ``KernelContract`` and gives two class-scoped fixtures: ``kernels``, the set
under test, and ``xp``, the namespace of its arrays. Inputs are read-only where arrays can be.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from gpucal.kernel_contract.calibrate import CalibrationTile
from gpucal.kernel_contract.chi2 import SkyFits
from gpucal.kernel_contract.dump_mean import SubscanDumps
from gpucal.kernel_contract.fold import FoldTile
from gpucal.kernel_contract.reference import OffPair
from oracle import kernels as oracle

examples = settings(
    deadline=None,
    derandomize=True,
    max_examples=60,
    # One suite for several kernel sets: the same method runs in several classes, by design.
    suppress_health_check=[HealthCheck.differing_executors, HealthCheck.too_slow],
)

DTYPES = ("int32", "uint32", "float32", "float64")
shapes = st.tuples(
    st.integers(1, 6), st.integers(1, 9), st.integers(1, 3), st.sampled_from((1, 2, 5))
)
seeds = st.integers(0, 2**32 - 1)
shares = st.sampled_from((0.0, 0.0, 0.1, 0.6, 1.0))
"""Shares of special samples; none at all is the common case."""


def filled(kind: Any, *arrays: Any, **named: Any) -> Any:
    """A value of a contract from arrays in its order; how many there are is found out when it is made."""
    return kind(*arrays, **named)


def make_counts(
    rng: np.random.Generator, shape: tuple[int, ...], dtype: Any, fill_share: float
) -> NDArray[Any]:
    """Counts of a shape with a share of fill samples; u32 has none."""
    dtype = np.dtype(dtype)
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        low = limits.min + 1 if dtype.kind == "i" else 0
        wide = rng.integers(low, limits.max, size=shape, dtype=dtype, endpoint=True)
        narrow = rng.integers(1000, 60000, size=shape).astype(dtype)
        counts = np.where(rng.random(shape) < 0.2, wide, narrow)
        fills = np.array([limits.min], dtype)
        if dtype.kind == "u":
            return counts
    else:
        counts = (rng.normal(3e4, 1e3, shape) * rng.choice([1, -1], shape)).astype(dtype)
        fills = np.array([np.nan, np.inf, -np.inf], dtype)
    return np.where(rng.random(shape) < fill_share, rng.choice(fills, shape), counts)


def spoil(rng: np.random.Generator, values: NDArray[Any], share: float) -> NDArray[Any]:
    """Replace a share of the values by NaN and infinities."""
    special = rng.choice([np.nan, np.inf, -np.inf], values.shape)
    return np.where(rng.random(values.shape) < share, special, values)


def scattered(array: NDArray[Any]) -> NDArray[Any]:
    """The same values in memory that is not contiguous: every other sample of a larger array."""
    wide = np.zeros((*array.shape, 2), array.dtype)
    wide[..., 0] = array
    return wide[..., 0]


def frozen(array: NDArray[Any]) -> NDArray[Any]:
    """The array, read-only."""
    array = array.view()
    array.setflags(write=False)
    return array


def to_host(array: Any) -> Any:
    """A NumPy array from a host or device array."""
    return array.get() if hasattr(array, "get") else np.asarray(array)


def assert_same_bits(found: Any, expected: Any) -> None:
    """Equal to the last bit, signs of zero included; every NaN equals every other."""
    found = to_host(found)
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    np.testing.assert_array_equal(found, expected)
    if found.dtype.kind == "f":
        there = ~np.isnan(expected)
        np.testing.assert_array_equal(np.signbit(found[there]), np.signbit(expected[there]))


class KernelContract:
    """Inherit, and define the class-scoped fixtures ``kernels`` and ``xp``."""

    def run_calibrate(
        self, kernels: Any, xp: Any, arrays: Sequence[Any], out_dtype: Any = np.float64
    ) -> tuple[NDArray[Any], NDArray[Any], int]:
        """Run into buffers full of rubbish, and return spectra, flags and the number lost."""
        counts = arrays[0]
        out = xp.full(counts.shape, 12345.0, dtype=out_dtype)
        out_flags = xp.full(counts.shape, 0xFFFF, dtype=np.uint16)
        tile = filled(CalibrationTile, *(xp.asarray(a) for a in arrays), out, out_flags)
        lost = kernels.calibrate(tile)
        assert isinstance(lost, int)
        return to_host(out), to_host(out_flags), lost

    def check_calibrate(
        self, kernels: Any, xp: Any, arrays: Sequence[Any], out_dtype: Any = np.float64
    ) -> None:
        spectra, flags, lost = self.run_calibrate(kernels, xp, arrays, out_dtype)
        expected, expected_flags, expected_lost = oracle.calibrate(*[*arrays, out_dtype])
        assert_same_bits(spectra, expected)
        assert_same_bits(flags, expected_flags)
        assert lost == expected_lost

    @examples
    @given(
        shape=shapes,
        seed=seeds,
        dtype=st.sampled_from(DTYPES),
        out_dtype=st.sampled_from((np.float64, np.float32)),
        per_dump=st.booleans(),
        scatter=st.booleans(),
        fill=shares,
        spoilt=shares,
        flagged=shares,
    )
    def test_calibrate_equals_oracle(
        self,
        kernels: Any,
        xp: Any,
        shape: tuple[int, ...],
        seed: int,
        dtype: str,
        out_dtype: Any,
        per_dump: bool,
        scatter: bool,
        fill: float,
        spoilt: float,
        flagged: float,
    ) -> None:
        rng = np.random.default_rng(seed)
        row = (shape[0], *shape[2:])
        arrays: tuple[NDArray[Any], ...] = (
            make_counts(rng, shape, dtype, fill),
            spoil(rng, rng.normal(3e4, 10.0, shape if per_dump else row), spoilt),
            spoil(rng, rng.normal(0.01, 0.001, row), spoilt),
            np.where(rng.random(row) < flagged, rng.integers(0, 4096, row), 0).astype(np.uint16),
        )
        if scatter:
            arrays = tuple(scattered(a) for a in arrays)
        self.check_calibrate(kernels, xp, tuple(frozen(a) for a in arrays), out_dtype)

    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("shape", [(5, 1, 1, 1), (1, 40, 2, 9), (3, 700, 1, 1), (40, 7, 2, 9)])
    def test_calibrate_plain_shapes(
        self, kernels: Any, xp: Any, shape: tuple[int, int, int, int], dtype: str
    ) -> None:
        rng = np.random.default_rng(5)
        row = (shape[0], *shape[2:])
        flags = np.zeros(row, np.uint16)
        flags[-1] = 4 + 1024
        arrays = (
            make_counts(rng, shape, dtype, 0.0),
            rng.normal(3e4, 10.0, row),
            rng.normal(0.01, 0.001, row),
            flags,
        )
        self.check_calibrate(kernels, xp, arrays)

    def test_calibrate_only_fills(self, kernels: Any, xp: Any) -> None:
        shape = (3, 4, 2, 2)
        rows = np.ones((3, 2, 2))
        counts = np.full(shape, np.iinfo(np.int32).min, np.int32)
        flags = np.full((3, 2, 2), 1024, np.uint16)
        spectra, out_flags, lost = self.run_calibrate(kernels, xp, (counts, rows, rows, flags))
        assert lost == counts.size
        assert np.isnan(spectra).all()
        assert (out_flags == 1026).all()

    def test_calibrate_flags_of_blanked_rows(self, kernels: Any, xp: Any) -> None:
        # Rows: good; bad channel; bad channel without reference; no reference; fill in base flags.
        counts = np.full((5, 2, 1, 1), 7, np.int32)
        reference = np.array([1.0, 1.0, np.nan, np.inf, 1.0])[:, None, None]
        factor = np.full((5, 1, 1), 2.0)
        flags = np.array([0, 1, 1, 0, 2], np.uint16)[:, None, None]
        spectra, out_flags, lost = self.run_calibrate(
            kernels, xp, (counts, reference, factor, flags)
        )
        np.testing.assert_array_equal(spectra[:, 1, 0, 0], [12.0] + [np.nan] * 4)
        np.testing.assert_array_equal(out_flags[:, 1, 0, 0], [0, 1, 1, 2, 2])
        assert lost == 4

    def test_calibrate_overflow_of_f32_is_infinite(self, kernels: Any, xp: Any) -> None:
        one = np.ones((1, 1, 1))
        arrays = (np.full((1, 1, 1, 1), 3, np.int32), one, one * 1e300, np.zeros_like(one, "u2"))
        spectra, flags, lost = self.run_calibrate(kernels, xp, arrays, np.float32)
        assert spectra[0, 0, 0, 0] == np.inf
        assert flags[0, 0, 0, 0] == 0
        assert lost == 0

    def test_calibrate_no_channel(self, kernels: Any, xp: Any) -> None:
        row = np.zeros((0, 2, 2))
        arrays = (np.zeros((0, 3, 2, 2), np.int32), row, row, row.astype(np.uint16))
        assert self.run_calibrate(kernels, xp, arrays)[2] == 0

    @pytest.mark.parametrize("per_dump", [False, True])
    def test_calibrate_does_not_depend_on_tiles(
        self, kernels: Any, xp: Any, per_dump: bool
    ) -> None:
        rng = np.random.default_rng(11)
        shape, row = (64, 30, 2, 9), (64, 2, 9)
        arrays = (
            make_counts(rng, shape, "int32", 0.001),
            spoil(rng, rng.normal(3e4, 10.0, shape if per_dump else row), 0.01),
            rng.normal(0.01, 0.001, row),
            np.where(rng.random(row) < 0.1, 1, 256).astype(np.uint16),
        )
        whole = self.run_calibrate(kernels, xp, arrays)
        for step in (1, 7, 33):
            tiles = [
                self.run_calibrate(kernels, xp, tuple(a[c : c + step] for a in arrays))
                for c in range(0, 64, step)
            ]
            assert_same_bits(np.concatenate([t[0] for t in tiles]), whole[0])
            assert_same_bits(np.concatenate([t[1] for t in tiles]), whole[1])
            assert sum(t[2] for t in tiles) == whole[2]

    @examples
    @given(
        shape=shapes,
        seed=seeds,
        dtype=st.sampled_from(DTYPES),
        masked=st.sampled_from((None, 0.0, 0.5, 1.0)),
        scatter=st.booleans(),
        fill=shares,
    )
    def test_dump_mean_equals_oracle(
        self,
        kernels: Any,
        xp: Any,
        shape: tuple[int, ...],
        seed: int,
        dtype: str,
        masked: float | None,
        scatter: bool,
        fill: float,
    ) -> None:
        rng = np.random.default_rng(seed)
        counts = make_counts(rng, shape, dtype, fill)
        counts = frozen(scattered(counts) if scatter else counts)
        valid = None if masked is None else frozen(rng.random(shape[1]) >= masked)
        self.check_dump_mean(kernels, xp, counts, valid)

    def check_dump_mean(
        self, kernels: Any, xp: Any, counts: Any, valid: NDArray[Any] | None = None
    ) -> None:
        mask = None if valid is None else xp.asarray(valid)
        mean, number = kernels.dump_mean(SubscanDumps(xp.asarray(counts), mask))
        expected, expected_number, size = oracle.dump_mean(counts, valid)
        assert_same_bits(number, expected_number)
        if counts.dtype.kind in "iu":
            assert_same_bits(mean, expected)
            return
        mean = to_host(mean)
        assert mean.dtype == np.float64
        np.testing.assert_array_equal(np.isnan(mean), np.isnan(expected))
        there = ~np.isnan(expected)
        assert (np.abs(mean - expected)[there] <= 1e-12 * size[there]).all()

    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("shape", [(2, 500, 1, 1), (1, 64, 2, 9), (50, 1, 1, 3), (9, 33, 1, 1)])
    def test_dump_mean_plain_shapes(
        self, kernels: Any, xp: Any, shape: tuple[int, int, int, int], dtype: str
    ) -> None:
        counts = make_counts(np.random.default_rng(2), shape, dtype, 0.0)
        self.check_dump_mean(kernels, xp, counts)
        self.check_dump_mean(kernels, xp, counts, np.arange(shape[1]) % 3 != 1)

    def test_dump_mean_of_large_integers_is_exact(self, kernels: Any, xp: Any) -> None:
        # The sum needs 63 bits of care: large values of one sign, then small ones.
        for dtype in ("int32", "uint32"):
            counts = np.full((1, 4096, 1, 2), np.iinfo(dtype).max, dtype)
            counts[0, ::2] -= 1
            self.check_dump_mean(kernels, xp, counts)

    def test_dump_mean_does_not_depend_on_tiles(self, kernels: Any, xp: Any) -> None:
        rng = np.random.default_rng(12)
        for dtype in ("int32", "float32"):
            counts = make_counts(rng, (50, 41, 2, 9), dtype, 0.01)
            whole = [to_host(a) for a in kernels.dump_mean(SubscanDumps(xp.asarray(counts)))]
            tiles = [
                kernels.dump_mean(SubscanDumps(xp.asarray(counts[c : c + 7])))
                for c in range(0, 50, 7)
            ]
            for i in range(2):
                assert_same_bits(np.concatenate([to_host(t[i]) for t in tiles]), whole[i])

    @examples
    @given(
        shape=st.tuples(st.integers(1, 6), st.integers(1, 3), st.integers(1, 5)),
        seed=seeds,
        dumps=st.sampled_from((None, 1, 5)),
        lost=shares,
        scatter=st.booleans(),
    )
    def test_reference_equals_oracle(
        self,
        kernels: Any,
        xp: Any,
        shape: tuple[int, int, int],
        seed: int,
        dumps: int | None,
        lost: float,
        scatter: bool,
    ) -> None:
        rng = np.random.default_rng(seed)
        off1, off2 = (rng.normal(3e4, 1e3, shape) for _ in range(2))
        off1 = np.where(rng.random(shape) < lost, np.nan, off1)
        off2 = np.where(rng.random(shape) < lost, np.nan, off2)
        if scatter:
            off1, off2 = scattered(off1), scattered(off2)
        weight = np.where(rng.random(dumps) < 0.4, rng.choice([0.0, 1.0], dumps), rng.random(dumps))
        offs = OffPair(*(xp.asarray(frozen(a)) for a in (off1, off2, weight)))
        found = kernels.reference(offs)
        assert_same_bits(found, oracle.reference(off1, off2, weight))

    def test_reference_at_the_ends_is_exact(self, kernels: Any, xp: Any) -> None:
        off1 = np.array([1.1, np.inf, -0.0, np.nan, np.nan])[:, None, None]
        off2 = np.array([np.inf, 2.2, 3.3, 4.4, np.nan])[:, None, None]
        offs = OffPair(*(xp.asarray(a) for a in (off1, off2, np.array([0.0, 1.0]))))
        found = to_host(kernels.reference(offs))
        assert_same_bits(found[:, 0, 0, 0], np.array([1.1, np.inf, -0.0, 4.4, np.nan]))
        assert_same_bits(found[:, 1, 0, 0], np.array([np.inf, 2.2, 3.3, 4.4, np.nan]))

    def check_chi2(self, kernels: Any, xp: Any, case: Sequence[Any]) -> None:
        pwv, airmass, *arrays = case
        fits = SkyFits(xp.asarray(pwv), airmass, *(xp.asarray(a) for a in arrays))
        plain = to_host(kernels.chi2(fits))
        full = to_host(kernels.chi2(fits._replace(derivatives=True)))
        expected, sizes = oracle.chi2(pwv, airmass, *arrays)
        assert plain.shape == expected.shape[1:]
        assert full.shape == expected.shape
        assert plain.dtype == full.dtype == np.float64
        assert (np.abs(full - expected) <= 1e-12 * sizes).all()
        np.testing.assert_allclose(plain, full[0], rtol=1e-12, atol=0)

    @examples
    @given(
        seed=seeds,
        channels=st.integers(1, 12),
        trials=st.integers(1, 4),
        fits=st.integers(1, 4),
        points=st.integers(1, 3),
        shared=st.tuples(st.booleans(), st.booleans(), st.booleans()),
        unused=shares,
    )
    def test_chi2_equals_oracle(
        self,
        kernels: Any,
        xp: Any,
        seed: int,
        channels: int,
        trials: int,
        fits: int,
        points: int,
        shared: tuple[bool, bool, bool],
        unused: float,
    ) -> None:
        rng = np.random.default_rng(seed)
        case = make_chi2(rng, channels, trials, fits, points, shared)
        case[3][rng.random(case[3].shape) < unused] = 0.0
        case[2][case[3] == 0.0] = np.nan
        self.check_chi2(kernels, xp, [case[0], case[1], *(frozen(a) for a in case[2:])])

    def test_no_channels_and_no_dumps(self, kernels: Any, xp: Any) -> None:
        empty = xp.asarray(np.zeros((0, 2, 3)))
        mean, number = kernels.dump_mean(SubscanDumps(xp.asarray(np.zeros((0, 4, 2, 3), np.int32))))
        assert mean.shape == number.shape == (0, 2, 3)
        offs = OffPair(empty, empty, xp.asarray(np.zeros(5)))
        assert kernels.reference(offs).shape == (0, 5, 2, 3)
        mean, number = kernels.dump_mean(SubscanDumps(xp.asarray(np.zeros((2, 0, 2, 3), np.int32))))
        assert np.isnan(to_host(mean)).all()
        assert mean.shape == (2, 2, 3)
        assert not to_host(number).any()
        arrays = make_fold(np.random.default_rng(0), (0, 2, 1, 3), 4, 1, "mixed", 0.0)
        assert self.run_fold(kernels, xp, arrays, 0)[2] == 0
        pwv, airmass, *arrays = make_chi2(np.random.default_rng(0), 0, 3, 2, 1, (True,) * 3)
        fits = filled(SkyFits, xp.asarray(pwv), airmass, *(xp.asarray(a) for a in arrays), True)
        assert_same_bits(kernels.chi2(fits), np.zeros((4, 3, 2)))

    def test_chi2_of_many_channels(self, kernels: Any, xp: Any) -> None:
        rng = np.random.default_rng(3)
        for shared in ((True, True, True), (False, True, True), (False, False, False)):
            self.check_chi2(kernels, xp, make_chi2(rng, 5000, 2, 2, 1, shared))

    def test_chi2_ignores_nan_without_weight(self, kernels: Any, xp: Any) -> None:
        pwv, airmass, observed, weight, amplitude, opacity = make_chi2(
            np.random.default_rng(4), 8, 3, 2, 2, (False, False, False)
        )
        weight[3:5] = 0.0
        amplitude[:, 3], opacity[:, :, :, 4], observed[3] = np.nan, np.nan, np.inf
        keep = np.array([0, 1, 2, 5, 6, 7])
        arrays = (xp.asarray(a) for a in (observed, weight, amplitude, opacity))
        found = kernels.chi2(filled(SkyFits, xp.asarray(pwv), airmass, *arrays, derivatives=True))
        expected, sizes = oracle.chi2(
            *(pwv, airmass, observed[keep], weight[keep]),
            *(amplitude[:, keep], opacity[:, :, :, keep]),
        )
        assert (np.abs(to_host(found) - expected) <= 1e-12 * sizes).all()

    def test_chi2_derivatives_match_differences(self, kernels: Any, xp: Any) -> None:
        case = make_chi2(np.random.default_rng(9), 40, 1, 1, 2, (False, False, False))
        arrays = [xp.asarray(a) for a in case[2:]]
        step = 1e-4
        grid = np.array([[1.0 - step], [1.0], [1.0 + step]])
        fits = filled(SkyFits, xp.asarray(grid), case[1], *arrays, derivatives=True)
        full = to_host(kernels.chi2(fits))[:, :, 0]
        slope = (full[0, 2] - full[0, 0]) / (2 * step)
        bend = (full[1, 2] - full[1, 0]) / (2 * step)
        assert full[1, 1] == pytest.approx(slope, rel=1e-5)
        assert full[2, 1] == pytest.approx(bend, rel=1e-5)

    def run_fold(
        self,
        kernels: Any,
        xp: Any,
        arrays: Sequence[Any],
        channels: Any,
        out_dtype: Any = np.float64,
    ) -> tuple[NDArray[Any], NDArray[Any], int]:
        """Run into buffers full of rubbish, and return spectra, flags and the number lost."""
        shape = (channels, *arrays[0].shape[1:])
        out = xp.full(shape, 12345.0, dtype=out_dtype)
        out_flags = xp.full(shape, 0xFFFF, dtype=np.uint16)
        on_device = [None if a is None else xp.asarray(a) for a in arrays]
        lost = kernels.fold(filled(FoldTile, *on_device, out, out_flags))
        assert isinstance(lost, int)
        return to_host(out), to_host(out_flags), lost

    @examples
    @given(
        shape=shapes,
        seed=seeds,
        out_dtype=st.sampled_from((np.float64, np.float32)),
        half=st.sampled_from((1, 2, 16)),
        form=st.sampled_from(("whole", "between", "mixed")),
        through=st.sampled_from((None, "own", "shared")),
        scatter=st.booleans(),
        spoilt=shares,
    )
    def test_fold_equals_oracle(
        self,
        kernels: Any,
        xp: Any,
        shape: tuple[int, ...],
        seed: int,
        out_dtype: Any,
        half: int,
        form: str,
        through: str | None,
        scatter: bool,
        spoilt: float,
    ) -> None:
        rng = np.random.default_rng(seed)
        arrays = make_fold(rng, shape, int(rng.integers(0, 9)), half, form, spoilt)
        arrays[5] = {
            None: None,
            "own": arrays[5],
            "shared": np.ascontiguousarray(arrays[5][:, :1, :1]),
        }[through]
        if scatter:
            arrays = [None if a is None else scattered(a) for a in arrays]
        arrays = [None if a is None else frozen(a) for a in arrays]
        found = self.run_fold(kernels, xp, arrays, shape[0], out_dtype)
        expected = oracle.fold(*[*arrays, out_dtype])
        assert_same_bits(found[0], expected[0])
        assert_same_bits(found[1], expected[1])
        assert found[2] == expected[2]

    def test_fold_moves_a_line_onto_itself(self, kernels: Any, xp: Any) -> None:
        """A line of 1 K, up in one phase and down in the other, comes out as 1 K at its channel."""
        channels, throw = 40, 7
        spectra = np.zeros((channels, 1, 1, 1))
        spectra[20 + throw], spectra[20 - throw] = 1.0, -1.0
        taps = np.zeros((2, 1, 3))
        taps[..., 1] = 1.0
        nearest = np.array([[[throw]] * 2, [[-throw]] * 2])
        row = np.ones((channels, 1, 1))
        flags, base = np.zeros(spectra.shape, "u2"), np.zeros(row.shape, "u2")
        arrays = (spectra, flags, row, taps, nearest, 0.5 * row, base)
        out, bits, lost = self.run_fold(kernels, xp, arrays, channels)
        assert out[20, 0, 0, 0] == 2.0
        assert lost == 2 * throw
        assert (bits[:throw] == 2).all()
        assert (bits[throw:-throw] == 0).all()
        assert np.isnan(out[-throw:]).all()
        out[[20, 20 - 2 * throw, 20 + 2 * throw]] = 0.0
        assert not out[throw:-throw].any()

    def test_fold_keeps_flags_apart(self, kernels: Any, xp: Any) -> None:
        # Bit 0 of the input excuses NaN; bit 0 of the base flags does not count.
        spectra = np.array([np.nan, np.nan, 5.0, 1.0])[:, None, None, None]
        flags = np.array([1, 0, 256, 0], np.uint16)[:, None, None, None]
        row = np.ones((4, 1, 1))
        taps, nearest = np.ones((2, 1, 1)), np.zeros((2, 2, 1), np.int64)
        base = np.array([0, 0, 1, 5], np.uint16)[:, None, None]
        arrays = (spectra, flags, row, taps, nearest, None, base)
        out, bits, lost = self.run_fold(kernels, xp, arrays, 4)
        np.testing.assert_array_equal(out[:, 0, 0, 0], [np.nan, np.nan, 0.0, 0.0])
        np.testing.assert_array_equal(bits[:, 0, 0, 0], [1, 2, 256, 4])
        assert lost == 1

    def test_fold_does_not_depend_on_tiles(self, kernels: Any, xp: Any) -> None:
        rng = np.random.default_rng(13)
        arrays = make_fold(rng, (61, 9, 2, 5), 4, 16, "mixed", 0.01)
        whole = self.run_fold(kernels, xp, arrays, 61)
        for step in (1, 7, 33):
            tiles = []
            for c in range(0, 61, step):
                own = [*arrays[:4], arrays[4] + c, *(a[c : c + step] for a in arrays[5:])]
                tiles.append(self.run_fold(kernels, xp, own, len(own[5])))
            assert_same_bits(np.concatenate([t[0] for t in tiles]), whole[0])
            assert_same_bits(np.concatenate([t[1] for t in tiles]), whole[1])
            assert sum(t[2] for t in tiles) == whole[2]


def make_fold(
    rng: np.random.Generator,
    shape: tuple[int, ...],
    around: int,
    half: int,
    form: str,
    share: float,
) -> list[Any]:
    """Inputs of fold: spectra, flags, weight, taps, nearest, transmission, base flags.

    ``around``: channels of the input on each side of the output; ``form``: "whole", "between" or
    "mixed" shifts.
    """
    channels, dumps, receivers, pixels = shape
    wide, row = channels + 2 * around, (channels, receivers, pixels)
    whole = {"whole": [True], "between": [False], "mixed": [True, False]}[form]
    nearest = np.empty((2, 2, receivers), np.int64)
    nearest[:, 0] = around + rng.integers(-around - 2, around + 3, (2, receivers))
    step = rng.choice([-1, 1], (2, receivers)) * ~rng.choice(whole, (2, receivers))
    nearest[:, 1] = nearest[:, 0] + step
    spectra = spoil(rng, rng.normal(0.0, 30.0, (wide, dumps, receivers, pixels)), share)
    some = rng.random(spectra.shape) < share
    return [
        spectra,
        np.where(some, rng.integers(0, 4096, some.shape), 0).astype(np.uint16),
        spoil(rng, rng.uniform(1e-5, 1e-4, (wide, receivers, pixels)), 0.2 * share),
        rng.normal(0.0, 0.3, (2, receivers, 2 * half + 1)),
        nearest,
        spoil(rng, rng.uniform(0.1, 1.0, row), 0.2 * share),
        np.where(rng.random(row) < share, rng.integers(0, 4096, row), 0).astype(np.uint16),
    ]


def make_chi2(
    rng: np.random.Generator,
    channels: int,
    trials: int,
    fits: int,
    points: int,
    shared: tuple[bool, bool, bool],
) -> list[Any]:
    """Arguments of chi2: [pwv, airmass, observed, weight, amplitude, opacity].

    ``shared`` says for PWV, amplitude and opacity whether all fits have the same (last axis 1).
    """
    last = [1 if one else fits for one in shared]
    return [
        rng.uniform(0.05, 5.0, (trials, last[0])),
        float(rng.uniform(1.0, 3.0)),
        rng.normal(-120.0, 40.0, (channels, fits)),
        rng.uniform(0.01, 1.0, (channels, fits)),
        rng.normal(-120.0, 10.0, (2, channels, last[1])),
        rng.uniform(0.0, 0.3, (3, 2, points, channels, last[2]))
        * [[[[[1]]]], [[[[0.01]]]], [[[[1]]]]],
    ]
