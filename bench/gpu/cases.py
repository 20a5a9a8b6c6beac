"""What ``bench.gpu.kernels`` times: calls of the kernels on arrays that lie on the card."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from bench.gpu.card import Array, Card
from gpucal.axes import FILL_INT32
from gpucal.kernel_contract.calibrate import CalibrationTile
from gpucal.kernel_contract.chi2 import SkyFits
from gpucal.kernel_contract.dump_mean import SubscanDumps
from gpucal.kernel_contract.fold import FoldTile
from gpucal.kernel_contract.reference import OffPair
from gpucal.physics.fold import fold_shifts

MOST_BYTES = {"toy": 1 << 18, "full": 8 << 30}
"""Of one case: several milliseconds, so that a launch is below 1 % of it."""

SHARE_OF_FREE = 6
AIRMASS = 1.3
BLOCK = 1 << 22
"""Random samples made on the host and repeated on the card, larger there than any cache line."""

EXP_OPERATIONS = 20
"""What one exponential counts in the roofline picture; an agreed number, not a measured one."""

CALIBRATE = [
    ("int32", "float64", False, (60, 2, 9)),
    ("int32", "float64", False, (30, 2, 64)),
    ("int32", "float64", False, (60, 2, 7)),
    ("int32", "float64", False, (250, 1, 1)),
    ("int32", "float64", False, (1, 2, 32)),
    ("int32", "float32", False, (60, 2, 9)),
    ("int32", "float32", False, (30, 2, 64)),
    ("int32", "float64", True, (60, 2, 9)),
    ("int32", "float64", True, (30, 2, 64)),
]
DUMP_MEAN = [(60, 2, 9), (60, 2, 64), (60, 2, 7), (250, 1, 1), (1, 2, 32)]
FOLD = [
    (34.3, "float64", (60, 2, 9)),
    (34.3, "float64", (30, 2, 64)),
    (34.3, "float32", (60, 2, 9)),
    (34.0, "float64", (60, 2, 9)),
]
REFERENCE = [(0, 2, 32), (60, 2, 9), (60, 2, 64)]
CHI2 = {
    "toy": [("grid", 9, 3, 300, True), ("newton", 1, 3, 300, True), ("newton", 1, 3, 300, False)],
    "full": [
        ("grid", 100, 128, 65536, True),
        ("grid", 10, 128, 65536, False),
        ("newton", 1, 128, 65536, True),
        ("newton", 1, 128, 65536, False),
    ],
}


@dataclass(frozen=True)
class GpuCase:
    """One shape of one kernel; ``runs`` are the same call on other arrays, taken in turns."""

    bench: str
    case: str
    samples: int
    nbytes: int
    """Bytes that must be read and written, however it is done."""
    operations: float
    runs: list[Callable[[], tuple[Any, ...]]]
    plain: Callable[[], tuple[Any, ...]] | None = None
    """The plain form of the first of ``runs``, with the same results."""


def repeated(card: Card, block: np.ndarray[Any, Any], shape: tuple[int, ...]) -> Array:
    """An array of ``shape`` on the card that holds ``block`` over and over."""
    source = card.xp.asarray(block)
    out = card.xp.empty(shape, dtype=block.dtype)
    flat = out.reshape(-1)
    for start in range(0, flat.size, source.size):
        piece = flat[start : start + source.size]
        piece[...] = source[: piece.size]
    return out


def counts_block(limit: int) -> np.ndarray[Any, np.dtype[np.int32]]:
    """Random counts with 1e-5 fill samples; at most ``limit`` of them."""
    rng = np.random.default_rng(0)
    counts = rng.integers(10000, 60000, min(BLOCK, limit), dtype=np.int32)
    counts[rng.random(counts.size) < 1e-5] = FILL_INT32
    return counts


def normal_block(limit: int, mean: float, sigma: float) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Gaussian numbers; at most ``limit`` of them."""
    return np.random.default_rng(1).normal(mean, sigma, min(BLOCK, limit))


