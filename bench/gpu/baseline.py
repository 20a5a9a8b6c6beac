"""The plain first form of each kernel, as CuPy's ElementwiseKernel or ReductionKernel.

Broadcast arguments, one statement a sample, no tuning: what the kernels of ``gpucal.kernels`` are
measured against, and checked against first. Where no card is, ``host_loops`` builds the same texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpucal.kernel_contract.calibrate import CalibrationTile
from gpucal.kernel_contract.chi2 import SkyFits
from gpucal.kernel_contract.dump_mean import SubscanDumps
from gpucal.kernel_contract.fold import FoldTile
from gpucal.kernel_contract.reference import OffPair

Array = Any

FLAGS = """
__device__ __forceinline__ bool no_data(int count) { return count == -2147483647 - 1; }
__device__ __forceinline__ bool no_data(unsigned int) { return false; }
__device__ __forceinline__ bool no_data(float count) { return !isfinite(count); }
__device__ __forceinline__ bool no_data(double count) { return !isfinite(count); }
"""


@dataclass(frozen=True)
class Elementwise:
    """One ``cupy.ElementwiseKernel``."""

    name: str
    inputs: str
    outputs: str
    operation: str
    preamble: str = ""
    numbers: str = ""
    """Names of the inputs that are scalars."""

    def scalars(self) -> frozenset[str]:
        """The inputs that are no arrays."""
        return frozenset(self.numbers.split())

    def built(self, loops: Any) -> Any:
        """The kernel; ``loops`` is CuPy or ``bench.host_loops``."""
        return loops.ElementwiseKernel(
            self.inputs, self.outputs, self.operation, self.name, preamble=self.preamble
        )


@dataclass(frozen=True)
class Reduction:
    """One ``cupy.ReductionKernel`` that adds up."""

    name: str
    inputs: str
    output: str
    term: str
    sum_type: str
    preamble: str = ""

    def built(self, loops: Any) -> Any:
        """The kernel; ``loops`` is CuPy or ``bench.host_loops``."""
        return loops.ReductionKernel(
            *(self.inputs, f"{self.output} total", self.term, "a + b", "total = a", "0"),
            self.name,
            reduce_type=self.sum_type,
            preamble=self.preamble,
        )


CALIBRATE = Elementwise(
    "plain_calibrate",
    "C count, float64 reference, float64 factor, uint16 base",
    "O value, uint16 flags",
    """
    unsigned short bits = base;
    const bool bad = bits & 1;
    const bool lost = no_data(count) || (!bad && !(isfinite(reference) && isfinite(factor)));
    if (lost) bits |= 2;
    value = (bits & 3) ? (O)nan("") : (O)(((double)count - reference) * factor);
    flags = bits;
    """,
    FLAGS,
)

FILLS = Reduction("plain_fills", "uint16 flags", "int64", "(flags & 2) >> 1", "long long")

COUNT_SUM = Reduction(
    "plain_sum", "C count", "int64", "no_data(count) ? 0ll : (long long)count", "long long", FLAGS
)
COUNT_NUMBER = Reduction("plain_number", "C count", "int32", "no_data(count) ? 0 : 1", "int", FLAGS)

REFERENCE = Elementwise(
    "plain_reference",
    "float64 first, float64 second, float64 w",
    "float64 out",
    """
    if (isnan(first)) out = second;
    else if (isnan(second)) out = first;
    else if (w == 0.0) out = first;
    else if (w == 1.0) out = second;
    else out = (1.0 - w) * first + w * second;
    """,
)

CHI2 = Reduction(
    "plain_chi2",
    "float64 p, float64 seen, float64 weight, float64 amp0, float64 amp1, "
    "float64 b0, float64 q0, float64 c0, float64 b1, float64 q1, float64 c1, float64 airmass",
    "float64",
    "weight == 0.0 ? 0.0 : weighted(seen - amp0 * sky(p, b0, q0, c0, airmass) "
    "- amp1 * sky(p, b1, q1, c1, airmass), weight)",
    "double",
    """
