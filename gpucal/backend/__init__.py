"""The backend protocol and the choice of one. A backend is passed down, never a global."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from gpucal.backend.device_codec import DeviceTools
from gpucal.backend.health import Health
from gpucal.backend.lanes import LanePool, host_lanes
from gpucal.errors import BackendError

Array = Any
"""An array of the backend's namespace (NumPy here, CuPy on a GPU)."""


class KernelSet(Protocol):
    """The fused functions that ``gpucal/kernels`` (CUDA) and ``cpu_fallback`` (NumPy) both hold.

    c channels of a tile, D dumps, R receivers, A pixels. No function edits its inputs; results do
    not depend on how channels are split into tiles or on the number of threads.
    """

    def calibrate(
        self,
        counts: Array,
        reference: Array,
        factor: Array,
        base_flags: Array,
        out: Array,
        out_flags: Array,
    ) -> int:
        """T_A* = (C_ON - C_REF) * F for a tile; physics section 6.

        counts [c,D,R,A] i32/u32/f32/f64; reference f64 [c,R,A] or per dump [c,D,R,A], counts;
        factor f64 [c,R,A], K/count; base_flags u16 [c,R,A]; out f64/f32 [c,D,R,A], K; out_flags
        u16 [c,D,R,A]. Fill samples (INT32_MIN for i32; not finite for floats; none for u32) get
        NaN and flag bit 1 beside their base flags; samples whose base flags hold bit 0 get NaN.
        A non-finite reference or factor gives NaN and bit 1 too unless bit 0 is set.
        Returns the number of samples with bit 1 (0 = flags are base_flags for every dump).
        """

    def dump_mean(self, counts: Array, valid: Array | None = None) -> tuple[Array, Array]:
        """Fill-aware mean over dumps, f64 accumulation (exact for integers).

        counts [c,D,R,A]; valid bool [D] or None = all dumps. Returns mean f64 [c,R,A] (NaN where no
        dump is valid) and the number of valid dumps i32 [c,R,A].
        """

    def reference(self, off1: Array, off2: Array, weight: Array) -> Array:
        """(1-w) OFF_1 + w OFF_2; physics section 7.

        off1, off2 f64 [c,R,A]; weight f64 scalar (0-d) -> [c,R,A], or [D] -> [c,D,R,A]. Where one
        of them is NaN the other is taken, exactly; w=0 gives off1 and w=1 gives off2 exactly.
        """

    def chi2(
        self,
        pwv: Array,
        airmass: float,
        observed: Array,
        weight: Array,
        amplitude: Array,
        opacity: Array,
        derivatives: bool = False,
    ) -> Array:
        """Sum over channels of w (S_obs - S_mod(P))^2; physics section 5.

        With S_mod = sum_k amp_k mean_j exp(-A (b_kj P + q_kj P^2 + c_kj)) (constants are already
        moved into ``observed``). pwv f64 [K,N] (K trial values for each of N fits);
        observed, weight f64 [C,N]; amplitude f64 [2,C,N] or [2,C,1] (signal, image), K; opacity
        f64 [3,2,J,C,N] or [3,2,J,C,1]: b, q, c of J points inside each channel. Channels with weight 0
        contribute nothing, even when observed is NaN. Returns f64 [K,N], or with
        ``derivatives`` f64 [4,K,N]: chi2, d chi2/dP, d2 chi2/dP2, Gauss-Newton curvature
        2 sum w (dS/dP)^2. The order of summation is fixed.
        """

    def fold(
        self,
        spectra: Array,
        flags: Array,
        weight: Array,
        taps: Array,
        nearest: Array,
        transmission: Array | None,
        base_flags: Array,
        out: Array,
        out_flags: Array,
    ) -> int:
        """(w_1 T_1 - w_2 T_2) / (w_1 + w_2) / t of a tile of a frequency switch; physics section 7.

        T_p(c) = sum_m taps[p,r,m] T(nearest[p,0,r] + c + m) over m = -h..h in this order, over the
        same sum of the taps whose T is not NaN; w_p(c) = weight(nearest[p,0,r] + c). spectra f64
        [m,D,R,A] K, flags u16 [m,D,R,A] and weight f64 [m,R,A]: more channels than the c of the
        output, as far as there are any; beyond them T and w are NaN and the flag is bit 1. taps f64
        [2,R,2h+1]; nearest i64 [2,2,R]: the two channels of ``spectra`` on both sides of the shifted
        channel 0, the nearest first, or the same twice for a whole shift, of which only the tap in
        the middle counts. NaN in one of them gives NaN, and their flags are united. transmission f64
        [c,R|1,A|1] or None; base_flags u16 [c,R,A], of which all bits but bit 0 are added. out
        f64/f32 [c,D,R,A] K; out_flags u16 [c,D,R,A]. What is not finite becomes NaN with bit 1,
        unless bit 0 is set. Returns the number of samples with
        bit 1.
        """


@dataclass(frozen=True)
class Backend:
    """An array namespace, its kernels, the two transfers and the lanes that tiles run in."""

    name: str
    xp: Any
    kernels: KernelSet
    asarray: Callable[[Any], Array]
    to_host: Callable[[Array], Any]
    lanes: Callable[[int], LanePool] = host_lanes
    device: str = "cpu"
    reason: str = ""
    health: Health = field(default_factory=Health)
    device_io: Callable[[], DeviceTools] | None = None


def select_backend(name: str = "auto", *, threads: int = 1) -> Backend:
    """Return the backend called ``name``: "cpu", "cuda" or "auto".

    auto takes cuda where a card works and has room, else cpu; ``reason`` of the backend says why.
    Raises BackendError when cuda is asked for and cannot be used, never for auto.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise BackendError(f"backend is {name!r}, expected auto, cuda or cpu.")
    if name == "cuda":
        from gpucal.backend.cuda import cuda_backend

        return cuda_backend()
    from gpucal.backend.cpu import cpu_backend

    if name == "cpu":
        return cpu_backend(threads=threads)
    found = _working_cuda()
    if isinstance(found, Backend):
        return found
    return cpu_backend(threads=threads, reason=f"auto: {found}")


def _working_cuda() -> Backend | str:
    """The CUDA backend if it works, else why it does not, without a full stop."""
    if importlib.util.find_spec("cupy") is None:  # quick: gpucal.backend.cuda need not be read
        return "CuPy is not installed"
    try:
        from gpucal.backend.cuda import tried_backend

        return tried_backend()
    except Exception as error:  # a driver that does not fit may raise anything; it is only a probe
        text = error.message if isinstance(error, BackendError) else str(error)
        return " ".join(text.split()).rstrip(".") or type(error).__name__
