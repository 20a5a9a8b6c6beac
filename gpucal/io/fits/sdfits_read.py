"""Read SINGLE DISH tables (SDFITS): one row per spectrum, columns in memory, spectra left on disk.

Source: Garwood 2000 (ASP Conf. Ser. 216, 243), the SDFITS convention: a column that is the same in
all rows may stand in the header of the table instead.
"""

from __future__ import annotations

import mmap
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gpucal.errors import ImportFormatError

SPECTRA = "DATA"
_BLOCK_BYTES = 16 << 20
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
    """

    columns: Mapping[str, npt.NDArray[Any]]
    n_channels: npt.NDArray[np.int64]
    table: npt.NDArray[np.int64]
    row: npt.NDArray[np.int64]
    spectra_of: tuple[npt.NDArray[Any], ...]
    cards: Mapping[str, list[str]]
    files: tuple[Path, ...] = ()
    flagged: Mapping[int, Sequence[tuple[int, int]]] = field(default_factory=dict)

    def __len__(self) -> int:
        return int(self.row.size)

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        return self.columns[name]

    def dtype(self, index: npt.NDArray[np.int64]) -> np.dtype[Any]:
        """The dtype that holds the spectra of all rows in ``index``."""
        kinds = [_counts_dtype(self.spectra_of[t]) for t in np.unique(self.table[index])]
        # NaN marks what is flagged.
        extra = [np.dtype(np.float64)] if any(i in self.flagged for i in index.tolist()) else []
        kind = np.dtype(np.result_type(*kinds))
        return np.dtype(np.result_type(kind, *extra)) if kind.kind == "i" else kind

    def spectrum(self, index: int) -> npt.NDArray[Any]:
        """Spectrum [C] of row ``index``, as on disk (big endian), or with NaN where flagged."""
        values = np.asarray(self.spectra_of[self.table[index]][self.row[index]])
        if index not in self.flagged:
            return values
        values = values.astype(np.float64 if values.dtype.kind == "i" else values.dtype)
        for first, last in self.flagged[index]:
            values[first : last + 1] = np.nan
        return values

    def forget(self) -> None:
        """Let go of the pages of the files that were read: they can be read again."""
        for data in self.spectra_of:
            _let_go(data)


def read_sdfits(
    paths: Sequence[str | Path], required: Sequence[str], optional: Mapping[str, Any]
) -> SdfitsRows:
    """Read the rows of all SINGLE DISH tables of some files.

    required: column names that must be there (as column or header keyword); optional: name ->
    value where it is absent, whose type is that of the column. Raises ImportFormatError, naming the
    file, for one that is missing, not FITS, truncated, without such a table or without a column.
    """
    tables: list[dict[str, npt.NDArray[Any]]] = []
    spectra: list[npt.NDArray[Any]] = []
    cards: dict[str, list[str]] = {}
    files: list[Path] = []
    for path in (Path(p) for p in paths):
        for columns, data, header in _read_file(path, required, optional):
            tables.append(columns)
            spectra.append(data)
            files.append(path)
            cards.setdefault(path.name, []).extend(header)
    if not tables:
        raise ImportFormatError(
            "no file was given, expected at least one.", hint="Name SDFITS files."
        )
    rows = [len(x) for x in spectra]
    names = (*required, *optional)
    return SdfitsRows(
        columns={name: np.concatenate([t[name] for t in tables]) for name in names},
        n_channels=np.repeat([x.shape[1] for x in spectra], rows),
        table=np.repeat(np.arange(len(rows)), rows),
        row=np.concatenate([np.arange(n) for n in rows]),
        spectra_of=tuple(spectra),
        cards=cards,
        files=tuple(files),
    )


def _read_file(
    path: Path, required: Sequence[str], optional: Mapping[str, Any]
) -> list[tuple[dict[str, npt.NDArray[Any]], npt.NDArray[Any], list[str]]]:
    fits = astropy_fits()
    found = []
    with warnings.catch_warnings():
        # astropy only warns about truncation and odd headers; what matters is checked below.
        warnings.simplefilter("ignore")
        try:
            with fits.open(path, mode="readonly", memmap=True) as hdus:
                for hdu in hdus:
                    if str(hdu.header.get("EXTNAME", "")).strip().upper() != "SINGLE DISH":
                        continue
                    _check_whole(path, hdu)
                    header = [*_plain_cards(hdus[0].header), *_plain_cards(hdu.header)]
                    names = (*required, *optional)
                    raw = _map_rows(path, hdu)
                    data = _spectra(path, hdu, raw)
                    fields = _fields(hdu, raw, [n for n in names if n in hdu.columns.names])
                    columns = {
                        name: _column(
                            path,
                            hdu,
                            name,
                            fields,
                            default=optional.get(name),
                            required=name in required,
                        )
                        for name in names
                    }
                    found.append((columns, data, header))
        except ImportFormatError:
            raise
        except FileNotFoundError as error:
            raise ImportFormatError(f"{path} does not exist, expected an SDFITS file.") from error
        except (OSError, ValueError, TypeError, KeyError, IndexError) as error:
            reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
            raise ImportFormatError(
                f"{path} cannot be read as FITS ({reason}), expected an SDFITS file.",
                hint="Copy the file again, or check that it is FITS.",
            ) from error
    if not found:
        raise ImportFormatError(
            f"{path} holds no table named SINGLE DISH, expected an SDFITS file.",
            hint="Give the spectra, not another kind of FITS file.",
        )
    return found


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


def _check_whole(path: Path, hdu: Any) -> None:
    info = hdu.fileinfo()
    size = os.path.getsize(path)
    end = int(info["datLoc"]) + int(hdu.header["NAXIS1"]) * int(hdu.header["NAXIS2"])
    if size < end:
        raise ImportFormatError(
            f"{path} is truncated: its table ends at byte {end}, the file at byte {size}.",
            hint="Copy the file again.",
        )
    if int(hdu.header["NAXIS2"]) == 0:
        raise ImportFormatError(f"{path} holds a SINGLE DISH table without rows.")


def _map_rows(path: Path, hdu: Any) -> npt.NDArray[Any]:
    """The rows of a table as records on disk, mapped read only: pages can be let go of."""
    dtype = hdu.columns.dtype.newbyteorder(">")
    shape = (int(hdu.header["NAXIS2"]),)
    return np.memmap(path, dtype, mode="r", offset=int(hdu.fileinfo()["datLoc"]), shape=shape)


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
        _let_go(raw)
    return fields


def _let_go(data: npt.NDArray[Any]) -> None:
    """Give the pages of a mapped file back; they are read again where they are needed."""
    base: Any = data
    while base is not None and not isinstance(base, mmap.mmap):
        base = getattr(base, "base", None)
    if base is not None:
        base.madvise(mmap.MADV_DONTNEED)


def _spectra(path: Path, hdu: Any, raw: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The spectra [rows, C] of one table, on disk where they need no scaling."""
    if SPECTRA not in hdu.columns.names:
        raise _missing(path, SPECTRA)
    plain = _is_plain(hdu, SPECTRA)
    data = np.asarray(raw[SPECTRA] if plain else hdu.data.field(SPECTRA))
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
        values = fields[name]
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
        return np.char.strip(values.astype(str))
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
