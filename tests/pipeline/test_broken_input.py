"""Broken input: each kind ends in its own message and exit code, good scans stay untouched."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys

import pytest
from broken_cases import DOUBTFUL, FAILURES, STORE
from broken_night import make_night, spectra

from gpucal.cli.main import main

SELF_CALIBRATED = {"hera", "fsw", "wsw", "nod", "argus"}
"""Nights whose scans 1, 2, 3 hold their own loads; in the others 1 and 5 are load scans."""
NOISE = ("Traceback", "NoneType", "object at 0x", "assert", "KeyError", "IndexError")
"""What no message may hold: it would be ours to explain, not the user's."""


@pytest.fixture(scope="session")
def nights(tmp_path_factory):
    """Nights and their undamaged results, made when first asked for."""
    made, calibrated = {}, {}
    folder = tmp_path_factory.mktemp("nights")

    def night(name):
        if name not in made:
            made[name] = make_night(name, folder / name)
        return made[name]

    def good(name, options):
        if (name, options) not in calibrated:
            out = folder / f"{name}-{len(calibrated)}.zarr"
            assert run(night(name), options, out=out) == 0
            calibrated[name, options] = out
        return calibrated[name, options]

    return night, good


def run(night, options=(), out=None):
    out = out or night.out
    line = ["calibrate", str(night.l0), str(out), "--atmosphere", str(night.table), *options]
    return main(line)


def science(store):
    """Numbers of the calibrated scans of a store."""
    return {int(path.name.removeprefix("scan_")) for path in store.glob("scan_*")}


def check_good_scans(night, good, numbers):
    assert science(night.out) >= numbers
    for number in numbers:
        assert spectra(night.out, number) == spectra(good, number)
    assert not night.out.with_name("l1.zarr.staging").exists()


def one_failure_each(night, case):
    entries = json.loads((night.out / "failures.json").read_text())
    assert [entry["scan"] for entry in entries] == list(case.failed)
    for entry in entries:
        assert set(entry) == {"scan", "stage", "error", "message", "hint"}
        assert (entry["error"], entry["stage"]) == (case.error, case.stage)
    return entries


def check_sentence(message, words, hint, wanted_hint):
    for word in words:
        assert word in f"{message} {hint}"
    assert wanted_hint in hint
    assert message.endswith((".", "?"))
    assert not any(noise in message + hint for noise in NOISE)


@pytest.mark.parametrize("case", FAILURES, ids=lambda c: c.name.replace(" ", "-"))
def test_a_broken_scan_fails_alone(case, nights, tmp_path, capfd):
    night, good = nights
    damaged = night(case.night).copy(tmp_path)
    everything = set(range(1, 4)) if case.night in SELF_CALIBRATED else {2, 3, 4}
    saved = everything - set(case.failed)
    if "--scans" in case.options:
        saved = set()
    reference = good(case.night, case.options) if saved else None
    added = case.damage(damaged) or ()
    added = added if isinstance(added, tuple) and added and isinstance(added[0], str) else ()
    capfd.readouterr()
    code = run(damaged, (*case.options, *added))
    streams = capfd.readouterr()
    assert code == (2 if saved else 1)
    entries = one_failure_each(damaged, case)
    for entry in entries:
        check_sentence(entry["message"], case.words, entry["hint"], case.hint)
        assert f"scan {entry['scan']}" in entry["message"]
        line = f"failed (scan {entry['scan']} in {case.stage}): {case.error}: {entry['message']}"
        assert streams.out.count(line) == 1
        assert streams.err.count(entry["message"]) == 1
    assert "Traceback" not in streams.err
    if saved:
        check_good_scans(damaged, reference, saved)
