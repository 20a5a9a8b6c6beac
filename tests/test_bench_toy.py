"""Every bench runs at toy size and reports finite ratios; times mean nothing here."""

from __future__ import annotations

import importlib
import json
import math
from dataclasses import asdict
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BENCHES = ("calibrate", "dump_mean", "reference", "chi2")


@pytest.fixture
def load(monkeypatch):
    """Import a module of ``bench`` from the source tree."""
    monkeypatch.syspath_prepend(str(ROOT))
    return importlib.import_module


@pytest.mark.parametrize("name", BENCHES)
def test_toy_bench_reports_finite_ratios(load, name):
    bench, harness = load(f"bench.bench_{name}"), load("bench.harness")
    results = harness.run_bench(name, bench.cases, "toy", (1, 2))
    assert {r.threads for r in results} == {1, 2}
    assert len({(r.case, r.threads) for r in results}) == len(results)
    for result in results:
        for value in asdict(result).values():
            if isinstance(value, float):
                assert math.isfinite(value)
                assert value > 0
        assert result.seconds_min <= result.seconds_median <= result.seconds_max


def test_command_line_shows_and_saves(load, monkeypatch, tmp_path, capsys):
    harness = load("bench.harness")
    monkeypatch.setattr(harness.save, "__defaults__", (tmp_path,))
    assert load("bench").main(["reference", "chi2", "--toy", "--threads", "1", "--save"]) == 0
    assert "of copy" in capsys.readouterr().out
    (path,) = tmp_path.glob("*.jsonl")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert {line["bench"] for line in lines} == {"reference", "chi2"}
    assert all(line["versions"]["numpy"] for line in lines)
    with pytest.raises(SystemExit):
        load("bench").main(["nothing"])
