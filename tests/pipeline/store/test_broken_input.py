"""Broken input: each kind ends in its own message and exit code, good scans stay untouched."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from builders.broken.cases import Case, DoubtfulCase, StoreCase
from builders.broken.night import Night, make_night, spectra
from builders.broken.scans import BROKEN_SCANS
from builders.broken.stores import STORE
from builders.broken.values import DOUBTFUL, VALUES

from gpucal import main

WITH_OWN_LOADS = {"hera", "fsw", "wsw", "nod", "argus"}
"""Nights whose scans 1, 2, 3 hold their own loads; in the others 1 and 5 are load scans."""

FAILURES = BROKEN_SCANS + VALUES
FOREIGN = re.compile(r"Traceback|NoneType|object at 0x|\w*Error: |\.\.$|unexpected")
"""What no message may hold: it tells of the program, not of the data."""


class Nights:
    """Good nights and what they calibrate to, made when first asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.made: dict[str, Night] = {}
        self.calibrated: dict[tuple[str, tuple[str, ...]], Path] = {}
        self.told: dict[str, str] = {}

    def tell(self, case: Case | StoreCase | DoubtfulCase, message: str) -> None:
        """Remember a message; no two cases may say the same."""
        assert self.told.setdefault(message, case.name) == case.name

    def night(self, name: str) -> Night:
        if name not in self.made:
            self.made[name] = make_night(name, self.folder / name)
        return self.made[name]

    def science(self, name: str) -> set[int]:
        return {1, 2, 3} if name in WITH_OWN_LOADS else {2, 3, 4}

    def result(self, name: str, options: tuple[str, ...] = ()) -> Path:
        """The store that the undamaged night gives."""
        if (name, options) not in self.calibrated:
            out = self.folder / f"good{len(self.calibrated)}.zarr"
            line = command(self.night(name), options)
            line[2] = str(out)
            assert main([*line, "--quiet"]) == 0
            self.calibrated[name, options] = out
        return self.calibrated[name, options]


def command(night: Night, options: Sequence[str] = ()) -> list[str]:
    table = ["--atmosphere", str(night.table)]
    return ["calibrate", str(night.l0), str(night.out), *table, *options]


@pytest.fixture(scope="session")
def nights(tmp_path_factory: pytest.TempPathFactory) -> Nights:
    return Nights(tmp_path_factory.mktemp("nights"))


def damage(case: Case | StoreCase | DoubtfulCase, night: Night) -> tuple[str, ...]:
    """Break the night; what the case returns besides strings is of no interest."""
    returned = case.damage(night)
    is_options = isinstance(returned, tuple) and all(isinstance(x, str) for x in returned)
    return returned if is_options else ()


def numbers_in(store: Path) -> set[int]:
    return {int(path.name.removeprefix("scan_")) for path in store.glob("scan_*")}


def check_good_scans(night: Night, good: Path, numbers: set[int]) -> None:
    for number in sorted(numbers):
        assert spectra(night.out, number) == spectra(good, number)
    assert not night.out.with_name("l1.zarr.staging").exists()


def ids(cases: Sequence[Case | StoreCase | DoubtfulCase]) -> dict[str, Any]:
    return {"argvalues": cases, "ids": [c.name.replace(" ", "-") for c in cases]}


