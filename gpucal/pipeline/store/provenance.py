"""Where a calibrated scan comes from: software, inputs, configuration, times."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import metadata
from typing import Any

from gpucal.physics.atm import AtmosphereTable
from gpucal.steps.calibrate import ScanSolution
from gpucal.version import __version__

LIBRARIES = ("numpy", "scipy", "zarr", "numcodecs")


def now() -> str:
    """The time, UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def versions() -> dict[str, str]:
    """Versions of this package and of the libraries that touch the numbers."""
    found = {"gpucal": __version__, "python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def provenance(
    solution: ScanSolution,
    table: AtmosphereTable | None,
    checksums: dict[str, str],
    started: str,
    command_line: Sequence[str],
) -> dict[str, Any]:
    """The ``provenance`` attribute of L1.

    ``checksums``: SHA-256 of the L0 metadata of the scan and of its load scans.
    """
    return {
        "l0_path": solution.scan.path,
        "l0_scan": solution.scan.number,
        "l0_metadata_sha256": checksums,
        "versions": versions(),
        "backend": solution.backend.name,
        "backend_reason": solution.backend.reason,
        "device": solution.backend.device,
        "atmosphere_table": None
        if table is None
        else {
            "name": table.name,
            "sha256": table.sha256,
            "model": str(table.attrs.get("model", "")),
            "site": str(table.attrs.get("site", "")),
        },
        "load_scans": list(solution.loads.scans),
        "started": started,
        "finished": now(),
        "command_line": list(command_line),
    }
