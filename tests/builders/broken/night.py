"""A small simulated night on disk and the ways to damage one piece of it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from gpucal import simulate_night
from gpucal.simulate.presets import preset
from gpucal.simulate.setup import Kind

PRESETS: dict[str, tuple[str, dict[str, int], tuple[Kind, ...]]] = {
    # night: (preset, its sizes, kinds of its scans)
    "hera": ("hera", {"channels": 64, "dumps": 3, "n_on": 2}, ("tp", "tp", "otf")),
    "fsw": ("hera", {"channels": 64, "dumps": 3, "n_on": 2}, ("tp", "fsw", "tp")),
    "wsw": ("hera", {"channels": 64, "dumps": 4, "n_on": 2}, ("tp", "wsw-chopped", "tp")),
    "nod": ("hera", {"channels": 64, "dumps": 3, "n_on": 2}, ("tp", "nod", "tp")),
    "upgreat": ("upgreat", {"channels": 64, "dumps": 3, "n_on": 4}, ("otf-chopped",)),
    "chai": ("chai", {"channels": 32, "dumps": 2, "n_on": 2}, ("otf",)),
    "argus": ("argus", {"channels": 64, "dumps": 3, "n_on": 2}, ("tp",)),
}
"""hera: scans 1, 2, 3, each with its loads. upgreat, chai: 1 and 5 are load scans."""


def make_night(name: str, folder: Path) -> Night:
    """Simulate three good scans of the night ``name``, with the table they were made with."""
    base, sizes, kinds = PRESETS[name]
    setup = replace(preset(base, sky="isothermal", **sizes), kinds=kinds)
    night = Night(folder)
    folder.mkdir(parents=True)
    simulate_night(night.l0, setup, 3, table_out=night.table)
    return night


@dataclass(frozen=True)
class Night:
    """The files of one run: ``l0.zarr``, ``table.npz``, and ``l1.zarr`` once it is calibrated."""

    folder: Path

    @property
    def l0(self) -> Path:
        return self.folder / "l0.zarr"

    @property
    def out(self) -> Path:
        return self.folder / "l1.zarr"

    @property
    def table(self) -> Path:
        return self.folder / "table.npz"

    def copy(self, folder: Path) -> Night:
        """A copy of the raw store and the table, to be damaged."""
        shutil.copytree(self.l0, folder / "l0.zarr")
        shutil.copy(self.table, folder / "table.npz")
        return Night(folder)

    def scan(self, number: int, group: str = "") -> Path:
        """Folder of a scan, or of a group in it."""
        return self.l0 / f"scan_{number:06d}" / group

    def set_attrs(self, group: Path, **changes: Any) -> None:
        """Change attributes of a Zarr group; None removes one."""
        path = group / "zarr.json"
        document = json.loads(path.read_text())
        attributes = {**document["attributes"], **changes}
        document["attributes"] = {k: v for k, v in attributes.items() if v is not None}
        path.write_text(json.dumps(document))

    def attrs(self, number: int, **changes: Any) -> None:
        """Change attributes of a scan; None removes one."""
        self.set_attrs(self.scan(number), **changes)

    def modes(self, number: int, modes: Sequence[str] | None, group: str = "source") -> None:
        """Replace sobsmode; None removes it."""
        self.set_attrs(self.scan(number, group), sobsmode=modes)

    def remove(self, number: int, path: str) -> None:
        """Delete an array or a group of a scan, e.g. ``"source/mjd"``."""
        shutil.rmtree(self.scan(number, path))

    def read(self, number: int, path: str) -> Any:
        """An array of a scan."""
        return zarr.open_array(self.scan(number, path), mode="r")[...]

    def put(self, number: int, path: str, values: Any) -> None:
        """Write an array anew, of whatever shape and dtype ``values`` has."""
        values = np.asarray(values)
        shutil.rmtree(self.scan(number, path), ignore_errors=True)
        chunks = [max(1, n) for n in values.shape]
        if path.endswith("data_5d"):
            chunks[-1] = 1
        config: Any = {"write_empty_chunks": True}  # zeros are values, too
        where = self.scan(number, path)
        zarr.create_array(where, data=values, chunks=tuple(chunks), config=config)

    def edit(self, number: int, path: str, change: Callable[[Any], Any]) -> None:
        """Replace an array by ``change(array)``; an array edited in place may return None."""
        values = self.read(number, path)
        changed = change(values)
        self.put(number, path, values if changed is None else changed)

    def at(self, number: int, path: str, index: Any, value: Any) -> None:
        """Set some elements of an array."""

        def change(values: Any) -> None:
            values[index] = value

        self.edit(number, path, change)

    def chunk(self, number: int, group: str, subscan: int) -> Path:
        """The first chunk file of the counts of one subscan."""
        return self.scan(number, group) / "data_5d" / "c" / "0" / "0" / "0" / "0" / str(subscan)

    def spoil(self, number: int, group: str, subscan: int, how: str) -> None:
        """Damage a chunk file: flip a bit, replace the content, or cut it off."""
        path = self.chunk(number, group, subscan)
        content = bytearray(path.read_bytes())
        if how == "flip":
            content[len(content) // 2] ^= 0x10
        elif how == "text":
            content[:] = b"this is no frame" * 8
        else:
            del content[len(content) // 3 :]
        path.write_bytes(content)


def spectra(store: Path, number: int) -> dict[str, bytes]:
    """Every file of a calibrated scan that holds an array (its shape, its chunks)."""
    root = store / f"scan_{number:06d}"
    files = (path for path in sorted(root.rglob("*")) if path.is_file())
    return {str(f.relative_to(root)): f.read_bytes() for f in files if _of_array(f)}


def _of_array(path: Path) -> bool:
    if path.name != "zarr.json":
        return True
    return bool(json.loads(path.read_text())["node_type"] == "array")
