"""Rounding to the noise: the step, the error of a sample and of a mean, what f32 cannot hold."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from fakes.strict_backend import strict_backend, to_numpy

from gpucal import Flag
from gpucal.backend.cpu import cpu_backend
from gpucal.backend.protocol import Backend
from gpucal.steps import precision
from gpucal.steps.precision import Precision, Rounding, precision_notes, round_tile, without_noise
from gpucal.steps.quality import QualitySums

CPU = cpu_backend()


def rounded(
    values: Any, rounding: Rounding, flags: Any = None, backend: Backend = CPU
) -> tuple[Any, bool]:
    """The rounded spectra, and whether f32 holds all of them."""
    values = np.asarray(values, dtype=np.float64).reshape(len(values), -1, 1, 1)
    flags = np.zeros(values.shape, np.uint16) if flags is None else flags.reshape(values.shape)
    out = backend.xp.empty(values.shape, dtype=backend.xp.float32)
    held = round_tile(backend, rounding, backend.asarray(values), backend.asarray(flags), out)
    return np.array(to_numpy(out)), held


@pytest.mark.parametrize("per_noise", [4, 16, 1000])
def test_the_step_is_the_largest_power_of_two_below_a_kth_of_the_noise(per_noise: int) -> None:
    sigmas = [1e-30, 0.3, 1.0, 8.0, np.nextafter(8.0, 0.0), np.nextafter(8.0, 9.0), 7e12]
    for sigma in sigmas:
        step = Rounding.of(sigma, per_noise).step
        assert math.frexp(step)[0] == 0.5
        assert step <= sigma / per_noise < 2 * step


def test_a_power_of_two_is_its_own_step() -> None:
    assert Rounding.of(2.0**-3 * 16, 16).step == 2.0**-3
    assert Rounding.of(float(np.nextafter(2.0**-3 * 16, 0.0)), 16).step == 2.0**-4


@pytest.mark.parametrize("make", [lambda: CPU, strict_backend])
def test_half_a_step_at_most_and_nan_stays(make: Any) -> None:
    rng = np.random.default_rng(3)
    for step in (2.0**-20, 0.125, 64.0):
        rounding = Rounding(step, 16, 16 * step)
        values = rng.normal(0.0, 1e4 * step, (50, 3000))
        values[rng.random(values.shape) < 0.1] = np.nan
        values[0, :4] = (0.5 * step, 1.5 * step, -0.5 * step, -1e-9 * step)
        found, held = rounded(values, rounding, backend=make())
        found = found.reshape(values.shape)
        assert held
        assert found.dtype == np.float32
        assert np.array_equal(np.isnan(found), np.isnan(values))
        assert np.nanmax(np.abs(found - values)) <= 0.5 * step
        multiples = found[~np.isnan(found)].astype(np.float64) / step
        assert np.array_equal(multiples, np.rint(multiples))
        # half to even, and no negative zero
        assert found[0, :4].tolist() == [0.0, 2 * step, 0.0, 0.0]
        assert not np.signbit(found[0, :4]).any()


@pytest.mark.parametrize("steps", [2.0, 16.0])
def test_a_mean_is_not_shifted(steps: float) -> None:
    """10^6 samples around values that are no multiples: no bias, and the variance of an even spread."""
    rng = np.random.default_rng(11)
    rounding = Rounding(0.25, 16, 4.0)
    n = 1_000_000
    for offset in (0.0, 0.1, 0.125, 103.2):
        values = rng.normal(offset, steps * rounding.step, (1000, 1000))
        error = rounded(values, rounding)[0].reshape(values.shape) - values
        assert abs(error.mean()) < 5.0 * math.sqrt(rounding.added_variance / n)
        assert error.var() == pytest.approx(rounding.added_variance, rel=0.01)
        both = np.corrcoef(error.ravel(), values.ravel())[0, 1]
        assert abs(both) < 5.0 / math.sqrt(n)


def test_blocks_of_the_host_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(1).normal(0.0, 3.0, (70, 90))
    rounding = Rounding(0.125, 16, 2.0)
    whole, _ = rounded(values, rounding)
    monkeypatch.setattr(precision, "BLOCK_SAMPLES", 200)
    assert rounded(values, rounding)[0].tobytes() == whole.tobytes()
    strict, _ = rounded(values, rounding, backend=strict_backend())
    assert strict.tobytes() == whole.tobytes()


@pytest.mark.parametrize("value", [2.0**24 + 2, -(2.0**24) - 2, 1e20, np.inf, 1e300])
def test_what_f32_cannot_hold_is_seen(value: float) -> None:
    rounding = Rounding(0.5, 16, 8.0)
    values = np.zeros((4, 30))
    values[2, 7] = 0.5 * 2.0**24
    assert rounded(values, rounding)[1]
    values[3, 8] = 0.5 * value
    assert not rounded(values, rounding)[1]
    # A spike that no reader takes may have any value, and so may a broken pixel.
    flags = np.zeros(values.shape, np.uint16)
    flags[3, 8] = int(Flag.SPIKE)
    assert rounded(values, rounding, flags)[1]
    flags[3, 8] = int(Flag.TSYS_OUTLIER)
    assert rounded(values, rounding, flags)[1]
    flags[3, 8] = int(Flag.CAL_STALE)
    assert not rounded(values, rounding, flags)[1]


class _Measured(QualitySums):
    """Sums that have measured these ratios of the rms."""

    def __init__(self, ratio: Any) -> None:
        self._ratio = np.asarray(ratio)

    def line_free_ratio(self) -> Any:
        return self._ratio


@pytest.mark.parametrize(
    ("ratio", "words"),
    [
        ([[1.0, 1.1]], ""),
        ([[0.2, 0.2]], ""),
        ([[1e-9, 1e-9, 0.9]], "not limited by noise"),
        ([[np.nan, np.nan]], "cannot be measured"),
    ],
)
def test_only_noise_is_rounded(ratio: Any, words: str) -> None:
    asked = Precision(Rounding.of(1.0, 16))
    reason = without_noise(_Measured(ratio), asked)
    assert words in reason
    assert bool(reason) == bool(words)
    assert without_noise(_Measured(ratio), Precision()) == ""


def test_quiet_pixels_are_named() -> None:
    asked = Precision(Rounding.of(1.0, 16))
    (note,) = precision_notes(asked, _Measured([[1.0, 1e-3, 0.9, np.nan]]))
    assert "receiver 0 pixel 1" in note
    assert "pixel 0" not in note.replace("pixel 1", "")
    assert precision_notes(asked, _Measured([[1.0, 0.9]])) == []
