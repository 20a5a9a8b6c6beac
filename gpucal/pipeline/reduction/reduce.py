"""Reduce a scan to the result of its procedure: pointing, focus, skydip, switched average.

Works on L1, and on L0, which is then calibrated in memory as it streams. What cannot be calibrated is still
fitted, against the loads or in counts, and a warning says so. Conventions: docs/reference/procedures.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from gpucal.backend.protocol import Backend
from gpucal.config import CalibrationConfig, as_config
from gpucal.errors import ConfigError, GpucalError
from gpucal.io.chunks.zarr_metadata import read_group
from gpucal.io.l0.store import open_l0
from gpucal.io.l1.reader import open_l1
from gpucal.pipeline.reduction.collect import Band, StoredBand, continuum_of
from gpucal.pipeline.reduction.fits import continuum_fit, described, switched_results
from gpucal.pipeline.reduction.procedure_choice import Procedure, known_procedure, reduction_of
from gpucal.pipeline.reduction.products import Reduced, ReduceOptions
from gpucal.pipeline.reduction.raw_scan import RawScan


def reduce_scan(
    store: str | Path,
    number: int,
    *,
    procedure: Procedure | Literal["auto"] = "auto",
    config: CalibrationConfig | Mapping[str, Any] | str | Path | None = None,
    options: ReduceOptions | None = None,
    backend: Backend | None = None,
) -> Reduced:
    """Reduce one scan of an L0 or an L1 store; all its bands together.

    config: how L0 is calibrated, as in ``calibrate_store``; incomplete scans are taken as far as they go.
    Raises ConfigError for an unknown procedure, a wrong option or a skydip from L1, and L0Error or L1Error
    for a scan that cannot be read. Data that do not give a result do not raise: the result says why.
    """
    given = as_config(config)
    options = options or ReduceOptions()
    document = read_group(Path(store)) if "://" not in str(store) else None
    if document is not None and str(document.get("format", "")).startswith("gpucal-l1"):
        return _reduce_l1(Path(store), number, procedure, options)
    work = RawScan(open_l0(store), number, given.model_copy(update={"partial": True}), backend)
    return work.reduce(procedure, options)


def _reduce_l1(path: Path, number: int, procedure: str, options: ReduceOptions) -> Reduced:
    """Reduce a scan that is calibrated already."""
    scan = open_l1(path).scan(number)
    bands: list[Band] = [StoredBand(scan.band_scan(b) if b else scan) for b in scan.bands or [""]]
    attrs = bands[0].attrs
    try:
        chosen = reduction_of(attrs) if procedure == "auto" else known_procedure(procedure)
    except GpucalError as error:
        raise error.locate(scan=number) from None
    if chosen == "skydip":
        raise ConfigError(
            "a skydip needs the raw counts, but this is a calibrated store.",
            hint="Give the L0 store.",
            scan=number,
        )
    if chosen == "on-off":
        found = switched_results(bands, options)
        return described(number, chosen, found, scale="T_A*", track=bands[0].track, attrs=attrs)
    continua = [continuum_of(band) for band in bands]
    fit = continuum_fit(chosen, continua, attrs, options)
    first = continua[0]
    return described(number, chosen, fit, scale=first.scale, track=first.track, attrs=attrs)
