"""The card that the tests of this folder run on; without one they are skipped.

GPUCAL_REQUIRE_GPU=1 makes a missing card a failure. GPUCAL_FAKE_CARD=1 puts the simulated device in its
place, to see that the tests themselves run. Each failure is shown at once: a time limit may end the run
before pytest tells of them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
from builders.night_stores import KINDS, fast_folder, make_night, small_setup
from fakes.codec import FakeTools

from gpucal.backend.cuda import cuda_backend
from gpucal.backend.protocol import Backend
from gpucal.errors import BackendError

_terminal: list[Any] = []


def pytest_configure(config: Any) -> None:
    """Where failures are shown."""
    _terminal.append(config.pluginmanager.get_plugin("terminalreporter"))


def pytest_runtest_logreport(report: Any) -> None:
    """Show the text of a failure when it happens."""
    if report.failed and "tests/card/" in report.nodeid and _terminal[-1] is not None:
        _terminal[-1].write_line(f"\nFAILED NOW {report.nodeid} ({report.when})")
        _terminal[-1].write_line(report.longreprtext)


@pytest.fixture(scope="session")
def is_fake() -> bool:
    return os.environ.get("GPUCAL_FAKE_CARD") == "1"


@pytest.fixture(scope="session")
def card(is_fake: bool) -> Backend:
    """The backend of the card."""
    if is_fake:
        backend: Backend = FakeTools().backend()
        return backend
    try:
        return cuda_backend()
    except BackendError as error:
        if os.environ.get("GPUCAL_REQUIRE_GPU") == "1":
            pytest.fail(str(error))
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def tools(card: Backend) -> Any:
    """Its codec and files; the tests of these are skipped without nvCOMP."""
    assert card.device_io is not None
    found = card.device_io()
    if found.codec is None:
        pytest.skip(found.missing)
    return found


@pytest.fixture(scope="class")
def kernels(card: Backend) -> Any:
    return card.kernels


@pytest.fixture(scope="class")
def xp(card: Backend) -> Any:
    return card.xp


@pytest.fixture(scope="session")
def night(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The folder of a small night with every observing mode."""
    with fast_folder(tmp_path_factory.mktemp("night")) as folder:
        make_night(folder, small_setup(kinds=KINDS, channels=72))
        yield folder


@pytest.fixture(scope="session")
def vane_night(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The folder of a small night calibrated with a vane."""
    with fast_folder(tmp_path_factory.mktemp("vane")) as folder:
        make_night(folder, small_setup("argus", ("nod", "tp"), channels=48))
        yield folder
