"""Completion of values on the command line; nothing here may need NumPy or Zarr, the user waits for it."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import typer

_SCAN = re.compile(r"scan_(\d+)\Z")
_STORES = ("store", "l0", "l1", "replay")
"""Parameters that name a store with scans."""

Completer = Callable[[str], list[str]]


def complete_words(*words: str) -> Completer:
    """A completer that knows a fixed list of words."""

    def complete(incomplete: str) -> list[str]:
        return [word for word in words if word.startswith(incomplete)]

    return complete


def complete_presets(incomplete: str) -> list[str]:
    """The instruments that can be simulated."""
    from gpucal.simulate.presets import PRESETS

    return [name for name in sorted(PRESETS) if name.startswith(incomplete)]


def complete_scans(ctx: typer.Context, incomplete: str) -> list[str]:
    """Numbers of the scans in the store that the line names already, after the last comma or dash."""
    cut = max(incomplete.rfind(","), incomplete.rfind("-")) + 1
    head, last = incomplete[:cut], incomplete[cut:].strip()
    # the parser stops at an option without its value and leaves the arguments as they are
    paths = [*(ctx.params.get(name) for name in _STORES), *ctx.args]
    for path in paths:
        numbers = scans_below(Path(str(path))) if path else []
        if numbers:
            return [f"{head}{n}" for n in numbers if str(n).startswith(last)]
    return []


def scans_below(store: Path) -> list[int]:
    """Numbers of the scan groups of a store, ascending; none where it cannot be listed."""
    try:
        with os.scandir(store) as entries:
            found = (match for entry in entries if (match := _SCAN.match(entry.name)))
            return sorted({int(match[1]) for match in found})
    except OSError:
        return []


def complete_tables(incomplete: str) -> list[str]:
    """What ``--atmosphere`` takes: auto, none, packaged tables, files that may be tables."""
    words = [word for word in ("auto", "none") if word.startswith(incomplete)]
    return words + complete_table_names(incomplete)


def complete_table_names(incomplete: str) -> list[str]:
    """Packaged tables, then files that may be tables."""
    words = [word for word in packaged_names() if word.startswith(incomplete)]
    folder, start = os.path.split(incomplete)
    try:
        names = sorted(os.listdir(folder or "."))
    except OSError:
        names = []
    paths = [os.path.join(folder, name) for name in names if name.startswith(start)]
    return words + [path for path in paths if path.endswith((".npz", ".zarr"))]


def packaged_names() -> list[str]:
    """The atmosphere tables that come with the package, by name."""
    try:
        names = [entry.name for entry in files("gpucal").joinpath("data").iterdir()]
    except OSError:
        return []
    return sorted(name.removesuffix(".npz") for name in names if name.endswith(".npz"))