@pytest.mark.parametrize("case", **ids(FAILURES))
def test_a_broken_scan_fails_alone(
    case: Case, nights: Nights, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    night = nights.night(case.night).copy(tmp_path)
    asked = nights.science(case.night) - set(case.unasked)
    saved = asked - set(case.failed)
    good = nights.result(case.night, case.options) if saved else Path("nothing saved")
    added = damage(case, night)
    there = numbers_in(night.out)
    capfd.readouterr()
    code = main(command(night, (*case.options, *added)))
    streams = capfd.readouterr()

    assert code == (2 if saved else 1)
    entries = json.loads((night.out / "failures.json").read_text())
    assert [entry["scan"] for entry in entries] == list(case.failed)
    for entry in entries:
        check_failure(entry, case, streams)
        nights.tell(case, entry["message"].replace(str(tmp_path), ""))
    assert "Traceback" not in streams.err
    assert numbers_in(night.out) == saved | there
    check_good_scans(night, good, saved)


def check_failure(entry: dict[str, Any], case: Case, streams: Any) -> None:
    assert set(entry) == {"scan", "stage", "error", "message", "hint"}
    assert (entry["error"], entry["stage"]) == (case.error, case.stage)
    message, hint, label = entry["message"], entry["hint"], f"scan {entry['scan']}"
    for word in case.words:
        assert word in message
    assert hint
    assert case.hint in hint
    assert message.startswith(label)
    assert message.endswith(".")
    assert hint.endswith((".", "?"))
    assert not FOREIGN.search(message + hint)
    told = f"{message.removeprefix(f'{label}: ')} {hint}"
    place = f"failed ({label} in {case.stage}): {case.error}: "
    assert streams.out.count(place) == 1
    assert place + told in streams.out
    errors = [line for line in streams.err.splitlines() if " ERROR " in line]
    assert len(errors) == len(case.failed)
    assert sum(f"{label} failed: {told}" in line for line in errors) == 1


@pytest.mark.parametrize("case", **ids(STORE))
def test_nothing_to_be_done_is_one_sentence(
    case: StoreCase, nights: Nights, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    night = nights.night("hera").copy(tmp_path)
    added = damage(case, night)
    before = sorted(night.folder.rglob("*"))
    assert main(command(night, added)) == case.code
    err = capfd.readouterr().err
    lines = [line for line in err.splitlines() if " INFO " not in line]
    assert len(lines) == 1
    assert lines[0].startswith("gpucal: error: ")
    assert not FOREIGN.search(lines[0].removeprefix("gpucal: error: "))
    for word in (*case.words, case.hint):
        assert word in lines[0]
    nights.tell(case, lines[0].replace(str(tmp_path), ""))
    if night.out.exists() and night.out not in before:
        assert numbers_in(night.out) == set()
    else:
        assert sorted(night.folder.rglob("*")) == before


@pytest.mark.parametrize("case", **ids(DOUBTFUL))
def test_doubtful_input_is_calibrated_with_a_warning(
    case: DoubtfulCase, nights: Nights, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    night = nights.night(case.night).copy(tmp_path)
    good = nights.result(case.night, case.options)
    added = damage(case, night)
    capfd.readouterr()
    assert main(command(night, (*case.options, *added))) == 0
    streams = capfd.readouterr()
    assert not (night.out / "failures.json").exists()
    everything = nights.science(case.night)
    assert numbers_in(night.out) == everything
    warnings = [line for line in streams.out.splitlines() if line.startswith("warning (scan")]
    assert len(warnings) == bool(case.words)
    for line in warnings:
        assert line.startswith(f"warning (scan{case.named}): ")
        assert all(word in line for word in case.words)
        assert not FOREIGN.search(line)
        nights.tell(case, line.replace(str(tmp_path), ""))
    check_good_scans(night, good, everything if case.same else everything - set(case.scans))


def test_an_unreadable_load_scan_is_a_failure_and_the_next_one_serves(
    nights: Nights, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    night = nights.night("upgreat").copy(tmp_path)
    (night.scan(1) / "zarr.json").write_text("{")
    assert main(command(night)) == 2
    out = capfd.readouterr().out
    assert "warning (scans 2-4): load scan 1 was passed over: the metadata of scan_000001" in out
    (failure,) = json.loads((night.out / "failures.json").read_text())
    assert failure["scan"] == 1
    assert "not valid JSON" in failure["message"]
    assert numbers_in(night.out) == {2, 3, 4}
    for number in (2, 3, 4):
        attrs = json.loads((night.out / f"scan_{number:06d}" / "zarr.json").read_text())
        assert any(key.startswith("5/") for key in attrs["attributes"]["l0_metadata_sha256"])


def test_disk_full_while_a_scan_is_written(
    nights: Nights,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    night = nights.night("hera").copy(tmp_path)
    good = nights.result("hera")
    real = os.writev

    def writev(descriptor: int, buffers: Any) -> int:
        if "scan_000002" in os.readlink(f"/proc/self/fd/{descriptor}"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(descriptor, buffers)

    monkeypatch.setattr(os, "writev", writev)
    assert main(command(night)) == 2
    assert "Traceback" not in capfd.readouterr().err
    (failure,) = json.loads((night.out / "failures.json").read_text())
    assert (failure["scan"], failure["error"]) == (2, "L1Error")
    assert failure["message"].endswith("scan_000002 cannot be written: No space left on device.")
    assert failure["hint"] == "Free some space and run again; finished scans are kept."
    assert numbers_in(night.out) == {1, 3}
    check_good_scans(night, good, {1, 3})
    monkeypatch.undo()  # there is room again: the same command does the rest
    assert main(command(night)) == 0
    assert "1 calibrated, 2 skipped, 0 failed" in capfd.readouterr().out
    check_good_scans(night, good, {1, 2, 3})
    assert not (night.out / "failures.json").exists()


def test_output_that_may_not_be_written(
    nights: Nights, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    night = nights.night("hera").copy(tmp_path)
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    if os.access(closed, os.W_OK):  # root: then where nobody makes directories
        closed = Path("/sys")
    line = command(night)
    line[2] = str(closed / "l1.zarr")
    assert main(line) == 1
    err = capfd.readouterr().err
    reason = r"(Permission denied|Operation not permitted|Read-only file system)"
    assert re.search(f"l1.zarr cannot be written: {reason}. Choose an output directory", err)


def test_a_repaired_scan_is_done_by_the_same_command(
    nights: Nights, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    night = nights.night("hera").copy(tmp_path)
    elevation = night.read(2, "source/elevation")
    night.put(2, "source/elevation", elevation * 57.3)
    assert main(command(night)) == 2
    night.put(2, "source/elevation", elevation)
    capfd.readouterr()
    assert main(command(night)) == 0
    assert "1 calibrated, 2 skipped, 0 failed" in capfd.readouterr().out
    assert not (night.out / "failures.json").exists()
    check_good_scans(night, nights.result("hera"), {1, 2, 3})


def test_verbose_shows_the_traceback_of_a_failed_scan(
    nights: Nights, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    night = nights.night("hera").copy(tmp_path)
    night.remove(2, "source/mjd")
    assert main(command(night, ("--verbose",))) == 2
    err = capfd.readouterr().err
    assert err.count("Traceback (most recent call last)") == 1
    assert "L0Error: scan 2: array mjd is missing" in err


@pytest.mark.parametrize(
    "name", ["bit flipped in an ON", "store missing", "option that does not exist"]
)
def test_a_real_process_ends_the_same_way(name: str, nights: Nights, tmp_path: Path) -> None:
    (case,) = [c for c in (*FAILURES, *STORE) if c.name == name]
    night = nights.night("hera").copy(tmp_path)
    line = command(night, damage(case, night))
    script = "import sys; from gpucal.cli.main import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", script, *line], capture_output=True, text=True, check=False
    )
    assert done.returncode == getattr(case, "code", 2)
    assert all(word in done.stderr for word in case.words)
    assert "Traceback" not in done.stderr
    if case in FAILURES:
        check_good_scans(night, nights.result("hera"), {1, 3})


def test_there_are_at_least_forty_kinds() -> None:
    cases: list[Case | StoreCase | DoubtfulCase] = [*FAILURES, *STORE, *DOUBTFUL]
    assert len({c.name for c in cases}) == len(cases) >= 40
