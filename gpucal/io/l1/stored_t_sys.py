"""T_sys and T_sys* of a calibrated scan, whichever version wrote it; physics section 6.

L1 holds both by name. Earlier stores have ``t_sys`` alone: at the receiver's input where the attribute
``t_sys_convention`` says DSB, and T_sys* itself for the vane schemes. There T_sys* is derived, and T_sys of a vane is
NaN. Shapes: C channels, R receivers, A pixels, S ON subscans.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from gpucal.physics.radiometry import airmass

F64 = npt.NDArray[np.float64]
STAR = "T_sys*"
ALL = (slice(None), slice(None))
"""All receivers and pixels."""


class StoredScan(Protocol):
    """A band of a calibrated scan: ``L1Scan`` or ``MemoryScan``."""

    @property
    def attrs(self) -> Mapping[str, Any]: ...
    def __getitem__(self, name: str) -> Any: ...
    def __contains__(self, name: object) -> bool: ...


class StoredTSys:
    """System temperatures of one band; ``missing``: what a gain that an older store does not tell is taken for (1 where
    weights alone matter)."""

    def __init__(self, scan: StoredScan, missing: float = math.nan) -> None:
        self._scan = scan
        self._missing = missing

    @property
    def known(self) -> bool:
        """Whether the scan holds any."""
        return "t_sys_star" in self._scan or "t_sys" in self._scan

    @property
    def sidebands(self) -> str:
        """What ``t_sys`` is: "DSB", "SSB", or "T_sys*" in an older store of a vane; "" without any."""
        if "t_sys" not in self._scan:
            return ""
        said = str(self._scan["t_sys"].attrs.get("t_sys_convention", "DSB"))
        # earlier versions said DSB without an image, too
        return "SSB" if said == "DSB" and self._scan.attrs.get("gain_signal") == 1.0 else said

    def star_source(self, output: int) -> tuple[Any, F64 | None]:
        """The array [C,R,A,S] to take T_sys* from, and what to multiply it with: f64 [C,1|R], or None for 1.

        The factor is 1/(g_s f_eff t_sig), equation (6.3), NaN where the store does not tell the gains.
        """
        if "t_sys_star" in self._scan:
            return self._scan["t_sys_star"], None
        array = self._scan["t_sys"]
        return array, None if self.sidebands == STAR else self._above_air(output)

    def star(self, output: int, channels: slice = slice(None), place: tuple[Any, Any] = ALL) -> F64:
        """T_sys* of one output, f64 [c,R,A] K; [c] where ``place`` is one receiver and pixel."""
        array, factor = self.star_source(output)
        block = np.asarray(array[(channels, *place, output)], dtype=np.float64)
        if factor is None:
            return block
        here = factor[channels]
        if block.ndim == 1:
            return np.asarray(block * here[:, min(int(place[0]), here.shape[1] - 1)])
        return np.asarray(block * here[:, :, None])

    def at_receiver(self, output: int) -> F64:
        """T_sys at the receiver's input of one output, f64 [C,R,A] K; NaN where the store has T_sys* alone."""
        block = np.asarray(self._scan["t_sys"][..., output], dtype=np.float64)
        return np.full_like(block, np.nan) if self.sidebands == STAR else block

    def _above_air(self, output: int) -> F64:
        """1/(g_s f_eff t_sig) of an output, f64 [C,1|R]."""
        scan, attrs = self._scan, self._scan.attrs
        gain = _number(attrs.get("forward_efficiency", attrs.get("f_eff")), self._missing)
        # --line-scale dsb leaves 1/g_s out of the spectra, so out of their noise too
        if attrs.get("line_scale", "ssb") == "ssb":
            gain *= _number(attrs.get("gain_signal"), self._missing)
        n_channels = scan["t_sys"].shape[0]
        if not (gain > 0 and "tau_signal" in scan and "elevation" in scan):
            return np.full((n_channels, 1), np.nan)
        tau = np.asarray(scan["tau_signal"][...], dtype=np.float64).reshape(n_channels, -1)
        elevation = np.asarray(scan["elevation"][..., output], dtype=np.float64)
        if not np.isfinite(elevation).any():
            return np.full((n_channels, 1), np.nan)
        kind = str((attrs.get("config") or {}).get("airmass", "plane"))
        slant = tau * float(airmass(np.asarray(np.nanmean(elevation)), kind))
        return np.asarray(np.exp(slant) / gain)


def _number(value: Any, missing: float) -> float:
    """A number of the attributes, ``missing`` where there is none."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return missing
