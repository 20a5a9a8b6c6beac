"""The readable form of every kernel: CuPy's ElementwiseKernel and ReductionKernel, one statement a sample.

Broadcast arguments and no tuning. The same contract and, but for chi2, the same bits as the fused form;
several times slower. ``--kernels plain`` chooses it, a fused kernel that cannot be compiled is replaced by
it, and the benches measure the fused form against it. Without a card the same texts are built with g++.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from gpucal.kernel_contract.argument import Array
from gpucal.kernel_contract.calibrate import CALIBRATE as CALIBRATE_CONTRACT
from gpucal.kernel_contract.calibrate import CalibrationTile
from gpucal.kernel_contract.chi2 import CHI2 as CHI2_CONTRACT
from gpucal.kernel_contract.chi2 import SkyFits
from gpucal.kernel_contract.dump_mean import DUMP_MEAN as DUMP_MEAN_CONTRACT
from gpucal.kernel_contract.dump_mean import DumpMean, SubscanDumps
from gpucal.kernel_contract.fold import FOLD as FOLD_CONTRACT
from gpucal.kernel_contract.fold import FoldTile
from gpucal.kernel_contract.reference import REFERENCE as REFERENCE_CONTRACT
from gpucal.kernel_contract.reference import OffPair
from gpucal.kernels.source import FOLDER

OPTIONS = ("--std=c++17", "--fmad=false")
"""a * b + c in two roundings, as NumPy has it."""

SCALAR = (FOLDER / "scalar.cuh").read_text(encoding="utf-8").replace("#pragma once\n", "")
"""is_fill, and conversions of f32 that keep subnormal numbers."""


@dataclass(frozen=True)
class Elementwise:
    """One ``cupy.ElementwiseKernel``; numbers: names of the inputs that are scalars."""

    name: str
    inputs: str
    outputs: str
    operation: str
    preamble: str = ""
    numbers: str = ""

    def scalars(self) -> frozenset[str]:
        """The inputs that are no arrays."""
        return frozenset(self.numbers.split())

    def built(self, loops: Any) -> Any:
        """The kernel; ``loops`` is CuPy, or what stands for it."""
        return loops.ElementwiseKernel(
            *(self.inputs, self.outputs, self.operation, self.name),
            preamble=self.preamble,
            options=OPTIONS,
        )


@dataclass(frozen=True)
class Reduction:
    """One ``cupy.ReductionKernel`` that adds up."""

    name: str
    inputs: str
    output: str
    term: str
    sum_type: str

    def built(self, loops: Any) -> Any:
        """The kernel; ``loops`` is CuPy, or what stands for it."""
        return loops.ReductionKernel(
            *(self.inputs, f"{self.output} total", self.term, "a + b", "total = a", "0"),
            self.name,
            reduce_type=self.sum_type,
            options=OPTIONS,
        )


CALIBRATE = Elementwise(
    "plain_calibrate",
    "C count, float64 reference, float64 factor, uint16 base",
    "O value, uint16 flags",
    """
    unsigned short bits = base;
    const bool bad = bits & BAD_CHANNEL;
    if (is_fill(count) || (!bad && !(isfinite(reference) && isfinite(factor)))) bits |= FILL_VALUE;
    const bool blank = bits & (BAD_CHANNEL | FILL_VALUE);
    value = narrowed<O>(blank ? nan("") : (widened(count) - reference) * factor);
    flags = bits;
    """,
    SCALAR,
)

FILLS = Reduction("plain_fills", "uint16 flags", "int64", "(flags & 2) >> 1", "long long")

_DUMP_MEAN = """
    const long long channel = i / pixels, pixel = i % pixels;
    SUM total = 0;
    int used = 0;
    for (long long d = 0; d < dumps; ++d) {
        const C count = counts[(channel * dumps + d) * pixels + pixel];
        if ((chosen && !valid[d]) || is_fill(count)) continue;
        total += VALUE;
        ++used;
    }
    number = used;
    mean = used ? (double)total / used : nan("");
"""

INTEGER_MEAN, FLOAT_MEAN = (
    Elementwise(
        f"plain_mean_of_{kind}",
        "raw C counts, raw bool valid, bool chosen, int64 dumps, int64 pixels",
        "float64 mean, int32 number",
        _DUMP_MEAN.replace("SUM", total).replace("VALUE", value),
        SCALAR,
        numbers="chosen dumps pixels",
    )
    for kind, total, value in (
        ("integers", "long long", "(long long)count"),
        ("floats", "double", "widened(count)"),
    )
)
"""Dump after dump, as NumPy adds floats; integers exactly."""

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

SKY = Elementwise(
    "plain_sky",
    "float64 p, float64 airmass, float64 amplitude, float64 b, float64 q, float64 c, "
    "float64 value_before, float64 slope_before, float64 bend_before",
    "float64 value, float64 slope, float64 bend",
    """
    const double part = amplitude * exp(-airmass * (b * p + q * p * p + c));
    const double g = -airmass * (b + 2.0 * q * p);
    value = value_before + part;
    slope = slope_before + g * part;
    bend = bend_before + (g * g - 2.0 * airmass * q) * part;
    """,
)
"""One sideband at one point of the channels, added to the model and its derivatives in P."""

_SKY_INPUTS = "float64 w, float64 seen, float64 value, float64 slope, float64 bend"

CHI2_TERMS = tuple(
    Reduction(f"plain_{name}", _SKY_INPUTS, "float64", f"w == 0.0 ? 0.0 : {term}", "double")
    for name, term in (
        ("chi2", "w * (seen - value) * (seen - value)"),
        ("chi2_slope", "-2.0 * w * (seen - value) * slope"),
        ("chi2_bend", "2.0 * w * (slope * slope - (seen - value) * bend)"),
        ("chi2_curvature", "2.0 * w * slope * slope"),
    )
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
        bits |= inside ? flags[here * samples + sample] : FILL_VALUE;
        bits |= near ? flags[other * samples + sample] : FILL_VALUE;
    }
    const double folded = (w[0] * t[0] - w[1] * t[1]) / (w[0] + w[1]) / through;
    if (!isfinite(folded) && !(bits & BAD_CHANNEL)) bits |= FILL_VALUE;
    value = narrowed<O>(isfinite(folded) ? folded : nan(""));
    out_flags = bits;
    """,
    SCALAR,
    numbers="wide dumps receivers beams length",
)


