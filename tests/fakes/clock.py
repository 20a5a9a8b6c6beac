"""The clock of the trials of ``--io auto``: each side takes as long as it is told to."""

from __future__ import annotations

import itertools

import pytest

from gpucal.backend import io_choice


def set_clock(monkeypatch: pytest.MonkeyPatch, *, host: float, device: float) -> None:
    """Seconds of one trial of the host and of the device, whatever they do; the host is first."""
    spans = itertools.cycle((0.0, host, 0.0, device))
    monkeypatch.setattr(io_choice, "clock", lambda: next(spans))
