"""The file ``failures.json`` of an L1 store: why scans are not in it."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from gpucal.io.chunks.zarr_metadata import encode_document, json_safe
from gpucal.io.files import atomic
from gpucal.io.files.regular import read_document
from gpucal.io.l1.writer import L1Store


def write_failures(
    store: L1Store | str | Path,
    failures: Sequence[Mapping[str, Any]],
    looked_at: Collection[int] = (),
) -> Path:
    """Write ``failures.json`` ([{scan, stage, error, message, hint}]) into the store's root.

    Entries of earlier runs stay, but for the scans in ``looked_at`` and those that failed again. Without failures
    there is no such file. Returns its path.
    """
    root = store.path if isinstance(store, L1Store) else L1Store(store).path
    path = root / "failures.json"
    new = {entry["scan"] for entry in failures}.union(looked_at)
    kept = [entry for entry in _earlier_failures(path) if entry.get("scan") not in new]
    failures = sorted((*kept, *failures), key=lambda entry: int(entry["scan"]))
    with atomic.as_write_error(path):
        if failures:
            content = encode_document(json_safe(failures))
            atomic.write_file(path, content, root, replace=True)
        else:
            path.unlink(missing_ok=True)
    return path


def _earlier_failures(path: Path) -> list[dict[str, Any]]:
    """The entries that are there; none where the file cannot be understood."""
    try:
        entries = json.loads(read_document(path))
    except (OSError, ValueError):
        return []
    found = entries if isinstance(entries, list) else []
    return [e for e in found if isinstance(e, dict) and isinstance(e.get("scan"), int)]
