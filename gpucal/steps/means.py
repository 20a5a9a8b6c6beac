"""Dump means of streamed counts, which are read block by block, once, and reduced to [C,R,A]."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor
from contextlib import closing
from typing import Any

import numpy as np

from gpucal.axes import FILL_INT32
from gpucal.backend.protocol import Backend
from gpucal.kernel_contract.dump_mean import SubscanDumps
from gpucal.products import GainDrift, MeanKey, SubscanMean
from gpucal.scan import CountsSource, SubscanGroup
from gpucal.steps.hot_cold.gain_drift import corrected
from gpucal.steps.judge.references import Judge

Array = Any
BLOCK_BYTES = 16 << 20
MEAN_LANES = 4
"""Blocks in flight: OFF means are made while another scan streams."""


def dump_means(
    group: SubscanGroup,
    keys: Sequence[MeanKey],
    backend: Backend,
    *,
    pool: Executor | None = None,
    drift: GainDrift | None = None,
    judge: Judge | None = None,
) -> dict[MeanKey, SubscanMean]:
    """Fill-aware mean over dumps of several subscans.

    Returns one f64 [C,R,A] array of the backend per key, counts, NaN where no dump is valid, with the
    integration time of its valid dumps. With ``drift`` each dump is first put on the gain of the
    first load scan (physics section 8). What the ``judge`` finds beyond noise is left out (4.5).
    """
    _, _, n_rec, n_pix, _ = group.shape
    n_chan = group.shape[0]
    unique = list(dict.fromkeys(keys))
    out = {k: np.empty((n_chan, n_rec, n_pix)) for k in unique}
    most = {k: [0] for k in unique}
    by_subscan: dict[int, list[MeanKey]] = {}
    for key in unique:
        by_subscan.setdefault(key.subscan, []).append(key)

    lanes = backend.lanes(MEAN_LANES)

    def reduce_block(task: tuple[int, int, int]) -> None:
        with lanes.take() as lane:
            subscan, c0, c1 = task
            read = lane.read(0, group.counts, c0, c1, subscan)
            reduce_counts(measured(read, backend.xp), subscan, c0, c1)

    def reduce_counts(counts: Array, subscan: int, c0: int, c1: int) -> None:
        if drift is not None:
            counts = corrected(counts, group.mjd[:, subscan], drift, c0, c1, backend)
        for key in by_subscan[subscan]:
            valid = _phase_mask(group, key, backend)
            mean, n = backend.kernels.dump_mean(SubscanDumps(counts, valid))
            if judge is not None:
                left = judge.without(counts, mean, group, key, c0)
                if left is not None:
                    mean, n = backend.kernels.dump_mean(SubscanDumps(left, valid))
            out[key][c0:c1] = backend.to_host(mean)
            most[key].append(int(backend.xp.max(n)))

    tasks = [(s, c0, c1) for s in by_subscan for c0, c1 in channel_blocks(group.counts)]
    with closing(lanes):
        run_all(reduce_block, tasks, pool)
    return {
        k: SubscanMean(
            backend.asarray(v),
            max(most[k]) * float(np.mean(group.recorded_of(group.exptime, k.subscan))),
        )
        for k, v in out.items()
    }


def measured(counts: Array, xp: Any) -> Array:
    """Counts [c,D,R,A] in which every sample that cannot be a power is fill.

    A total power is positive and lies below the end of its format: zeros, negative numbers and the
    largest number of the type mean a dead channel, a lost packet or a saturated converter. i32 becomes
    INT32_MIN there, floats NaN; u32, which has no fill value, becomes f64. Counts without such samples
    are returned as they are.
    """
    end = _end_of_format(counts.dtype)
    # One minimum and one maximum are cheaper than a mask, and nearly always all that is needed.
    low, high = xp.min(counts), xp.max(counts)
    if bool((low > 0) & (high < end)):
        return counts
    good = (counts > 0) & (counts < end)
    if bool(xp.all(good)):
        return counts
    if counts.dtype == xp.int32:
        return xp.where(good, counts, xp.asarray(FILL_INT32, dtype=xp.int32))
    if counts.dtype == xp.uint32:
        counts = xp.astype(counts, xp.float64)
    return xp.where(good, counts, xp.asarray(np.nan, dtype=counts.dtype))


def _end_of_format(dtype: Any) -> float | int:
    """The largest number of a type: what a saturated converter writes."""
    known = np.dtype(str(dtype).rsplit(".", 1)[-1])
    if known.kind == "f":
        return float(np.finfo(known).max)
    return int(np.iinfo(known).max)


def run_all(work: Callable[[Any], None], tasks: Iterable[Any], pool: Executor | None) -> None:
    """Run ``work`` on every task, on the pool when there is one; the first error is raised."""
    if pool is None:
        for task in tasks:
            work(task)
    else:
        list(pool.map(work, tasks))


def channel_blocks(counts: CountsSource, limit: int = BLOCK_BYTES) -> list[tuple[int, int]]:
    """Split the channels of one subscan into blocks of whole chunks of about ``limit`` bytes."""
    c, d, r, a, _ = counts.shape
    per_channel = max(1, d * r * a * counts.dtype.itemsize)
    step = max(1, counts.chunks[0])
    step *= max(1, math.floor(limit / (per_channel * step)))
    return [(c0, min(c0 + step, c)) for c0 in range(0, c, step)]


def _phase_mask(group: SubscanGroup, key: MeanKey, backend: Backend) -> Array | None:
    """Dumps of the chop phase of ``key``, bool [D]; None: all dumps."""
    if key.phase is None:
        return None
    assert group.chop_phase is not None
    return backend.asarray(group.chop_phase[:, key.subscan] == key.phase)


def mean_time(group: SubscanGroup, subscans: Sequence[int]) -> tuple[float, float]:
    """Mid-time (MJD) and total integration time (s) of several subscans, without their padding."""
    reference = float(group.mjd[0, subscans[0]])
    total = offset = 0.0
    for subscan in subscans:
        weights = group.recorded_of(group.exptime, subscan)
        total += float(np.sum(weights))
        offset += float(np.sum(weights * (group.recorded_of(group.mjd, subscan) - reference)))
    return reference + offset / total, total
