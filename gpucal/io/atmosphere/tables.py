"""Atmosphere tables on disk (.npz or .zarr), the packaged ones, and which site they belong to."""

from __future__ import annotations

import hashlib
import io
import warnings
import zipfile
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gpucal.errors import GpucalWarning, TableError
from gpucal.io.files.atomic import (
    discard,
    exchange,
    new_staged,
    rename_into_place,
    sync_tree,
    write_file,
)
from gpucal.physics.atm import EMISSION, AtmosphereTable

F64 = npt.NDArray[np.float64]

REQUIRED = ("freq_hz", "b", "c_dry")
OPTIONAL = ("q", "c_o3", "c_minor")
SLOPES = ("slope_freq_hz", "slopes")
COLUMNS = (*REQUIRED, *OPTIONAL, "band_edges_hz", *EMISSION, *SLOPES)


def packaged_tables() -> dict[str, Path]:
    """Name and path of every table that comes with gpucal."""
    folder = resources.files("gpucal") / "data"
    found = {Path(str(item)).stem: Path(str(item)) for item in folder.iterdir()}
    return {name: path for name, path in sorted(found.items()) if path.suffix == ".npz"}


def load_table(path_or_name: str | Path) -> AtmosphereTable:
    """Read a table from a ``.npz`` file, a ``.zarr`` directory, or by the name of a packaged one.

    q, c_o3 and c_minor are 0 where they are missing, and the sky is isothermal without e_b and the other columns
    of its emission; a missing model or pwv_range_mm is a GpucalWarning. Raises TableError when there is no such table
    or it breaks a rule of ``AtmosphereTable``. ``sha256`` covers the file, or all files of a .zarr in sorted order.
    """
    packaged = packaged_tables()
    path = packaged.get(str(path_or_name), Path(path_or_name))
    if not path.exists():
        raise TableError(
            f"there is no atmosphere table {str(path_or_name)!r}.",
            hint=f"Give the path of a .npz or .zarr table, or one of {', '.join(packaged)}.",
        )
    if path.suffix == ".zarr":
        entries, digest = _read_zarr(path), table_digest(path)
    elif path.suffix == ".npz" and path.is_file():
        entries, digest = _read_npz(path), table_digest(path)
    else:
        raise TableError(f"atmosphere table {path} is neither a .npz file nor a .zarr directory.")
    for name in REQUIRED:
        if name not in entries:
            raise TableError(
                f"atmosphere table {path} has no {name}, expected at least {', '.join(REQUIRED)}."
            )
    columns = {name: _floats(path, name, entries[name]) for name in COLUMNS if name in entries}
    zero = np.zeros(columns["freq_hz"].shape)
    attrs = {name: value for name, value in entries.items() if name not in COLUMNS}
    table = AtmosphereTable(
        columns["freq_hz"],
        columns["b"],
        columns.get("q", zero),
        columns["c_dry"],
        columns.get("c_o3", zero),
        columns.get("c_minor", zero),
        columns.get("band_edges_hz"),
        attrs,
        str(path),
        digest,
        **{name: columns.get(name) for name in (*EMISSION, *SLOPES)},
    )
    missing = [name for name in ("model", "pwv_range_mm") if name not in attrs]
    if missing:
        warnings.warn(
            f"atmosphere table {path} does not say its {' and '.join(missing)}.",
            GpucalWarning,
            stacklevel=2,
        )
    return table


def save_table(path: str | Path, table: AtmosphereTable) -> None:
    """Write ``table`` to ``path`` (.npz or .zarr), whole or not at all; an old one is replaced.

    The bytes of a .npz depend on the table alone. Raises TableError for another ending or when
    it cannot be written.
    """
    target = Path(path)
    columns = {name: getattr(table, name) for name in COLUMNS}
    entries: dict[str, Any] = {name: value for name, value in columns.items() if value is not None}
    try:
        if target.suffix == ".npz":
            content = _npz_bytes({**entries, **table.attrs})
            write_file(target, content, target, replace=True)
        elif target.suffix == ".zarr":
            _write_zarr(target, entries, table.attrs)
        else:
            raise TableError(f"{target} ends neither in .npz nor in .zarr.")
    except OSError as error:
        reason = error.strerror or str(error)
        raise TableError(f"atmosphere table {target} cannot be written: {reason}.") from error


def _floats(path: Path, name: str, value: Any) -> F64:
    """A column as numbers; raises TableError when it holds none."""
    try:
        return np.array(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise TableError(f"atmosphere table {path}: {name} does not hold numbers.") from error


def _read_npz(path: Path) -> dict[str, Any]:
    if not zipfile.is_zipfile(path):
        raise TableError(
            f"atmosphere table {path} is not a .npz file, whatever its name says.",
            hint="Make one with gpucal atm import, or restore it from a copy.",
        )
    try:
        with np.load(path, allow_pickle=False) as stored:
            return {name: _plain(stored[name]) for name in stored.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, KeyError) as error:
        raise TableError(f"atmosphere table {path} cannot be read: {error}.") from error


def _plain(value: npt.NDArray[Any]) -> Any:
    """An array of a .npz file, a scalar as Python value."""
    return value.item() if value.ndim == 0 else value


def _read_zarr(path: Path) -> dict[str, Any]:
    import zarr

    from gpucal.io.chunks.regular_store import RegularFiles

    try:
        store = RegularFiles(path, read_only=True)
        group = zarr.open_group(store, mode="r", use_consolidated=False)
        entries: dict[str, Any] = dict(group.attrs)
        for name in COLUMNS:
            if name in group:
                entries[name] = np.asarray(group[name])
    except Exception as error:
        # zarr raises whatever its store, codec or metadata parser raises
        raise TableError(f"atmosphere table {path} cannot be read: {error}.") from error
    return entries


def _write_zarr(target: Path, columns: Mapping[str, Any], attrs: Mapping[str, Any]) -> None:
    """Write beside ``target``, then rename, or swap with the table that is there."""
    import zarr

    staged = new_staged(target, target.name)
    try:
        group = zarr.open_group(staged, mode="w", zarr_format=3)
        for name, column in columns.items():
            group.create_array(name, data=column)
        plain = {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in attrs.items()}
        group.attrs.update(plain)
        sync_tree(staged)
        if target.exists():
            exchange(staged, target)
        else:
            rename_into_place(staged, target)
    finally:
        discard(staged)


def _npz_bytes(entries: Mapping[str, Any]) -> bytes:
    """A compressed .npz whose bytes hold no time and no order but that of the names."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name in sorted(entries):
            member = io.BytesIO()
            np.lib.format.write_array(member, np.asarray(entries[name]), allow_pickle=False)
            info = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, member.getvalue(), compresslevel=9)
    return stream.getvalue()


def table_digest(path: Path) -> str:
    """SHA-256 of a file, or of the names and contents of all files in a .zarr folder."""
    total = hashlib.sha256()
    if path.is_file():
        total.update(path.read_bytes())
        return total.hexdigest()
    for file in sorted(item for item in path.rglob("*") if item.is_file()):
        total.update(file.relative_to(path).as_posix().encode() + b"\0")
        total.update(file.read_bytes())
    return total.hexdigest()
