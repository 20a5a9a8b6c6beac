"""(1-w) OFF_1 + w OFF_2: 16 bytes in, 8 out a row; or 8 out a sample with one w per dump."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import numpy as np

from bench.harness import Case, main
from bench.kernels.scalar_loops import oracle
from cpu_fallback import NumpyKernels
from gpucal.kernel_contract.reference import OffPair

NAME = "reference"

SHAPES: dict[str, list[tuple[tuple[int, int, int], int]]] = {
    "toy": [((64, 2, 3), 0), ((64, 2, 3), 5)],
    "quick": [((65536, 2, 32), 0), ((4096, 2, 9), 60)],
    "full": [((65536, 2, 32), 0), ((4096, 2, 9), 60), ((512, 2, 64), 60), ((16384, 1, 1), 250)],
}


def cases(size: str, kernels: NumpyKernels) -> Iterator[Case]:
    """One w for all (no dumps), and one w per dump."""
    for shape, dumps in SHAPES[size]:
        yield one_case(kernels, shape, dumps)


def one_case(kernels: NumpyKernels, shape: tuple[int, int, int], dumps: int) -> Case:
    """Two OFF means of [c,R,A]; ``dumps`` is 0 for a scalar weight."""
    rng = np.random.default_rng(0)
    off1, off2 = rng.normal(3e4, 10.0, shape), rng.normal(3e4, 10.0, shape)
    weight = np.linspace(0.1, 0.9, dumps) if dumps else np.array(0.3)

    offs = OffPair(off1, off2, weight)

    def naive() -> object:
        w = weight[:, None, None] if dumps else weight
        a, b = (off1[:, None], off2[:, None]) if dumps else (off1, off2)
        blend = (1 - w) * a + w * b
        return np.where(np.isnan(a), b, np.where(np.isnan(b), a, blend))

    samples = off1.size * max(1, dumps)
    few = max(1, 5000 // (samples // shape[0]))
    return Case(
        name=f"{list(shape)} {dumps or 'no'} dumps",
        samples=samples,
        nbytes=16 * off1.size + 8 * samples,
        run=lambda: kernels.reference(offs),
        naive=naive,
        oracle=lambda: oracle.reference(off1[:few], off2[:few], weight),
        oracle_samples=samples // shape[0] * few,
    )


if __name__ == "__main__":
    sys.exit(main({NAME: cases}))
