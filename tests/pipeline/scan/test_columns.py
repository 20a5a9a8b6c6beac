"""The quick look at a tile finds the same columns as a look at every sample."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from gpucal.steps.judge import columns
from gpucal.steps.judge.columns import excess_of_columns

F64 = npt.NDArray[np.float64]
USUAL = 4.5 / 7.0


def plain(samples: npt.NDArray[Any], mean: F64, reach: F64) -> F64:
    """The excess, sample by sample; 0 where there is none."""
    away = np.abs(samples.astype(np.float64) - mean[:, None])
    furthest = np.where(np.isfinite(away), away, 0.0).max(axis=1)
    judged = np.isfinite(mean) & (reach > 0)
    return np.where(judged, furthest, 0.0) / np.where(judged, reach, 1.0)


def tile(shape: tuple[int, int, int], seed: int = 0) -> tuple[F64, F64, F64]:
    """Noise of unit sigma times that of each pixel, with its mean and 7 sigma."""
    rng = np.random.default_rng(seed)
    c, _, p = shape
    sigma = np.broadcast_to(1.0 + 0.02 * np.arange(p), (c, p))
    samples = sigma[:, None] * rng.standard_normal(shape)
    return samples, samples.mean(axis=1), 7.0 * sigma


def found(samples: npt.NDArray[Any], mean: F64, reach: F64) -> set[tuple[int, ...]]:
    """Columns whose excess is above 1; those that were looked at have the right number."""
    excess = excess_of_columns(samples, mean, reach, USUAL)
    expected = plain(samples, mean, reach)
    looked = np.nan_to_num(excess) != 0
    np.testing.assert_allclose(excess[looked], expected[looked], rtol=1e-6)
    assert np.array_equal(excess > 1, expected > 1)
    return {(int(a), int(b)) for a, b in np.argwhere(excess > 1)}


SHAPES = [(100, 12, 3), (70, 61, 18), (64, 7, 1), (33, 250, 1), (5, 2, 2), (1, 3, 1), (40, 3, 200)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_each_sample_is_looked_at(
    shape: tuple[int, int, int], dtype: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A single high or low sample anywhere, for groups and blocks of any size."""
    rng = np.random.default_rng(1)
    c, d, p = shape
    clean, mean, reach = tile(shape)
    for nbytes in (1, 1 << 13, 1 << 20):
        monkeypatch.setattr(columns, "GROUP_BYTES", nbytes)
        assert found(clean.astype(dtype), mean, reach) == set()
        for sign in (-1, 1):
            for dump in {0, d - 1, int(rng.integers(d))}:
                channel, pixel = int(rng.integers(c)), int(rng.integers(p))
                samples = clean.astype(dtype)
                samples[channel, dump, pixel] = (
                    mean[channel, pixel] + 1.01 * sign * reach[channel, pixel]
                )
                assert found(samples, mean, reach) == {(channel, pixel)}


def test_pixels_that_differ_blanks_lines_and_much_noise() -> None:
    """What the common limits cannot hold for goes to the narrower look; the answer is that of every sample."""
    shape = (96, 20, 6)
    clean, mean, reach = tile(shape)
    rng = np.random.default_rng(2)
    unlike = np.array([1.0, 3.0, 0.2, 1.0, 10.0, 1.0])
    assert found(clean * unlike, mean * unlike, reach * unlike) == set()
    line = 50.0 * np.exp(-(((np.arange(96.0) - 40) / 9) ** 2))[:, None]
    assert found(clean + line[:, None], mean + line, reach) == set()
    samples = clean.copy()
    samples[rng.random(shape) < 0.02] = np.nan
    samples[10:20, :, 2] = np.nan
    samples[50, 3, 4] = 30.0
    samples[51, 4, 0] = -30.0
    some = np.where(np.isfinite(samples).any(axis=1), mean, np.nan)
    assert found(samples, some, reach) == {(50, 4), (51, 0)}
    # Limits of what is not judged do not matter.
    odd_reach = reach.copy()
    odd_reach[:, 1], odd_reach[30, 3], odd_reach[31, 3] = np.nan, -1.0, 0.0
    assert found(samples, some, odd_reach) == {(50, 4), (51, 0)}
    assert len(found(3.0 * clean, 3.0 * mean, reach)) > 50


def test_quiet_blocks_are_left_at_the_first_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pixels one by one are looked at only in blocks that hold something."""
    seen: list[int] = []
    original = columns._over_dumps

    def counted(operation: np.ufunc, group: npt.NDArray[Any]) -> npt.NDArray[Any]:
        seen.append(len(group))
        return original(operation, group)

    monkeypatch.setattr(columns, "_over_dumps", counted)
    samples, mean, reach = tile((320, 16, 4))
    excess_of_columns(samples, mean, reach, USUAL)
    assert seen == []
    samples[100, 3, 1] = 40.0
    excess_of_columns(samples, mean, reach, USUAL)
    assert seen == [1, 1, columns.FEW, columns.FEW]
