"""The units of a FITS file: headers parsed, columns of binary tables read when they are asked for.

Source: FITS standard 4.0, section 7.3.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cached_property, lru_cache
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from gpucal.errors import ImportFormatError
from gpucal.io.files.unpacked import DAMAGED, let_go, open_unpacked
from gpucal.io.fits.sdfits_read import astropy_fits

BLOCK, CARD = 2880, 80
LONGEST_HEADER = 2880 * 1000
HEADERS_KEPT = 1024
COPY_AGAIN = "Copy the file again."
MJD_EPOCH = datetime(1858, 11, 17, tzinfo=UTC)
_LETTERS = {
    "L": "S1",
    "B": "u1",
    "I": ">i2",
    "J": ">i4",
    "K": ">i8",
    "E": ">f4",
    "D": ">f8",
    "C": ">c8",
    "M": ">c16",
    "X": "u1",
}


def text_of(value: Any) -> str:
    """A text up to its first NUL, without blanks around it."""
    if isinstance(value, bytes):
        value = value.decode("latin-1")
    return str(value).partition("\0")[0].strip()


def meant(value: float) -> float:
    """The decimal number of up to 6 digits that f4 rounds to this one; where there is none, the number itself."""
    short = f"{value:.6g}"
    return float(short) if np.float32(short) == np.float32(value) else value


class Unit:
    """One header and, for a binary table, where its rows lie.

    header: keyword -> value; start: byte where the data begin; name: EXTNAME, "PRIMARY" for the first
    """

    def __init__(self, file: FitsFile, header: Mapping[str, Any], start: int, number: int) -> None:
        self.file, self.path, self.header, self.start = file, file.path, header, start
        self.name = text_of(header.get("EXTNAME", "PRIMARY" if number == 0 else "unnamed"))
        self._number = number

    @property
    def place(self) -> str:
        """How messages name it."""
        return f"table {self._number} ({self.name}) of {self.path}"

    @property
    def rows(self) -> int:
        """Rows of the table; 0 for a unit that is none."""
        return int(self.header["NAXIS2"]) if self.is_table else 0

    @property
    def is_table(self) -> bool:
        """Whether it is a binary table."""
        return text_of(self.header.get("XTENSION", "")) == "BINTABLE"

    @cached_property
    def nbytes(self) -> int:
        """Bytes of its data, with the heap and without padding."""
        axes = [int(self.header[f"NAXIS{n + 1}"]) for n in range(int(self.header["NAXIS"]))]
        if not axes:
            return 0
        size = abs(int(self.header["BITPIX"])) // 8
        count = int(np.prod(axes, dtype=np.int64)) + int(self.header.get("PCOUNT", 0))
        return size * int(self.header.get("GCOUNT", 1)) * count

    def number(self, keyword: str, default: float | None = None) -> float:
        """A keyword as a number; ImportFormatError where it is missing without a default, or no number."""
        value = self.header.get(keyword)
        if value is None or type(value).__name__ == "Undefined":
            if default is not None:
                return default
            raise ImportFormatError(f"{self.place} has no keyword {keyword}, expected a number.")
        try:
            return float(value)
        except (TypeError, ValueError):
            raise ImportFormatError(
                f"{self.place}: {keyword} is {value!r}, expected a number."
            ) from None

    def text(self, keyword: str, default: str = "") -> str:
        """A keyword as text, up to its first NUL."""
        value = self.header.get(keyword)
        return default if value is None else text_of(value)

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns, in upper case."""
        return self.dtype.names or ()

    @cached_property
    def dtype(self) -> np.dtype[Any]:
        """The layout of a row; ImportFormatError where it does not add up to NAXIS1."""
        return self._layout()

    def has(self, *names: str) -> str | None:
        """The first of these columns that is there, also when its name was cut to 8 characters."""
        known = self.columns
        for name in names:
            for form in (name, name[:8]):
                if form in known:
                    return form
        return None

    def column(self, *names: str) -> npt.NDArray[Any]:
        """Values [rows, ...] of the first of these columns; texts as objects up to their first NUL.

        Raises ImportFormatError where there is none.
        """
        found = self.has(*names)
        if found is None:
            raise ImportFormatError(
                f"{self.place} has no column {names[0]}, but {', '.join(self.columns) or 'none'}."
            )
        with self.mapped() as table:
            raw = np.array(table[found])
        if raw.dtype.kind == "S":
            return np.array([text_of(bytes(v)) for v in raw.ravel()], dtype=object).reshape(
                raw.shape
            )
        return self._scaled(found, raw.astype(raw.dtype.newbyteorder("=")))

    def numbers(self, *names: str, default: float | None = None) -> npt.NDArray[np.float64]:
        """As ``column``, as f64 [rows]; ``default`` in all rows where there is no such column."""
        if default is not None and self.has(*names) is None:
            return np.full(self.rows, default)
        values = self.column(*names)
        if values.dtype.kind not in "iufb":
            raise ImportFormatError(
                f"{self.place}: column {names[0]} holds {values.dtype}, expected numbers."
            )
        return values.astype(np.float64).reshape(self.rows, -1)[:, 0]

    def decimals(self, *names: str) -> npt.NDArray[np.float64]:
        """As ``numbers``; f4 is the decimal number of up to 6 digits that was meant: 0.195, not 0.19499999."""
        found = self.has(*names)
        values = self.numbers(*names)
        if found is None or self.dtype[found].base != np.dtype(">f4"):
            return values
        return np.array([meant(v) for v in values.tolist()])

    def varying(self, *names: str) -> list[npt.NDArray[Any]]:
        """Values of each row, of any length: of a column of variable length (format P or Q), or as ``column``.

        Texts come as objects. Raises ImportFormatError where there is none, and where a row lies outside the heap.
        """
        found = self.has(*names)
        form = np.dtype("V0") if found is None else self.dtype[found]
        if form.base.kind != "V" or not form.itemsize:
            return list(self.column(*names).reshape(self.rows, -1))
        assert found is not None
        n = self.columns.index(found) + 1
        letter = self.text(f"TFORM{n}").lstrip("0123456789")[1:2]
        element = np.dtype("S1" if letter == "A" else _LETTERS.get(letter, "u1"))
        word = ">i4" if form.itemsize == 8 else ">i8"
        with self.mapped() as table:
            places = np.frombuffer(table[found].tobytes(), word).reshape(-1, 2)
        heap = self._heap()
        rows = []
        for row, (count, at) in enumerate(places.tolist()):
            end = at + count * element.itemsize
            if count < 0 or at < 0 or end > len(heap):
                raise ImportFormatError(
                    f"{self.place}: row {row + 1} of {found} lies at bytes {at} to {end} of {len(heap)} bytes of "
                    "values of variable length.",
                    hint=COPY_AGAIN,
                )
            values = np.frombuffer(heap[at:end], element)
            if letter == "A":
                text = text_of(values.tobytes())
                rows.append(np.array([text], dtype=object))
            else:
                rows.append(self._scaled(found, values.astype(element.newbyteorder("="))))
        return rows

    def _heap(self) -> bytes:
        """The bytes behind the rows that hold the values of variable length."""
        begin = int(self.number("THEAP", float(self.rows * int(self.header["NAXIS1"]))))
        stream = self.file.stream()
        stream.seek(self.start + begin)
        return stream.read(max(0, self.nbytes - begin))

    @contextmanager
    def mapped(self) -> Iterator[npt.NDArray[Any]]:
        """The rows [rows], big-endian, mapped while the block runs; ImportFormatError when the file was cut."""
        try:
            stream = self.file.stream()
            if os.fstat(stream.fileno()).st_size < self.start + self.nbytes:
                raise ImportFormatError(f"{self.path} became shorter while it was read.")
            if not self.rows:
                yield np.empty(0, self.dtype)
                return
            table = np.memmap(stream, self.dtype, "r", self.start, (self.rows,))
            try:
                yield table
            finally:
                let_go(table)
        except OSError as error:
            raise ImportFormatError(
                f"{self.path} cannot be read: {error.strerror or error}."
            ) from error

    def _scaled(self, name: str, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        n = self.columns.index(name) + 1
        scale, zero = self.number(f"TSCAL{n}", 1.0), self.number(f"TZERO{n}", 0.0)
        if (scale, zero) == (1.0, 0.0) or values.dtype.kind not in "iuf":
            return values
        return values * scale + zero

    def _layout(self) -> np.dtype[Any]:
        names: list[str] = []
        forms: list[Any] = []
        offsets: list[int] = []
        at = 0
        for n in range(1, int(self.number("TFIELDS")) + 1):
            name = self.text(f"TTYPE{n}", f"COLUMN{n}").upper()
            form = self._form(n)
            names.append(f"{name}_{n}" if name in names else name)
            forms.append(form)
            offsets.append(at)
            at += np.dtype(form).itemsize
        width = int(self.header["NAXIS1"])
        if at != width:
            raise ImportFormatError(
                f"{self.place}: its columns take {at} bytes, but a row (NAXIS1) has {width}.",
                hint=COPY_AGAIN,
            )
        return np.dtype({"names": names, "formats": forms, "offsets": offsets, "itemsize": width})

    def _form(self, n: int) -> Any:
        form = self.text(f"TFORM{n}")
        digits = form[: len(form) - len(form.lstrip("0123456789"))]
        count, letter = int(digits or 1), form[len(digits) : len(digits) + 1]
        if letter == "A":
            return f"S{count}" if count else "V0"
        if letter in "PQ" and letter:
            return ("V8" if letter == "P" else "V16") if count else "V0"
        if letter not in _LETTERS or not letter:
            raise ImportFormatError(f"{self.place}: column {n} is of the format {form!r}.")
        if letter == "X":
            return ("u1", (-(-count // 8),))
        return _LETTERS[letter] if count == 1 else (_LETTERS[letter], (count,))


def mjd_of(text: str, unit: Unit, keyword: str) -> float:
    """MJD of a date in ISO form; ImportFormatError for another one."""
    try:
        when = datetime.fromisoformat(text.replace("Z", "").strip()).replace(tzinfo=UTC)
    except ValueError:
        raise ImportFormatError(
            f"{unit.place}: {keyword} is {text!r}, expected YYYY-MM-DDThh:mm:ss."
        ) from None
    passed = when - MJD_EPOCH
    return passed.days + (passed.seconds + passed.microseconds * 1e-6) / 86400.0


def _header_text(stream: IO[bytes]) -> bytes:
    """The header that begins here, to the end of the block with its END; OSError where there is none."""
    text = b""
    while len(text) < LONGEST_HEADER:
        block = stream.read(BLOCK)
        text += block
        if len(block) < BLOCK:
            raise OSError(f"its header ends after {len(text)} bytes, without an END")
        if any(block[at : at + CARD].rstrip() == b"END" for at in range(0, BLOCK, CARD)):
            return text
    raise OSError(f"a header has no END in {len(text)} bytes")


@lru_cache(maxsize=HEADERS_KEPT)
def _values_of(text: bytes) -> Mapping[str, Any]:
    """Keyword -> value of a header; one that is read again, or stands in many files, is parsed once."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        header = astropy_fits().Header.fromstring(text)
        return dict(header.items())  # astropy's own look-up is slow


class FitsFile:
    """A FITS file and its units; it is opened when it is read, unpacked where it is compressed, and can be closed.

    Raises ImportFormatError for a file that is none, or is cut short.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stream: IO[bytes] | None = None
        try:
            self.units = self._units()
        except BaseException:
            self.close()
            raise

    def stream(self) -> IO[bytes]:
        """The open file; ImportFormatError where it cannot be opened or unpacked."""
        if self._stream is None:
            try:
                self._stream = open_unpacked(self.path)
            except DAMAGED as error:
                raise ImportFormatError(
                    f"{self.path} is compressed, and its end or a part is damaged ({error}).",
                    hint=COPY_AGAIN,
                ) from error
            except OSError as error:
                raise ImportFormatError(
                    f"{self.path} cannot be read: {error.strerror or error}."
                ) from error
        return self._stream

    def close(self) -> None:
        """Let go of the file; it is opened again when it is read."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def _units(self) -> list[Unit]:
        stream = self.stream()
        size = os.fstat(stream.fileno()).st_size
        if not size:
            raise ImportFormatError(f"{self.path} is empty.", hint=COPY_AGAIN)
        if stream.read(9) != b"SIMPLE  =":
            raise ImportFormatError(
                f"{self.path} is no FITS file.", hint="Give files of the telescope."
            )
        stream.seek(0)
        found: list[Unit] = []
        while stream.tell() < size:
            try:
                unit = self._next(stream, size, len(found))
            except ImportFormatError:
                raise
            except (OSError, EOFError, ValueError, TypeError, KeyError, IndexError) as error:
                reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
                raise ImportFormatError(
                    f"{self.path} cannot be read as FITS at its unit {len(found)} ({reason}).",
                    hint=COPY_AGAIN,
                ) from error
            if unit is None:
                break
            found.append(unit)
        return found

    def _next(self, stream: IO[bytes], size: int, number: int) -> Unit | None:
        """The unit that begins here; None where only padding follows."""
        begin = stream.tell()
        if number and not stream.read(BLOCK).strip(b"\0 "):
            return None
        stream.seek(begin)
        values = _values_of(_header_text(stream))
        unit = Unit(self, values, stream.tell(), number)
        nbytes = unit.nbytes
        if unit.is_table:
            int(values["TFIELDS"])
        if nbytes < 0 or unit.start + nbytes > size:
            raise ImportFormatError(
                f"{self.path} is truncated: its table {number} ({unit.name}) ends at byte {unit.start + nbytes}, the "
                f"file at byte {size}.",
                hint=COPY_AGAIN,
            )
        stream.seek(unit.start + -(-nbytes // BLOCK) * BLOCK)
        return unit
