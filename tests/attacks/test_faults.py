"""Attacks on a run from outside: whole scans or none, and the same command does the rest."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from attacks.attack import TRIED, params
from attacks.faults import Fault, fault_attacks
from attacks.night import good_night

SIGNALS = max(12, TRIED // 20)


@pytest.mark.parametrize("fault", params(fault_attacks(SIGNALS)))
def test_fault(fault: Fault, record_property: Callable[[str, object], None]) -> None:
    record_property("attack", "not finished")
    good = good_night()
    with tempfile.TemporaryDirectory(dir=good.folder, ignore_cleanup_errors=True) as name:
        verdict = fault.verdict(good.copy(Path(name)))
    record_property("attack", verdict.outcome)
    assert verdict.outcome == "done", f"{verdict.outcome}: {verdict.why}"
