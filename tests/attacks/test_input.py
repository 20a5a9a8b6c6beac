"""Attacks on raw stores (their metadata, their counts, their files), on other files, and on the calibrated store.

Each is refused, blanked, flagged, told of, or does not matter; the scans beside it come out byte for byte as from good
data; nothing hangs, takes more memory than it should, or shows a traceback.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from attacks import runner
from attacks.attack import Attack, params
from attacks.counts import counts_attacks
from attacks.files import file_attacks
from attacks.formats import FormatAttack, format_attacks
from attacks.metadata import metadata_attacks
from attacks.night import clean_run, command, good_night
from attacks.verdict import judge

Record = Callable[[str, object], None]


@pytest.mark.parametrize("attack", params(metadata_attacks()))
def test_metadata(attack: Attack, record_property: Record) -> None:
    survive(attack, record_property)


@pytest.mark.parametrize("attack", params(counts_attacks()))
def test_counts(attack: Attack, record_property: Record) -> None:
    survive(attack, record_property)


@pytest.mark.parametrize("attack", params(file_attacks()))
def test_files(attack: Attack, record_property: Record) -> None:
    survive(attack, record_property)


@pytest.mark.parametrize("attack", params(format_attacks()))
def test_format(attack: FormatAttack, record_property: Record) -> None:
    record_property("attack", "not finished")
    with tempfile.TemporaryDirectory(dir=good_night().folder) as name:
        verdict = attack.verdict(Path(name))
    record_property("attack", verdict.outcome)
    assert verdict.outcome in attack.may, f"{verdict.outcome}: {verdict.why}"


def survive(attack: Attack, record_property: Record) -> None:
    """Break the night, calibrate it, and judge what came."""
    record_property("attack", "not finished")
    good = good_night()
    options = ("--scans", attack.scans, *attack.options)
    with tempfile.TemporaryDirectory(dir=good.folder) as name:
        folder = Path(name)
        night = good.copy(folder)
        attack.harm(night)
        ended = runner.run(command(night, options), folder / "said", limits=attack.limits)
        verdict = judge(attack, night.out, ended, clean_run(options))
    record_property("attack", verdict.outcome)
    assert verdict.outcome in attack.may, f"{verdict.outcome}: {verdict.why}"
