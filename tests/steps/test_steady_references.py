"""Dumps and samples of loads and references that cannot be are left out; noise, drifts and clouds are not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from builders.truth_setup import calibrated, simulate_scan, without_lines
from fakes.strict_backend import strict_backend

from gpucal import CalibratedScan, CalibrationConfig, Scan, select_backend
from gpucal.axes import FILL_INT32
from gpucal.scan import ArrayCounts
from gpucal.simulate.counts import Recording
from gpucal.simulate.night import SimulatedScan
from gpucal.simulate.presets import preset
from gpucal.steps.judge.steady import Steady, cannot_be, stands_still

F64 = npt.NDArray[np.float64]
NOISE = 1e-3
HERE = select_backend("cpu")
Shape = tuple[int, int, int, int]


def quiet(shape: Shape = (64, 8, 2, 3), seed: int = 1, dtype: str = "i4") -> npt.NDArray[Any]:
    """Counts [c,D,R,A] of a steady load with a sloping band."""
    source = np.random.default_rng(seed)
    band = np.linspace(0.4, 1.6, shape[0])[:, None, None, None]
    values = 2e6 * band * (1 + NOISE * source.standard_normal(shape))
    return values.astype(dtype)


def found(counts: npt.NDArray[Any], sigmas: float = 8.0, backend: Any = HERE) -> Any:
    good = np.where(counts == FILL_INT32, np.nan, counts) if counts.dtype.kind == "i" else counts
    mean = backend.asarray(np.nanmean(good, axis=1))
    steady = Steady(sigmas, np.full(counts.shape[1], NOISE))
    return cannot_be(backend.asarray(counts), mean, steady, backend)


@pytest.mark.parametrize("shape", [(64, 8, 2, 3), (300, 3, 1, 1), (2, 50, 1, 2), (1, 20, 1, 1)])
@pytest.mark.parametrize("dtype", ["i4", "f4", "f8"])
def test_noise_alone_is_nothing(shape: Shape, dtype: str) -> None:
    assert all(found(quiet(shape, seed, dtype)) is None for seed in range(5))


@pytest.mark.parametrize("factor", [0.01, 0.9, 1.05, 30.0])
@pytest.mark.parametrize("dumps", [3, 4, 8, 40])
def test_one_sample(factor: float, dumps: int) -> None:
    counts = quiet((64, dumps, 2, 3))
    counts[10, 2, 1, 0] *= factor
    assert np.argwhere(found(counts)).tolist() == [[10, 2, 1, 0]]
    assert found(counts, sigmas=0.0) is None


@pytest.mark.parametrize("factor", [0.3, 0.9, 1.1, 3.0])
@pytest.mark.parametrize("dump", [0, 3, 7])
def test_a_whole_dump_of_a_pixel(factor: float, dump: int) -> None:
    counts = quiet()
    counts[:, dump, 0, 1] = counts[:, dump, 0, 1] * factor
    expected = np.zeros(counts.shape, bool)
    expected[:, dump, 0, 1] = True
    np.testing.assert_array_equal(found(counts), expected)


def test_a_little_more_gain_in_one_dump_is_real() -> None:
    counts = quiet()
    counts[:, 3, 0, 1] = counts[:, 3, 0, 1] * 1.01
    assert found(counts) is None


def test_each_column_is_judged_by_itself() -> None:
    """So that the result is the same for any blocks of channels."""
    counts = quiet()
    counts[:, 3, 0, 1] = counts[:, 3, 0, 1] * 1.5
    counts[20:40, 5] = counts[20:40, 5] * 1.1
    whole = found(counts)
    parts = [found(counts[c : c + 7]) for c in range(0, len(counts), 7)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)


@pytest.mark.parametrize(
    "course",
    [
        np.linspace(0.9, 1.1, 8),
        np.array([1, 1, 1.02, 1.1, 1.15, 1.08, 1.03, 1]),
        np.array([1, 1, 1, 1, 1.2, 1.2, 1.2, 1.2]),
        1 + 0.03 * np.sin(np.arange(8)),
    ],
    ids=["drift", "cloud", "step", "unrest"],
)
def test_what_dumps_share_is_real(course: F64) -> None:
    assert found((quiet() * course[:, None, None]).astype("i4")) is None


def test_a_channel_that_is_noisy_in_all_dumps_stays() -> None:
    counts = quiet((64, 40, 1, 1)).astype(float)
    counts[20] *= 1 + 0.03 * np.random.default_rng(3).standard_normal((40, 1, 1))
    assert found(counts) is None


@pytest.mark.parametrize("dtype", ["i4", "f4"])
def test_counts_so_few_that_rounding_is_more_than_noise(dtype: str) -> None:
    counts = quiet(dtype=dtype)
    counts[10, :] = 406
    counts[10, 5, 0, 1] = 407
    assert found(counts) is None
    counts[10, 5, 0, 1] = 450
    assert np.argwhere(found(counts)).tolist() == [[10, 5, 0, 1]]


def test_fill_is_no_outlier_and_hides_none() -> None:
    counts = quiet()
    counts[:, 1, 0, 0] = FILL_INT32
    counts[7, 2:4] = FILL_INT32
    assert found(counts) is None
    counts[9, 5, 0, 0] *= 2
    assert np.argwhere(found(counts)).tolist() == [[9, 5, 0, 0]]


def test_of_two_dumps_nobody_knows_which_is_right() -> None:
    counts = quiet((64, 2, 1, 1))
    counts[:, 1] *= 2
    assert found(counts) is None


def test_a_device_finds_the_same() -> None:
    counts = quiet()
    counts[10, 2, 1, 0] *= 2
    counts[:, 3, 0, 1] *= 2
    device = strict_backend()
    np.testing.assert_array_equal(found(counts, backend=device), found(counts))
    assert found(quiet(), backend=device) is None


def test_dumps_that_stand_still() -> None:
    counts = quiet()
    counts[:, :, 1, 2] = counts[:, :1, 1, 2]
    mean, steady = counts.mean(axis=1), Steady(8.0, np.full(8, NOISE))
    assert np.argwhere(stands_still(counts, mean, steady, HERE)).tolist() == [[1, 2]]
    few = np.full(counts.shape, 40, np.int32)  # no noise is seen in so few counts
    assert not stands_still(few, few.mean(axis=1), steady, HERE).any()


# --- a whole scan ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def clean() -> SimulatedScan:
    setup = replace(preset("hera", channels=64, dumps=6, n_on=2), sky_drift="none")
    setup = without_lines(replace(setup, fill_fraction=0.0))
    return simulate_scan(setup, "tp", 7, recording=Recording(dtype="i32", seed=2))


def edited(
    made: SimulatedScan, group: str, subscan: int, act: Callable[[Any], None]
) -> SimulatedScan:
    """The scan after ``act`` has changed the counts [C,D,R,A] of one subscan of a group."""
    scan: Scan = made.scans[0]
    old = getattr(scan, group)
    counts = np.array(old.counts.data)
    act(counts[..., subscan])
    changes: dict[str, Any] = {group: replace(old, counts=ArrayCounts(counts))}
    return replace(made, scans=(replace(scan, **changes),))


def said_of(result: CalibratedScan) -> list[str]:
    return [w for w in result.solution.warnings if "far beyond the noise" in w]


PLACES: dict[str, Any] = {
    "dump of a pixel": np.s_[:, 2, 0, 1],
    "dump of all": np.s_[:, 3],
    "sample": np.s_[11, 4, 1, 2],
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    ("group", "subscan"), [("calibration", 0), ("calibration", 1), ("source", 0)]
)
def test_the_result_is_that_without_it(
    clean: SimulatedScan, group: str, subscan: int, place: str
) -> None:
    """As if the samples had never been written, to the last digit; and a warning says which they are."""
    where = PLACES[place]

    def wrong(counts: Any) -> None:
        counts[where] = counts[where] * 1.4

    def lost(counts: Any) -> None:
        counts[where] = FILL_INT32

    config = CalibrationConfig()
    result = calibrated(edited(clean, group, subscan, wrong), config)
    expected = calibrated(edited(clean, group, subscan, lost), config)
    np.testing.assert_array_equal(np.asarray(result.spectra), np.asarray(expected.spectra))
    np.testing.assert_array_equal(np.asarray(result.t_sys), np.asarray(expected.t_sys))
    mode = getattr(clean.scans[0], group).sobsmode[subscan]
    assert any(f"subscan {subscan} ({mode})" in w for w in said_of(result)), (
        result.solution.warnings
    )
    assert not said_of(expected)
    off = calibrated(edited(clean, group, subscan, wrong), CalibrationConfig(spike_sigma=0))
    assert not np.array_equal(np.asarray(off.t_sys), np.asarray(expected.t_sys), equal_nan=True)


def test_little_is_left_out_without_a_word() -> None:
    setup = replace(preset("hera", channels=256, dumps=6, n_on=2), sky_drift="none")
    made = simulate_scan(without_lines(setup), "tp", 7, recording=Recording(dtype="i32", seed=2))

    def wrong(counts: Any) -> None:
        counts[100, 2, 1, 3] *= 3

    result = calibrated(edited(made, "source", 0, wrong), CalibrationConfig())
    expected = calibrated(made, CalibrationConfig())
    assert not said_of(result)
    np.testing.assert_allclose(
        np.asarray(result.spectra), np.asarray(expected.spectra), rtol=0, atol=1.0
    )


def test_a_backend_that_stands_still_is_told_of(clean: SimulatedScan) -> None:
    def stuck(counts: Any) -> None:
        counts[:, :, 1, 0] = counts[:, :1, 1, 0]

    result = calibrated(edited(clean, "source", 0, stuck), CalibrationConfig())
    assert any(
        "equal to the last digit in receiver 1 pixel 0:" in w for w in result.solution.warnings
    )
    assert not any(
        "last digit" in w for w in calibrated(clean, CalibrationConfig()).solution.warnings
    )
