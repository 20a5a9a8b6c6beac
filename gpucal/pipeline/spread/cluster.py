"""Spread the scans of a store over a dask cluster that shares the file system."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from gpucal.config import CalibrationConfig
from gpucal.errors import ConfigError, GpucalError
from gpucal.io.atmosphere.choice import atmosphere_text
from gpucal.io.l0.store import open_l0
from gpucal.io.l1.writer import L1Store
from gpucal.pipeline.spread.gathered import Gathered, table_of
from gpucal.pipeline.store.finished import claim_of, finished_scans
from gpucal.pipeline.store.outcome import failure_of, record_failures
from gpucal.pipeline.store.report import Observer, StoreReport
from gpucal.pipeline.store.run import calibrate_here
from gpucal.pipeline.store.selection import select_scans

CONNECT_SECONDS = 10.0


def calibrate_on_cluster(
    l0: str | Path,
    out: str | Path,
    config: CalibrationConfig,
    observer: Observer,
    command_line: Sequence[str],
) -> StoreReport:
    """Calibrate with one task per science scan on the scheduler ``config.scheduler``; each writes its own scan.

    Needs the extra ``cluster``; the stores must be reachable under the same path everywhere. A scan whose
    worker is lost is a failure like any other. Raises ConfigError when dask is missing or the scheduler
    does not answer, GpucalError when nothing can be done at all.
    """
    with _connect(str(config.scheduler)) as client, ExitStack() as claims:
        # Choose the scans and prepare the output, as every worker would have to.
        here, there = Path(l0).resolve(), Path(out).resolve()
        raw = open_l0(here)
        selection = select_scans(raw, config)
        table = table_of(raw, config)
        claims.enter_context(claim_of(there, selection.numbers, config, table))
        finished = finished_scans(raw, there, selection.numbers, config, table)
        l1 = L1Store(there, codec=config.codec, dtype=config.dtype)
        gathered = Gathered(observer)
        gathered.begin(selection, finished)
        # One task per scan.
        alone = config.model_copy(update={"scheduler": None})
        futures = {
            client.submit(
                _calibrate_one,
                (str(here), str(there)),
                alone.model_copy(update={"scans": str(n)}),
                list(command_line),
                pure=False,
            ): n
            for n in gathered.left
        }
        # Wait for them; Ctrl-C keeps what is calibrated.
        interrupted = False
        try:
            _collect(futures, gathered)
        except KeyboardInterrupt:
            interrupted = True
            client.cancel(list(futures), force=True)
        # Report.
        report = gathered.report(
            interrupted=interrupted, atmosphere=atmosphere_text(table(), config)
        )
        record_failures(l1, report)
    return report


def _connect(address: str) -> Any:
    """A client of the scheduler; raises ConfigError when there is none."""
    try:
        from distributed import Client
    except ImportError as error:
        raise ConfigError(
            "--scheduler needs dask.", hint="Install it with pip install 'gpucal[cluster]'."
        ) from error
    try:
        return Client(address, timeout=CONNECT_SECONDS)
    except (OSError, TimeoutError, ValueError) as error:
        raise ConfigError(
            f"the scheduler {address} does not answer.", hint="Check its address."
        ) from error


def _calibrate_one(
    paths: tuple[str, str], config: CalibrationConfig, command_line: list[str]
) -> StoreReport:
    """The task of a worker: a run over a single scan."""
    return calibrate_here(*paths, config, command_line=command_line, claimed=True)


def _collect(futures: Mapping[Any, int], gathered: Gathered) -> None:
    """Wait for all tasks; one that raises becomes a failure of its scan."""
    from distributed import as_completed

    for future in as_completed(futures):
        try:
            report = future.result()
        except GpucalError:
            raise  # no table, no backend: the same for every scan
        except Exception as error:
            gathered.fail(failure_of(futures[future], "calibrate", error))
            continue
        gathered.add(report.summaries, report.failures)
        for failure in report.failures:
            gathered.observer.message("error", failure.message)
