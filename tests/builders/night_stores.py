"""Small simulated nights on disk, and a comparison of L1 stores byte for byte."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import zarr

from gpucal import simulate_night
from gpucal.simulate.counts import Recording
from gpucal.simulate.presets import preset
from gpucal.simulate.setup import Kind

KINDS: tuple[Kind, ...] = ("tp", "otf", "otf-chopped", "nod", "fsw", "wsw", "wsw-chopped")
VOLATILE = {"started", "finished", "command_line", "l0_path", "l0_counts_sha256"}


@contextmanager
def fast_folder(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where the system has one: syncing a shared disk can take seconds."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(prefix="gpucal-test-", dir=memory) as folder:
        yield Path(folder)


def small_setup(
    name: str = "hera",
    kinds: tuple[Kind, ...] = KINDS,
    *,
    channels: int = 64,
    dumps: int = 4,
    n_on: int = 2,
    pixels: int = 3,
    fill: float = 2e-3,
    separate: bool = False,
) -> Any:
    """An instrument whose scans are some 100 kB; all air at one temperature, so that nights come back exactly."""
    setup = preset(name, channels=channels, dumps=dumps, n_on=n_on, sky="isothermal")
    loads = replace(setup.loads, separate=separate)
    return replace(setup, kinds=kinds, pixels=pixels, fill_fraction=fill, loads=loads)


def make_night(folder: Path, setup: Any, scans: int | None = None, **recording: Any) -> Path:
    """Write ``folder/l0.zarr`` and its table ``folder/table.npz``; returns the store."""
    path = folder / "l0.zarr"
    simulate_night(
        path,
        setup,
        len(setup.kinds) if scans is None else scans,
        recording=Recording(**recording),
        table_out=folder / "table.npz",
    )
    return path


def rechunk(store: Path, out: Path, chunks: tuple[int, int, int]) -> Path:
    """Copy an L0 store with chunks of ``chunks`` (C, D, S) in ``data_5d``; R and A stay whole."""
    shutil.copytree(store, out)
    for document in sorted(out.rglob("data_5d/zarr.json")):
        old: Any = zarr.open_array(document.parent, mode="r")
        values, attributes = old[...], dict(old.attrs)
        names, fill = old.metadata.dimension_names, old.fill_value
        shutil.rmtree(document.parent)
        c, d, s = (
            min(a, b) for a, b in zip(chunks, (values.shape[i] for i in (0, 1, 4)), strict=True)
        )
        made: Any = zarr.create_array(
            str(document.parent),
            shape=values.shape,
            chunks=(c, d, *values.shape[2:4], s),
            dtype=values.dtype,
            dimension_names=names,
            fill_value=fill,
            attributes=attributes,
        )
        made[...] = values
    return out


def contents(store: Path) -> dict[str, Any]:
    """Relative path -> bytes of a file; documents as JSON without what changes from run to run."""
    found: dict[str, Any] = {}
    for path in sorted(p for p in store.rglob("*") if p.is_file()):
        data: Any = path.read_bytes()
        if path.name == "zarr.json":
            data = json.loads(data)
            provenance = data.get("attributes", {}).get("provenance", {})
            for key in VOLATILE & provenance.keys():
                del provenance[key]
        found[str(path.relative_to(store))] = data
    return found


def assert_same(store: Path, other: Path) -> None:
    """Both stores hold the same files with the same bytes and the same attributes."""
    one, two = contents(store), contents(other)
    assert one.keys() == two.keys()
    different = [name for name in one if one[name] != two[name]]
    assert not different, f"{len(different)} of {len(one)} files differ: {different[:5]}"
    assert any("/c/" in name for name in one)
