"""Attacks on files of other formats, on configurations and on the calibrated store itself."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from attacks.attack import params
from attacks.formats import FormatAttack, format_attacks
from attacks.night import good_night


@pytest.mark.parametrize("attack", params(format_attacks()))
def test_format(attack: FormatAttack, record_property: Callable[[str, object], None]) -> None:
    record_property("attack", "not finished")
    with tempfile.TemporaryDirectory(dir=good_night().folder) as name:
        verdict = attack.verdict(Path(name))
    record_property("attack", verdict.outcome)
    assert verdict.outcome in attack.may, f"{verdict.outcome}: {verdict.why}"
