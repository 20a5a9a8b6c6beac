"""The PWV fit of a large array on a card and on its host: 64 x 2 pixels x 65536 channels, one fit each.

    python -m bench.gpu.pwv --save          on a machine with a card
    python -m bench.gpu.pwv --dry           a few channels, the host against itself: measures nothing

Grid, Newton and all, through ``gpucal.steps.pwv_fit``. The sky is made with known PWV, and both must find
them again; else the exit status is 1.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from bench import harness
from bench.gpu.card import Card, cuda_card, host_card
from bench.gpu.kernels import DRY_NOTE, copy_rate, sem
from gpucal import select_backend
from gpucal.backend.cpu import usable_cores
from gpucal.backend.protocol import Backend
from gpucal.errors import BackendError
from gpucal.steps.pwv_fit import SkyRows, fit_pwv

SIZES = {"toy": (4, 512), "full": (128, 65536)}
"""Fits and channels."""

REPEATS = {"toy": 2, "full": 10}
HOST_REPEATS = {"toy": 2, "full": 2}
FOUND = 1e-9
"""Largest |P - truth|, mm."""


@dataclass(frozen=True)
class PwvResult:
    """All fits of one call on one machine; nbytes: sky, noise and model, once."""

    bench: str
    case: str
    form: str
    size: str
    repeats: int
    nbytes: int
    seconds_median: float
    seconds_sem: float
    seconds_min: float
    seconds_max: float
    copy_gb_per_s: float
    ratio_to_copy: float
    largest_error_mm: float
    agrees: bool
    device: str
    date: str
    versions: dict[str, str]


def sky(fits: int, channels: int, backend: Backend) -> tuple[SkyRows, Any]:
    """A sky without noise and its PWV f64 [N], mm: two sidebands, one point in each channel."""
    rng = np.random.default_rng(0)
    truth = np.linspace(0.3, 2.5, fits)
    x = np.linspace(-1.0, 1.0, channels)
    opacity = np.zeros((3, 2, 1, channels, 1))
    for k in range(2):
        opacity[0, k, 0, :, 0] = 0.15 + 0.1 * x**2 + 0.05 * k
        opacity[1, k, 0, :, 0] = 0.002
        opacity[2, k, 0, :, 0] = 0.05 + 0.02 * np.exp(-(((x - 0.3) / 0.01) ** 2))
    amplitude = -rng.uniform(120.0, 130.0, (2, channels, 1))
    airmass = 1.3
    t = np.exp(
        -airmass * (opacity[0, :, 0] * truth + opacity[1, :, 0] * truth**2 + opacity[2, :, 0])
    )
    observed = np.sum(amplitude * t, axis=0)
    arrays = [observed, np.full(observed.shape, 0.04), np.ones(observed.shape, dtype=np.bool_)]
    seen, noise2, good, amplitude, opacity = (
        backend.asarray(a) for a in (*arrays, amplitude, opacity)
    )
    rows = SkyRows(seen, noise2, good, amplitude, opacity, airmass, slice(0, fits))
    return rows, truth


def measure(backend: Backend, size: str, repeats: int) -> tuple[list[float], float, int]:
    """Seconds of each call, the largest error, and the necessary bytes. The results come to the host."""
    fits, channels = SIZES[size]
    rows, truth = sky(fits, channels, backend)
    grid = np.geomspace(0.05, 5.0, 100)
    found: list[Any] = []

    def run() -> None:
        found[:] = [fit_pwv([rows], fits, grid, 0.05, backend)]

    run()
    times = [harness.seconds(run) for _ in range(repeats)]
    arrays = (rows.observed, rows.noise2, rows.good, rows.amplitude, rows.opacity)
    nbytes = sum(int(np.prod(a.shape)) * a.dtype.itemsize for a in arrays)
    return times, float(np.max(np.abs(found[0].pwv - truth))), nbytes


def run_bench(
    card: Card,
    backends: tuple[Backend, Backend],
    size: str,
    keep: Callable[[PwvResult], object] = bool,
) -> list[PwvResult]:
    """The card (or what stands for it) and the host, one after the other; ``keep`` gets each at once."""
    fits, channels = SIZES[size]
    rate = copy_rate(card, size)
    forms = {"card": (backends[0], REPEATS[size]), "host": (backends[1], HOST_REPEATS[size])}
    found: list[PwvResult] = []
    for form, (backend, n) in forms.items():
        times, error, nbytes = measure(backend, size, n)
        median = statistics.median(times)
        result = PwvResult(
            bench="gpu_pwv",
            case=f"{fits} fits of {channels} channels",
            form=form,
            size=size,
            repeats=len(times),
            nbytes=nbytes,
            seconds_median=median,
            seconds_sem=sem(times),
            seconds_min=min(times),
            seconds_max=max(times),
            copy_gb_per_s=rate,
            ratio_to_copy=nbytes / median / 1e9 / rate,
            largest_error_mm=error,
            agrees=error <= FOUND,
            device=card.name if form == "card" else harness.device_name(),
            date=harness.now(),
            versions=card.versions,
        )
        keep(result)
        found.append(result)
    return found


def show(results: Sequence[PwvResult], console: Console, note: str) -> None:
    """Print a table of results."""
    table = Table(title=f"PWV, {results[0].case}{note}")
    for heading in ("", "s", "SEM", "x host", "of copy", "error mm"):
        table.add_column(heading, justify="right")
    host = next((r.seconds_median for r in results if r.form == "host"), float("nan"))
    for r in results:
        table.add_row(
            r.device,
            *(f"{r.seconds_median:.4g}", f"{r.seconds_sem:.2g}", f"{host / r.seconds_median:.2f}"),
            *(f"{r.ratio_to_copy:.3f}", f"{r.largest_error_mm:.1e}"),
        )
    console.print(table)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line: ``--dry``, ``--save``, ``--results FOLDER``."""
    parser = argparse.ArgumentParser(description="The PWV fit on a card and on its host.")
    parser.add_argument("--dry", action="store_true", help="few channels, cpu against cpu")
    parser.add_argument("--save", action="store_true", help="append to RESULTS/DEVICE.jsonl")
    parser.add_argument("--results", type=Path, default=harness.RESULTS)
    options = parser.parse_args(argv)
    if options.save and options.dry:
        parser.error("--save is for a card, not for --dry.")
    size = "toy" if options.dry else "full"
    try:
        card = host_card() if options.dry else cuda_card(size)
        first = select_backend("cpu" if options.dry else "cuda")
        backends = (first, select_backend("cpu", threads=usable_cores()))
    except BackendError as error:
        print(error, file=sys.stderr)
        return 1

    def save(result: PwvResult) -> None:
        # One file for what one card was measured for.
        print(f"added to {harness.save([result], options.results, card.name)}")

    results = run_bench(card, backends, size, save if options.save else bool)
    console = Console(width=None if sys.stdout.isatty() else 140)
    show(results, console, f" ({DRY_NOTE})" if options.dry else "")
    if options.dry:
        print(DRY_NOTE)
    return 0 if all(r.agrees for r in results) else 1


if __name__ == "__main__":
    sys.exit(main())
