"""The two forms of the CUDA kernels as one set: fused, or plain where that was asked for or nothing else compiles."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from typing import Any

from gpucal.errors import GpucalWarning
from gpucal.kernel_contract.argument import Array
from gpucal.kernel_contract.calibrate import CalibrationTile
from gpucal.kernel_contract.chi2 import SkyFits
from gpucal.kernel_contract.dump_mean import DumpMean, SubscanDumps
from gpucal.kernel_contract.fold import FoldTile
from gpucal.kernel_contract.kernel_set import CONTRACTS, KernelSet
from gpucal.kernel_contract.reference import OffPair
from gpucal.kernels.device import NotCompiledError


class KernelForms:
    """A ``KernelSet`` that runs ``fused``, and the plain form of a kernel that cannot be compiled.

    plain: makes the plain set when it is first needed. form: "fused", or "plain" for all kernels. May be
    used from several threads.
    """

    def __init__(self, fused: KernelSet, plain: Callable[[], KernelSet], form: str) -> None:
        self._fused, self._make_plain = fused, plain
        self._plain: KernelSet | None = None
        self._reasons: dict[str, str] = dict.fromkeys(CONTRACTS if form == "plain" else (), "")
        self._lock = threading.Lock()

    def describe(self) -> str:
        """ "fused", "plain", or which kernel is plain and why."""
        if len(self._reasons) == len(CONTRACTS) and not any(self._reasons.values()):
            return "plain"
        parts = [f"{name} plain ({reason})" for name, reason in sorted(self._reasons.items())]
        return ", ".join(["fused", *parts])

    def calibrate(self, tile: CalibrationTile) -> int:
        """See ``KernelSet.calibrate``."""
        return int(self._run("calibrate", tile))

    def dump_mean(self, dumps: SubscanDumps) -> DumpMean:
        """See ``KernelSet.dump_mean``."""
        found: DumpMean = self._run("dump_mean", dumps)
        return found

    def reference(self, offs: OffPair) -> Array:
        """See ``KernelSet.reference``."""
        return self._run("reference", offs)

    def chi2(self, fits: SkyFits) -> Array:
        """See ``KernelSet.chi2``."""
        return self._run("chi2", fits)

    def fold(self, tile: FoldTile) -> int:
        """See ``KernelSet.fold``."""
        return int(self._run("fold", tile))

    def _run(self, name: str, arguments: Any) -> Any:
        if name not in self._reasons:
            try:
                return getattr(self._fused, name)(arguments)
            except NotCompiledError as error:
                self._give_up(name, str(error))
        with self._lock:
            if self._plain is None:
                self._plain = self._make_plain()
        return getattr(self._plain, name)(arguments)

    def _give_up(self, name: str, reason: str) -> None:
        """The plain form from now on, said once."""
        with self._lock:
            known = name in self._reasons
            self._reasons[name] = reason
        if not known:
            warnings.warn(
                f"the CUDA kernel {name} cannot be compiled ({reason}): its plain form, which is slower, "
                "takes its place.",
                GpucalWarning,
                stacklevel=4,
            )
