"""A SAM45 log on disk: its structure checked, the headers of its records in memory, the spectra read one by one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from gpucal.errors import ImportFormatError
from gpucal.io.files.unpacked import let_go
from gpucal.io.sam45.records import (
    CTL,
    CTL_BYTES,
    DAT,
    DAT_BYTES,
    END,
    END_BYTES,
    HEAD_SLACK,
    HEADS,
    OBS,
    OBS_BYTES,
    SPECTRUM_AT,
    text_of,
)

F32 = npt.NDArray[np.float32]
FIRST_DAT = CTL_BYTES + OBS_BYTES
_AT_A_TIME = 2048
"""Records whose headers are read before their pages are given back."""

COPY_AGAIN = "Copy the file again."


class Layout(NamedTuple):
    """How many whole dat records a log holds, and whether its end record is there."""

    records: int
    closed: bool


class Sam45Log:
    """One open log.

    ctl, obs  structured scalars; heads [N] those of the dat records, without spectra
    Raises ImportFormatError, naming the file, for one that is none, is cut short or damaged. partial: one that is cut
    short is taken up to its last whole record.
    """

    def __init__(self, path: Path, *, partial: bool = False) -> None:
        self.path = path
        try:
            self.size = path.stat().st_size
            self._stream = open(path, "rb")  # noqa: SIM115 - closed by close()
        except OSError as error:
            raise ImportFormatError(f"{path} cannot be read: {error.strerror or error}.") from error
        try:
            self.ctl = self._control()
            self.obs = self._one(OBS, CTL_BYTES, "obs", b"L1")
            self.layout = self._layout(partial)
            self.heads = self._headers()
        except BaseException:
            self._stream.close()
            raise

    def close(self) -> None:
        """Close the file; spectra can be read again after ``reopen``."""
        self._stream.close()

    def forget(self) -> None:
        """Close it, and let go of the headers: what was planned from them is enough to read the spectra."""
        self.close()
        self.heads = np.empty(0, HEADS)

    def reopen(self) -> None:
        """Open the file again where it was closed."""
        if self._stream.closed:
            try:
                self._stream = open(self.path, "rb")  # noqa: SIM115 - closed by close()
            except OSError as error:
                raise ImportFormatError(
                    f"{self.path} cannot be read: {error.strerror or error}."
                ) from error

    def spectrum(self, record: int, channels: int) -> F32:
        """Counts f32 [C] of a dat record, as they are stored."""
        at = FIRST_DAT + record * DAT_BYTES + SPECTRUM_AT
        try:
            raw = os.pread(self._stream.fileno(), 4 * channels, at)
        except OSError as error:
            raise ImportFormatError(
                f"{self.path} cannot be read at byte {at}: {error.strerror or error}."
            ) from error
        if len(raw) < 4 * channels:
            raise ImportFormatError(f"{self.path} became shorter while it was read.")
        return np.frombuffer(raw, "<f4").astype(np.float32)

    def _control(self) -> Any:
        if self.size == 0:
            raise ImportFormatError(f"{self.path} is empty.", hint=COPY_AGAIN)
        begin = self._bytes(0, 8)
        if begin[:4] not in (b"L0\0\0", b"L0  "):
            kind = "compressed" if begin[:2] == b"\x1f\x8b" else "no SAM45 log"
            hint = "Unpack it." if kind == "compressed" else "Give the log of the spectrometer."
            raise ImportFormatError(
                f"{self.path} is {kind}: it begins {begin[:4]!r}, expected b'L0'.", hint=hint
            )
        if int.from_bytes(begin[4:8], "big") == CTL_BYTES - HEAD_SLACK:
            raise ImportFormatError(
                f"{self.path} is in big-endian byte order, expected little-endian as SAM45 writes."
            )
        ctl = self._one(CTL, 0, "ctl", b"L0")
        backend = text_of(bytes(ctl["cbe_type"]))
        if backend != "SAM45":
            raise ImportFormatError(
                f"{self.path} is a log of the backend {backend!r}, expected 'SAM45'.",
                hint="Logs of other spectrometers of the telescope are laid out differently.",
            )
        return ctl

    def _one(self, dtype: np.dtype[Any], at: int, name: str, kind: bytes) -> Any:
        """A record of its own; ImportFormatError unless it is whole and of its type and length."""
        if self.size < at + dtype.itemsize:
            raise ImportFormatError(
                f"{self.path} is truncated: its {name} record ends at byte {at + dtype.itemsize}, the file "
                f"at byte {self.size}.",
                hint=COPY_AGAIN,
            )
        record = np.frombuffer(self._bytes(at, dtype.itemsize), dtype)[0]
        self._check(record, name, at, dtype.itemsize, kind)
        return record

    def _check(self, record: Any, name: str, at: int, nbytes: int, kind: bytes) -> None:
        found = bytes(record["crec_type"])
        if found.rstrip(b" ") != kind:
            raise ImportFormatError(
                f"{self.path}: the {name} record at byte {at} is of type {found!r}, expected {kind!r}.",
                hint=COPY_AGAIN,
            )
        if int(record["irec_len"]) != nbytes - HEAD_SLACK:
            raise ImportFormatError(
                f"{self.path}: the {name} record at byte {at} says that it is {record['irec_len']} + 8 bytes "
                f"long, expected {nbytes - HEAD_SLACK} + 8.",
                hint="The log is of a version that is not known, or damaged.",
            )

    def _layout(self, partial: bool) -> Layout:
        """How many records there are; ImportFormatError for a log that is cut short, unless ``partial``."""
        left = self.size - FIRST_DAT
        whole, rest = divmod(left - END_BYTES, DAT_BYTES)
        if left >= END_BYTES and rest == 0:
            end = np.frombuffer(self._bytes(self.size - END_BYTES, END_BYTES), END)[0]
            if bytes(end["crec_type"]).rstrip(b" ") == b"ED":
                self._check(end, "end", self.size - END_BYTES, END_BYTES, b"ED")
                return Layout(whole, True)
        whole, rest = divmod(left, DAT_BYTES)
        if not partial:
            behind = f" and {rest} bytes" if rest else ""
            raise ImportFormatError(
                f"{self.path} is truncated: after its {whole} whole dat records{behind} the end record (ED) is "
                "missing.",
                hint=f"{COPY_AGAIN} If it was never longer, --partial takes the whole records.",
            )
        return Layout(whole, False)

    def _headers(self) -> npt.NDArray[Any]:
        """The headers of all dat records; ImportFormatError for one that is no such record."""
        n = self.layout.records
        if n == 0:
            raise ImportFormatError(f"{self.path} holds no dat record, expected at least one.")
        records = np.memmap(self._stream, DAT, "r", offset=FIRST_DAT, shape=(n,))
        heads = np.empty(n, HEADS)
        for first in range(0, n, _AT_A_TIME):
            part = slice(first, first + _AT_A_TIME)
            for name in HEADS.names or ():
                heads[name][part] = records[name][part]
            let_go(records)
        wrong = (heads["crec_type"] != b"L2") & (heads["crec_type"] != b"L2  ")
        wrong |= heads["irec_len"] != DAT_BYTES - HEAD_SLACK
        if wrong.any():
            at = int(np.flatnonzero(wrong)[0])
            self._check(
                heads[at], f"dat (number {at})", FIRST_DAT + at * DAT_BYTES, DAT_BYTES, b"L2"
            )
        return heads

    def _bytes(self, at: int, n: int) -> bytes:
        try:
            return os.pread(self._stream.fileno(), n, at)
        except OSError as error:
            raise ImportFormatError(
                f"{self.path} cannot be read: {error.strerror or error}."
            ) from error


def texts(values: npt.NDArray[Any]) -> Iterator[str]:
    """Texts [n] up to their first NUL, as ``text_of``; equal ones are decoded once."""
    distinct, which = np.unique(values, return_inverse=True)
    decoded = [text_of(bytes(value)) for value in distinct]
    return (decoded[i] for i in which.tolist())