class PlainKernels:
    """A ``KernelSet`` of plain kernels on the current device and its current stream.

    xp: the namespace of the arrays; loops: what has ElementwiseKernel and ReductionKernel, CuPy itself.
    Raises ValueError when arrays do not fit their contract.
    """

    def __init__(self, xp: Any, loops: Any) -> None:
        self._xp = xp
        self._calibrate, self._fills = CALIBRATE.built(loops), FILLS.built(loops)
        self._means = {"f": FLOAT_MEAN.built(loops)}
        self._means |= dict.fromkeys("iu", INTEGER_MEAN.built(loops))
        self._reference, self._fold = REFERENCE.built(loops), FOLD.built(loops)
        self._sky = SKY.built(loops)
        self._terms = [term.built(loops) for term in CHI2_TERMS]

    def calibrate(self, tile: CalibrationTile) -> int:
        """Write T_A* = (C_ON - C_REF) * F and flags; returns the samples with bit 1."""
        CALIBRATE_CONTRACT.check(tile)
        counts, reference, factor, base, out, out_flags = tile
        wide = reference[:, None] if reference.ndim == 3 else reference
        self._calibrate(counts, wide, factor[:, None], base[:, None], out, out_flags)
        return int(self._fills(out_flags))

    def dump_mean(self, dumps: SubscanDumps) -> DumpMean:
        """Mean over dumps without fill samples, and the number of dumps in it."""
        DUMP_MEAN_CONTRACT.check(dumps)
        xp, (counts, valid) = self._xp, dumps
        rows = (counts.shape[0], *counts.shape[2:])
        mean, number = xp.empty(rows, dtype=np.float64), xp.empty(rows, dtype=np.int32)
        marks = xp.ones(1, dtype=np.bool_) if valid is None else valid
        sizes = np.int64(counts.shape[1]), np.int64(rows[1] * rows[2])
        self._means[counts.dtype.kind](
            counts, marks, np.bool_(valid is not None), *sizes, mean, number
        )
        return DumpMean(mean, number)

    def reference(self, offs: OffPair) -> Array:
        """Return (1-w) OFF_1 + w OFF_2, counts, [c,R,A] or [c,D,R,A]."""
        REFERENCE_CONTRACT.check(offs)
        off1, off2, weight = offs
        if weight.ndim == 0:
            return self._reference(off1, off2, weight)
        return self._reference(off1[:, None], off2[:, None], weight[:, None, None])

    def chi2(self, fits: SkyFits) -> Array:
        """Chi2 of the PWV model [K,N], or with its derivatives [4,K,N]."""
        CHI2_CONTRACT.check(fits)
        xp, (channels, n_fits) = self._xp, fits.observed.shape
        terms = self._terms if fits.derivatives else self._terms[:1]
        total = xp.zeros((len(terms), len(fits.pwv), n_fits), dtype=np.float64)
        points = fits.opacity.shape[2]
        airmass = np.float64(fits.airmass)
        for k in range(len(fits.pwv) if channels else 0):
            sky = [xp.zeros((channels, n_fits), dtype=np.float64) for _ in range(3)]
            for sideband in range(2):
                amplitude = fits.amplitude[sideband] / points
                for j in range(points):
                    b, q, c = (fits.opacity[i, sideband, j] for i in range(3))
                    self._sky(fits.pwv[k][None], airmass, amplitude, b, q, c, *sky, *sky)
            for term, sums in zip(terms, total, strict=True):
                sums[k] = term(fits.weight, fits.observed, *sky, axis=0)
        return total if fits.derivatives else total[0]

    def fold(self, tile: FoldTile) -> int:
        """Write both phases of a frequency switch as one; returns the samples with bit 1."""
        FOLD_CONTRACT.check(tile)
        spectra, flags, weight, taps, nearest, transmission, base, out, out_flags = tile
        through = self._xp.ones((1, 1, 1)) if transmission is None else transmission
        sizes = (len(spectra), *out.shape[1:], taps.shape[2])
        self._fold(
            *(spectra, flags, weight, taps, nearest),
            *(through[:, None], base[:, None], *(np.int64(n) for n in sizes), out, out_flags),
        )
        return int(self._fills(out_flags))
