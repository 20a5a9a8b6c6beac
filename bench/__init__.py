"""Benches of the kernels: ``python -m bench [NAME..] [--quick] [--save]``."""

from __future__ import annotations

from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benches named in ``argv``, or all of them, and return the exit status."""
    # Imported here: each bench is also a module of its own to run with ``python -m``.
    from bench import bench_calibrate, bench_chi2, bench_dump_mean, bench_reference, harness

    modules = (bench_calibrate, bench_dump_mean, bench_reference, bench_chi2)
    return harness.main({module.NAME: module.cases for module in modules}, argv)
