"""Switched averages: weights, noise with shared references, line check."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from gpucal.procedures.switching import (
    LineWindow,
    NoiseModel,
    average_block,
    check_line,
    dump_mean,
    switched_result,
)

F64 = npt.NDArray[np.float64]
WIDTH = 1e6
C, D, R, A, S = 512, 3, 1, 12, 3


def independent(seconds: F64) -> NoiseModel:
    return NoiseModel(seconds, 1.0 / seconds, np.zeros((seconds.size, 1)))


def test_weights_are_t_dnu_over_t_sys_squared() -> None:
    mean = np.array([1.0, 2.0])[None, None, None, :]
    time = np.array([10.0, 20.0])[None, None, None, :]
    t_sys = np.array([100.0, 200.0])[None, None, None, :]
    block = average_block(mean, time, t_sys, WIDTH, independent(time[0, 0, 0]))
    w = np.array([10.0 / 1e4, 20.0 / 4e4]) * WIDTH
    assert block.weight[0, 0, 0] == pytest.approx(w.sum())
    assert block.spectrum[0, 0, 0] == pytest.approx((w @ [1.0, 2.0]) / w.sum())
    # weights 1/variance: the variance of the mean is 1 / their sum
    assert block.variance[0, 0, 0] == pytest.approx(1.0 / w.sum())


def test_a_shared_reference_does_not_average_down() -> None:
    """Two ON against one OFF of the same length: T^2 (1/2t + 1/t), not T^2 (1/2t + 1/2t)."""
    one = np.ones((1, 1, 1, 2))
    noise = NoiseModel(np.full(2, 10.0), np.full(2, 0.1), np.full((2, 1), np.sqrt(0.1)))
    block = average_block(one, 10.0 * one, 100.0 * one, WIDTH, noise)
    assert block.variance[0, 0, 0] == pytest.approx(100.0**2 / WIDTH * (0.05 + 0.1))
    np.testing.assert_allclose(noise.excess, 2.0)


def test_bad_dumps_cost_time_and_noise() -> None:
    spectra = np.ones((1, 4, 1, 1))
    spectra[0, 2:] = np.nan
    mean, time = dump_mean(spectra, np.full(4, 5.0))
    assert (mean[0, 0, 0], time[0, 0, 0]) == (1.0, 10.0)
    m, t, t_sys = (a[..., None] for a in (mean, time, np.full((1, 1, 1), 100.0)))
    block = average_block(m, t, t_sys, WIDTH, independent(np.array([20.0])))
    assert block.variance[0, 0, 0] == pytest.approx(100.0**2 / (WIDTH * 10.0))


def made(seed: int, line: float = 0.0) -> tuple[F64, F64, F64]:
    """Noise of T_sys* 150 K in 10 s, and a Gaussian line in the middle: mean, time, T_sys* [C,R,A,S]."""
    rng = np.random.default_rng(seed)
    t_sys = np.full((C, R, A, S), 150.0)
    time = np.full((C, R, A, S), 10.0)
    mean = 150.0 / np.sqrt(WIDTH * 10.0) * rng.standard_normal((C, R, A, S))
    shape = np.exp(-0.5 * ((np.arange(C) - 256) / 6.0) ** 2)
    return mean + line * shape[:, None, None, None], time, t_sys


FREQUENCY = 230e9 + WIDTH * np.arange(C, dtype=np.float64)[:, None]
WINDOW = LineWindow(230e9 + 236 * WIDTH, 230e9 + 276 * WIDTH, 230e9)


def test_noise_is_that_of_the_radiometer_and_lines_do_not_count() -> None:
    for line in (0.0, 5.0):
        block = average_block(*made(1, line), WIDTH, independent(np.full(S, 10.0)))
        found = switched_result([block], FREQUENCY, n_subscans=S, window=WINDOW)
        assert found.valid
        assert abs(found.ratio.mean() - 1.0) < 0.06
        np.testing.assert_allclose(found.ratio, 1.0, atol=0.3)
        np.testing.assert_allclose(found.expected, 150.0 / np.sqrt(WIDTH * 30.0), rtol=1e-9)
        np.testing.assert_allclose(found.time, 30.0)
        assert all(check.valid == bool(line) for check in found.line)


def test_blocks_of_channels_give_the_same() -> None:
    m, t, t_sys = made(2, 1.0)
    noise = independent(np.full(S, 10.0))
    whole = average_block(m, t, t_sys, WIDTH, noise)
    parts = [
        average_block(m[c : c + 128], t[c : c + 128], t_sys[c : c + 128], WIDTH, noise)
        for c in range(0, C, 128)
    ]
    one = switched_result([whole], FREQUENCY, n_subscans=S)
    many = switched_result(parts, FREQUENCY, n_subscans=S)
    np.testing.assert_array_equal(one.spectrum, many.spectrum)
    np.testing.assert_array_equal(one.rms, many.rms)


def test_integrated_intensity_and_its_error() -> None:
    truth = 0.2 * 6.0 * np.sqrt(2 * np.pi) * WIDTH / 230e9 * 299792.458
    pulls = []
    for seed in range(60):
        block = average_block(*made(seed, 0.2), WIDTH, independent(np.full(S, 10.0)))
        sigma = np.sqrt(block.variance[:, 0, 0])
        check = check_line(block.spectrum[:, 0, 0], sigma, FREQUENCY[:, 0], WINDOW, (0, 0))
        assert check.area.unit == "K km/s"
        pulls.append((check.area.value - truth) / check.area.error)
    assert abs(np.mean(pulls)) < 0.6
    assert abs(np.std(pulls) - 1.0) < 0.4


@pytest.mark.parametrize(
    ("spectrum", "window", "reason"),
    [
        (np.full(C, np.nan), WINDOW, "no good channel"),
        (np.zeros(C), LineWindow(1e9, 2e9), "the window holds no good channel"),
        (np.zeros(C), LineWindow(1e9, 1e12), "too few channels outside the window"),
        (np.zeros(C), WINDOW, "no line seen: 0.0 sigma"),
    ],
)
def test_failures_are_named(spectrum: F64, window: LineWindow, reason: str) -> None:
    check = check_line(spectrum, np.full(C, 0.1), FREQUENCY[:, 0], window, (0, 0))
    assert not check.valid
    assert check.reason == reason


def test_no_good_sample_is_named() -> None:
    mean, time, t_sys = made(1)
    block = average_block(
        np.full_like(mean, np.nan), time, t_sys, WIDTH, independent(np.full(S, 10.0))
    )
    found = switched_result([block], FREQUENCY, n_subscans=S)
    assert (found.valid, found.reason) == (False, "no sample of any pixel is good")
    assert np.isnan(found.rms).all()