__device__ __forceinline__ double sky(double p, double b, double q, double c, double airmass) {
    return exp(-airmass * ((q * p + b) * p + c));
}
__device__ __forceinline__ double weighted(double residual, double weight) {
    return weight * residual * residual;
}
""",
)

FOLD = Elementwise(
    "plain_fold",
    "raw float64 spectra, raw uint16 flags, raw float64 weight, raw float64 taps, raw int64 nearest, "
    "float64 through, uint16 base, int64 wide, int64 dumps, int64 receivers, int64 beams, int64 length",
    "O value, uint16 out_flags",
    """
    const long long pixels = receivers * beams, samples = dumps * pixels;
    const long long channel = i / samples, sample = i % samples, pixel = sample % pixels;
    const long long r = pixel / beams;
    double t[2], w[2];
    unsigned short bits = base & ~1;
    for (int p = 0; p < 2; ++p) {
        const long long here = nearest[(2 * p) * receivers + r] + channel;
        const long long other = nearest[(2 * p + 1) * receivers + r] + channel;
        const bool whole = here == other;
        double total = 0.0, norm = 0.0;
        bool blank = false;
        for (long long m = whole ? length / 2 : 0; m < (whole ? length / 2 + 1 : length); ++m) {
            const long long at = here + m - length / 2;
            const double x = at >= 0 && at < wide ? spectra[at * samples + sample] : nan("");
            const double tap = taps[(p * receivers + r) * length + m];
            if (isnan(x)) blank |= at == here || at == other;
            else { total += tap * x; norm += tap; }
        }
        t[p] = blank ? nan("") : total / (norm == 0.0 ? 1.0 : norm);
        const bool inside = here >= 0 && here < wide, near = other >= 0 && other < wide;
        w[p] = inside ? weight[here * pixels + pixel] : nan("");
        bits |= inside ? flags[here * samples + sample] : (unsigned short)2;
        bits |= near ? flags[other * samples + sample] : (unsigned short)2;
    }
    const double folded = (w[0] * t[0] - w[1] * t[1]) / (w[0] + w[1]) / through;
    if (!isfinite(folded) && !(bits & 1)) bits |= 2;
    value = isfinite(folded) ? (O)folded : (O)nan("");
    out_flags = bits;
    """,
    numbers="wide dumps receivers beams length",
)


PIECE = 1 << 24
"""Samples that are compared at a time."""


class PlainKernels:
    """The five functions in their plain form; each returns what the kernel returns or writes."""

    def __init__(self, xp: Any, loops: Any) -> None:
        self._xp = xp
        self._calibrate = CALIBRATE.built(loops)
        self._fills = FILLS.built(loops)
        self._sum, self._number = COUNT_SUM.built(loops), COUNT_NUMBER.built(loops)
        self._reference = REFERENCE.built(loops)
        self._chi2 = CHI2.built(loops)
        self._fold = FOLD.built(loops)

    def calibrate(self, tile: CalibrationTile) -> tuple[Array, Array, int]:
        """Into ``out`` and ``out_flags``; see ``gpucal.kernel_contract.calibrate``."""
        counts, reference, factor, base_flags, out, out_flags = tile
        wide = reference[:, None] if reference.ndim == 3 else reference
        self._calibrate(counts, wide, factor[:, None], base_flags[:, None], out, out_flags)
        return out, out_flags, int(self._fills(out_flags))

    def dump_mean(self, dumps: SubscanDumps) -> tuple[Array, Array]:
        """All dumps of integer counts; see ``gpucal.kernel_contract.dump_mean``."""
        number = self._number(dumps.counts, axis=1)
        return self._sum(dumps.counts, axis=1) / number, number

    def reference(self, offs: OffPair) -> tuple[Array]:
        """One weight, or one for each dump; see ``gpucal.kernel_contract.reference``."""
        off1, off2, weight = offs
        if weight.ndim == 0:
            return (self._reference(off1, off2, weight),)
        return (self._reference(off1[:, None], off2[:, None], weight[:, None, None]),)

    def chi2(self, fits: SkyFits) -> tuple[Array]:
        """The value without derivatives, one point in a channel; see ``gpucal.kernel_contract.chi2``.

        Raises ValueError for more points.
        """
        opacity, amplitude = fits.opacity, fits.amplitude
        if opacity.shape[2] != 1:
            raise ValueError(f"opacity has {opacity.shape[2]} points in a channel, expected 1.")
        tables = [opacity[i, k, 0] for k in range(2) for i in range(3)]
        return (
            self._chi2(
                *(
                    fits.pwv[:, None],
                    fits.observed,
                    fits.weight,
                    amplitude[0],
                    amplitude[1],
                    *tables,
                ),
                self._xp.full((1, 1, 1), fits.airmass),
                axis=1,
            ),
        )

    def fold(self, tile: FoldTile) -> tuple[Array, Array, int]:
        """Into ``out`` and ``out_flags``, with a transmission; see ``gpucal.kernel_contract.fold``."""
        spectra, flags, weight, taps, nearest, transmission, base_flags, out, out_flags = tile
        sizes = (len(spectra), *out.shape[1:], taps.shape[2])
        self._fold(
            *(spectra, flags, weight, taps, nearest),
            *(transmission[:, None], base_flags[:, None], *(np.int64(n) for n in sizes)),
            *(out, out_flags),
        )
        return out, out_flags, int(self._fills(out_flags))


def disagreement(found: Sequence[Any], expected: Sequence[Any], xp: Any) -> float:
    """Largest |a - b| over the larger of |b| and the rms of b around it; infinite where integers or
    the places of NaN differ. Works through large arrays piece by piece."""
    worst = 0.0
    for a, b in zip(found, expected, strict=True):
        if isinstance(b, int) or b.dtype.kind in "iu":
            same = a == b if isinstance(b, int) else bool((a == b).all())
            worst = worst if same else np.inf
            continue
        one, other = a.reshape(-1), b.reshape(-1)
        for start in range(0, one.size, PIECE):
            x, y = one[start : start + PIECE], other[start : start + PIECE]
            seen = xp.isfinite(y)
            if not bool((xp.isfinite(x) == seen).all()):
                return np.inf
            x, y = xp.where(seen, x, 0.0), xp.where(seen, y, 0.0)
            scale = xp.maximum(abs(y), xp.sqrt(xp.mean(y * y, dtype=np.float64)))
            worst = max(worst, float(xp.max(abs(x - y) / xp.maximum(scale, 1e-300))))
    return worst
