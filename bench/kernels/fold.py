"""Folding a frequency switch: 8 bytes of T' and 2 of flags in, 8 and 2 out a sample.

Beside them weight, transmission and flags of each row are read.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

from bench.harness import Case, main
from bench.kernels.scalar_loops import oracle
from cpu_fallback import NumpyKernels
from gpucal.kernel_contract.fold import FoldTile
from gpucal.physics.fold import fold_shifts

NAME = "fold"

SHAPES = {
    "toy": [(64, 6, 2, 3)],
    "quick": [(1024, 60, 2, 9), (128, 30, 2, 64)],
    "full": [(2048, 60, 2, 9), (256, 30, 2, 64), (8192, 120, 1, 1)],
}


def cases(size: str, kernels: NumpyKernels) -> Iterator[Case]:
    """All shapes between channels, and the first one by whole channels."""
    for shape in SHAPES[size]:
        yield one_case(kernels, shape, 17.3)
    yield one_case(kernels, SHAPES[size][0], 17.0)


def one_case(kernels: NumpyKernels, shape: tuple[int, ...], throw: float) -> Case:
    """Both phases thrown by ``throw`` channels, one up and one down."""
    rng = np.random.default_rng(0)
    channels, _, receivers, pixels = shape
    row = (channels, receivers, pixels)
    shifts = fold_shifts(np.array([[throw], [-throw]]) * np.ones((1, receivers)))
    tables = (shifts.taps, -shifts.whole)
    spectra, flags = rng.normal(0.0, 30.0, shape), np.zeros(shape, np.uint16)
    rows = (rng.uniform(1e-5, 1e-4, row), rng.uniform(0.5, 1.0, row), np.zeros(row, np.uint16))
    weight, through, base_flags = rows
    tile = FoldTile(
        *(spectra, flags, weight, *tables, through, base_flags),
        out=np.empty(shape),
        out_flags=np.empty(shape, np.uint16),
    )
    few = (slice(None), slice(0, 1), slice(0, 1), slice(0, 1))
    of_few = (few[0], *few[2:])
    one = (tables[0][:, :1], tables[1][..., :1], through[of_few], base_flags[of_few])
    return Case(
        name=f"{list(shape)} by {throw}",
        samples=spectra.size,
        nbytes=2 * (spectra.nbytes + flags.nbytes) + sum(a.nbytes for a in rows),
        run=lambda: kernels.fold(tile),
        naive=lambda: naive(spectra, weight, *tables, through),
        oracle=lambda: oracle.fold(spectra[few], flags[few], weight[of_few], *one, np.float64),
        oracle_samples=channels,
    )


def naive(spectra: Any, weight: Any, taps: Any, nearest: Any, through: Any) -> Any:
    """The sum over rolled copies of the whole array, one receiver's throw for all; no flags."""
    half = taps.shape[2] // 2
    t, w = [], []
    for phase in range(2):
        n = int(nearest[phase, 0, 0])
        used = [m for m in range(taps.shape[2]) if taps[phase, 0, m]]
        moved = (taps[phase, 0, m] * np.roll(spectra, half - m - n, axis=0) for m in used)
        t.append(sum(moved))
        w.append(np.roll(weight, -n, axis=0)[:, None])
    return (w[0] * t[0] - w[1] * t[1]) / (w[0] + w[1]) / through[:, None]


if __name__ == "__main__":
    sys.exit(main({NAME: cases}))
