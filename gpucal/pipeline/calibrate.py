"""Entry point: calibrate a store in this process, on several devices, or on a cluster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gpucal.backend.protocol import Backend
from gpucal.config import CalibrationConfig, as_config
from gpucal.pipeline.store.report import Observer, SilentObserver, StoreReport
from gpucal.pipeline.store.run import calibrate_here


def calibrate_store(
    l0: str | Path,
    out: str | Path,
    config: CalibrationConfig | Mapping[str, Any] | str | Path | None = None,
    *,
    backend: Backend | None = None,
    observer: Observer | None = None,
    command_line: Sequence[str] = (),
) -> StoreReport:
    """Calibrate every chosen scan of an L0 store into an L1 store.

    config: the options, or their fields by name, ``{"tau": 0.1}``, or the path of a TOML file. A scan is
    written whole or not at all; one that is there with the same configuration and L0 checksum is
    skipped. Bad scans are recorded in the report and in ``failures.json``. Raises GpucalError only when
    nothing can be done at all: wrong option, unreadable store, unknown table, output in the way.
    """
    config = as_config(config)
    observer = observer or SilentObserver()
    if config.scheduler:
        from gpucal.pipeline.spread.cluster import calibrate_on_cluster

        return calibrate_on_cluster(l0, out, config, observer, command_line)
    if config.devices:
        from gpucal.pipeline.spread.devices import calibrate_on_devices, device_list

        devices = device_list(config)
        if devices:
            return calibrate_on_devices(l0, out, config, devices, observer, command_line)
    return calibrate_here(
        l0, out, config, backend=backend, observer=observer, command_line=command_line
    )
