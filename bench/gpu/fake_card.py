"""The simulated device of the tests, loaded from ``tests/``, for the dry run of the nights."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

from gpucal.backend.protocol import Backend

_TESTS = Path(__file__).parents[2] / "tests"


def fake_card() -> Backend:
    """A backend whose copies, decoding and encoding are as late as the rules allow.

    Raises ImportError outside a source checkout.
    """
    sys.path.insert(0, str(_TESTS))
    try:
        backend: Backend = importlib.import_module("fakes.codec").FakeTools().backend()
    finally:
        sys.path.remove(str(_TESTS))
    return backend
