"""Binary tables of FITS written row by row: memory for a few rows, whatever the number of spectra.

Source: FITS standard 4.0, sections 4.4 and 7.3. astropy formats the header cards.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from gpucal.errors import ConfigError, L1Error
from gpucal.io.files import atomic
from gpucal.spectrum import Spectrum

BLOCK = 2880
BUFFER_BYTES = 8 * 2**20
Card = tuple[str, Any, str]
_DTYPES = {"D": ">f8", "E": ">f4", "J": ">i4", "I": ">i2"}


@dataclass(frozen=True)
class Column:
    """One column: name, TFORM ("1D", "32A"), unit, comment, and its value for a spectrum."""

    name: str
    form: str
    unit: str
    comment: str
    value: Callable[[Spectrum], Any]

    @property
    def dtype(self) -> str:
        count, letter = int(self.form[:-1]), self.form[-1]
        return f"S{count}" if letter == "A" else _DTYPES[letter]


class TableStream:
    """A binary table that grows at the end of ``stream``; the row count is filled in by ``finish``.

    columns in their order, cards for the rest of the header. ``spectrum`` names the column, already
    among the columns with the value None, that takes the values as f32 [C].
    """

    def __init__(
        self,
        stream: BinaryIO,
        columns: Sequence[Column],
        cards: Sequence[Card],
        spectrum: str,
        n_channels: int,
    ) -> None:
        self._stream = stream
        self._columns = columns
        self._cards = cards
        self._spectrum = spectrum
        self._n_channels = n_channels
        fields: list[Any] = [
            (c.name, ">f4", (n_channels,)) if c.name == spectrum else (c.name, c.dtype)
            for c in columns
        ]
        self._dtype = np.dtype(fields)
        n_rows = max(1, BUFFER_BYTES // self._dtype.itemsize)
        self._buffer: npt.NDArray[Any] = np.zeros(n_rows, self._dtype)
        self._fill = 0
        self._start = stream.tell()
        self.rows = 0
        self._header_bytes = stream.write(self._header())

    def append(self, spectrum: Spectrum) -> None:
        """Add one row."""
        row = self._buffer[self._fill]
        for column in self._columns:
            if column.name == self._spectrum:
                row[column.name] = spectrum.values
            elif column.form.endswith("A"):
                row[column.name] = _text(column.value(spectrum), int(column.form[:-1]))
            else:
                row[column.name] = column.value(spectrum)
        self._fill += 1
        self.rows += 1
        if self._fill == self._buffer.size:
            self._flush()

    def finish(self) -> None:
        """Write what is left, pad the last block, and put the number of rows into the header."""
        self._flush()
        end = self._stream.tell()
        self._stream.write(b"\0" * (-end % BLOCK))
        after = self._stream.tell()
        self._stream.seek(self._start)
        written = self._stream.write(self._header())
        if written != self._header_bytes:
            raise AssertionError("the header has changed its length")
        self._stream.seek(after)

    def _flush(self) -> None:
        """Write the buffered rows to the stream."""
        self._stream.write(self._buffer[: self._fill].tobytes())
        self._fill = 0

    def _header(self) -> bytes:
        """The table's header for the present number of rows; its size does not depend on that number."""
        header = fits_module().Header()
        header["XTENSION"] = ("BINTABLE", "binary table extension")
        header["BITPIX"] = (8, "array data type")
        header["NAXIS"] = (2, "number of array dimensions")
        header["NAXIS1"] = (self._dtype.itemsize, "bytes per row")
        header["NAXIS2"] = (self.rows, "number of rows")
        header["PCOUNT"] = (0, "number of group parameters")
        header["GCOUNT"] = (1, "number of groups")
        header["TFIELDS"] = (len(self._columns), "number of columns")
        for key, value, comment in self._cards:
            header[key] = (plain(value), comment)
        for n, column in enumerate(self._columns, 1):
            form = f"{self._n_channels}E" if column.name == self._spectrum else column.form
            header[f"TTYPE{n}"] = (column.name, column.comment)
            header[f"TFORM{n}"] = form
            if column.unit:
                header[f"TUNIT{n}"] = column.unit
        return bytes(header.tostring().encode("ascii"))


def plain(value: Any) -> Any:
    """A header value; text without what FITS does not know, which becomes "?"."""
    if isinstance(value, str):
        return "".join(c if " " <= c <= "~" else "?" for c in value)
    return value


def primary_header(cards: Sequence[Card]) -> bytes:
    """The header of an empty primary HDU."""
    header = fits_module().Header()
    header["SIMPLE"] = (True, "conforms to FITS standard")
    header["BITPIX"] = (8, "array data type")
    header["NAXIS"] = (0, "number of array dimensions")
    header["EXTEND"] = (True, "there are extensions")
    for key, value, comment in cards:
        header[key] = (plain(value), comment)
    return bytes(header.tostring().encode("ascii"))


@contextlib.contextmanager
def whole_file(path: str | Path, *, overwrite: bool) -> Iterator[BinaryIO]:
    """A stream whose file appears at ``path`` when the block ends without an error: whole and synced.

    Raises ConfigError when something is in the way, L1Error when the disk refuses.
    """
    target = Path(path)
    check_target(target, overwrite)
    with atomic.as_write_error(target):
        atomic.clean_stale(target)
        staged = atomic.new_staged(target, target.name)
        try:
            draft = staged / target.name
            with open(draft, "w+b") as stream:
                yield stream
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(draft, target)
        finally:
            atomic.discard(staged)


def check_target(target: Path, overwrite: bool) -> None:
    """Raise ConfigError unless a file may be written to ``target``."""
    if not target.parent.is_dir():
        raise ConfigError(f"the folder {target.parent} does not exist.", hint="Make it first.")
    try:
        mode = os.stat(target).st_mode
    except OSError:
        return
    if not stat.S_ISREG(mode):
        raise ConfigError(f"{target} is not a file.", hint="Give the name of a file to write.")
    if not overwrite:
        raise ConfigError(f"{target} is already there.", hint="Use --overwrite, or another name.")


def nothing_to_write() -> L1Error:
    """The error of a writer that was given no spectrum."""
    return L1Error(
        "there is no spectrum with a good channel to export.",
        hint="gpucal plot shows what the store holds.",
    )


def fits_module() -> Any:
    """``astropy.io.fits``; raises ConfigError when astropy is not installed."""
    try:
        from astropy.io import fits
    except ImportError as error:
        raise ConfigError(
            "writing FITS needs astropy, which is not installed.",
            hint="Install it with: pip install gpucal[fits]",
        ) from error
    return fits


def iso_date(mjd: float, decimals: int = 2) -> str:
    """MJD as YYYY-MM-DDThh:mm:ss.ss, rounded to ``decimals`` (1..6) of a second; "" for NaN."""
    if not np.isfinite(mjd):
        return ""
    ticks = round(mjd * 86400.0 * 10**decimals)
    moment = np.datetime64("1858-11-17T00:00:00", "us") + np.timedelta64(
        ticks * 10 ** (6 - decimals), "us"
    )
    return str(moment)[: 20 + decimals]


def start_of(spectrum: Spectrum) -> float:
    """MJD of the nominal start: half the integration time before the middle."""
    return spectrum.mjd - 0.5 * spectrum.exptime / 86400.0


def _text(value: str, width: int) -> bytes:
    """ASCII text of a fixed width, padded with blanks; other characters become "?"."""
    return value.encode("ascii", "replace")[:width].ljust(width)
