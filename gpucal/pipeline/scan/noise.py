"""Noise of the outputs of a scan and what they share, from a solution or as L1 records it; physics equation (6.4)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from gpucal.modes.recipe import Recipe
from gpucal.procedures.switching import NoiseModel
from gpucal.products import MeanKey
from gpucal.steps.solution import ScanSolution

F64 = npt.NDArray[np.float64]


def noise_of_solution(solution: ScanSolution, seconds: F64) -> NoiseModel:
    """Noise of each output subscan, and the share of each OFF mean in it; ``seconds`` f64 [S] of the outputs."""
    recipes = solution.pairing.recipes
    shares = [_reference_shares(solution, recipe) for recipe in recipes]
    keys = sorted({key for share in shares for key in share}, key=repr)
    reference = np.array([[share.get(key, 0.0) for key in keys] for share in shares])
    return NoiseModel(seconds, _rates(solution), reference.reshape(len(recipes), -1))


def noise_attribute(solution: ScanSolution) -> dict[str, list[Any]]:
    """The same for L1: ``rate`` [S], and the shares that are not 0 as parallel lists output, off, share."""
    model = noise_of_solution(solution, np.ones(len(solution.pairing.recipes)))
    outputs, offs = np.nonzero(model.reference)
    return {
        "rate": model.rate.tolist(),
        "output": outputs.tolist(),
        "off": offs.tolist(),
        "share": model.reference[outputs, offs].tolist(),
    }


def noise_of_attribute(recorded: Mapping[str, Any], seconds: F64) -> NoiseModel | None:
    """The noise model from that attribute; None where it is not there, as in an L1 of an earlier version."""
    rate = np.asarray(recorded.get("rate", ()), dtype=np.float64)
    if rate.shape != seconds.shape:
        return None
    outputs, offs = (np.asarray(recorded[k], dtype=np.int64) for k in ("output", "off"))
    reference = np.zeros((len(rate), int(offs.max(initial=-1)) + 1))
    reference[outputs, offs] = np.asarray(recorded["share"], dtype=np.float64)
    return NoiseModel(seconds, rate, reference)


def _rates(solution: ScanSolution) -> F64:
    """Of the dumps of each output, 1/s."""
    exptime = solution.group.exptime
    recipes = solution.pairing.recipes
    return np.array([r.dump_noise(exptime) for r in recipes]) / solution.pairing.n_dumps


def _reference_shares(solution: ScanSolution, recipe: Recipe) -> dict[MeanKey, float]:
    """Weight / sqrt(time) of each OFF mean in the reference of one output, s^-1/2."""
    weights = recipe.reference_weights()
    times = {k: solution.means[k].time for k in weights}
    return {k: w / math.sqrt(times[k]) if times[k] > 0 else 0.0 for k, w in weights.items()}
