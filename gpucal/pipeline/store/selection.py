"""Selection of scans: which ones are science, and which are in the L1 store already."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from gpucal.config import CalibrationConfig, parse_scans
from gpucal.errors import GpucalError, L0Error, L1Error
from gpucal.io.l0.store import L0Store
from gpucal.io.l1.flag_file import check_scans, load_rules
from gpucal.io.l1.flag_rules import FlagRule
from gpucal.physics.atm import AtmosphereTable
from gpucal.pipeline.scan.load_library import LoadLibrary
from gpucal.pipeline.store.outcome import failure_of
from gpucal.pipeline.store.report import Failure


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


def checksums(library: LoadLibrary, numbers: Iterable[int]) -> dict[str, str]:
    """SHA-256 of the L0 metadata of scans: "number/band" -> digest; "" for a scan that is gone."""
    found: dict[str, str] = {}
    for n in sorted(set(numbers)):
        try:
            found |= {f"{n}/{s.band}": s.metadata_sha256 for s in library.scan(n)}
        except GpucalError:
            found[f"{n}/"] = ""
    return found


def already_done(
    found: Mapping[str, Any] | None,
    number: int,
    library: LoadLibrary,
    config: CalibrationConfig,
    table: AtmosphereTable | None,
) -> bool:
    """Whether a scan is in the L1 store and need not be calibrated again.

    found: attributes of the scan in L1, None when it is not there. A scan is done when configuration,
    opacities and the L0 metadata of it and of its loads are the same. Raises L1Error when another one is
    in the way.
    """
    if found is None or config.overwrite:
        return False
    recorded = dict(found.get("l0_metadata_sha256") or {})
    loads = [int(key.partition("/")[0]) for key in recorded]
    now = checksums(library, [number, *loads])
    incomplete = bool(found.get("failed_bands"))
    if incomplete:  # a repaired band is news, not a contradiction
        now = {key: value for key, value in now.items() if key in recorded}
    here = table.sha256 if table is not None else None
    reasons = {
        "with another configuration": found.get("config_sha256") == config.fingerprint(),
        "with another atmosphere table": found.get("atmosphere_sha256") == here,
        "from other raw data": recorded == now,
    }
    different = [reason for reason, same in reasons.items() if not same]
    if different:
        raise L1Error(
            f"the scan is already there, calibrated {different[0]}.",
            hint="Use --overwrite to replace it, or another output.",
            scan=number,
            stage="write",
        )
    return not incomplete
