"""Every bench runs at toy size and reports finite ratios; times mean nothing here."""

from __future__ import annotations

import importlib
import json
import math
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
BENCHES = ("calibrate", "dump_mean", "reference", "chi2", "fold")


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """Import a module of ``bench`` from the source tree."""
    monkeypatch.syspath_prepend(str(ROOT))
    return importlib.import_module


@pytest.mark.parametrize("name", BENCHES)
def test_toy_bench_reports_finite_ratios(load: Callable[[str], Any], name: str) -> None:
    bench, harness = load(f"bench.kernels.{name}"), load("bench.harness")
    results = harness.run_bench(name, bench.cases, "toy", (1, 2))
    assert {r.threads for r in results} == {1, 2}
    assert len({(r.case, r.threads) for r in results}) == len(results)
    for result in results:
        for value in asdict(result).values():
            if isinstance(value, float):
                assert math.isfinite(value)
                assert value > 0
        assert result.seconds_min <= result.seconds_median <= result.seconds_max


def test_command_line_shows_and_saves(
    load: Callable[[str], Any],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    harness = load("bench.harness")
    monkeypatch.setattr(harness.save, "__defaults__", (tmp_path, ""))
    assert load("bench").main(["reference", "chi2", "--toy", "--threads", "1", "--save"]) == 0
    assert "of copy" in capsys.readouterr().out
    (path,) = tmp_path.glob("*.jsonl")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert {line["bench"] for line in lines} == {"reference", "chi2"}
    assert all(line["versions"]["numpy"] for line in lines)
    with pytest.raises(SystemExit):
        load("bench").main(["nothing"])


def check_numbers(results: Iterable[Any]) -> None:
    for result in results:
        for name, value in asdict(result).items():
            if isinstance(value, float):
                assert math.isfinite(value), name
                assert value >= 0, name
        assert 0 < result.seconds_min <= result.seconds_median <= result.seconds_max


def test_io_bench_copies_the_spectra_it_is_compared_with(
    load: Callable[[str], Any], tmp_path: Path
) -> None:
    bench = load("bench.bench_io")
    night = bench.Night(tmp_path, "toy", "zstd:1", 2)
    night.calibrate()
    night.remember()
    night.copy()
    for name in ("spectra", "flags", "t_sys"):
        files = [
            sorted(p.relative_to(store) for p in store.glob(f"scan_000001/{name}/c/**/*"))
            for store in (night.l1, night.copied)
        ]
        assert files[0] == files[1]
        assert len(files[0]) > 1
        for path in (p for p in files[0] if (night.l1 / p).is_file()):
            same = (night.l1 / path).read_bytes() == (night.copied / path).read_bytes()
            assert same, f"{path} differs"


def test_io_bench_at_toy_size(
    load: Callable[[str], Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bench = load("bench.bench_io")
    results = bench.run_bench("toy", workers=2, folder=tmp_path)
    assert [r.case for r in results] == list(bench.CODECS)
    check_numbers(results)
    for result in results:
        assert sum(result.stages.values()) == pytest.approx(1.0)
        assert min(result.stages[s] for s in ("decode", "kernel", "encode", "store")) > 0
    assert not list(tmp_path.iterdir())
    assert load("bench").main(["io", "--toy", "--codec", "none", "--folder", str(tmp_path)]) == 0
    assert "sync" in capsys.readouterr().out


def test_stage_clock_puts_the_functions_back(load: Callable[[str], Any]) -> None:
    stages = load("bench.stages")
    before = [getattr(owner, name) for owner, name in stages.STAGES.values()]
    with pytest.raises(ZeroDivisionError), stages.StageClock():
        raise ZeroDivisionError
    assert [getattr(owner, name) for owner, name in stages.STAGES.values()] == before


def test_peers_bench_without_dysh(
    load: Callable[[str], Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bench = load("bench.bench_peers")
    console = load("rich.console").Console(width=120)
    results = bench.run_bench("toy", console, venv=None, folder=tmp_path)
    assert [r.case for r in results] == ["gpucal zstd:1 f64", "gpucal none f32", "numpy zstd:1 f64"]
    check_numbers(results)
    assert all(r.ratio_to_dysh is None for r in results)
    bench.show(results, console)
    assert "gpucal" in capsys.readouterr().out


def test_gbt_file_reads_back(load: Callable[[str], Any], tmp_path: Path) -> None:
    pytest.importorskip("astropy")
    load("bench.gbt_file").write_gbt_file(tmp_path / "a.fits", 8, 64)
    from astropy.io import fits

    with fits.open(tmp_path / "a.fits") as file:
        table = file[1].data
        assert table["DATA"].shape == (8, 64)
        assert list(table["SCAN"]) == [1] * 4 + [2] * 4
        assert list(table["CAL"]) == ["T", "F"] * 4
        diode = table["DATA"][::2].mean() - table["DATA"][1::2].mean()
    assert diode == pytest.approx(1.5e6, rel=0.3)
    with pytest.raises(ValueError, match="multiple of 4"):
        load("bench.gbt_file").write_gbt_file(tmp_path / "b.fits", 6, 64)


def test_toy_online_bench(load: Callable[[str], Any], tmp_path: Path) -> None:
    bench = load("bench.bench_online")
    results = bench.run_bench("toy", tmp_path)
    assert [r.case for r in results] == [
        "quick look",
        "whole scan, per subscan",
        "status with 1000 jobs",
    ]
    assert all(0 < r.seconds_min <= r.seconds_median <= r.seconds_max for r in results)
    assert all(r.rate > 0 for r in results)
