"""Chi2 of the observed sky against the atmosphere model, all fits in one launch (chi2.cu)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gpucal.kernel_contract.chi2 import SkyFits
from gpucal.kernels.device import Array, Device
from gpucal.kernels.source import Kernel

PART = 128
LANES = 8
FITS = 32
"""Channels of a partial sum, partial sums side by side, fits of a block; as in chi2.cu."""

TRIALS = 8
"""Trial values whose sums one thread keeps in registers."""

IN_FLIGHT = 8

MOST_TRIALS = 65535
"""Blocks of the third axis of a grid."""


def kernels() -> list[Kernel]:
    """Every variant in use."""
    return [_own(1), _own(4), _shared(1, 1), _shared(1, TRIALS), _shared(4, 1), _total()]


def _own(sums: int) -> Kernel:
    """Variant with a model per fit; sums: 1, or 4 with the derivatives."""
    return Kernel("chi2", f"chi2_own<{sums}>")


def _shared(sums: int, trials: int) -> Kernel:
    """Variant with one model for all fits; trials: trial values of one thread."""
    return Kernel("chi2", f"chi2_shared<{sums}, {trials}>")


def _total() -> Kernel:
    """Variant that adds the partial sums of all parts."""
    return Kernel("chi2", f"sum_parts<{IN_FLIGHT}>")


def chi2_sums(fits: SkyFits, device: Device) -> Array:
    """Return chi2 f64 [K,N], or with ``derivatives`` [4,K,N].

    Where all fits share the PWV and the opacity, the exponentials of a trial value and a channel are
    computed once for up to 32 fits. The order of summation depends on the number of channels alone: 8
    interleaved sums in each 128 channels, added in order, then the parts in the same way. It differs
    from the NumPy twin's (pairs within 4096 channels), so the two agree to rounding, not to the last
    bit. Arrays that are not contiguous are copied.
    """
    xp = device.xp
    channels, n_fits = fits.observed.shape
    trials = len(fits.pwv)
    sums = 4 if fits.derivatives else 1
    total = xp.zeros((sums, trials, n_fits), dtype=np.float64)
    if channels and total.size:
        # A grid copied to all fits by broadcasting is one grid.
        same = fits.pwv.shape[1] == 1 or fits.pwv.strides[1] == 0
        dense = fits._replace(
            pwv=xp.ascontiguousarray(fits.pwv[:, :1] if same else fits.pwv),
            observed=xp.ascontiguousarray(fits.observed),
            weight=xp.ascontiguousarray(fits.weight),
            amplitude=xp.ascontiguousarray(fits.amplitude),
            opacity=xp.ascontiguousarray(fits.opacity),
        )
        shared = same and fits.opacity.shape[-1] == 1
        (_sum_shared if shared else _sum_own)(dense, total, device)
    return total if fits.derivatives else total[0]


def _sum_own(fits: SkyFits, total: Array, device: Device) -> None:
    """Every fit with its own PWV or opacity."""
    sums, trials, _ = total.shape
    if trials > MOST_TRIALS:
        raise ValueError(f"pwv has {trials} trial values, at most {MOST_TRIALS} are supported.")
    columns = [np.int32(a.shape[-1]) for a in (fits.pwv, fits.amplitude, fits.opacity)]
    _sum(_own(sums), fits, total, trials, columns, device)


def _sum_shared(fits: SkyFits, total: Array, device: Device) -> None:
    """All fits at the same trial values of one opacity."""
    sums, trials, _ = total.shape
    together = TRIALS if sums == 1 and trials > 1 else 1
    tiles = -(-trials // together)
    if tiles > MOST_TRIALS:
        raise ValueError(f"pwv has {trials} trial values, at most {MOST_TRIALS} are supported.")
    columns = [np.int32(trials), np.int32(fits.amplitude.shape[-1])]
    _sum(_shared(sums, together), fits, total, tiles, columns, device)


def _sum(
    kernel: Kernel,
    fits: SkyFits,
    total: Array,
    tiles: int,
    columns: Sequence[np.int32],
    device: Device,
) -> None:
    """Partial sums of all parts, then their sum into ``total``; columns: last sizes of the kernel."""
    channels, n_fits = fits.observed.shape
    points = fits.opacity.shape[2]
    parts = -(-channels // PART)
    partial = device.xp.empty((parts, *total.shape), dtype=np.float64)
    # With few fits the other threads of a block still compute exponentials.
    across = min(max(n_fits, LANES), FITS)
    device.run(
        kernel,
        (parts, -(-n_fits // across), tiles),
        (across, LANES),
        (
            *(fits.pwv, fits.observed, fits.weight, fits.amplitude, fits.opacity, partial),
            *(np.float64(fits.airmass), np.float64(1.0 / points)),
            *(np.int32(channels), np.int32(n_fits), np.int32(points), *columns),
        ),
    )
    device.run(
        _total(),
        (-(-total.size // FITS),),
        (FITS, LANES),
        (partial, total, np.int32(parts), np.int64(total.size)),
    )
