"""Read SINGLE DISH tables (SDFITS): one row per spectrum, columns in memory, spectra left on disk.

Source: Garwood 2000 (ASP Conf. Ser. 216, 243), the SDFITS convention: a column that is the same in
all rows may stand in the header of the table instead.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from gpucal.errors import GpucalWarning, ImportFormatError
from gpucal.io.files.unpacked import DAMAGED, let_go, open_unpacked
from gpucal.io.fits.column_units import in_our_unit, unit_columns, unit_of_spectra
from gpucal.io.fits.marks import marks_of, unscaled

SPECTRA = "DATA"
UNIT = "UNIT"
"""Column added to those of the files: the unit of the spectrum of each row, "" where none is given."""

_BLOCK_BYTES = 16 << 20
_FIRST_CHANNELS = 64
_STRUCTURE = ("TTYPE", "TFORM", "TUNIT", "TDIM", "TNULL", "TDISP")
_COUNTS = {"f4": "float32", "f8": "float64", "i2": "int32", "i4": "int32"}


@dataclass(frozen=True, eq=False)
class SdfitsRows:
    """N rows of one or several files, in the order of the files.

    columns     name -> array [N] (f64, i64 or str); header keywords stand in for absent columns
    n_channels  i64 [N]  channels of the spectrum of each row
    table, row  i64 [N]  where the spectrum of each row lies: index into ``spectra_of``, row there
    spectra_of  one array [rows, C] per table, still on disk
    cards       file name -> header cards that do not describe the layout of the table
    files       file of each table
    flagged     row -> ranges of bad channels, both ends included; they read as NaN
    blanks      the integer that means "no value" (TNULL) of each table, or None
    marks       one array [rows, C] or [rows, 1] per table, on disk: not 0 where another program marked
                a channel as bad, which reads as NaN; None where there is none
    """

    columns: Mapping[str, npt.NDArray[Any]]
    n_channels: npt.NDArray[np.int64]
    table: npt.NDArray[np.int64]
    row: npt.NDArray[np.int64]
    spectra_of: tuple[npt.NDArray[Any], ...]
    cards: Mapping[str, list[str]]
    files: tuple[Path, ...] = ()
    flagged: Mapping[int, Sequence[tuple[int, int]]] = field(default_factory=dict)
    blanks: tuple[int | None, ...] = ()
    marks: tuple[npt.NDArray[Any] | None, ...] = ()

    def __len__(self) -> int:
        return int(self.row.size)

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        return self.columns[name]

    def dtype(self, index: npt.NDArray[np.int64]) -> np.dtype[Any]:
        """The dtype that holds the spectra of all rows in ``index``."""
        tables = np.unique(self.table[index]).tolist()
        kinds = [_counts_dtype(self.spectra_of[t]) for t in tables]
        # NaN marks what is flagged or blank.
        gaps = any(i in self.flagged for i in index.tolist())
        for of_table in (self.blanks, self.marks):
            gaps = gaps or any(of_table[t] is not None for t in tables if t < len(of_table))
        extra = [np.dtype(np.float64)] if gaps else []
        kind = np.dtype(np.result_type(*kinds))
        return np.dtype(np.result_type(kind, *extra)) if kind.kind == "i" else kind

    def spectrum(self, index: int) -> npt.NDArray[Any]:
        """Spectrum [C] of row ``index``, as on disk (big endian), or with NaN where flagged."""
        table = int(self.table[index])
        values = np.asarray(self.spectra_of[table][self.row[index]])
        blank = self.blanks[table] if table < len(self.blanks) else None
        mark = self.marks[table] if table < len(self.marks) else None
        if index not in self.flagged and blank is None and mark is None:
            return values
        empty = values == blank if blank is not None else None
        values = values.astype(np.float64 if values.dtype.kind in "iu" else values.dtype)
        if empty is not None:
            values[empty] = np.nan
        if mark is not None:
            values[np.broadcast_to(mark[self.row[index]] != 0, values.shape)] = np.nan
        for first, last in self.flagged.get(index, ()):
            values[first : last + 1] = np.nan
        return values

    def only(self, index: npt.NDArray[np.int64]) -> SdfitsRows:
        """These rows alone."""
        place = {old: new for new, old in enumerate(index.tolist())}
        return replace(
            self,
            flagged={place[i]: v for i, v in self.flagged.items() if i in place},
            columns={name: values[index] for name, values in self.columns.items()},
            n_channels=self.n_channels[index],
            table=self.table[index],
            row=self.row[index],
        )

    def zeros(self) -> npt.NDArray[np.int64]:
        """The rows [n] whose spectrum is 0, blank or NaN in every channel, but not NaN in all."""
        found = []
        for t, data in enumerate(self.spectra_of):
            mine = np.nonzero(self.table == t)[0]
            # few spectra begin with zeros: only those are read whole
            blank = self.blanks[t] if t < len(self.blanks) else None
            doubtful = mine[~np.any(_counts(data[self.row[mine], :_FIRST_CHANNELS], blank), axis=1)]
            for i in doubtful.tolist():
                spectrum = data[self.row[i]]
                nothing = spectrum.dtype.kind == "f" and bool(np.isnan(spectrum).all())
                if not nothing and not np.any(_counts(spectrum, blank)):
                    found.append(i)
            let_go(data)
        return np.array(found, dtype=np.int64)

    def forget(self) -> None:
        """Let go of the pages of the files that were read: they can be read again."""
        for data in self.spectra_of:
            let_go(data)


def read_sdfits(
    paths: Sequence[str | Path], required: Sequence[str], optional: Mapping[str, Any]
) -> SdfitsRows:
    """Read the rows of all SINGLE DISH tables of some files.

    required: column names that must be there (as column or header keyword); optional: name ->
    value where it is absent, whose type is that of the column. Raises ImportFormatError, naming the
    file, for one that is missing, not FITS, truncated, without such a table or without a column. Files
    compressed with gzip are unpacked to disk; tables without rows are left out with a GpucalWarning.
    """
    found: list[_Table] = []
    for path in (Path(p) for p in paths):
        found += _read_file(path, required, optional)
    if not found:
        raise ImportFormatError(
            "no file was given, expected at least one.", hint="Name SDFITS files."
        )
    rows = [len(table.spectra) for table in found]
    cards: dict[str, list[str]] = {}
    for table in found:
        cards.setdefault(table.path.name, []).extend(table.cards)
    return SdfitsRows(
        columns={
            name: np.concatenate([table.columns[name] for table in found])
            for name in (*required, *optional, UNIT)
        },
        n_channels=np.repeat([table.spectra.shape[1] for table in found], rows),
        table=np.repeat(np.arange(len(rows)), rows),
        row=np.concatenate([np.arange(n) for n in rows]),
        spectra_of=tuple(table.spectra for table in found),
        cards=cards,
        files=tuple(table.path for table in found),
        blanks=tuple(table.blank for table in found),
        marks=tuple(table.marks for table in found),
    )


@dataclass(frozen=True, eq=False)
class _Table:
    """What is read of one SINGLE DISH table."""

    path: Path
    columns: dict[str, npt.NDArray[Any]]
    spectra: npt.NDArray[Any]
    cards: list[str]
    blank: int | None
    marks: npt.NDArray[Any] | None


def _read_file(path: Path, required: Sequence[str], optional: Mapping[str, Any]) -> list[_Table]:
    """The SINGLE DISH tables of one file that hold rows."""
    fits = astropy_fits()
    tables: list[Any] = []
    found = []
    with warnings.catch_warnings():
        # astropy only warns about truncation and odd headers; what matters is checked below.
        warnings.simplefilter("ignore")
        try:
            with open_unpacked(path) as stream, fits.open(stream, mode="readonly") as hdus:
                tables = [hdu for hdu in hdus if _is_single_dish(hdu)]
                for hdu in tables:
                    _check_unpacked(path, hdu)
                    _check_whole(path, stream, hdu)
                    if int(hdu.header["NAXIS2"]):
                        cards = [*_plain_cards(hdus[0].header), *_plain_cards(hdu.header)]
                        found.append(
                            _read_table(
                                path, stream, hdu, cards, required=required, optional=optional
                            )
                        )
        except ImportFormatError:
            raise
        except FileNotFoundError as error:
            raise ImportFormatError(f"{path} does not exist, expected an SDFITS file.") from error
        except DAMAGED as error:
            raise ImportFormatError(
                f"{path} is compressed, and its end or a part is damaged ({error}).",
                hint="Copy the file again.",
            ) from error
        except (OSError, ValueError, TypeError, KeyError, IndexError) as error:
            reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
            raise ImportFormatError(
                f"{path} cannot be read as FITS ({reason}), expected an SDFITS file.",
                hint="Check that it is FITS: its first word must be SIMPLE.",
            ) from error
    if not tables:
        raise ImportFormatError(
            f"{path} holds no table named SINGLE DISH, expected an SDFITS file.",
            hint="Give the spectra, not another kind of FITS file.",
        )
    empty = len(tables) - len(found)
    if not found:
        raise ImportFormatError(f"{path} holds a SINGLE DISH table without rows.")
    if empty:
        text = f"{path} holds {empty} SINGLE DISH table without rows beside others: left out."
        warnings.warn(text, GpucalWarning, stacklevel=2)
    return found


def _is_single_dish(hdu: Any) -> bool:
    return str(hdu.header.get("EXTNAME", "")).strip().upper() == "SINGLE DISH"


def _read_table(
    path: Path,
    stream: IO[bytes],
    hdu: Any,
    cards: list[str],
    *,
    required: Sequence[str],
    optional: Mapping[str, Any],
) -> _Table:
    """One table: its columns in memory, its spectra still on disk."""
    names = (*required, *optional)
    raw = _map_rows(stream, hdu)
    spectra = _spectra(path, hdu, raw)
    units = unit_columns(hdu)
    copied = [n for n in dict.fromkeys((*names, *units)) if n in hdu.columns.names]
    fields = _fields(hdu, raw, copied)
    columns = {
        name: _column(
            path, hdu, name, fields, default=optional.get(name), required=name in required
        )
        for name in names
    }
    texts = {n: _column(path, hdu, n, fields, default="", required=True) for n in units}
    columns[UNIT] = unit_of_spectra(hdu, SPECTRA, texts)
    blank = hdu.columns[SPECTRA].null if spectra.dtype.kind in "iu" else None
    null = None if blank in (None, "") else int(blank)
    marks = marks_of(path, hdu, raw, spectra.shape[1])
    return _Table(path, columns, spectra, cards, null, marks)


def astropy_fits() -> Any:
    """The module astropy.io.fits; ImportFormatError saying how to install it without it."""
    try:
        from astropy.io import fits
    except ImportError as error:
        raise ImportFormatError(
            "FITS files need astropy, which is not installed.",
            hint="Install it with: pip install gpucal[fits]",
        ) from error
    return fits


def _check_unpacked(path: Path, hdu: Any) -> None:
    if hdu.header.get("ZTABLE", False):
        raise ImportFormatError(
            f"{path} holds a table compressed with fpack, expected a plain one.",
            hint="Unpack it with funpack.",
        )


def _check_whole(path: Path, stream: IO[bytes], hdu: Any) -> None:
    info = hdu.fileinfo()
    size = os.fstat(stream.fileno()).st_size
    end = int(info["datLoc"]) + int(hdu.header["NAXIS1"]) * int(hdu.header["NAXIS2"])
    if size < end:
        raise ImportFormatError(
            f"{path} is truncated: its table ends at byte {end}, the file at byte {size}.",
            hint="Copy the file again.",
        )


def _map_rows(stream: IO[bytes], hdu: Any) -> npt.NDArray[Any]:
    """The rows of a table as records on disk, mapped read only: pages can be let go of."""
    dtype = hdu.columns.dtype.newbyteorder(">")
    shape = (int(hdu.header["NAXIS2"]),)
    return np.memmap(stream, dtype, mode="r", offset=int(hdu.fileinfo()["datLoc"]), shape=shape)


def _is_plain(hdu: Any, name: str) -> bool:
    """Whether the bytes of a column are its values: no scaling, no logicals, bits or heap."""
    column = hdu.columns[name]
    scaled = any(x not in (None, "", n) for x, n in ((column.bscale, 1), (column.bzero, 0)))
    return not scaled and str(column.format).lstrip("0123456789")[:1] in tuple("ABIJKEDCM")


def _fields(hdu: Any, raw: npt.NDArray[Any], names: Sequence[str]) -> dict[str, npt.NDArray[Any]]:
    """Copies of some columns, read in blocks of rows so that the file does not fill the memory."""
    fields = {n: np.array(hdu.data.field(n)) for n in names if not _is_plain(hdu, n)}
    plain = [n for n in names if n not in fields]
    fields |= {n: np.empty(raw[n].shape, raw[n].dtype) for n in plain}
    step = max(1, _BLOCK_BYTES // max(1, raw.dtype.itemsize))
    for first in range(0, len(raw), step):
        rows = slice(first, first + step)
        for n in plain:
            fields[n][rows] = raw[n][rows]
        let_go(raw)
    return fields


def _spectra(path: Path, hdu: Any, raw: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The spectra [rows, C] of one table, on disk where they need no scaling."""
    if SPECTRA not in hdu.columns.names:
        raise _missing(path, SPECTRA)
    plain = _is_plain(hdu, SPECTRA)
    data = np.asarray(raw[SPECTRA]) if plain else unscaled(hdu, SPECTRA, raw[SPECTRA])
    if data.dtype.kind not in "if" or data.dtype.str[1:] not in _COUNTS:
        raise ImportFormatError(
            f"{path} has the column {SPECTRA} of type {data.dtype}, expected one number per "
            f"channel ({', '.join(sorted(_COUNTS))})."
        )
    if data.ndim > 2 and int(np.prod(data.shape[1:-1])) != 1:
        raise ImportFormatError(
            f"{path} holds spectra of shape {data.shape[1:]} in each row, expected one spectrum "
            "per row.",
            hint="Write one row per polarisation.",
        )
    return data.reshape(data.shape[0], -1)


