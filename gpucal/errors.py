"""Errors with their place, what was found, and what to do about it."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable

_OF_THE_PROGRAM = re.compile(
    r"<class|NoneType| object at 0x|\(\) |keyword argument|__\w+__|unhashable|"
    r"not (iterable|callable|subscriptable|supported between)|has no attribute"
)
"""What is said only to those who wrote the program."""


class GpucalError(Exception):
    """Base of all errors of this package.

    The message says what was found and what was expected; ``hint`` says what to do; the
    keyword arguments say where. ``str(error)`` is one sentence for the user.
    """

    exit_code = 1

    def __init__(
        self,
        message: str,
        *,
        hint: str = "",
        scan: int | None = None,
        band: str = "",
        subscan: int | None = None,
        receiver: int | None = None,
        pixel: int | None = None,
        stage: str = "",
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.scan = scan
        self.band = band
        self.subscan = subscan
        self.receiver = receiver
        self.pixel = pixel
        self.stage = stage

    def where(self) -> str:
        """Return the place, e.g. ``"scan 25650 band_1, subscan 3, receiver 0, pixel 4"``."""
        parts = []
        if self.scan is not None:
            parts.append(f"scan {self.scan}" + (f" {self.band}" if self.band else ""))
        elif self.band:
            parts.append(self.band)
        for name, value in (
            ("subscan", self.subscan),
            ("receiver", self.receiver),
            ("pixel", self.pixel),
        ):
            if value is not None:
                parts.append(f"{name} {value}")
        return ", ".join(parts)

    def locate(self, *, scan: int | None = None, band: str = "", stage: str = "") -> GpucalError:
        """Fill in the place where it is still unknown, and return self."""
        if self.scan is None:
            self.scan = scan
        if not self.band:
            self.band = band
        if not self.stage:
            self.stage = stage
        return self

    def __str__(self) -> str:
        where = self.where()
        text = f"{where}: {self.message}" if where else self.message
        return f"{text} {self.hint}" if self.hint else text


class ConfigError(GpucalError, ValueError):
    """The configuration or the command line is wrong; nothing was touched."""

    exit_code = 64


class OtherSettingsError(ConfigError):
    """A finished scan was made with other settings or from other raw data; nothing was touched."""


class L0Error(GpucalError, ValueError):
    """The raw store does not follow the L0 layout, or a value in it cannot be right."""


class EmptyScanError(L0Error):
    """The scan is still being observed, and no subscan of it is complete yet."""


class L1Error(GpucalError, ValueError):
    """The calibrated store cannot be read, or holds something that is in the way."""


class L0KeyError(L0Error, KeyError):
    """The raw store has no such scan or band."""


class L1KeyError(L1Error, KeyError):
    """The calibrated store has no such scan, band or array."""


class CorruptDataError(GpucalError, OSError):
    """A chunk could not be decoded, or its checksum does not match."""


class LoadError(GpucalError, ValueError):
    """There is no usable load measurement for this scan."""


class PairingError(GpucalError, LookupError):
    """ON subscans cannot be paired with a reference."""


class AtmosphereError(GpucalError, ArithmeticError):
    """The atmosphere could not be determined."""


class TableError(GpucalError, ValueError):
    """An atmosphere table is malformed, or does not cover the frequencies asked for."""


class ImportFormatError(GpucalError, ValueError):
    """A foreign file (SDFITS, am output, ...) cannot be understood."""


class BackendError(GpucalError, RuntimeError):
    """The requested backend is not available."""


def words_of(error: BaseException) -> str:
    """What an error says of the data, on one line without its last full stop; "" where it tells of the program only.

    An error of the system names its file.
    """
    if isinstance(error, OSError) and error.strerror:
        name = f"{error.filename}: " if isinstance(error.filename, str) else ""
        return f"{name}{error.strerror}"
    if isinstance(error, GpucalError):
        text = error.message
    elif isinstance(
        error, KeyError | IndexError | AttributeError | RecursionError | AssertionError
    ):
        text = ""
    else:
        text = str(error)
    return "" if _OF_THE_PROGRAM.search(text) else " ".join(text.split()).rstrip(".")


def no_threads(error: BaseException) -> BackendError | None:
    """The error of a limit of threads, None for any other error."""
    if not isinstance(error, RuntimeError) or "start new thread" not in str(error):
        return None
    found = BackendError(
        "the system lets this process start no more threads.",
        hint="Raise the limit of processes (ulimit -u, or that of the container), or use --workers 1.",
    )
    found.__cause__ = error
    return found


class OnlineError(GpucalError, RuntimeError):
    """The online calibration cannot do what was requested."""


class DeviceMemoryError(BackendError, MemoryError):
    """A scan does not fit into the memory of the device (or of the host), even in the smallest pieces."""


class DeviceLostError(BackendError):
    """The device cannot be used any more by this process."""


class GpucalWarning(UserWarning):
    """Warning about something that a user should know but that does not stop the work."""


def did_you_mean(found: str, names: Iterable[str]) -> str:
    """ "did you mean 'tau'?" where one of the names is near, else ""."""
    from difflib import get_close_matches

    near = get_close_matches(found.lower(), {name.lower(): name for name in names}, n=1, cutoff=0.6)
    return f"did you mean {near[0]!r}?" if near else ""


def check_interpreter() -> None:
    """Raise ConfigError when Python leaves out assert statements: zarr reads its metadata in some of them."""
    if sys.flags.optimize:
        raise ConfigError(
            "Python runs optimised (-O, -OO or PYTHONOPTIMIZE): zarr cannot read a store that way.",
            hint="Run the same command without it.",
        )
