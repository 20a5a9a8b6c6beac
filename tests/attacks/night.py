"""The good night that all attacks break: four tiny scans, made and calibrated once for all."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Sequence
from pathlib import Path

from builders.broken.night import Night
from builders.night_stores import small_setup

from attacks import runner
from attacks.verdict import Clean
from gpucal import simulate_night

VICTIM, SWITCHED, CHOPPED = 2, 3, 4
"""Scan 1 is total power, 2 on the fly, 3 frequency-switched, 4 chopped with the wobbler; each has its loads."""
TEMPORARY: list[tempfile.TemporaryDirectory[str]] = []


@functools.cache
def good_night() -> Night:
    """The night; nobody writes to it."""
    memory = Path("/dev/shm")
    folder = tempfile.TemporaryDirectory(
        prefix="gpucal-attacks-", dir=memory if memory.is_dir() else None
    )
    TEMPORARY.append(folder)
    night = Night(Path(folder.name))
    setup = small_setup(
        kinds=("tp", "otf", "fsw", "wsw-chopped"), channels=32, dumps=4, n_on=2, pixels=3
    )
    simulate_night(night.l0, setup, 4, table_out=night.table)
    return night


def command(night: Night, options: Sequence[str] = (), out: Path | None = None) -> list[str]:
    """The arguments that calibrate a night."""
    given = ["--atmosphere", str(night.table), *options]
    given += [] if "--workers" in options else ["--workers", "1"]
    return ["calibrate", str(night.l0), str(out or night.out), *given]


@functools.cache
def clean_run(options: tuple[str, ...] = ()) -> Clean:
    """The good night calibrated with ``options``."""
    night = good_night()
    out = night.folder / f"good-{len(list(night.folder.glob('good-*')))}.zarr"
    ended = runner.run(command(night, options, out), night.folder / f"{out.stem}-said")
    assert ended.code == 0, ended.said
    return Clean(out, ended)
