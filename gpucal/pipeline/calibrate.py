"""Entry point: calibrate a store in this process, on several devices, or on a cluster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from gpucal.backend.protocol import Backend
from gpucal.config import CalibrationConfig, as_config
from gpucal.io.l0.store import open_l0
from gpucal.pipeline.store.report import Observer, SilentObserver, StoreReport
from gpucal.pipeline.store.run import calibrate_here
from gpucal.pipeline.store.selection import flag_rules_of


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
    written whole or not at all; one that is there with the same configuration and from the same raw
    data is skipped, and its numbers are those of L1. Bad scans are recorded in the report and in ``failures.json``,
    where those of scans that were not looked at stay. Raises OtherSettingsError, before anything is touched, when
    a chosen scan is there with other settings or from other raw data (unless ``overwrite``), and GpucalError when
    nothing can be done at all: unreadable store, unknown table, output in the way.
    """
    config = as_config(config)
    observer = observer or SilentObserver()
    report = _calibrate(l0, out, config, backend, observer, command_line)
    return replace(report, strict=config.strict)


def _calibrate(
    l0: str | Path,
    out: str | Path,
    config: CalibrationConfig,
    backend: Backend | None,
    observer: Observer,
    command_line: Sequence[str],
) -> StoreReport:
    """Calibrate where the configuration says."""
    if config.flags:
        # Wrong rules end the run before anything is written, and every process finds the file.
        config = config.model_copy(update={"flags": str(Path(config.flags).resolve())})
        flag_rules_of(config, open_l0(l0))
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
