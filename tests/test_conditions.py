"""What surrounds the tests: signals that the caller ignores, and what a summary says of skipped tests."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def pytest_of(*words: str, ignoring: bool = False, **environment: str) -> str:
    """The output of a pytest of its own, which must end with success. ignoring: with SIGINT ignored."""
    quiet: Callable[[], object] | None = None
    if ignoring:

        def quiet() -> object:
            return signal.signal(signal.SIGINT, signal.SIG_IGN)

    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", *words],
        cwd=ROOT,
        env={**os.environ, **environment},
        preexec_fn=quiet,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_sigint_is_heard() -> None:
    """Whatever started the tests: ``scripts/test &`` of a script has it ignored."""
    assert signal.getsignal(signal.SIGINT) == signal.default_int_handler
    code = "import signal; print(signal.getsignal(signal.SIGINT) == signal.default_int_handler)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"


def test_sigint_is_heard_in_a_background_job() -> None:
    assert "1 passed" in pytest_of(f"{__file__}::test_sigint_is_heard", ignoring=True)


def test_the_summary_names_what_skipped_tests_need(tmp_path: Path) -> None:
    files = ["tests/realdata/test_drift_hart.py", "tests/export/test_export_sdfits.py"]
    for folder in (tmp_path, tmp_path / "nothing"):
        found = pytest_of(
            *files, "-m", "realdata", GPUCAL_REALDATA=str(folder), GPUCAL_REQUIRE_REALDATA=""
        )
        said = re.search(r"(\d+) tests were skipped for want of real .*GPUCAL_REALDATA", found)
        assert said is not None, found
        assert f"{said[1]} skipped" in found
        assert int(said[1]) >= 2


@pytest.mark.parametrize("word", ["GPUCAL_REALDATA", "chromium", "PostgreSQL"])
def test_the_readme_names_what_tests_need(word: str) -> None:
    assert word in (ROOT / "README.md").read_text("utf-8")
