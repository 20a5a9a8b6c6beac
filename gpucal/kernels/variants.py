"""List of all variants of the kernel templates that the host side can use."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np

from gpucal.kernels import calibrate, chi2, dump_mean, fold, reference
from gpucal.kernels.source import C_TYPES, Kernel


def all_kernels() -> list[Kernel]:
    """The variants of all files, each once, for a compiler log or a build ahead of time."""
    counts: list[np.dtype[Any]] = list(C_TYPES)
    spectra = counts[2:]
    found = [
        calibrate.kernel(count, out, per_dump, aligned)
        for count, out in product(counts, spectra)
        for per_dump, aligned in product((False, True), repeat=2)
    ]
    found += [dump_mean.kernel(count, staged) for count in counts for staged in (False, True)]
    found += [reference.kernel(aligned) for aligned in (False, True)]
    found += chi2.kernels()
    found += [fold.kernel(out) for out in spectra]
    return found
