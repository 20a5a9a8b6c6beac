"""T_A* = (C_ON - C_REF) * F: 4 bytes of counts in, 8 of spectra and 2 of flags out a sample.

Beside them 18 bytes a row are read: reference, factor and base flags.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import numpy as np

from bench.harness import Case, main
from bench.kernels.scalar_loops import oracle
from cpu_fallback import NumpyKernels
from gpucal import Flag
from gpucal.axes import FILL_INT32
from gpucal.kernel_contract.calibrate import CalibrationTile

NAME = "calibrate"

SHAPES = {
    "toy": [(64, 6, 2, 3), (256, 1, 1, 1)],
    "quick": [(4096, 60, 2, 9), (512, 30, 2, 64), (16384, 250, 1, 1), (65536, 1, 2, 32)],
    "full": [
        (4096, 60, 2, 9),
        (512, 30, 2, 64),
        (1024, 60, 2, 7),
        (16384, 250, 1, 1),
        (131072, 30, 1, 1),
        (65536, 1, 2, 32),
        (32, 4000, 2, 16),
    ],
}


def cases(size: str, kernels: NumpyKernels) -> Iterator[Case]:
    """All shapes plain, and the first one in its other forms."""
    for shape in SHAPES[size]:
        yield one_case(kernels, shape)
    first = SHAPES[size][0]
    yield one_case(kernels, first, form="1e-5 fills")
    yield one_case(kernels, first, form="flagged rows")
    if size != "quick":
        yield one_case(kernels, first, form="per dump")
        yield one_case(kernels, first, form="f32 out")
        yield one_case(kernels, first, form="f32 in")


def one_case(kernels: NumpyKernels, shape: tuple[int, ...], form: str = "") -> Case:
    """Counts of ``shape`` and what belongs to them; ``form`` names a variant."""
    rng = np.random.default_rng(0)
    row = (shape[0], *shape[2:])
    counts = rng.integers(10000, 60000, shape, dtype=np.int32)
    reference = rng.normal(3e4, 10.0, shape if form == "per dump" else row)
    factor = rng.normal(0.01, 0.001, row)
    flags = np.zeros(row, np.uint16)
    if form == "1e-5 fills":
        counts[rng.random(shape) < 1e-5] = FILL_INT32
    elif form == "flagged rows":
        flags[rng.random(row) < 0.05] = Flag.BAD_CHANNEL
    elif form == "f32 in":
        counts = counts.astype(np.float32)
    out = np.zeros(shape, np.float32 if form == "f32 out" else np.float64)
    out_flags = np.zeros(shape, np.uint16)

    tile = CalibrationTile(counts, reference, factor, flags, out, out_flags)

    def naive() -> object:
        wide = reference if form == "per dump" else reference[:, None]
        fill = np.isnan(counts) if form == "f32 in" else counts == FILL_INT32
        blank = fill | (flags[:, None] & Flag.BAD_CHANNEL != 0)
        spectra = np.where(blank, np.nan, (counts - wide) * factor[:, None]).astype(out.dtype)
        return spectra, np.where(fill, flags[:, None] | np.uint16(2), flags[:, None])

    few = max(1, 2000 // (shape[1] * shape[2] * shape[3]))
    arrays = [a[:few] for a in (counts, reference, factor, flags)]
    if few == 1:
        arrays[0] = arrays[0][:, :20]
        arrays[1] = arrays[1] if form != "per dump" else arrays[1][:, :20]
    return Case(
        name=f"{list(shape)} {form}".strip(),
        samples=counts.size,
        nbytes=sum(a.nbytes for a in tile),
        run=lambda: kernels.calibrate(tile),
        naive=naive,
        oracle=lambda: oracle.calibrate(*arrays, out.dtype),
        oracle_samples=arrays[0].size,
    )


if __name__ == "__main__":
    sys.exit(main({NAME: cases}))
