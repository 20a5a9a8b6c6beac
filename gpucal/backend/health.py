"""Health of a backend's device: its errors as gpucal's errors, and its free memory.

CUDA errors are known by their class name and number, so that CuPy need not be imported here.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator

from gpucal.errors import BackendError, DeviceLostError, DeviceMemoryError

OUT_OF_MEMORY = 2
"""cudaErrorMemoryAllocation and CUDA_ERROR_OUT_OF_MEMORY."""

LOST = frozenset(
    {
        *(3, 4, 46, 100, 201, 214, 220, 226, 227),
        *(700, 702, 709, 710, 714, 715, 716, 717, 718, 719, 802, 999),
    }
)
"""Errors after which the process cannot use the device any more (numbers of cudaError_t, the same as of
CUresult): not initialised, gone, unavailable, uncorrectable memory, illegal access, failed launch."""

CUDA_ERRORS = frozenset({"CUDARuntimeError", "CUDADriverError"})

MEMORY_HINT = "Use a smaller --ring, --workers 1, or another card."
LOST_HINT = (
    "Run the same command again for this scan; dmesg (lines with Xid) and nvidia-smi -q tell more."
)


class Health:
    """Health of a device as its backend knows it; this class serves the host, and is the base for devices."""

    def failure(self, error: BaseException) -> BackendError | None:
        """``error`` as DeviceMemoryError or DeviceLostError; None when the device is not at fault.

        The errors that it was raised from count too. The result is new: it holds no frames.
        """
        for one in _chain(error):
            if isinstance(one, DeviceMemoryError | DeviceLostError):
                return type(one)(one.message, hint=one.hint)
            status = _cuda_status(one)
            if status in LOST:
                text = f"the device was lost: {_sentence(one)}."
                return DeviceLostError(text, hint=LOST_HINT)
            if status == OUT_OF_MEMORY or isinstance(one, MemoryError):
                text = f"there is not enough memory: {_sentence(one)}."
                return DeviceMemoryError(text, hint=MEMORY_HINT)
        return None

    def release(self) -> None:
        """Give back memory that nothing uses any more."""
        gc.collect()  # errors hold the frames, and with them the arrays, of the failed attempt

    def free_bytes(self) -> int | None:
        """Free memory of the device; None when it is not known."""
        return None


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and its causes, the outermost first, each once."""
    one: BaseException | None = error
    seen: set[int] = set()
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        yield one
        one = one.__cause__


def _cuda_status(error: BaseException) -> int | None:
    """Status code of a CUDA error, recognised by the names of its classes, as CuPy is not imported here."""
    if not CUDA_ERRORS & {kind.__name__ for kind in type(error).__mro__}:
        return None
    status = getattr(error, "status", None)
    return None if status is None else int(status)


def _sentence(error: BaseException) -> str:
    """The message on one line without a full stop."""
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__
