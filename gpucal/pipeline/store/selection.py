"""Selection of scans: which ones are science."""

from __future__ import annotations

from dataclasses import dataclass

from gpucal.config import CalibrationConfig
from gpucal.errors import GpucalError, L0Error
from gpucal.io.l0.store import L0Store
from gpucal.io.l1.flag_file import check_scans, load_rules
from gpucal.io.l1.flag_rules import FlagRule
from gpucal.pipeline.store.outcome import failure_of
from gpucal.pipeline.store.report import Failure
from gpucal.scan_numbers import parse_scans


@dataclass(frozen=True)
class Selection:
    """Science scans to calibrate, those that cannot be calibrated, and what the user should know."""

    numbers: tuple[int, ...]
    failures: tuple[Failure, ...]
    notes: tuple[str, ...]


def flag_rules_of(config: CalibrationConfig, store: L0Store) -> list[FlagRule]:
    """The flag rules of the configuration's file; raises ConfigError for wrong ones and missing scans."""
    if not config.flags:
        return []
    rules = load_rules(config.flags)
    check_scans(rules, store.numbers(), config.flags)
    return rules


def select_scans(store: L0Store, config: CalibrationConfig) -> Selection:
    """The science scans asked for, in order; load scans serve as loads and are not science.

    Raises L0Error when none was asked for by number and the store holds none.
    """
    wanted = parse_scans(config.scans)
    present = store.numbers()
    failures = []
    for missing in sorted((wanted or frozenset()) - set(present)):
        error = L0Error(
            f"it is not in {store.path}.", hint="gpucal inspect lists the scans.", scan=missing
        )
        failures.append(failure_of(missing, "read", error))
    numbers, notes = [], []
    for n in present:
        if wanted is not None and n not in wanted:
            continue
        try:
            kind = store.kind(n)
            if kind == "science":
                numbers.append(n)
            elif kind == "bolometer":
                notes.append(f"scan {n} is a bolometer scan: nothing to calibrate, skipped")
            elif wanted is not None:
                notes.append(f"scan {n} is a load scan: nothing to calibrate")
        except GpucalError as error:
            failures.append(failure_of(n, "read", error))
    if wanted is None and not numbers and not failures:
        what = (
            "no scan to calibrate (only loads or bolometer scans)" if notes else "only load scans"
        )
        what = what if present else "no scan at all"
        raise L0Error(
            f"{store.path} holds {what}: there is nothing to calibrate.",
            hint="gpucal inspect shows what is in it.",
        )
    return Selection(tuple(numbers), tuple(failures), tuple(notes))
