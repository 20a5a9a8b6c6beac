"""Benches: ``python -m bench [NAME..] [--quick] [--save]``, or ``python -m bench io|peers|online``."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benches named in ``argv``, or those of all kernels, and return the exit status."""
    # Imported here: each bench is also a module of its own to run with ``python -m``.
    from bench import harness
    from bench.kernels import calibrate, chi2, dump_mean, fold, reference

    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments and arguments[0] in ("io", "peers", "online"):
        bench = importlib.import_module(f"bench.bench_{arguments[0]}")
        return int(bench.main(arguments[1:]))
    modules = (calibrate, dump_mean, reference, chi2, fold)
    return harness.main({module.NAME: module.cases for module in modules}, arguments)
