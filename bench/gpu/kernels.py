"""Times the kernels on a card against its own device-to-device copy: CUDA events, one run.

    python -m bench.gpu.kernels --save          on a machine with a card
    python -m bench.gpu.kernels --toy           on a card, toy sizes: for a memory checker
    python -m bench.gpu.kernels --dry           the same path on NumPy: measures nothing

Beside each kernel runs its plain form (``gpucal.kernels.plain``): first for its results, which must agree,
then for its time. A time is that of one call as the pipeline makes it, so launches and allocations are in it; sizes are
such that they hardly count. Calibrate also waits for the number it returns.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from bench import harness
from bench.gpu.baseline import disagreement
from bench.gpu.card import Card, cuda_card, host_card
from bench.gpu.cases import CASES, EXP_OPERATIONS, GpuCase, normal_block, repeated, room
from gpucal import BackendError

DRY_NOTE = "dry run: no GPU number"

AGREEMENT = 1e-12
"""Largest difference of a kernel from its plain form, relative to the sample or the rms around it."""

REPEATS = {"toy": 3, "full": 40}
WARM_UP = {"toy": 1, "full": 3}


@dataclass(frozen=True)
class GpuResult:
    """One line of the results file; seconds are per call."""

    bench: str
    case: str
    form: str
    """"kernel", or "plain" for the ElementwiseKernel or ReductionKernel it is measured against."""
    size: str
    repeats: int
    samples: int
    nbytes: int
    operations: float
    seconds_median: float
    seconds_sem: float
    seconds_min: float
    seconds_max: float
    msamples_per_s: float
    gb_per_s: float
    copy_gb_per_s: float
    copy_gb_per_s_sem: float
    ratio_to_copy: float
    ratio_to_plain: float | None
    difference: float | None
    """Largest relative difference of the two forms."""
    device: str
    date: str
    versions: dict[str, str]


class Copy:
    """The device-to-device copy to which everything is compared."""

    def __init__(self, card: Card, size: str) -> None:
        count = room(card, size) // 16
        self.source = repeated(card, normal_block(count, 0.0, 1.0), (count,))
        self.target = card.xp.zeros(count)
        self.nbytes = 2 * self.source.nbytes
        self._copyto = card.xp.copyto

    def run(self) -> None:
        """Copy once."""
        self._copyto(self.target, self.source)


def copy_rate(card: Card, size: str) -> float:
    """GB/s of the device-to-device copy, read and written; the median of some."""
    copy = Copy(card, size)
    copy.run()
    rate: float = copy.nbytes / statistics.median(card.seconds(copy.run) for _ in range(10)) / 1e9
    del copy
    card.release()
    return rate


def sem(values: Sequence[float]) -> float:
    """Standard error of the mean; NaN for a single value."""
    return statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan


def measure(card: Card, case: GpuCase, copy: Copy, size: str) -> list[GpuResult]:
    """Time the case, its plain form and the copy in turns, after a warm-up that compiles.

    Raises ValueError when the two forms disagree.
    """
    difference = None
    forms: dict[str, Sequence[Callable[[], object]]] = {"kernel": case.runs}
    if case.plain is not None and card.has_plain:
        forms["plain"] = [case.plain]
        difference = disagreement(case.plain(), case.runs[0](), card.xp)
        if difference > AGREEMENT:
            raise ValueError(
                f"{case.bench} {case.case}: the plain form differs by {difference:.1e}"
            )
    forms["copy"] = [copy.run]
    for run in [run for runs in forms.values() for run in runs] * WARM_UP[size]:
        run()
    times: dict[str, list[float]] = {form: [] for form in forms}
    for i in range(REPEATS[size]):
        for form, runs in forms.items():
            times[form].append(card.seconds(runs[i % len(runs)]))
    copied = times.pop("copy")
    return [_result(card, case, copy, size, form, times, copied, difference) for form in times]


def _result(
    card: Card,
    case: GpuCase,
    copy: Copy,
    size: str,
    form: str,
    times: dict[str, list[float]],
    copied: list[float],
    difference: float | None,
) -> GpuResult:
    own = times[form]
    median, copy_median = statistics.median(own), statistics.median(copied)
    copy_rate = copy.nbytes / copy_median / 1e9
    plain = statistics.median(times["plain"]) if "plain" in times else None
    return GpuResult(
        bench=case.bench,
        case=case.case,
        form=form,
        size=size,
        repeats=len(own),
        samples=case.samples,
        nbytes=case.nbytes,
        operations=case.operations,
        seconds_median=median,
        seconds_sem=sem(own),
        seconds_min=min(own),
        seconds_max=max(own),
        msamples_per_s=case.samples / median / 1e6,
        gb_per_s=case.nbytes / median / 1e9,
        copy_gb_per_s=copy_rate,
        copy_gb_per_s_sem=copy_rate * sem(copied) / copy_median,
        ratio_to_copy=case.nbytes / median / 1e9 / copy_rate,
        ratio_to_plain=None if plain is None else plain / median,
        difference=difference,
        device=card.name,
        date=harness.now(),
        versions=card.versions,
    )


def run_bench(
    card: Card,
    size: str,
    only: Sequence[str] = (),
    keep: Callable[[Sequence[GpuResult]], object] = len,
) -> tuple[list[GpuResult], int]:
    """Measure every case, or those of the kernels ``only``; returns the results and how many kernels failed.

    ``keep`` gets the results of each case at once. A kernel that fails takes its own cases away, not
    those of the others.
    """
    copy = Copy(card, size)
    results: list[GpuResult] = []
    failed = 0
    for kernel, cases in CASES.items():
        if only and kernel not in only:
            continue
        try:
            for case in cases(card, size):
                new = measure(card, case, copy, size)
                keep(new)
                results += new
                card.release()
        except Exception:
            traceback.print_exc()
            failed += 1
    return results, failed


def show(results: Sequence[GpuResult], console: Console, note: str) -> None:
    """Print a table of results."""
    first = results[0]
    table = Table(title=f"{first.device}, medians of {first.repeats}, size {first.size}{note}")
    table.add_column("kernel")
    table.add_column("case")
    for heading in (
        "ms",
        "SEM",
        "Msamples/s",
        "GB/s",
        "copy GB/s",
        "of copy",
        "x plain",
        "differs",
    ):
        table.add_column(heading, justify="right", no_wrap=True)
    for r in results:
        table.add_row(
            r.bench.removeprefix("gpu_") + (" plain" if r.form == "plain" else ""),
            r.case,
            f"{r.seconds_median * 1e3:.4g}",
            f"{r.seconds_sem * 1e3:.2g}",
            f"{r.msamples_per_s:.0f}",
            f"{r.gb_per_s:.4g}",
            f"{r.copy_gb_per_s:.4g}",
            f"{r.ratio_to_copy:.3f}",
            "" if r.ratio_to_plain is None or r.form == "plain" else f"{r.ratio_to_plain:.2f}",
            "" if r.difference is None else f"{r.difference:.0e}",
        )
    console.print(table)


def roofline(results: Sequence[GpuResult], path: Path) -> bool:
    """Draw operations per second over operations per byte; False where matplotlib is missing."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return False
    figure = Figure(figsize=(8.5, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot(xscale="log", yscale="log")
    colours = {name: f"C{i}" for i, name in enumerate(dict.fromkeys(r.bench for r in results))}
    for name, form in dict.fromkeys((r.bench, r.form) for r in results):
        own = [r for r in results if (r.bench, r.form) == (name, form)]
        x = [r.operations / r.nbytes for r in own]
        y = [r.operations / r.seconds_median / 1e9 for r in own]
        label = name.removeprefix("gpu_") + (", plain" if form == "plain" else "")
        axes.plot(x, y, "x" if form == "plain" else "o", color=colours[name], label=label)
    ends = np.array(axes.get_xlim())
    rate = statistics.median(r.copy_gb_per_s for r in results)
    axes.plot(ends, ends * rate, "k-", label=f"copy, {rate:.0f} GB/s")
    axes.set_xlabel(f"operations per necessary byte (an exponential counts {EXP_OPERATIONS})")
    axes.set_ylabel("f64 operations, 10$^9$ s$^{-1}$")
    axes.set_title(results[0].device)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    return True


def main(argv: Sequence[str] | None = None) -> int:
    """Command line: ``--dry``, ``--toy``, ``--save``, ``--results FOLDER``."""
    parser = argparse.ArgumentParser(description="Throughput of the kernels on a card.")
    parser.add_argument("--dry", action="store_true", help="NumPy in place of a card, toy sizes")
    parser.add_argument("--toy", action="store_true", help="on a card; times mean nothing")
    parser.add_argument("--save", action="store_true", help="append to RESULTS/DEVICE.jsonl")
    parser.add_argument("--results", type=Path, default=harness.RESULTS)
    parser.add_argument("--only", nargs="+", choices=list(CASES), default=[], help="these kernels")
    options = parser.parse_args(argv)
    if options.save and (options.dry or options.toy):
        parser.error("--save is for full sizes on a card, not for --dry or --toy.")
    size = "toy" if options.dry or options.toy else "full"
    console = Console(width=None if sys.stdout.isatty() else 140)
    try:
        card = host_card() if options.dry else cuda_card(size)
    except BackendError as error:
        print(error, file=sys.stderr)
        return 1
    keep = partial(harness.save, folder=options.results) if options.save else len
    results, failed = run_bench(card, size, options.only, keep)
    if not results:
        return 1
    show(results, console, f" ({DRY_NOTE})" if options.dry else "")
    if options.save:
        console.print(f"added to {options.results / results[0].device}.jsonl")
        picture = options.results / f"roofline-{card.name}.png"
        drawn = roofline(results, picture)
        console.print(f"drew {picture}" if drawn else "no roofline picture: no matplotlib")
    if options.dry:
        print(DRY_NOTE)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