def _counts(data: npt.NDArray[Any], blank: int | None) -> npt.NDArray[np.bool_]:
    """Where there is a number other than 0; real spectra have NaN in their first channel."""
    there: npt.NDArray[np.bool_] = np.not_equal(data, 0) & np.equal(data, data)
    return there if blank is None else there & np.not_equal(data, blank)


def _counts_dtype(data: npt.NDArray[Any]) -> np.dtype[Any]:
    return np.dtype(_COUNTS[data.dtype.str[1:]])


def _column(
    path: Path,
    hdu: Any,
    name: str,
    fields: Mapping[str, npt.NDArray[Any]],
    *,
    default: Any,
    required: bool,
) -> npt.NDArray[Any]:
    """One column [N], else the header keyword, else the default unless it must be there."""
    n_rows = int(hdu.header["NAXIS2"])
    if name in fields:
        values = in_our_unit(path, name, hdu.columns[name].unit, fields[name])
    elif name in hdu.header:
        values = np.full(n_rows, hdu.header[name])
    elif required:
        raise _missing(path, name)
    else:
        values = np.full(n_rows, default)
    if values.shape != (n_rows,):
        raise ImportFormatError(
            f"{path} has the column {name} with shape {values.shape[1:]} in each row, "
            "expected one value."
        )
    if values.dtype.kind in "SU":
        distinct, place = np.unique(values.astype(str), return_inverse=True)
        # FITS 4.0, 7.3.3.1: a NUL ends a string, what follows it is undefined.
        texts = np.array([text.partition("\0")[0].strip() for text in distinct.tolist()])
        return texts[place.reshape(values.shape)]
    if values.dtype.kind == "b":  # a logical column in place of the letters T and F
        return np.where(values, "T", "F")
    # Columns and keywords of different files must concatenate: two number types are enough.
    return values.astype(np.float64 if values.dtype.kind == "f" else np.int64)


def _missing(path: Path, name: str) -> ImportFormatError:
    return ImportFormatError(
        f"{path} has no column {name}, expected it in a SINGLE DISH table.",
        hint="Fill the data again with the observatory's sdfits program.",
    )


def _plain_cards(header: Any) -> list[str]:
    cards = (card.image.rstrip() for card in header.cards)
    return [text for text in cards if text and not text.startswith(_STRUCTURE)]
