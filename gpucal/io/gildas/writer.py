"""Write CLASS files: version 1, single, little endian, one spectrum after the other."""

from __future__ import annotations

import datetime
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from gpucal.errors import L1Error
from gpucal.io.files.atomic import as_write_error, clean_stale, discard, new_staged
from gpucal.io.gildas.spectrum import blanked, index_fields, section_fields
from gpucal.io.gildas.words import (
    CLASS_EPOCH,
    ENTRY_CODE,
    FILE,
    FRAMES,
    INDEX,
    RECORD_WORDS_V1,
    SECTION_NAMES,
    WRITTEN,
    written_entry,
)
from gpucal.physics.rest_frames import only_frames
from gpucal.spectrum import Spectrum

FILE_CODE = b"9A  "
RECORD_BYTES = 4 * RECORD_WORDS_V1
MAX_RECORDS = 2**31 - 1
"""Addresses are signed 32-bit record numbers: a file ends below 1 TiB."""
LEAST_EXTENSION = 64
"""Index entries per extension that CLASS itself takes."""
FILLED_EXTENSIONS = 125
"""Extensions used at most, of the 251 that there may be: CLASS can append as many spectra again."""
_ENTRY = written_entry()
_DATA_WORD = _ENTRY.itemsize // 4 + 1


def write_class(path: str | Path, spectra: Iterable[Spectrum], *, overwrite: bool = False) -> int:
    """Write spectra to a new CLASS file and return how many there were.

    Values as f32, NaN as the blanking value -1000; names cut to 12 characters, upper case. One
    spectrum is in memory at a time; the file is written beside ``path`` and renamed into place. CLASS knows
    the frames LSRK, HELIOCEN, GEOCENTR and TOPOCENT: others are converted to the LSRK (GpucalWarning).
    Raises L1Error when ``path`` is there and ``overwrite`` is not given, when there is no spectrum,
    when one has no frequency axis, when the file would exceed 1 TiB, or when it cannot be written.
    """
    path = Path(path)
    if path.is_dir() or (path.exists() and not overwrite):
        raise L1Error(
            f"{path} is there already, expected a new name.",
            hint="Give another name, or allow to overwrite the file.",
        )
    with as_write_error(path):
        clean_stale(path)
        staged = new_staged(path, path.name)
    try:
        draft = staged / path.name
        with as_write_error(path):
            stream, spool = open(draft, "xb"), open(staged / "index", "x+b")  # noqa: SIM115
        with stream, spool:
            n = _write_all(path, stream, spool, spectra)
        with as_write_error(path):
            _into_place(draft, path, overwrite)
    finally:
        discard(staged)
    return n


def _write_all(path: Path, stream: BinaryIO, spool: BinaryIO, spectra: Iterable[Spectrum]) -> int:
    """Write values and headers as they come, their index entries to ``spool``, which is added last."""
    today = datetime.datetime.now(datetime.UTC).date().toordinal() - 678576 - CLASS_EPOCH
    record, n = 3, 0  # records 1 and 2 are the file descriptor
    with as_write_error(path):
        stream.write(bytes(2 * RECORD_BYTES))
    for spectrum in only_frames(spectra, FRAMES.values(), "CLASS"):
        n += 1
        entry, index = _one(spectrum, n, record, today)
        records = -(-len(entry) // RECORD_BYTES)
        record += records
        _check_room(record, path)
        with as_write_error(path):
            stream.write(entry.ljust(records * RECORD_BYTES, b"\0"))
            spool.write(index)
    if n == 0:
        raise L1Error(f"{path} would be empty: there is no spectrum to write.")
    per_extension = max(LEAST_EXTENSION, 4 * -(-n // (4 * FILLED_EXTENSIONS)))
    with as_write_error(path):
        _finish(path, stream, spool, record, n, per_extension)
    return n


def _one(s: Spectrum, number: int, record: int, today: int) -> tuple[bytes, bytes]:
    """Bytes of a spectrum that starts at record ``record`` (header and values), and its index entry."""
    try:
        fields, entries = section_fields(s), index_fields(s, number, today)
        values = blanked(s.values)
        entry, index = np.zeros((), _ENTRY), np.zeros((), INDEX[1].newbyteorder("<"))
        words = _DATA_WORD - 1 + values.size
        _fill(entry["head"], {
            "code": ENTRY_CODE, "records": -(-words // RECORD_WORDS_V1), "words": words,
            "adata": _DATA_WORD, "ldata": values.size, "nsec": len(WRITTEN), "xnum": number,
        })  # fmt: skip
        lengths = [length for _, length in WRITTEN]
        entry["codes"] = [code for code, _ in WRITTEN]
        entry["lengths"] = lengths
        entry["addresses"] = _DATA_WORD - np.cumsum(lengths[::-1])[::-1]
        for code, _ in WRITTEN:
            _fill(entry[SECTION_NAMES[code]], fields[SECTION_NAMES[code]])
        _fill(index, {"bloc": record, **entries})
    except L1Error as error:
        raise L1Error(
            f"spectrum {number} cannot be written as CLASS: {error.message}", hint=error.hint
        ) from error
    except OverflowError as error:
        raise L1Error(
            f"spectrum {number} cannot be written as CLASS: scan {s.scan}, subscan {s.subscan}, MJD "
            f"{s.mjd} or its {s.values.size} channels do not fit in 32 bits."
        ) from error
    return entry.tobytes() + values.tobytes(), index.tobytes()


def _fill(record: npt.NDArray[Any], fields: dict[str, object]) -> None:
    """Set the named fields of one structured record."""
    for key, value in fields.items():
        record[key] = value


def _check_room(record: int, path: Path) -> None:
    if record > MAX_RECORDS:
        raise L1Error(
            f"{path} would exceed 1 TiB, the limit of CLASS files of version 1.",
            hint="Write fewer scans into one file, or average dumps first.",
        )


def _finish(
    path: Path, stream: BinaryIO, spool: BinaryIO, record: int, n: int, per_extension: int
) -> None:
    """Append the index extensions, then write the file descriptor over the first two records."""
    extensions = -(-n // per_extension)
    each = per_extension * INDEX[1].itemsize // RECORD_BYTES
    _check_room(record + each * extensions, path)
    spool.seek(0)
    shutil.copyfileobj(spool, stream, 1 << 20)
    stream.write(bytes((extensions * per_extension - n) * INDEX[1].itemsize))
    descriptor = np.zeros((), FILE[1].newbyteorder("<"))
    _fill(descriptor, {
        "code": FILE_CODE, "next": record + each * extensions, "lex1": per_extension,
        "nex": extensions, "xnext": n + 1,
    })  # fmt: skip
    addresses = record + each * np.arange(extensions)
    stream.seek(0)
    stream.write(descriptor.tobytes() + addresses.astype("<i4").tobytes())
    stream.flush()
    os.fsync(stream.fileno())


def _into_place(draft: Path, path: Path, overwrite: bool) -> None:
    """Give the finished file its name, and sync the folder; OSError when the name is taken."""
    if overwrite:
        os.replace(draft, path)
    else:
        try:
            os.link(draft, path)
        except FileExistsError:
            raise
        except OSError:  # a file system without hard links
            if path.exists():
                raise
            os.rename(draft, path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
