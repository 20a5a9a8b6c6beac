"""The sky of the reference moved to the elevation of the source; physics equations (7.4) and (7.5).

Shapes: c channels of a block, D dumps of the output, R receivers, A pixels, K airmasses.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from gpucal.backend.protocol import Backend
from gpucal.modes.recipe import Difference, ReferenceTrack
from gpucal.physics.radiometry import T_BACKGROUND
from gpucal.physics.radiometry import airmass as airmass_of
from gpucal.steps.atmosphere import airmass_seen
from gpucal.steps.elevation.dumps import airmass_of_dumps, elevations
from gpucal.steps.scale import OutputScale
from gpucal.steps.sky_model import ambient_temperatures, sky_brightness, sky_departure
from gpucal.steps.solution import ScanSolution

Array = Any
F64 = npt.NDArray[np.float64]

NODES = 8
"""Airmasses at which the sky is worked out: between them J_sky is a polynomial, within 1e-9 of it for A tau of 1."""

SAME = 1e-9
"""Airmasses so near each other show the same sky."""


def sky_difference(
    solution: ScanSolution,
    output: int,
    part: Difference,
    scale: OutputScale,
    channels: tuple[int, int],
    *,
    above_air: bool,
) -> Array | None:
    """What the sky adds to the difference of ON and reference, f64 [c,D|1,R|1,A|1] K on the scale of ``scale.gain``,
    or ``above_air`` on that of T_A*.

    [J_sky(A_on) - J_sky(A_ref)] / (g_s f_eff), each dump at its own airmass where it has one, equation (7.4); in the
    scheme "vane" T_sky in place of J_sky / (g_s f_eff), and over the transmission, as its gain is. None where all see
    the sky at one airmass.
    """
    backend, group, kind = solution.backend, solution.group, solution.config.airmass
    seen = airmass_of_dumps(solution, part)
    usual = np.asarray(airmass_seen(group, part.source_subscan(), kind), dtype=np.float64)
    own = usual.reshape(1, *(usual.shape or (1, 1))) if seen is None else seen.wide[0]
    with np.errstate(invalid="ignore"):
        track = np.asarray(airmass_of(elevations(group), kind), dtype=np.float64)
    tracks = part.reference_tracks(track, solution.pairing.n_dumps)
    masses = [_wide(t, own) for t in tracks]
    every = np.concatenate([own.ravel(), *(m.ravel() for m in masses)])
    low, high = float(np.nanmin(every)), float(np.nanmax(every))
    if high - low < SAME:
        return None
    nodes = 0.5 * (low + high + (high - low) * np.cos(np.pi * (np.arange(NODES) + 0.5) / NODES))
    weights = _polynomials(nodes, own)
    of_reference = [
        np.nanmean(_polynomials(nodes, m), axis=0, keepdims=True)
        if t.averaged
        else _polynomials(nodes, m)
        for t, m in zip(tracks, masses, strict=True)
    ]
    sky = _sky_at(nodes, solution, output, scale, channels, above_air=above_air)
    plain = [np.asarray(t.weight, dtype=np.float64).reshape(-1, 1, 1, 1) for t in tracks]
    parts = list(zip(plain, of_reference, strict=True))
    total = _between(weights - sum(w * lines for w, lines in parts), sky, backend)
    moved = _moved_weights(solution, tracks, channels)
    for move, lines in zip(moved, of_reference, strict=True) if moved else ():
        total = total - move * _between(lines, sky, backend)
    return total


def _between(weights: F64, sky: Array, backend: Backend) -> Array:
    """Sums over the airmasses K of weights f64 [D|1,R|1,A|1,K] and the sky [K,c,R|1,A|1]: f64 [c,D|1,R|1,A|1]."""
    xp = backend.xp
    if weights.shape[1:3] == (1, 1):
        k, c, *pixels = sky.shape
        lines = backend.asarray(np.ascontiguousarray(weights[:, 0, 0, :]))
        flat = xp.reshape(xp.permute_dims(sky, (1, 0, 2, 3)), (c, k, -1))
        return xp.reshape(xp.matmul(lines[None, ...], flat), (c, lines.shape[0], *pixels))
    return sum(
        backend.asarray(weights[..., k])[None, ...] * sky[k, :, None, ...] for k in range(NODES)
    )


def _wide(track: ReferenceTrack, own: F64) -> F64:
    """Airmasses of a part of the reference, f64 [D,R|1,A|1]; one that is not known is that of the source.

    NaN in a mean, which the others stand for, unless none is known.
    """
    wide = track.values.reshape(len(track.values), *(track.values.shape[1:] or (1, 1)))
    known = np.isfinite(wide)
    if track.averaged and known.any(axis=0).all():
        return wide
    return np.where(known, wide, np.mean(own, axis=0))


def _polynomials(nodes: F64, at: F64) -> F64:
    """Lagrange's polynomials of the ``nodes`` [K] at airmasses f64 [..]: [..,K]."""
    found = np.ones((*at.shape, len(nodes)))
    for k, node in enumerate(nodes):
        for other in np.delete(nodes, k):
            found[..., k] *= (at - other) / (node - other)
    return found


