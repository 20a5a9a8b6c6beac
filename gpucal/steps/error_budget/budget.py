"""The budget of one scan: what each source does to the PWV and to the scale of T_A*; physics section 12.

The closed forms are evaluated again with one input off by a little, and with the PWV that the fit would then find:
what an input does to the loads and to the sky nearly cancels. Shapes: c channels, R receivers, A pixels, S outputs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from gpucal.products import ErrorBudget, ErrorSource
from gpucal.steps.atmosphere import Skies, airmass_seen
from gpucal.steps.error_budget.inputs import SMALL, Inputs, inputs_of, sources_of
from gpucal.steps.error_budget.water import WaterErrors
from gpucal.steps.loads import nan_median
from gpucal.steps.pwv_fit import OPAQUE
from gpucal.steps.solution import ScanSolution
from gpucal.steps.vane import channel_calibration, vane_temperatures

F64 = npt.NDArray[np.float64]

MAX_OUTPUTS = 6
"""Outputs whose errors are worked out."""


class _Case(NamedTuple):
    """One source: its row as far as it is known, the inputs and the PWV f64 [R|1,A|1,S|1] mm when it is off by
    SMALL of its error."""

    row: ErrorSource
    inputs: Inputs
    pwv: F64


def error_budget(solution: ScanSolution, skies: Skies) -> ErrorBudget:
    """Errors of the PWV and of the scale of T_A* of one scan and band.

    skies: those of the fit. A source moves all channels, pixels and outputs together; sources are independent of each
    other. Errors that differ from pixel to pixel (noise of the loads in a channel, standing waves) are not in it.
    """
    base = inputs_of(solution)
    nothing = np.full(solution.atmosphere.pwv.shape, np.nan)
    with np.errstate(all="ignore"):
        water = None
        if np.isfinite(solution.atmosphere.error).any():
            water = WaterErrors(solution, skies, base)
        noise = nothing if water is None else water.noise()
        cases = list(_cases(solution, base, water, noise))
        pwv = solution.atmosphere.pwv
        moved = [((case.pwv - pwv) / SMALL) ** 2 for case in cases if case.row.name != "noise"]
        t_a_star, of_source = _scale_errors(solution, base, cases)
        return ErrorBudget(
            sources=tuple(
                case.row._replace(t_a_star=float(e))
                for case, e in zip(cases, of_source, strict=True)
            ),
            pwv_noise=noise,
            pwv_systematic=nothing if water is None else np.sqrt(sum(moved)),
            chi2_noise=nothing if water is None else water.chi2(),
            t_a_star=t_a_star,
            receivers=() if water is None else tuple(water.receivers()),
        )


def _cases(
    solution: ScanSolution, base: Inputs, water: WaterErrors | None, noise: F64
) -> Iterator[_Case]:
    """Every source that the scan depends on."""
    pwv, config, nan = solution.atmosphere.pwv, solution.config, float("nan")
    if water is not None:
        size = _middle(noise)
        yield _Case(ErrorSource("noise", size, "mm", size, nan), base, pwv + SMALL * noise)
    elif np.isfinite(pwv).any():
        size = config.error_pwv
        row = ErrorSource("pwv", size, "", size * _middle(pwv), nan)
        yield _Case(row, base, pwv * (1.0 + SMALL * size))
    for source in sources_of(base, config):
        moved = np.zeros(pwv.shape) if water is None else water.moved_by(source.inputs)
        size = nan if water is None else _middle(np.abs(moved)) / SMALL
        row = ErrorSource(source.name, source.sigma, source.unit, size, nan)
        yield _Case(row, source.inputs, pwv + moved)


def _middle(values: F64) -> float:
    """The median of what is known."""
    known = values[np.isfinite(values)]
    return float(np.median(known)) if known.size else float("nan")


def _scale_errors(
    solution: ScanSolution, base: Inputs, cases: list[_Case]
) -> tuple[F64, list[float]]:
    """Relative error of T_A* f64 [R,A,S], and that by each source, median over pixels and outputs.

    Both are medians over the channels that are good and not opaque. Of many outputs some are worked out; between
    these the error is linear in the airmass.
    """
    _, _, n_rec, n_pix, n_outputs = solution.output_shape
    total = np.empty((n_rec, n_pix, n_outputs))
    of_source = np.empty((len(cases), n_outputs))
    airmass = solution.atmosphere.airmass
    some = np.argsort(airmass)[
        np.unique(np.linspace(0, n_outputs - 1, MAX_OUTPUTS).round().astype(int))
    ]
    for j in (int(k) for k in some):
        factor = _factor(solution, base, j, solution.atmosphere.pwv)
        usable = _usable(solution, base, j, factor)
        changes = []
        for i, case in enumerate(cases):
            change = np.abs(_factor(solution, case.inputs, j, case.pwv) / factor - 1.0) / SMALL
            change = np.where(usable, change, np.nan)
            changes.append(change)
            of_source[i, j] = _middle(_over_channels(change))
        both = _over_channels(np.sqrt(np.sum(np.square(changes), axis=0)))
        total[:, :, j] = np.broadcast_to(both, (n_rec, n_pix))
    for r, a in np.ndindex(n_rec, n_pix) if len(some) < n_outputs else ():
        total[r, a] = np.interp(airmass, airmass[some], total[r, a, some])
    return total, [_middle(row) for row in of_source[:, some]]


def _over_channels(values: F64) -> F64:
    """Median over the channels [c,R|1,A|1] that are known; NaN without one."""
    return np.asarray(nan_median(values, np))


def _usable(solution: ScanSolution, base: Inputs, output: int, factor: F64) -> Any:
    """Channels that count, bool [c,R|1,A|1]: good ones through which the sky is seen, where there are any."""
    good = ~base.loads.bad
    if factor.shape[1:] != good.shape[1:]:
        good = np.broadcast_to(np.any(good, axis=(1, 2), keepdims=True), factor.shape)
    clear = _through(solution, base, output, solution.atmosphere.pwv) >= OPAQUE
    seen = good & clear & np.isfinite(factor)
    return seen if seen.any() else np.isfinite(factor)


def _through(solution: ScanSolution, inputs: Inputs, output: int, pwv: F64) -> F64:
    """Transmission t_sig of the source, f64 [c,R|1,A|1]."""
    seen = solution.pairing.recipes[output].source_subscan()
    airmass = airmass_seen(solution.group, seen, solution.config.airmass)
    water = replace(solution.atmosphere, pwv=pwv).pwv_of(output)
    n = inputs.loads.bad.shape[0]
    return np.asarray(inputs.model.transmission(0, water, airmass, 0, n))


def _factor(solution: ScanSolution, inputs: Inputs, output: int, pwv: F64) -> F64:
    """What T_A* of an output is proportional to, f64 [c,R|1,A|1]; equations (6.1), (9.2) and (9.4)."""
    loads, setup = inputs.loads, inputs.setup
    if loads.cold is not None:
        gamma = (loads.j_hot - loads.j_cold) / setup.line_gain()
        return np.asarray(gamma / _through(solution, inputs, output, pwv))
    sky = solution.vane_sky(output)
    counts = np.asarray(solution.backend.to_host(sky.counts[inputs.chosen, ...]))
    atmosphere = replace(solution.atmosphere, model=inputs.model, pwv=pwv)
    if loads.scheme == "vane":
        airmass = solution.vane_airmass(output)
        way = solution.config.vane_average
        found = vane_temperatures(
            loads, counts, atmosphere, output, airmass, inputs.air.effective, way, inputs.host
        )
        return np.asarray(found.t_sys_star)[None]
    n = loads.bad.shape[0]
    _, factor = channel_calibration(
        loads, counts, setup, atmosphere, atmosphere.pwv_of(output), sky.airmass, (0, n)
    )
    return np.asarray(factor / _through(solution, inputs, output, pwv))
