"""Memory of an export is bounded by its budget, not by the size of the scan."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from builders.export.large import make_large_store, peak_mib

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="peak memory from /proc"),
]
SHAPE = (16384, 32, 1, 64, 8)  # 2 GiB in subscans of 256 MiB
LARGEST_MIB = 1400.0
LONG = pytest.mark.skipif("GPUCAL_LONG" not in os.environ, reason="on demand: GPUCAL_LONG=1")


@pytest.mark.parametrize("half", [pytest.param(2, marks=LONG), 4])
def test_the_axis_that_grows_does_not_matter(tmp_path: Path, half: int) -> None:
    """Twice the subscans, or twice the dumps: the same memory, far below 3 GiB."""
    sizes = []
    for factor in (1, 2):
        shape = list(SHAPE)
        shape[{2: 1, 4: 4}[half]] //= 3 - factor
        make_large_store(tmp_path / f"{factor}.zarr", tuple(shape), 256)
        out = tmp_path / "x.fits"
        sizes.append(peak_mib("export", "sdfits", tmp_path / f"{factor}.zarr", out, "--overwrite"))
        out.unlink()
    assert max(sizes) < LARGEST_MIB
    assert sizes[1] < sizes[0] + 300.0


@pytest.mark.parametrize(
    ("command", "average"),
    [
        pytest.param("fits1d", "dumps", marks=LONG),
        ("class", "none"),
        pytest.param("class-fits", "none", marks=LONG),
        ("sdfits", "subscans"),
    ],
)
def test_two_gib_in_every_format(tmp_path: Path, command: str, average: str) -> None:
    make_large_store(tmp_path / "l1.zarr", SHAPE, 256)
    out = tmp_path / "x"
    arguments = ("export", command, tmp_path / "l1.zarr", out, "--average", average)
    assert peak_mib(*arguments) < LARGEST_MIB
