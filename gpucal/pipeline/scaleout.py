"""Spread the scans of a store over a dask cluster that shares the file system."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gpucal.config import CalibrationConfig
from gpucal.errors import ConfigError
from gpucal.io.read import open_l0
from gpucal.io.write import write_failures
from gpucal.pipeline.report import Failure, Observer, ScanSummary, StoreReport


def calibrate_on_cluster(
    l0: str | Path,
    out: str | Path,
    config: CalibrationConfig,
    observer: Observer,
    command_line: Sequence[str],
) -> StoreReport:
    """One task per science scan on the scheduler ``config.scheduler``; each writes its own scan.

    Needs the extra ``cluster``; the stores must be reachable under the same path everywhere. Raises
    ConfigError when dask is missing or the scheduler does not answer.
    """
    from gpucal.pipeline.batch import calibrate_store, chosen_scans

    try:
        from distributed import Client, as_completed
    except ImportError as error:
        raise ConfigError(
            "--scheduler needs dask.", hint="Install it with pip install 'gpucal[cluster]'."
        ) from error
    here, there = Path(l0).resolve(), Path(out).resolve()
    single = config.model_copy(update={"scheduler": None, "scans": ""})
    store = open_l0(here)
    numbers = chosen_scans(store, config)
    observer.night_started(numbers, 0)
    summaries: list[ScanSummary] = []
    failures: list[Failure] = []
    try:
        client = Client(config.scheduler, timeout=10)
    except (OSError, TimeoutError, ValueError) as error:
        raise ConfigError(
            f"the scheduler {config.scheduler} does not answer.", hint="Check its address."
        ) from error
    with client:
        futures = {
            client.submit(
                calibrate_store,
                str(here),
                str(there),
                single.model_copy(update={"scans": str(n)}),
                command_line=list(command_line),
                pure=False,
            ): n
            for n in numbers
        }
        for future in as_completed(futures):
            report = future.result()
            summaries += report.summaries
            failures += report.failures
            for summary in report.summaries:
                observer.scan_finished(summary)
    summaries.sort(key=lambda s: (s.scan, s.band))
    failures.sort(key=lambda f: f.scan)
    write_failures(there, [f.as_dict() for f in failures])
    return StoreReport(tuple(summaries), tuple(failures))
