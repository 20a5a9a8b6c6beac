"""Fixtures shared by all tests, and the Hypothesis profiles."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

REPOSITORY = Path(__file__).resolve().parent.parent

settings.register_profile(
    "local", deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
settings.register_profile("ci", settings.get_profile("local"), derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")


LACKING = (
    (
        "GPUCAL_REALDATA",
        "real telescope data: set GPUCAL_REALDATA to their folder (README, The tests)",
    ),
    ("chromium", "a browser: install chromium and chromedriver"),
    ("PostgreSQL", "a database server: install PostgreSQL"),
)
"""What the reason of a skipped test holds -> what it needed, and how to get that."""


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say what attacks came to, and how many tests lacked something that the user can provide."""
    skipped = terminalreporter.stats.get("skipped", [])
    reasons = [str(report.longrepr) for report in skipped]
    for mark, needed in LACKING:
        count = sum(mark in reason for reason in reasons)
        if count:
            plural = "s were" if count > 1 else " was"
            terminalreporter.write_line(f"{count} test{plural} skipped for want of {needed}")
    _tell_of_attacks(terminalreporter)


@pytest.fixture(scope="session", autouse=True)
def _sigint_is_heard() -> Iterator[None]:
    """Tests that send SIGINT work also where it is ignored, as in ``scripts/test &`` of a script.

    What a test starts inherits it.
    """
    before = signal.getsignal(signal.SIGINT)
    if before == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session", autouse=True)
def _index_of_the_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What imports learn of files is kept away from the user's cache."""
    os.environ["GPUCAL_CACHE_DIR"] = str(tmp_path_factory.mktemp("cache"))
    yield
    del os.environ["GPUCAL_CACHE_DIR"]


def _realdata_folder() -> Path:
    folder = os.environ.get("GPUCAL_REALDATA", "")
    return Path(folder) if folder else REPOSITORY.parent / "shared" / "data"


@pytest.fixture(scope="session")
def realdata() -> Path:
    """The folder of real telescope data, read only.

    Without it the test is skipped, or fails when GPUCAL_REQUIRE_REALDATA=1.
    """
    folder = _realdata_folder()
    if not folder.is_dir() or not any(folder.iterdir()):
        text = f"no real data at {folder}: set GPUCAL_REALDATA to their folder"
        if os.environ.get("GPUCAL_REQUIRE_REALDATA") == "1":
            pytest.fail(text)
        pytest.skip(text)
    return folder


def _freeze(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        frozen = value.copy()
        frozen.flags.writeable = False
        return frozen
    if isinstance(value, dict):
        return {key: _freeze(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_freeze(item) for item in value)
    return value


@pytest.fixture(scope="session")
def read_only() -> Callable[[Any], Any]:
    """A function that copies arrays (also inside dict, list, tuple) and makes the copy read-only.

    A step that edits its input then fails with ValueError.
    """
    return _freeze


def _tell_of_attacks(terminalreporter: Any) -> None:
    """Say how many attacks were tried, and what became of them."""
    survived, fallen, outcomes = 0, 0, Counter[str]()
    for reports in terminalreporter.stats.values():
        for report in reports:
            found = [v for k, v in getattr(report, "user_properties", ()) if k == "attack"]
            if not found or report.when != "call":
                continue
            outcomes[found[-1]] += 1
            survived += report.passed
            fallen += report.failed
    if tried := survived + fallen:
        ends = ", ".join(f"{n} {name}" for name, n in outcomes.most_common())
        terminalreporter.write_line(f"attacks: {tried} tried, {survived} survived ({ends})")
