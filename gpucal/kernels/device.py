"""The device that the kernels run on: a CUDA device through CuPy."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any, Protocol

from gpucal.errors import BackendError
from gpucal.kernels.source import Kernel, compiler_options, source_text

Array = Any


class NotCompiledError(Exception):
    """A kernel that the compiler of this machine refuses."""


COMPILER_ERRORS = frozenset({"CompileException", "NVRTCError"})
"""Names of the classes that CuPy raises for it."""


class Device(Protocol):
    """Protocol of a device, as the host side of the kernels needs it."""

    xp: Any
    """The array namespace: zeros, empty, ascontiguousarray, asarray."""

    def address(self, array: Array) -> int:
        """Address of the first sample of an array."""

    def run(
        self, kernel: Kernel, grid: tuple[int, ...], block: tuple[int, ...], args: Sequence[Any]
    ) -> None:
        """Launch a kernel on the current stream; args are arrays and NumPy scalars."""


class CupyDevice:
    """The current CUDA device and the current stream of CuPy. May be used from several threads.

    Raises BackendError when CuPy or a device is missing. Kernels are compiled when first used and
    kept in CuPy's cache on disk.
    """

    def __init__(self) -> None:
        try:
            import cupy
        except ImportError as error:
            raise BackendError(
                f"the CUDA kernels need CuPy, which cannot be imported: {error}.",
                hint="Install it with pip install 'gpucal[cuda13]' (CUDA 13) or 'gpucal[cuda12]' (12).",
            ) from error
        try:
            devices = cupy.cuda.runtime.getDeviceCount()
        except cupy.cuda.runtime.CUDARuntimeError as error:
            raise BackendError(
                f"CuPy finds no usable CUDA device: {error}.",
                hint="Check the driver with nvidia-smi, and CUDA_VISIBLE_DEVICES.",
            ) from error
        if devices < 1:
            raise BackendError(
                "CuPy finds no CUDA device.",
                hint="Check the driver with nvidia-smi, and CUDA_VISIBLE_DEVICES.",
            )
        self.xp: Any = cupy
        self._lock = threading.Lock()
        self._functions: dict[Kernel, Any] = {}

    def address(self, array: Array) -> int:
        """Device address of the first sample."""
        return int(array.data.ptr)

    def run(
        self, kernel: Kernel, grid: tuple[int, ...], block: tuple[int, ...], args: Sequence[Any]
    ) -> None:
        """Launch a kernel on the current stream; it is compiled first when it is new.

        Raises NotCompiledError where it cannot be.
        """
        self.compiled(kernel)(grid, block, tuple(args))

    def compiled(self, kernel: Kernel) -> Any:
        """The compiled kernel, or NotCompiledError; the lock keeps two threads from compiling the same one."""
        with self._lock:
            function = self._functions.get(kernel)
            if function is None:
                function = self._functions[kernel] = self._compile(kernel)
            return function

    def _compile(self, kernel: Kernel) -> Any:
        """Raises NotCompiledError where the compiler refuses."""
        try:
            module = self.xp.RawModule(
                code=source_text(kernel.file),
                options=compiler_options(kernel.file),
                name_expressions=(kernel.expression,),
            )
            return module.get_function(kernel.expression)
        except Exception as error:
            if COMPILER_ERRORS & {kind.__name__ for kind in type(error).__mro__}:
                lines = [line for line in str(error).splitlines() if line.strip()]
                found = next(
                    (line for line in lines if "error" in line), (lines or ["no reason"])[0]
                )
                raise NotCompiledError(found.strip().rstrip(".")) from error
            raise
