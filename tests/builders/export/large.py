"""Large L1 stores of little disk space: all chunks of an array are hard links to one file of noise."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

AXES = ["channel", "dump", "receiver", "array", "subscan"]
MEASURE = """
import re, sys
from gpucal import main
code = main(sys.argv[1:])
high = re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())
print(code, int(high.group(1)))
"""


def make_large_store(path: Path, shape: tuple[int, ...], step: int) -> None:
    """A scan of [C,D,R,A,S] in chunks of ``step`` channels, one subscan, all of D, R, A."""
    c, d, r, a, s = shape
    root = zarr.open_group(path, mode="w", zarr_format=3)
    root.attrs.update({"format": "gpucal-l1", "format_version": 1, "telescope": "TEST"})
    group = root.create_group("scan_000001")
    group.attrs.update({"gain_signal": 1.0, "forward_efficiency": 1.0, "source": "X"})
    rng = np.random.default_rng(1)
    noise = rng.normal(size=(step, d, r, a, 1))
    _linked(group, "spectra", shape, noise, AXES)
    stale = np.full(noise.shape, 1 << 11, np.uint16)  # zarr writes no chunk of zeros
    _linked(group, "flags", shape, stale, AXES)
    t_sys = 200.0 + rng.normal(size=(step, r, a, 1))
    _linked(group, "t_sys", (c, r, a, s), t_sys, AXES[:1] + AXES[2:])
    _put(group, "frequency", 460e9 + 1e5 * np.arange(c), AXES[:1])
    _put(group, "tau_signal", np.full(c, 0.5), AXES[:1])
    times = 61000.0 + np.arange(s) / 1000 + np.arange(d)[:, None] / 1e5
    for name, values in (
        ("mjd", times),
        ("exptime", np.ones((d, s))),
        ("elevation", np.full((d, s), 0.8)),
        ("azimuth", np.ones((d, s))),
    ):
        _put(group, name, values, ["dump", "subscan"])


def _put(group: Any, name: str, values: Any, dims: Sequence[str]) -> None:
    array = group.create_array(name, shape=values.shape, dtype="f8", dimension_names=dims)
    array[...] = values


def _linked(
    group: Any, name: str, shape: tuple[int, ...], block: NDArray[Any], dims: Sequence[str]
) -> None:
    array = group.create_array(
        name, shape=shape, dtype=block.dtype, chunks=block.shape, dimension_names=dims
    )
    array[tuple(slice(0, n) for n in block.shape)] = block
    folder = Path(str(group.store.root)) / group.path / name / "c"
    first = folder.joinpath(*["0"] * len(shape))
    counts = [-(-n // b) for n, b in zip(shape, block.shape, strict=True)]
    for index in itertools.product(*map(range, counts)):
        target = folder.joinpath(*map(str, index))
        target.parent.mkdir(parents=True, exist_ok=True)
        if target != first:
            os.link(first, target)


def peak_mib(*arguments: object) -> float:
    """Largest resident memory, MiB, of ``gpucal ARGUMENTS`` in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=True,
    )
    code, kib = done.stdout.split()[-2:]
    assert code == "0", done.stderr
    return int(kib) / 1024
