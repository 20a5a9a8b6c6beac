"""Differences of the sky between OFF measurements: SKYDIFF and SKYCHOPDIFF; physics section 10."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gpucal.modes.recipe import Recipe
from gpucal.products import MeanKey
from gpucal.steps.atmosphere import observed_sky
from gpucal.steps.scale import scale_of_output
from gpucal.steps.solution import ScanSolution

Array = Any


@dataclass(frozen=True, eq=False)
class SkyEntry:
    """S_obs of one OFF: spectrum f64 [C,R,A] K, with its scan, subscan and MJD."""

    scan: int
    subscan: int
    mjd: float
    spectrum: Array


@dataclass(frozen=True, eq=False)
class SkyDifferences:
    """n differences, f64 [n,C,R,A] K, and the attributes that say of what."""

    spectrum: Array
    attributes: dict[str, Any]


@dataclass
class SkyHistory:
    """The most recent OFF spectra of each band and pixel layout, oldest first."""

    depth: int
    entries: dict[tuple[Any, ...], deque[SkyEntry]] = field(default_factory=dict)

    def of(self, key: tuple[Any, ...]) -> deque[SkyEntry]:
        """The entries of one band and layout."""
        return self.entries.setdefault(key, deque(maxlen=self.depth))


def layout_key(solution: ScanSolution) -> tuple[Any, ...]:
    """Band, shape and pixel offsets: OFFs are compared only within the same."""
    group = solution.group
    c, _, r, a, _ = group.shape
    offsets = tuple(
        np.round(x[:, :, 0], 6).tobytes() for x in (group.pixel_offset_lon, group.pixel_offset_lat)
    )
    return (solution.scan.band, c, r, a, *offsets)


def sky_entries(solution: ScanSolution) -> list[SkyEntry]:
    """S_obs, equation (5.1), of each OFF of the scan, in time order; own-beam OFFs when chopped.

    With merged beams the entry is the 50/50 blend of the OFFs of the two beams.
    """
    mid = solution.group.mjd_mid
    found: dict[tuple[MeanKey, ...], SkyEntry] = {}
    for recipe in solution.pairing.recipes:
        for keys in recipe.compared_offs():
            if keys in found:
                continue
            spectra = [observed_sky(solution.means[k].mean, solution.loads) for k in keys]
            blend = spectra[0] if len(spectra) == 1 else 0.5 * (spectra[0] + spectra[1])
            first = keys[0].subscan
            found[keys] = SkyEntry(
                solution.scan.number,
                first,
                float(mid[first]),
                np.asarray(solution.backend.to_host(blend)),
            )
    return sorted(found.values(), key=lambda e: (e.mjd, e.subscan))


def sky_differences(
    solution: ScanSolution, previous: Sequence[SkyEntry], depth: int
) -> tuple[SkyDifferences | None, list[SkyEntry]]:
    """Each OFF of the scan minus each of the ``depth`` most recent OFFs before it.

    ``previous``: the history of this band and layout, oldest first; earlier OFFs of this scan count as
    previous too. Returns the differences, newest reference first (None when there is nothing to
    compare), and the new history.
    """
    history = list(previous)
    pairs: list[tuple[SkyEntry, SkyEntry]] = []
    for entry in sky_entries(solution):
        pairs += [(entry, earlier) for earlier in reversed(history[-depth:])]
        history.append(entry)
    history = history[-depth:]
    if not pairs:
        return None, history
    attributes = {
        "n_diffs": len(pairs),
        "current_scan": solution.scan.number,
        "current_mjds": [a.mjd for a, _ in pairs],
        "current_offs": [a.subscan for a, _ in pairs],
        "ref_scans": [b.scan for _, b in pairs],
        "ref_mjds": [b.mjd for _, b in pairs],
        "ref_offs": [b.subscan for _, b in pairs],
    }
    return SkyDifferences(
        np.stack([a.spectrum - b.spectrum for a, b in pairs]), attributes
    ), history


def chop_differences(solution: ScanSolution) -> SkyDifferences | None:
    """Chopped sky differences: (<C_OFF>_phase1 - <C_OFF>_phase2) F per group of a chopped scan, on the scale of T_A*.

    A group is the n-th A with the n-th B (OTF chopped), or nod position A with B (wobbler); F is that
    of the ON of A. None when the scan is not chopped.
    """
    pairs = _chopped_pairs(solution)
    if not pairs:
        return None
    mid = solution.group.mjd_mid
    spectra, keys = [], []
    for j, a, b in pairs:
        factor = scale_of_output(solution, j, 0, solution.output_shape[0]).factor()
        one, two = a.sky_key(), b.sky_key()
        difference = (solution.means[one].mean - solution.means[two].mean) * factor
        spectra.append(np.asarray(solution.backend.to_host(difference)))
        keys.append((one.subscan, two.subscan))
    return SkyDifferences(
        np.stack(spectra),
        {
            "n_diffs": len(keys),
            "current_scan": solution.scan.number,
            "current_mjds": [float(mid[i]) for i, _ in keys],
            "current_offs": [i for i, _ in keys],
            "ref_scans": [solution.scan.number] * len(keys),
            "ref_mjds": [float(mid[k]) for _, k in keys],
            "ref_offs": [k for _, k in keys],
        },
    )


def _chopped_pairs(solution: ScanSolution) -> Sequence[tuple[int, Recipe, Recipe]]:
    """For each group of a chopped scan: the output whose scale counts, and the recipes of A and B."""
    outputs, modes = solution.pairing.recipes, solution.group.sobsmode
    beams = [(j, r.parts()) for j, r in enumerate(outputs)]
    merged = [(j, both[0], both[1]) for j, both in beams if len(both) == 2]
    if merged:
        return merged
    first = [j for j, r in enumerate(outputs) if modes[r.on] in ("OTFSWA-ON", "WSW-ON")]
    second = [j for j, r in enumerate(outputs) if modes[r.on] in ("OTFSWB-ON", "WSW-OFF")]
    return [(j, outputs[j], outputs[k]) for j, k in zip(first, second, strict=False)]
