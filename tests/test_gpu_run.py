"""``bench/gpu_run.sh``: the dry run passes here; on a card nothing that fails goes unnoticed."""

from __future__ import annotations

import importlib
import json
import math
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
SCRIPT = ROOT / "bench" / "gpu_run.sh"
STAGES = {
    "tests": "-m pytest",
    "kernels": "-m bench.gpu.kernels",
    "pwv": "-m bench.gpu.pwv",
    "night": "-m bench.gpu.chain",
    "disk": "--folder",
}
"""Stage -> words of its command that no other stage has (disk has those of night too)."""

pytestmark = pytest.mark.skipif(shutil.which("timeout") is None, reason="needs timeout(1)")


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """Import a module of ``bench`` from the source tree."""
    monkeypatch.syspath_prepend(str(ROOT))
    return importlib.import_module


def gpu_run(*arguments: str, path: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the script with ``path`` before the system's own commands."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_", "GPUCAL_"))}
    env |= {"PATH": f"{path}:/usr/bin:/bin", **environment}
    return subprocess.run(
        ["/bin/sh", str(SCRIPT), *arguments], capture_output=True, text=True, env=env, timeout=3600
    )


def command(folder: Path, name: str, body: str) -> None:
    """A command that notes its arguments in ``folder/calls`` and then does ``body``."""
    path = folder / name
    note = f'echo "{name} [${{GPUCAL_REQUIRE_GPU:-}}] $*" >>"{folder}/calls"\n'
    path.write_text(f"#!/bin/sh\n{note}{body}\n")
    path.chmod(0o755)


@pytest.fixture
def stand_in(tmp_path: Path) -> Path:
    """A folder whose python3 does nothing, but fails for the module it is told to fail for."""
    command(tmp_path, "python3", 'case " $* " in *" $FAILS "*) exit 3 ;; esac')
    return tmp_path


def passed(done: subprocess.CompletedProcess[str]) -> int:
    """Number of stages that passed, from the summary."""
    return done.stdout.partition("== summary")[2].count(": passed in")


def calls(folder: Path) -> list[str]:
    return (folder / "calls").read_text().splitlines()


def test_dry_run_passes_and_says_that_nothing_was_measured() -> None:
    before = sorted((ROOT / "bench" / "results").iterdir())
    done = gpu_run("--dry", path=Path(sys.executable).parent, GPUCAL_SLOW="20")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "dry run: nothing was measured" in done.stdout
    assert done.stdout.count("dry run: no GPU number") >= 7
    assert "io device: info: the device reads counts and writes spectra" in done.stdout
    for stage in STAGES:
        assert re.search(rf"\n{stage}: passed in \d+ s, \d+ s of CPU\n", done.stdout)
    assert sorted((ROOT / "bench" / "results").iterdir()) == before


@pytest.mark.parametrize("dry", [True, False])
@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_that_fails_shows_and_does_not_stop_the_others(
    stand_in: Path, stage: str, dry: bool
) -> None:
    arguments = ["--dry"] if dry else []
    words = STAGES[stage]
    done = gpu_run(*arguments, path=stand_in, FAILS=words, OUT=str(stand_in / "out"))
    assert done.returncode == 1
    assert f"\n{stage}: FAILED with exit status 3" in done.stdout
    # The nights on disk are the same command with a folder more.
    failing = [s for s in STAGES if s == stage or (stage, s) == ("night", "disk")]
    assert passed(done) == len(STAGES) - len(failing)
    others = ("-m pip", "-m bench.gpu.warm_up")
    ran = [
        line for line in calls(stand_in) if " -m " in line and not any(o in line for o in others)
    ]
    assert len(ran) == len(STAGES)
    assert all(text in line for text, line in zip(STAGES.values(), ran, strict=True))


def test_on_a_card_every_stage_runs(stand_in: Path) -> None:
    command(stand_in, "compute-sanitizer", 'shift 4; exec "$@"')
    out = stand_in / "out"
    done = gpu_run(path=stand_in, FAILS="nothing", OUT=str(out))
    assert done.returncode == 0, done.stdout + done.stderr
    lines = calls(stand_in)
    assert any("[1] -m pytest" in line and "tests/card" in line for line in lines)
    for tool in ("memcheck", "racecheck"):
        assert any(f"compute-sanitizer [] --tool {tool}" in line for line in lines)
        assert f"\n{tool}: passed in" in done.stdout
    assert sum(f"--save --results {out}" in line for line in lines) == 4
    assert not any("--dry" in line for line in lines)
    assert "nothing was measured" not in done.stdout
    assert {p.name for p in out.iterdir()} == {"gpu_run.log"}
    log = (out / "gpu_run.log").read_text()
    assert all(f"== {stage}\n" in log for stage in (*STAGES, "memcheck", "racecheck"))
    assert log.rstrip().endswith(done.stdout.partition("== summary\n")[2].rpartition("\nall st")[0])
    # the tests come first, and what is compiled meanwhile counts apart
    order = [line for line in lines if " -m " in line and "warm_up" not in line]
    assert "-m pytest" in order[0]
    assert "\ncold start: done" in done.stdout


def test_without_compute_sanitizer_it_says_so(stand_in: Path) -> None:
    if any(Path(folder, "compute-sanitizer").exists() for folder in ("/usr/bin", "/bin")):
        pytest.skip("compute-sanitizer is installed here")
    done = gpu_run(path=stand_in, FAILS="nothing", OUT=str(stand_in / "out"))
    assert "compute-sanitizer is not on the PATH" in done.stdout
    assert done.returncode == 0


def test_a_stage_that_reaches_its_limit_is_named(stand_in: Path) -> None:
    command(stand_in, "timeout", "exit 124")
    done = gpu_run(path=stand_in, FAILS="nothing", OUT=str(stand_in / "out"))
    assert done.returncode == 1
    assert "\ntests: FAILED, stopped at its limit of 90 s" in done.stdout
    stages = [c for c in calls(stand_in) if c.startswith("timeout") and "warm_up" not in c]
    limits = [int(c.split()[4]) for c in stages]
    assert limits == [90, 90, 30, 150, 60]
    assert sum(limits) + 2 * 50 <= 535, "with compute-sanitizer"


def test_the_quick_script_takes_150_s(stand_in: Path) -> None:
    out = stand_in / "out"
    command(stand_in, "timeout", '[ "$1" != -k ] || shift 2; shift; exec "$@"')
    env = {"PATH": f"{stand_in}:/usr/bin:/bin", "FAILS": "nothing", "OUT": str(out)}
    run = ["/bin/sh", str(SCRIPT.with_name("gpu_quick.sh"))]
    done = subprocess.run(run, capture_output=True, text=True, env=env, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    stages = [c for c in calls(stand_in) if c.startswith("timeout") and "warm_up" not in c]
    assert sum(int(c.split()[4]) for c in stages) <= 150
    for words in ("tests/card", "--only calibrate dump_mean", "--only upgreat"):
        assert any(words in c for c in stages)
    assert {p.name for p in out.iterdir()} == {"gpu_run.log"}


def test_the_first_failure_is_shown_even_if_much_follows(stand_in: Path) -> None:
    body = (
        'case "$*" in *pytest*) echo "FAILED NOW a test"; echo "its text"; seq 200; exit 1 ;; esac'
    )
    command(stand_in, "python3", body)
    done = gpu_run(path=stand_in, OUT=str(stand_in / "out"))
    assert done.returncode == 1
    assert "FAILED NOW a test\nits text\n" in done.stdout.partition("== summary")[0]


def test_what_cannot_be_warmed_up_is_said(stand_in: Path) -> None:
    done = gpu_run(path=stand_in, FAILS="bench.gpu.warm_up", OUT=str(stand_in / "out"))
    assert done.returncode == 1
    assert "\ncold start: FAILED with exit status 3" in done.stdout
    assert passed(done) == len(STAGES)


def test_what_is_missing_is_named(stand_in: Path) -> None:
    command(
        stand_in,
        "python3",
        'case "$*" in *numpy*) echo "    zarr is missing: no module"; exit 1 ;; esac',
    )
    done = gpu_run(path=stand_in, OUT=str(stand_in / "out"))
    assert done.returncode == 1
    assert "zarr is missing" in done.stdout
    assert "FAILED: packages" in done.stdout
    assert passed(done) == len(STAGES)


def test_what_is_not_measured_for_want_of_a_package_is_said(stand_in: Path) -> None:
    command(
        stand_in, "python3", 'case "$*" in *kvikio*) echo "    kvikio cannot be imported" ;; esac'
    )
    done = gpu_run(path=stand_in, OUT=str(stand_in / "out"))
    assert done.stdout.count("kvikio cannot be imported") == 2
    assert done.returncode == 0


def test_wheels_are_installed_without_network_and_come_first(
    stand_in: Path, tmp_path: Path
) -> None:
    root = tmp_path / "checkout"
    (root / "bench").mkdir(parents=True)
    (root / ".whl").mkdir()
    (root / ".whl" / "one-1-py3-none-any.whl").touch()
    shutil.copy(SCRIPT, root / "bench")
    command(
        stand_in, "python3", 'case "$*" in *bench.gpu.kernels*) echo "path $PYTHONPATH" ;; esac'
    )
    env = {
        "PATH": f"{stand_in}:/usr/bin:/bin",
        "GPUCAL_SITE": "/somewhere",
        "OUT": str(root / "out"),
    }
    run = ["/bin/sh", str(root / "bench" / SCRIPT.name)]
    done = subprocess.run(run, capture_output=True, text=True, env=env, timeout=600)
    assert done.returncode == 0
    (line,) = (line for line in calls(stand_in) if "-m pip install" in line)
    assert {"--no-index", "--no-deps", ".whl/one-1-py3-none-any.whl"} <= set(line.split())
    assert f"path /somewhere:{root}" in done.stdout
    assert not (root / "bench" / "scratch").exists()


def test_wheels_are_collected_for_the_machine_with_the_card(stand_in: Path, tmp_path: Path) -> None:
    root = tmp_path / "checkout"
    (root / "bench").mkdir(parents=True)
    for name in ("gpu_run.sh", "gpu_wheels.txt"):
        shutil.copy(ROOT / "bench" / name, root / "bench")
    env = {"PATH": f"{stand_in}:/usr/bin:/bin"}
    run = ["/bin/sh", str(root / "bench" / SCRIPT.name), "--wheels", "cupy-cuda13x"]
    assert subprocess.run(run, env=env, check=False, timeout=600).returncode == 0
    first, second = calls(stand_in)
    assert "-d .whl --only-binary=:all: --python-version 3.12" in first
    assert first.endswith(" pydantic")
    assert second.endswith("--no-deps -r bench/gpu_wheels.txt cupy-cuda13x")


def test_an_unknown_option_is_refused(stand_in: Path) -> None:
    assert gpu_run("--fast", path=stand_in).returncode == 2


def test_benches_fail_without_a_card(
    load: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    for name in ("kernels", "chain", "pwv"):
        assert load(f"bench.gpu.{name}").main([]) == 1
        assert "CuPy" in capsys.readouterr().err
        with pytest.raises(SystemExit):
            load(f"bench.gpu.{name}").main(["--dry", "--save"])


class NumpyAsCupy:
    """NumPy with what the benches use of CuPy beside it."""

    __version__ = "0"

    def __init__(self, event: Any, host_loops: Any) -> None:
        self.pooled = True
        self.cuda = SimpleNamespace(
            Event=event,
            get_elapsed_time=lambda start, stop: 1e3 * (stop.at - start.at),
            set_allocator=self._set_allocator,
            runtime=SimpleNamespace(
                memGetInfo=lambda: (6 << 18, 1 << 30),
                runtimeGetVersion=lambda: 13000,
                driverGetVersion=lambda: 13000,
            ),
        )

        self.ElementwiseKernel = host_loops.ElementwiseKernel
        self.ReductionKernel = host_loops.ReductionKernel

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)

    def _set_allocator(self, allocator: object) -> None:
        self.pooled = allocator is not None

    def get_default_memory_pool(self) -> SimpleNamespace:
        return SimpleNamespace(free_all_blocks=lambda: None)


@pytest.fixture
def pretended(load: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch) -> NumpyAsCupy:
    """A card that is NumPy, found where the real one is."""
    from cpu_fallback import NumpyKernels
    from gpucal.backend import cuda
    from gpucal.backend.protocol import Backend

    if not load("bench.host_loops").available():
        pytest.skip("g++ stands in for NVRTC")
    xp = NumpyAsCupy(load("bench.gpu.card").HostEvent, load("bench.host_loops"))
    backend = Backend("cuda", xp, NumpyKernels(1), np.asarray, np.asarray, device="Pretended 1")
    monkeypatch.setattr(cuda, "cuda_backend", lambda **_: backend)
    small = load("bench.gpu.cases").CHI2["toy"]
    monkeypatch.setitem(load("bench.gpu.cases").CHI2, "full", small)
    toy = load("bench.gpu.night").NIGHTS["toy"]
    monkeypatch.setitem(load("bench.gpu.night").NIGHTS, "full", toy)
    monkeypatch.setitem(load("bench.gpu.chain").REPEATS, "full", 1)
    monkeypatch.setitem(load("bench.gpu.pwv").SIZES, "full", load("bench.gpu.pwv").SIZES["toy"])
    return xp


def test_what_is_saved_on_a_card(
    load: Callable[[str], Any],
    pretended: NumpyAsCupy,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = ["--save", "--results", str(tmp_path)]
    assert load("bench.gpu.kernels").main(options) == 0
    assert load("bench.gpu.chain").main(options) == 0
    assert load("bench.gpu.pwv").main(options) == 0
    lines = (tmp_path / "pretended-1.jsonl").read_text().splitlines()
    results = [json.loads(line) for line in lines]
    assert {r["bench"] for r in results} == {
        *("gpu_calibrate", "gpu_dump_mean", "gpu_reference", "gpu_chi2", "gpu_fold"),
        *("gpu_chain", "gpu_pwv"),
    }
    common = {"device", "case", "nbytes", "seconds_median", "seconds_sem", "ratio_to_copy"}
    assert all(common <= r.keys() for r in results)
    nights = [r for r in results if r["bench"] == "gpu_chain"]
    ways = ["cpu", "host", "device"]
    assert [r["io"] for r in nights] == 4 * ways
    assert all(r["agrees"] and r["samples"] and r["stages"]["wall_ms"] > 0 for r in nights)
    for r in nights:
        assert set(r["alone"]) == set(
            load("bench.gpu.stages").STAGES if r["io"] != "device" else ()
        )
        assert r["overlap"] is None or r["overlap"] > 0
    fits = [r for r in results if r["bench"] == "gpu_pwv"]
    assert [r["form"] for r in fits] == ["card", "host"]
    assert all(r["agrees"] for r in fits)
    assert {r["size"] for r in results} == {"full"}
    assert (tmp_path / "roofline-pretended-1.png").exists()
    assert pretended.pooled
    assert "dry run" not in capsys.readouterr().out


def test_toy_sizes_on_a_card_do_without_the_pool(
    load: Callable[[str], Any], pretended: NumpyAsCupy
) -> None:
    assert load("bench.gpu.kernels").main(["--toy"]) == 0
    assert not pretended.pooled


def test_kernel_bench_reports_every_kernel_and_saves(
    load: Callable[[str], Any], tmp_path: Path
) -> None:
    bench, card = load("bench.gpu.kernels"), load("bench.gpu.card").host_card()
    results, failed = bench.run_bench(card, "toy")
    assert failed == 0
    assert len({(r.bench, r.case, r.form) for r in results}) == len(results)
    kernels = {"gpu_calibrate", "gpu_dump_mean", "gpu_reference", "gpu_chi2", "gpu_fold"}
    for form in ("kernel", "plain") if card.has_plain else ("kernel",):
        assert {r.bench for r in results if r.form == form} == kernels
    for r in results:
        assert 0 < r.seconds_min <= r.seconds_median <= r.seconds_max
        assert r.ratio_to_copy == pytest.approx(r.gb_per_s / r.copy_gb_per_s)
        assert math.isfinite(r.seconds_sem)
        assert r.nbytes >= r.samples * (4 if "chi2" not in r.bench else 0)
    pytest.importorskip("matplotlib")
    assert bench.roofline(results, tmp_path / "roofline.png")
    assert (tmp_path / "roofline.png").read_bytes()[1:4] == b"PNG"


def test_a_kernel_that_fails_leaves_the_others_their_results(
    load: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bench, card = load("bench.gpu.kernels"), load("bench.gpu.card").host_card()

    def broken(*_: Any) -> None:
        raise ZeroDivisionError("broken on purpose")

    monkeypatch.setattr(card.kernels, "dump_mean", broken)
    results, failed = bench.run_bench(card, "toy")
    assert failed == 1
    assert "broken on purpose" in capsys.readouterr().err
    left = {"gpu_calibrate", "gpu_reference", "gpu_chi2", "gpu_fold"}
    assert {r.bench for r in results} == left


def test_a_kernel_that_disagrees_with_its_plain_form_is_not_timed(
    load: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bench, card = load("bench.gpu.kernels"), load("bench.gpu.card").host_card()
    if not card.has_plain:
        pytest.skip("needs g++")
    reference = card.kernels.reference
    monkeypatch.setattr(card.kernels, "reference", lambda *a: reference(*a) * (1 + 1e-11))
    results, failed = bench.run_bench(card, "toy")
    assert failed == 1
    assert "the plain form differs by 1.0e-11" in capsys.readouterr().err
    assert "gpu_reference" not in {r.bench for r in results}


def test_disagreement_of_results(load: Callable[[str], Any]) -> None:
    differ = load("bench.gpu.baseline").disagreement
    a = np.array([1.0, -2.0, np.nan])
    whole = np.arange(3)
    assert differ((a, whole, 3), (a, whole, 3), np) == 0.0
    assert differ((a,), (a * (1 + 1e-9),), np) == pytest.approx(1e-9, rel=0.1)
    for found, expected in ((np.nan_to_num(a), a), (np.arange(3), np.arange(3) + 1), (4, 3)):
        assert differ((found,), (expected,), np) == math.inf


def test_arrays_on_the_card_repeat_the_block(load: Callable[[str], Any]) -> None:
    cases, card = load("bench.gpu.cases"), load("bench.gpu.card").host_card()
    array = cases.repeated(card, np.arange(7, dtype=np.int32), (3, 5))
    np.testing.assert_array_equal(array.ravel(), np.arange(15) % 7)


def test_differences_of_stores_are_seen(load: Callable[[str], Any]) -> None:
    chain, night = load("bench.gpu.chain"), load("bench.gpu.night")
    values = np.array([[1.0, -2.0], [np.nan, 3.0]])
    assert night.difference(values, values) == 0.0
    assert night.difference(values * (1 + 1e-11), values) > chain.AGREEMENT
    assert night.difference(np.nan_to_num(values), values) == math.inf
    blank = np.full(3, np.nan)
    assert night.difference(blank, blank) == 0.0


def test_nights_that_differ_fail(
    load: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    chain = load("bench.gpu.chain")
    monkeypatch.setattr(chain, "compare", lambda *_: (0.0, 4))
    assert chain.main(["--dry"]) == 1
    assert "differ by 0.0e+00, 4 flags" in capsys.readouterr().out


def test_no_night_is_begun_that_would_end_too_late(
    load: Callable[[str], Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert load("bench.gpu.chain").main(["--dry", "--seconds", "0"]) == 0
    assert "chai zstd:1: left out, the time is up" in capsys.readouterr().out


def test_a_night_is_as_long_as_there_is_time(load: Callable[[str], Any]) -> None:
    chain, night = load("bench.gpu.chain"), load("bench.gpu.night")
    one = night.samples_per_on("chai", "full") * 1e-7  # seconds of one ON
    assert one > 1
    for left, n_on in ((100 * one, 4), (3.5 * one, 3), (1.01 * one, 1), (0.9 * one, 0), (0.0, 0)):
        assert chain.on_in_time("chai", "full", 1e-7, left) == n_on
    assert chain.on_in_time("upgreat", "full", 0.0, 1.0) == 6  # nothing is known yet


def test_only_these_kernels_and_nights(
    load: Callable[[str], Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert load("bench.gpu.kernels").main(["--dry", "--only", "reference"]) == 0
    out = capsys.readouterr().out
    assert "reference" in out
    assert "chi2" not in out
    assert load("bench.gpu.chain").main(["--dry", "--only", "upgreat"]) == 0
    assert "chai" not in capsys.readouterr().out


def test_a_night_has_as_many_scans_as_there_is_room_for(
    load: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    night = load("bench.gpu.night")
    one = 64 * 4 * 14 * 2 * 40
    for free, scans in ((1e12, 2), (1.3 * one, 1)):
        monkeypatch.setattr(night.shutil, "disk_usage", lambda _, n=free: SimpleNamespace(free=n))
        assert night.scans_with_room("upgreat", "toy", tmp_path) == (scans, scans * one)
    monkeypatch.setattr(night.shutil, "disk_usage", lambda _: SimpleNamespace(free=one))
    with pytest.raises(night.NoRoom, match="needed for one scan"):
        night.scans_with_room("upgreat", "toy", tmp_path)


def test_plain_forms_are_left_out_of_the_compile_log_without_headers(
    load: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    log = load("bench.gpu.compile_log")
    monkeypatch.setattr(log, "cupy_headers", lambda: None)
    assert list(log.plain_forms("sm_90")) == []
    source = log.plain_source(log.CALIBRATE, 3, {"C": "int32", "O": "float64"})
    assert "typedef int C;" in source
    assert "CArray<unsigned short, 3, 0, 1> _raw_flags, CIndexer<3, 1> _ind) {" in source
