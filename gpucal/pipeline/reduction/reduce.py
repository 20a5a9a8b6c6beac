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
from gpucal.io.atmosphere.choice import (
    atmosphere_for,
    atmosphere_text,
    recorded_atmosphere,
)
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

    config: how L0 is calibrated, as in ``calibrate_store``; incomplete scans are taken as far as they go. The
    atmosphere of an L1 store is the one it was calibrated with. Raises ConfigError for an unknown procedure, a
    wrong option, a skydip from L1 or another atmosphere for L1, and L0Error or L1Error for a scan that cannot be
    read. Data that do not give a result do not raise: the result says why.
    """
    given = as_config(config)
    options = options or ReduceOptions()
    document = read_group(Path(store)) if "://" not in str(store) else None
    if document is not None and str(document.get("format", "")).startswith("gpucal-l1"):
        chosen = given if config is not None else None
        return _reduce_l1(Path(store), number, procedure, chosen, options)
    work = RawScan(open_l0(store), number, given.model_copy(update={"partial": True}), backend)
    return work.reduce(procedure, options)


def _reduce_l1(
    path: Path,
    number: int,
    procedure: str,
    config: CalibrationConfig | None,
    options: ReduceOptions,
) -> Reduced:
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
    _require_same_atmosphere(number, attrs, config or CalibrationConfig())
    atmosphere, gone = recorded_atmosphere(attrs)
    notes = [gone] if gone else []
    for band in bands:
        notes += (band.attrs.get("qa") or {}).get("alarms", {}).values()
    if chosen == "on-off":
        found = switched_results(bands, options)
        return described(
            number,
            chosen,
            found,
            scale="T_A*",
            track=bands[0].track,
            attrs=attrs,
            warnings=notes,
            atmosphere=atmosphere,
        )
    continua = [continuum_of(band) for band in bands]
    fit = continuum_fit(chosen, continua, attrs, options)
    first = continua[0]
    return described(
        number,
        chosen,
        fit,
        scale=first.scale,
        track=first.track,
        attrs=attrs,
        warnings=notes,
        atmosphere=atmosphere,
    )


def _require_same_atmosphere(
    number: int, attrs: Mapping[str, Any], config: CalibrationConfig
) -> None:
    """Raise ConfigError when an atmosphere is asked for that is not the one of the calibrated store."""
    if config.atmosphere == "auto" and config.tau is None:
        return
    table = atmosphere_for(config, {})
    recorded = (attrs.get("provenance") or {}).get("atmosphere_table") or {}
    tau = (attrs.get("config") or {}).get("tau")
    here = table.sha256 if table is not None else None
    if here == recorded.get("sha256") and (
        table is not None or (tau or 0.0) == (config.tau or 0.0)
    ):
        return
    raise ConfigError(
        f"the store was calibrated with {recorded_atmosphere(attrs)[0]}, not with "
        f"{atmosphere_text(table, config)}, and its opacities cannot be changed any more.",
        hint="Leave --atmosphere and --tau out, or give the raw store (L0).",
        scan=number,
    )
