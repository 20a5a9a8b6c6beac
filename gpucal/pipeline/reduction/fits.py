"""The result of a procedure from calibrated bands, read from L1 or calibrated as they stream."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gpucal.pipeline.reduction.collect import Band, averaged
from gpucal.pipeline.reduction.continuum import Continuum, Track
from gpucal.pipeline.reduction.procedure_choice import Procedure
from gpucal.pipeline.reduction.procedure_inputs import drifts_of, focus_series
from gpucal.pipeline.reduction.products import Reduced, ReduceOptions, Result
from gpucal.procedures.focus import reduce_focus
from gpucal.procedures.pointing import reduce_pointing
from gpucal.procedures.results import FocusResult, PointingResult, SwitchedResult
from gpucal.procedures.switching import switched_result


def switched_results(bands: Sequence[Band], options: ReduceOptions) -> dict[str, SwitchedResult]:
    """The average of every band over dumps and subscans: the result of on-off."""
    return {
        band.label: switched_result(
            [averaged(band)],
            band.frequency,
            n_subscans=band.shape[4],
            mode=band.mode,
            window=options.window,
        )
        for band in bands
    }


def continuum_fit(
    procedure: Procedure,
    continua: Sequence[Continuum],
    attrs: Mapping[str, Any],
    options: ReduceOptions,
) -> PointingResult | FocusResult:
    """Pointing or focus result from the continua of all bands; ``attrs`` of the scan hold the focus position."""
    if procedure == "pointing":
        drifts = [d for continuum in continua for d in drifts_of(continuum)]
        return reduce_pointing(drifts, options.pointing)
    series = [s for c in continua for s in focus_series(c, attrs, options.pointing)]
    return reduce_focus(series, min_snr=options.focus_snr)


def described(
    number: int,
    procedure: Procedure,
    result: Result,
    *,
    scale: str,
    track: Track,
    attrs: Mapping[str, Any],
    warnings: Sequence[str] = (),
    atmosphere: str = "",
) -> Reduced:
    """The result of a scan together with its source, and the time and direction in its middle."""
    middle = track.mjd.shape[0] // 2, track.mjd.shape[1] // 2
    return Reduced(
        scan=number,
        procedure=procedure,
        result=result,
        scale=scale,
        source=str(attrs.get("source") or ""),
        mjd=float(track.mjd[middle]),
        azimuth=float(track.azimuth[middle]),
        elevation=float(track.elevation[middle]),
        warnings=tuple(dict.fromkeys(warnings)),
        atmosphere=atmosphere,
    )
