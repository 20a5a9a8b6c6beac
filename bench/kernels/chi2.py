"""Chi2 of the PWV model: a sample is one trial value of one fit in one channel.

Exponentials, not memory, bound it: read the ratio to naive NumPy, not the one to the copy.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import numpy as np

from bench.harness import Case, main
from bench.kernels.scalar_loops import oracle
from cpu_fallback import NumpyKernels
from gpucal.kernel_contract.chi2 import SkyFits

NAME = "chi2"

SHAPES = {
    "toy": [("grid, shared", 5, 3, 40), ("newton", 1, 3, 40)],
    "quick": [
        ("grid, shared", 100, 18, 4096),
        ("newton, shared", 1, 18, 4096),
        ("newton", 1, 18, 4096),
    ],
    "full": [
        ("grid, shared", 100, 1, 65536),
        ("grid, shared", 100, 18, 16384),
        ("grid, shared", 100, 128, 2048),
        ("grid", 10, 18, 16384),
        ("newton, shared", 1, 18, 65536),
        ("newton", 1, 18, 65536),
        ("newton, shared", 1, 128, 16384),
    ],
}


def cases(size: str, kernels: NumpyKernels) -> Iterator[Case]:
    """Grids of one P for all fits, and Newton steps with derivatives and a P of each fit."""
    for form, trials, fits, channels in SHAPES[size]:
        yield one_case(kernels, form, trials, fits, channels)


def one_case(kernels: NumpyKernels, form: str, trials: int, fits: int, channels: int) -> Case:
    """A model of two sidebands and one point inside each channel."""
    rng = np.random.default_rng(0)
    newton = form.startswith("newton")
    last = 1 if form.endswith("shared") else fits
    pwv = np.geomspace(0.05, 5.0, trials * (fits if newton else 1)).reshape(trials, -1)
    observed = rng.normal(-120.0, 40.0, (channels, fits))
    weight = rng.uniform(0.01, 1.0, (channels, fits))
    amplitude = rng.normal(-120.0, 10.0, (2, channels, last))
    opacity = rng.uniform(0.0, 0.3, (3, 2, 1, channels, last))
    arrays = [observed, weight, amplitude, opacity]

    fit = SkyFits(pwv, 1.3, *arrays, derivatives=newton)

    def naive() -> object:
        b, q, c = opacity
        sums = []
        for p in np.broadcast_to(pwv, (trials, fits)):
            slope, t = -1.3 * (b + 2 * q * p), np.exp(-1.3 * (b * p + q * p * p + c))
            r = observed - (amplitude * t.mean(axis=1)).sum(axis=0)
            sums.append([(weight * r * r).sum(axis=0)])
            if newton:
                s1 = (amplitude * (slope * t).mean(axis=1)).sum(axis=0)
                s2 = (amplitude * ((slope * slope - 2.6 * q) * t).mean(axis=1)).sum(axis=0)
                sums[-1].append((-2 * weight * r * s1).sum(axis=0))
                sums[-1].append((2 * weight * (s1 * s1 - r * s2)).sum(axis=0))
                sums[-1].append((2 * weight * s1 * s1).sum(axis=0))
        return np.array(sums)

    few = max(1, 500 // (trials * fits))
    piece = [a[..., :few, :] for a in arrays]
    return Case(
        name=f"{form}: K={trials} N={fits} C={channels}",
        samples=trials * fits * channels,
        nbytes=sum(a.nbytes for a in arrays),
        run=lambda: kernels.chi2(fit),
        naive=naive,
        oracle=lambda: oracle.chi2(pwv, 1.3, *piece),
        oracle_samples=trials * fits * few,
    )


if __name__ == "__main__":
    sys.exit(main({NAME: cases}))
