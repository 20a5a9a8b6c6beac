"""What is said reaches terminals of any alphabet; a closed or broken stdout is no traceback."""

from __future__ import annotations

import codecs
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gpucal.cli import streams

COMMAND = [sys.executable, "-m", "gpucal.cli.main"]


def run(shell: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A shell command line in which $GPUCAL is the command."""
    environment = {**os.environ, "GPUCAL": " ".join(COMMAND), **environment}
    return subprocess.run(
        ["bash", "-c", f"set -o pipefail; {shell}"],
        capture_output=True,
        text=True,
        env=environment,
        timeout=300,
    )


@pytest.mark.parametrize(
    ("text", "wanted"), [("3 ± 1 µm → x", "3 +- 1 um -> x"), ("é 10⁻³ 一", "e 10-3 ?")]
)
def test_other_alphabets_get_the_nearest_text(text: str, wanted: str) -> None:
    codecs.register_error("gpucal-test", streams.plain)
    assert text.encode("ascii", "gpucal-test").decode("ascii") == wanted


@pytest.mark.parametrize("how", ["PYTHONIOENCODING=ascii", "LC_ALL=C PYTHONUTF8=0", "LANG=C"])
def test_errors_and_help_in_ascii(how: str) -> None:
    done = run(f"{how} PYTHONCOERCECLOCALE=0 $GPUCAL inspect /nowhere/Δ± ; $GPUCAL --help")
    assert "Traceback" not in done.stderr
    assert "does not exist" in done.stderr
    done = run(f"{how} PYTHONCOERCECLOCALE=0 $GPUCAL calibrate --help")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_closed_streams(closed: str, tmp_path: Path) -> None:
    done = run(f"$GPUCAL info {closed}")
    assert done.returncode == 0
    assert "Traceback" not in done.stderr
    done = run(f"$GPUCAL inspect {tmp_path}/none {closed}")
    assert done.returncode == 1
    assert "gpucal:" not in done.stdout  # an error never gets into the output


def test_a_reader_that_went_away() -> None:
    done = run("$GPUCAL info | true")
    assert done.returncode in (0, 1)
    assert done.stderr == ""


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_for_the_output() -> None:
    done = run("$GPUCAL info > /dev/full")
    assert done.returncode == 1
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr
