"""Fill-aware mean over dumps: 4 bytes in a sample."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import numpy as np

from bench.harness import Case, main
from bench.kernels.scalar_loops import oracle
from cpu_fallback import NumpyKernels
from gpucal.axes import FILL_INT32
from gpucal.kernel_contract.dump_mean import SubscanDumps

NAME = "dump_mean"

SHAPES = {
    "toy": [(64, 6, 2, 3), (256, 1, 1, 1)],
    "quick": [(4096, 60, 2, 9), (512, 60, 2, 64), (16384, 250, 1, 1)],
    "full": [
        (4096, 60, 2, 9),
        (512, 60, 2, 64),
        (16384, 250, 1, 1),
        (131072, 30, 1, 1),
        (65536, 1, 2, 32),
    ],
}


def cases(size: str, kernels: NumpyKernels) -> Iterator[Case]:
    """All shapes plain, and the first one in its other forms."""
    for shape in SHAPES[size]:
        yield one_case(kernels, shape)
    for form in ("1e-5 fills", "half the dumps", "f32"):
        yield one_case(kernels, SHAPES[size][0], form)


def one_case(kernels: NumpyKernels, shape: tuple[int, ...], form: str = "") -> Case:
    """Counts of ``shape``; ``form`` names a variant."""
    rng = np.random.default_rng(0)
    counts = rng.integers(10000, 60000, shape, dtype=np.int32)
    valid = None
    if form == "1e-5 fills":
        counts[rng.random(shape) < 1e-5] = FILL_INT32
    elif form == "half the dumps":
        valid = np.arange(shape[1]) % 2 == 0
    elif form == "f32":
        counts = counts.astype(np.float32)

    dumps = SubscanDumps(counts, valid)

    def naive() -> object:
        chosen = counts if valid is None else counts[:, valid]
        fill = np.isnan(chosen) if form == "f32" else chosen == FILL_INT32
        mean = np.nanmean(np.where(fill, np.nan, chosen.astype(np.float64)), axis=1)
        return mean, (~fill).sum(axis=1)

    few = counts[: max(1, 5000 // counts[0].size)]
    return Case(
        name=f"{list(shape)} {form}".strip(),
        samples=counts.size,
        nbytes=counts.nbytes + 12 * counts[:, 0].size,
        run=lambda: kernels.dump_mean(dumps),
        naive=naive,
        oracle=lambda: oracle.dump_mean(few, valid),
        oracle_samples=few.size,
    )


if __name__ == "__main__":
    sys.exit(main({NAME: cases}))