def _moved_weights(
    solution: ScanSolution, tracks: Sequence[ReferenceTrack], channels: tuple[int, int]
) -> list[Array]:
    """What is added to the weight of each OFF, [c,D|1,R,A], where a channel is not in all of them; empty: nothing."""
    backend = solution.backend
    xp = backend.xp
    keys = [t.key for t in tracks if t.key is not None]
    if len(keys) < 2:
        return []
    means = [solution.means[key].mean[channels[0] : channels[1], ...] for key in keys]
    known = [xp.astype(xp.isfinite(mean), xp.float64)[:, None, ...] for mean in means]
    if all(bool(xp.all(k > 0)) for k in known):
        return []
    weights = [
        backend.asarray(np.asarray(t.weight, dtype=np.float64).reshape(1, -1, 1, 1)) for t in tracks
    ]
    # A channel that one OFF does not have is taken from the others, as in the reference.
    some, left = sum(known), sum(k * w for k, w in zip(known, weights, strict=True))
    shares = [
        xp.where(left > 0, k * w / xp.where(left > 0, left, 1.0), k / xp.where(some > 0, some, 1.0))
        for k, w in zip(known, weights, strict=True)
    ]
    return [share - w for share, w in zip(shares, weights, strict=True)]


def _sky_at(
    nodes: F64,
    solution: ScanSolution,
    output: int,
    scale: OutputScale,
    channels: tuple[int, int],
    *,
    above_air: bool,
) -> Array:
    """The sky at the airmasses ``nodes`` [K] on the scale of the spectra, f64 [K,c,R|1,A|1] K."""
    backend = solution.backend
    pwv = backend.asarray(solution.atmosphere.pwv_of(output))
    gain = _gain(solution, output, scale, channels)
    if above_air and scale.t_sig is not None:
        gain = gain * scale.t_sig
    return backend.xp.stack(
        [_sky(solution, pwv, float(a), channels, ratio=scale.ratio) / gain for a in nodes]
    )


def _sky(
    solution: ScanSolution, pwv: Array, airmass: float, channels: tuple[int, int], *, ratio: bool
) -> Array:
    """J_sky(A), f64 [c,R|1,A|1] K; in the scheme "vane" T_sky(A) of equation (9.1), channel by channel."""
    model = solution.atmosphere.model
    if not ratio:
        return sky_brightness(model, pwv, airmass, *channels)
    air = ambient_temperatures(solution.group, solution.config).effective
    through = model.transmission(0, pwv, airmass, *channels)
    less = sky_departure(model, 0, pwv, airmass, *channels)
    return air * (1.0 - (0.0 if less is None else less)) - (air - T_BACKGROUND) * through


def _gain(
    solution: ScanSolution, output: int, scale: OutputScale, channels: tuple[int, int]
) -> Array:
    """What the sky is divided by on the scale of ``scale.gain``, [c|1,R|1,A|1]."""
    if scale.ratio:
        return solution.vane_temperatures[output].t_sig[None, ...]
    return solution.setup.line_gain(slice(*channels))
