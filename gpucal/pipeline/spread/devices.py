"""Spread the scans of a store over the devices of one host: a process for each, one queue of scans."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from gpucal.backend.cpu import usable_cores
from gpucal.config import CalibrationConfig
from gpucal.errors import ConfigError
from gpucal.io.atmosphere.choice import atmosphere_text
from gpucal.io.l0.store import open_l0
from gpucal.io.l1.writer import L1Store
from gpucal.pipeline.spread.fleet import Fleet
from gpucal.pipeline.spread.gathered import Gathered, table_of
from gpucal.pipeline.store.finished import claim_of, finished_scans
from gpucal.pipeline.store.l1_arrays import root_attributes
from gpucal.pipeline.store.outcome import record_failures
from gpucal.pipeline.store.report import Observer, StoreReport
from gpucal.pipeline.store.selection import select_scans


def device_list(config: CalibrationConfig) -> list[str]:
    """CUDA_VISIBLE_DEVICES for each process; [] where "all" finds no device.

    Numbers count within the CUDA_VISIBLE_DEVICES of this process if it is set. Raises ConfigError for
    one that is not visible.
    """
    given = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    visible = [name.strip() for name in given.split(",") if name.strip()]
    if config.devices == "all":
        if config.backend == "cpu":
            return []
        from gpucal.backend.cuda import device_count

        n = device_count()
        return visible[:n] if visible else [str(i) for i in range(n)]
    names = config.devices.split(",")
    if config.backend == "cpu" or not visible:
        return names
    for name in names:
        if name.isdigit() and int(name) >= len(visible):
            raise ConfigError(
                f"devices is {config.devices}, but CUDA_VISIBLE_DEVICES is {given}: there is no "
                f"device {name}.",
                hint="Numbers count from 0 within CUDA_VISIBLE_DEVICES.",
            )
    return [visible[int(name)] if name.isdigit() else name for name in names]


def calibrate_on_devices(
    l0: str | Path,
    out: str | Path,
    config: CalibrationConfig,
    devices: Sequence[str],
    observer: Observer,
    command_line: Sequence[str],
) -> StoreReport:
    """Calibrate with one process per device; each takes the next scan when it has room, all write into one L1 store.

    A process that dies fails the scan that it was at; another one takes its place. Raises GpucalError
    only when nothing can be done at all.
    """
    # Open the stores and choose the scans.
    here, there = Path(l0).resolve(), Path(out).resolve()
    raw = open_l0(here)
    selection = select_scans(raw, config)
    table = table_of(raw, config)
    with claim_of(there, selection.numbers, config, table):
        finished = finished_scans(raw, there, selection.numbers, config, table)
        l1 = L1Store(there, codec=config.codec, dtype=config.dtype)
        l1.set_root_attrs(root_attributes(raw.attrs))
        gathered = Gathered(observer)
        gathered.begin(selection, finished)
        # Each process gets the whole job, and its scans one by one; the processor cores are shared among them.
        workers = config.workers or max(1, usable_cores() // len(devices))
        own = config.model_copy(update={"devices": "", "scans": "", "workers": workers})
        job = {
            "l0": str(here),
            "out": str(there),
            "config": own.model_dump(),
            "command_line": list(command_line),
        }
        whole = Fleet(devices, job, gathered).run(gathered.left)
        # Report.
        report = gathered.report(interrupted=not whole, atmosphere=atmosphere_text(table(), config))
        record_failures(l1, report)
    return report
