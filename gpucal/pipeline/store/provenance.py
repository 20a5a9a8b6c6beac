"""Provenance of a calibrated scan: software, inputs, configuration, times."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from typing import Any

from gpucal.physics.atm import AtmosphereTable
from gpucal.steps.solution import ScanSolution
from gpucal.version import __version__

LIBRARIES = ("numpy", "scipy", "zarr", "numcodecs")


@dataclass(frozen=True)
class Origin:
    """Start, inputs and command line of the calibration of one scan.

    started: UTC; checksums: SHA-256 of the L0 metadata of the scan and of its load scans, "number/band" ->
    digest; command_line: as the user gave it; counts: digests of how their counts lie on disk, by scan number.
    """

    started: str
    checksums: dict[str, str]
    command_line: tuple[str, ...] = ()
    counts: Mapping[str, str] = field(default_factory=dict)


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
    solution: ScanSolution, table: AtmosphereTable | None, origin: Origin
) -> dict[str, Any]:
    """The ``provenance`` attribute of a band of L1."""
    return {
        "l0_path": solution.scan.path,
        "l0_scan": solution.scan.number,
        "l0_metadata_sha256": origin.checksums,
        "l0_counts_sha256": dict(origin.counts),
        "versions": versions(),
        "backend": solution.backend.name,
        "backend_reason": solution.backend.reason,
        "device": solution.backend.device,
        "kernels": solution.backend.kernel_form(),
        "io": solution.backend.io(),
        "atmosphere_table": None
        if table is None
        else {
            "name": table.name,
            "sha256": table.sha256,
            "model": str(table.attrs.get("model", "")),
            "site": str(table.attrs.get("site", "")),
            "layered": table.layered,
        },
        "load_scans": list(solution.loads.scans),
        "started": origin.started,
        "finished": now(),
        "command_line": list(origin.command_line),
    }
