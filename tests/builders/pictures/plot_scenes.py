"""What the pictures of the tests show beside an L1 store: fits, raw loads, a spectrum before folding."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from gpucal import Scan, SubscanGroup
from gpucal.plot.binning import Binned
from gpucal.plot.fits import ResultLike
from gpucal.plot.source import ScanView
from gpucal.procedures.results import (
    FocusFit,
    FocusResult,
    Measured,
    PointingFit,
    PointingResult,
    SkydipFit,
    SkydipResult,
)
from gpucal.scan import ArrayCounts

Fit = TypeVar("Fit", PointingFit, FocusFit, SkydipFit)


def _samples(
    fit: type[Fit],
    positions: NDArray[Any],
    model: NDArray[Any],
    sigma: float,
    seed: int,
    **named: Any,
) -> Fit:
    values = model + np.random.default_rng(seed).normal(0.0, sigma, model.size)
    return fit(
        positions=positions,
        values=values,
        sigma=np.full(model.size, sigma),
        model=model,
        residual=values - model,
        **named,
    )


def pointing() -> PointingResult:
    """Two directions, each driven forth and back."""
    fits = []
    for axis, offset in (("az", 4.2), ("el", -7.7)):
        x = np.tile(np.linspace(-60, 60, 31), 2)
        drift = np.repeat([0, 1], 31).astype(np.int32)
        model = np.where(drift == 0, 1.3, 0.1) + 5 * np.exp(-0.5 * ((x - offset) / 12) ** 2)
        named = {"axis": axis, "unit": "arcsec", "valid": True, "drift": drift, "sense": (1, -1)}
        named |= {"offset": Measured(offset, 0.31, "arcsec"), "amplitude": Measured(5, 0.1, "K")}
        fits.append(_samples(PointingFit, x, model, 0.2, 3, **named))
    return PointingResult(valid=True, fits=tuple(fits))


def focus() -> FocusResult:
    """A valid axis and one whose best focus lies outside of what was scanned."""
    z = np.linspace(-2, 2, 9)
    good = _samples(
        FocusFit, z, 4 - 0.5 * (z - 0.4) ** 2, 0.1, 4,
        axis="z", unit="mm", valid=True, best=Measured(0.41, 0.03, "mm"),
    )  # fmt: skip
    bad = _samples(
        FocusFit, z, 4 - 0.1 * (z - 3.1) ** 2, 0.1, 5,
        axis="x", unit="mm", best=Measured(3.1, 0.4, "mm"),
        reason="best focus 3.1 mm lies outside the scanned range -2 to 2 mm",
    )  # fmt: skip
    return FocusResult(valid=False, reason="no valid fit along x", fits=(good, bad))


def skydip() -> SkydipResult:
    """Sky temperature at nine airmasses."""
    airmass = np.linspace(1.1, 3, 9)
    model = 0.95 * 270 * (1 - np.exp(-0.2 * airmass))
    fit = _samples(
        SkydipFit, airmass, model, 1.5, 6,
        axis="airmass", valid=True, tau=Measured(0.201, 0.004, "Np"), f_eff=Measured(0.95, 0.012),
    )  # fmt: skip
    return SkydipResult(valid=True, fits=(fit,))


FITS: dict[str, Callable[[], ResultLike]] = {"pointing": pointing, "focus": focus, "skydip": skydip}


def load_scan(view: ScanView, number: int = 2) -> Scan:
    """A load scan in memory with the channels, receivers and pixels of ``view``: HOT, COLD, one fill."""
    c, _, r, a, _ = view.shape
    x = (np.linspace(-1, 1, c) if c > 1 else np.zeros(1))[:, None, None]
    band = (1 - x**8) * (1 + 0.1 * np.arange(a)) * (1 + 0.2 * np.arange(r)[:, None])
    counts = np.stack(
        [np.repeat((f * 1e5 * band)[:, None], 2, axis=1) for f in (3.0, 1.4)], axis=-1
    )
    counts = counts.round().astype(np.int32)
    counts[min(5, c - 1), 0, 0, 0, 0] = np.iinfo(np.int32).min
    two, ones = np.full(2, np.nan), np.ones((r, 2))
    track: dict[str, Any] = {name: np.zeros((2, 2)) for name in ("exptime", "elevation", "azimuth")}
    group = SubscanGroup(
        counts=ArrayCounts(counts), sobsmode=("HOT", "COLD"),
        mjd=np.array([[61042.205, 61042.206]] * 2), **track, pamb=two, tamb=two,
        signal_freq=ones, image_freq=ones, freq_res=ones, ref_channel=ones,
        lloadsn=np.full(2, -1, np.int32), otf_lon=np.zeros((2, 2)), otf_lat=np.zeros((2, 2)),
        pixel_offset_lon=np.zeros((r, a, 2)), pixel_offset_lat=np.zeros((r, a, 2)),
    )  # fmt: skip
    return Scan(number, view.band, {}, {}, None, group)


def unfolded(binned: Binned) -> NDArray[Any]:
    """The folded mean put back: half up, half down, shifted by ten channels; f64 [C,R,A] K."""
    mean = np.nan_to_num(binned.mean)
    return np.roll(mean, 10, axis=0) - np.roll(mean, -10, axis=0)
