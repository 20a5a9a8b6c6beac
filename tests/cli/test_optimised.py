"""``python -O`` takes away the assertions in which zarr reads its metadata: refused in one sentence."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

LIBRARY = """
import gpucal
site = {"lat_deg": 0.0, "lon_deg": 0.0, "alt_m": 0.0}
for function, options in (
    (gpucal.open_l0, {}),
    (gpucal.open_l1, {}),
    (gpucal.create_l0, {"telescope": "T", "instrument": "I", "site": site}),
):
    try:
        function("nowhere.zarr", **options)
    except gpucal.ConfigError as error:
        print(error)
"""


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )


@pytest.mark.parametrize("how", ["-O", "-OO", "PYTHONOPTIMIZE"])
def test_the_command_is_refused(how: str) -> None:
    options = [how] if how.startswith("-") else []
    environment = {} if options else {how: "1"}
    done = run(*options, "-m", "gpucal", "inspect", "/nowhere", **environment)
    assert done.returncode == 64
    assert done.stderr == (
        "gpucal: error: Python runs optimised (-O, -OO or PYTHONOPTIMIZE): zarr cannot read a store that way. "
        "Run the same command without it.\n"
    )


def test_the_library_is_refused() -> None:
    done = run("-O", "-c", LIBRARY)
    assert done.stderr == ""
    assert done.stdout.count("Python runs optimised") == 3