def room(card: Card, size: str) -> int:
    """Bytes of the arrays of one case."""
    return min(MOST_BYTES[size], card.free_bytes // SHARE_OF_FREE)


def calibrate_cases(card: Card, size: str) -> Iterator[GpuCase]:
    """Decode, subtract, scale, flag: the kernel that every sample goes through."""
    xp, limit = card.xp, room(card, size)
    for counts_type, out_type, per_dump, (dumps, *receivers) in CALIBRATE:
        pixels = math.prod(receivers)
        sample = 4 + np.dtype(out_type).itemsize + 2 + 8 * per_dump
        channels = max(1, limit // (pixels * (dumps * sample + 18)))
        shape, row = (channels, dumps, *receivers), (channels, *receivers)
        total = math.prod(shape)
        counts = repeated(card, counts_block(total).astype(counts_type), shape)
        reference = repeated(card, normal_block(total, 3e4, 10.0), shape if per_dump else row)
        factor = repeated(card, normal_block(total, 0.01, 0.001), row)
        flags = xp.zeros(row, dtype=np.uint16)
        out = xp.zeros(shape, dtype=out_type)
        out_flags = xp.zeros(shape, dtype=np.uint16)
        inputs = (counts, reference, factor, flags)
        tile = CalibrationTile(*inputs, out, out_flags)
        fused, plain = into(card, "calibrate", tile)
        form = f"{counts_type}->{out_type}{' per dump' if per_dump else ''}"
        nbytes = sum(a.nbytes for a in tile)
        yield GpuCase(
            "gpu_calibrate", f"{list(shape)} {form}", total, nbytes, 2.0 * total, [fused], plain
        )


def dump_mean_cases(card: Card, size: str) -> Iterator[GpuCase]:
    """Means of HOT, COLD and OFF."""
    for dumps, *receivers in DUMP_MEAN:
        pixels = math.prod(receivers)
        channels = max(1, room(card, size) // (pixels * (4 * dumps + 12)))
        shape = (channels, dumps, *receivers)
        total = math.prod(shape)
        counts = repeated(card, counts_block(total), shape)
        nbytes = counts.nbytes + 12 * channels * pixels
        yield GpuCase(
            *("gpu_dump_mean", f"{list(shape)} int32", total, nbytes, 1.0 * total),
            [partial(card.kernels.dump_mean, SubscanDumps(counts))],
            partial(card.plain.dump_mean, SubscanDumps(counts)),
        )


def reference_cases(card: Card, size: str) -> Iterator[GpuCase]:
    """Between two OFFs, one weight for all dumps or one per dump."""
    for dumps, *receivers in REFERENCE:
        pixels = math.prod(receivers)
        channels = max(1, room(card, size) // (pixels * (16 + 8 * max(1, dumps))))
        row = (channels, *receivers)
        rows = math.prod(row)
        one, two = (repeated(card, normal_block(rows, 3e4, s), row) for s in (10.0, 12.0))
        weight = card.xp.asarray(np.linspace(0.1, 0.9, dumps) if dumps else np.array(0.3))
        offs = OffPair(one, two, weight)

        def run(offs: OffPair = offs) -> tuple[Array]:
            return (card.kernels.reference(offs),)

        total = rows * max(1, dumps)
        case = f"{list(row)} {dumps or 'no'} dumps"
        yield GpuCase(
            *("gpu_reference", case, total, 16 * rows + 8 * total, 3.0 * total),
            [run],
            partial(card.plain.reference, offs),
        )


def chi2_cases(card: Card, size: str) -> Iterator[GpuCase]:
    """The grid of PWV values and one Newton step; each on three sets, as one may fit the cache."""
    for form, trials, fits, channels, shared in CHI2[size]:
        newton, last = form == "newton", 1 if shared else fits
        sets = [chi2_arrays(card, trials, fits, channels, last, seed) for seed in range(3)]
        sky = [SkyFits(pwv, AIRMASS, *tables, derivatives=newton) for pwv, *tables in sets]
        runs = [chi2_run(card, one) for one in sky]
        total = trials * fits * channels
        points = trials * last * channels * 2
        operations = points * (EXP_OPERATIONS + (13 if newton else 7)) + total * (
            12 if newton else 4
        )
        nbytes = sum(a.nbytes for a in sets[0]) + 8 * (4 if newton else 1) * trials * fits
        case = f"{form}{', shared' if shared else ''}: K={trials} N={fits} C={channels}"
        # The grid alone: with derivatives the plain form would be four sums one after another.
        plain = None if newton else partial(card.plain.chi2, sky[0])
        yield GpuCase("gpu_chi2", case, total, nbytes, float(operations), runs, plain)


def chi2_run(card: Card, fits: SkyFits) -> Callable[[], tuple[Any, ...]]:
    """One call of the kernel."""
    return lambda: (card.kernels.chi2(fits),)


def chi2_arrays(
    card: Card, trials: int, fits: int, channels: int, last: int, seed: int
) -> list[Array]:
    """PWV, observed, weight, amplitude, opacity: two sidebands, one point inside each channel."""
    rng = np.random.default_rng(seed)
    pwv = np.geomspace(0.05, 5.0, trials * last).reshape(trials, last)
    arrays = [
        np.ascontiguousarray(pwv),
        rng.normal(-120.0, 40.0, (channels, fits)),
        rng.uniform(0.01, 1.0, (channels, fits)),
        rng.normal(-120.0, 10.0, (2, channels, last)),
        rng.uniform(0.0, 0.3, (3, 2, 1, channels, last)),
    ]
    on_card = [card.xp.asarray(a) for a in arrays]
    # One grid for all fits, as the pipeline hands it over.
    on_card[0] = card.xp.broadcast_to(on_card[0], (trials, fits))
    return on_card


def fold_cases(card: Card, size: str) -> Iterator[GpuCase]:
    """Frequency switch: both phases moved by their throw, 33 taps each, or by whole channels."""
    xp, limit = card.xp, room(card, size)
    for throw, out_type, (dumps, *receivers) in FOLD:
        pixels = math.prod(receivers)
        sample = 8 + 2 + np.dtype(out_type).itemsize + 2
        channels = max(1, limit // (pixels * (dumps * sample + 18)))
        shape, row = (channels, dumps, *receivers), (channels, *receivers)
        total = math.prod(shape)
        shifts = fold_shifts(np.array([[throw], [-throw]]) * np.ones((1, receivers[0])))
        taps = int(np.count_nonzero(shifts.taps[0, 0]))
        inputs = (
            repeated(card, normal_block(total, 0.0, 30.0), shape),
            xp.zeros(shape, dtype=np.uint16),
            repeated(card, normal_block(total, 1e-4, 1e-6), row),
            *(xp.asarray(shifts.taps), xp.asarray(-shifts.whole)),
            repeated(card, normal_block(total, 0.8, 0.01), row),
            xp.zeros(row, dtype=np.uint16),
        )
        tile = FoldTile(
            *inputs,
            out=xp.zeros(shape, dtype=out_type),
            out_flags=xp.zeros(shape, dtype=np.uint16),
        )
        fused, plain = into(card, "fold", tile)
        yield GpuCase(
            *("gpu_fold", f"{list(shape)} by {throw} {out_type}", total),
            *(sum(a.nbytes for a in tile), (4.0 * taps + 6.0) * total),
            *([fused], plain),
        )


def into(
    card: Card, name: str, tile: CalibrationTile | FoldTile
) -> tuple[Callable[[], tuple[Any, ...]], Callable[[], tuple[Any, ...]]]:
    """The kernel ``name``, which writes into arrays, and its plain form, which has its own."""

    def fused() -> tuple[Any, ...]:
        return (tile.out, tile.out_flags, getattr(card.kernels, name)(tile))

    own: list[Any] = []

    def plain() -> tuple[Any, ...]:
        # Allocated when first called: a case without its plain form has no use for them.
        if not own:
            outputs = [card.xp.zeros_like(a) for a in (tile.out, tile.out_flags)]
            own.append(tile._replace(out=outputs[0], out_flags=outputs[1]))
        found: tuple[Any, ...] = getattr(card.plain, name)(own[0])
        return found

    return fused, plain


CASES: dict[str, Callable[[Card, str], Iterator[GpuCase]]] = {
    "calibrate": calibrate_cases,
    "dump_mean": dump_mean_cases,
    "reference": reference_cases,
    "chi2": chi2_cases,
    "fold": fold_cases,
}
