"""An L0 store that was packed into one file: a zip is read as it is, for others the command that unpacks them."""

from __future__ import annotations

import tarfile
import zipfile
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

from gpucal.errors import L0Error

_ROOTS = ("zarr.json", ".zgroup")


def open_packed(path: Path) -> Any:
    """The root group of the store in a zip file, at its top or in its only folder.

    Raises L0Error for any other file, with the command that unpacks it where there is one.
    """
    if not zipfile.is_zipfile(path):
        text, hint = _other_file(path)
        raise L0Error(text, hint=hint)
    import zarr
    from zarr.storage import ZipStore

    place = _root_in_zip(path)
    root = zarr.open_group(ZipStore(path, mode="r"), path=place, mode="r", use_consolidated=False)
    if root.attrs.get("format") == "gpucal-l1":
        raise L0Error(
            f"{path} is a zip archive of a calibrated store, which is read unpacked only.",
            hint=f"Unpack it: unzip {path.name} -d {path.stem}.l1; to calibrate, give the raw counts.",
        )
    return root


def folders_in_zip(path: Path, inside: str) -> list[str]:
    """Names of the folders below the folder ``inside`` ("" for the top) of a zip file."""
    about = path.stat()
    return list(_folders(path, about.st_mtime_ns, about.st_size).get(inside.strip("/"), ()))


@lru_cache(maxsize=4)
def _folders(path: Path, mtime_ns: int, size: int) -> dict[str, tuple[str, ...]]:
    """Folder -> the folders in it, of a zip file as it was at that time."""
    found: dict[str, dict[str, None]] = {}
    with zipfile.ZipFile(path) as packed:
        for name in packed.namelist():
            *parents, _ = name.split("/")
            for n, folder in enumerate(parents):
                if not folder.startswith((".", "__MACOSX")):
                    found.setdefault("/".join(parents[:n]), {})[folder] = None
    return {folder: tuple(names) for folder, names in found.items()}


def _root_in_zip(path: Path) -> str:
    """Folder in the zip that holds the root's metadata, "" for the top."""
    with zipfile.ZipFile(path) as packed:
        names = [PurePosixPath(name) for name in packed.namelist()]
    found = {n.parent for n in names if n.name in _ROOTS and n.parts[0] != "__MACOSX"}
    tops = [n for n in found if not any(other in n.parents for other in found)]
    if len(tops) != 1:
        raise L0Error(
            f"{path} is a zip file with {len(tops)} Zarr groups side by side, expected one L0 store.",
            hint=f"Unpack it with: unzip {path}, and give one of the folders.",
        )
    return "" if tops[0] == PurePosixPath(".") else str(tops[0])


def _other_file(path: Path) -> tuple[str, str]:
    """What a file is that is neither a folder nor a zip, and what to do."""
    what_it_is = "An L0 store is a folder that holds zarr.json or .zgroup and scan_NNNNNN groups."
    if tarfile.is_tarfile(path):
        return f"{path} is a tar file.", f"Unpack it with: tar xf {path}, and give the folder."
    if path.suffix.lower() in (".zip", ".7z", ".rar", ".zst"):
        command = {".7z": "7z x", ".rar": "unrar x", ".zst": "tar xf"}.get(path.suffix.lower())
        if command is None:
            return f"{path} is no zip file, or only a part of one.", what_it_is
        return f"{path} is packed.", f"Unpack it with: {command} {path}, and give the folder."
    return f"{path} is a file, expected an L0 store.", what_it_is
