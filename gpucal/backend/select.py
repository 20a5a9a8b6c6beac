"""Choice of a backend: CUDA where a card works and has room, else NumPy."""

from __future__ import annotations

import importlib.util

from gpucal.backend.protocol import Backend
from gpucal.errors import BackendError


def select_backend(name: str = "auto", *, threads: int = 1, kernels: str = "fused") -> Backend:
    """Return the backend called ``name``: "cpu", "cuda" or "auto".

    auto takes cuda where a card works and has room, else cpu; ``reason`` of the backend says why.
    kernels: "fused" or "plain", the form of the kernels on a card. Raises BackendError when cuda is
    asked for and cannot be used, never for auto.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise BackendError(f"backend is {name!r}, expected auto, cuda or cpu.")
    if name == "cuda":
        from gpucal.backend.cuda import cuda_backend

        return cuda_backend(kernels=kernels)
    from gpucal.backend.cpu import cpu_backend

    if name == "cpu":
        return cpu_backend(threads=threads)
    found = _working_cuda(kernels)
    if isinstance(found, Backend):
        return found
    return cpu_backend(threads=threads, reason=f"auto: {found}")


def _working_cuda(kernels: str) -> Backend | str:
    """The CUDA backend if it works, else the reason why it does not, as text without a full stop."""
    if importlib.util.find_spec("cupy") is None:  # quick: gpucal.backend.cuda need not be read
        return "CuPy is not installed"
    try:
        from gpucal.backend.cuda import tried_backend

        return tried_backend(kernels=kernels)
    except Exception as error:  # a driver that does not fit may raise anything; it is only a probe
        text = error.message if isinstance(error, BackendError) else str(error)
        return " ".join(text.split()).rstrip(".") or type(error).__name__
