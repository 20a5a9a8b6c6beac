"""Commands load when they are wanted, values complete, every ``python -m`` says something."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer
import zarr
from builders.synthetic_l1 import write_l1

from gpucal import main
from gpucal.cli.lazy import Entry
from gpucal.cli.main import Commands, app

ROOT = Path(__file__).resolve().parents[2]
HEAVY = {"numpy", "zarr", "scipy", "numcodecs", "matplotlib", "astropy", "sqlalchemy"}


def run(*args: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *args],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, **variables},
    )


def loaded_by(*args: str) -> set[str]:
    """Packages that a command line loads."""
    code = (
        "import sys, contextlib, io\n"
        "from gpucal.cli.main import main\n"
        "with contextlib.redirect_stdout(io.StringIO()):\n"
        f"    main({list(args)!r})\n"
        "print(*{m.split('.')[0] for m in sys.modules})\n"
        "print(*[m for m in sys.modules if m.startswith('gpucal.cli.commands.')])"
    )
    done = run("-c", code)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


@pytest.mark.parametrize("args", [["--help"], ["--version"], []])
def test_the_root_loads_nothing_heavy_and_no_command(args: list[str]) -> None:
    loaded = loaded_by(*args)
    assert not loaded & (HEAVY | {"pydantic"})
    assert not [name for name in loaded if name.startswith("gpucal.cli.commands.")]


@pytest.mark.parametrize("command", list(Commands.ENTRIES))
def test_the_help_of_a_command_loads_nothing_heavy_and_no_other(command: str) -> None:
    loaded = loaded_by(command, "--help")
    assert not loaded & HEAVY
    mine = Commands.ENTRIES[command].module
    others = {entry.module for entry in Commands.ENTRIES.values()} - {mine}
    assert mine in loaded
    assert not loaded & others


def test_the_line_of_each_command_is_that_of_its_own_help() -> None:
    for name, entry in Commands.ENTRIES.items():
        command = entry.load(name)
        first = " ".join(str(command.help).split("\n\n")[0].split())
        assert entry.line == first, name


def test_a_wrong_line_would_be_found() -> None:
    entry = Entry("gpucal.cli.commands.info", "info", "Something else.")
    assert entry.line != str(entry.load("info").help).strip()


def test_all_commands_can_be_walked() -> None:
    group = typer.main.get_command(app)
    assert list(group.commands) == list(Commands.ENTRIES)  # type: ignore[attr-defined]
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        assert command.name == name
        assert command.params or command.commands


def completed(line: str) -> list[str]:
    """What the shell is offered for the last word."""
    words = line.split(" ")
    done = run(
        "-m",
        "gpucal",
        _GPUCAL_COMPLETE="complete_bash",
        COMP_WORDS=line,
        COMP_CWORD=str(len(words) - 1),
    )
    assert done.stderr == ""
    return done.stdout.split()


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("night") / "n.zarr"
    for name in ("scan_000007", "scan_000012", "scan_000112", "other"):
        (path / name).mkdir(parents=True)
    return path


def test_names_of_commands_complete() -> None:
    assert completed("gpucal ca") == ["calibrate"]
    assert "sdfits" in completed("gpucal export ")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("calibrate {} out --scans ", ["7", "12", "112"]),
        ("calibrate {} out --scans 7,1", ["7,12", "7,112"]),
        ("inspect {} --scans 1", ["12", "112"]),
        ("plot {} --scans 7-", ["7-7", "7-12", "7-112"]),
        ("reduce {} --scan 12", ["12"]),
        ("export class {} out --scans 11", ["112"]),
        ("export raw-fits {} out --scans 7", ["7"]),
        ("calibrate {} out --mode n", ["nod"]),
        ("calibrate {} out --backend ", ["auto", "cuda", "cpu"]),
        ("calibrate {} out --atmosphere ch", ["chile_5600m"]),
        ("calibrate {} out --codec bl", ["blosc-lz4", "blosc-zstd"]),
        ("inspect {} --table e", ["ecsv"]),
        ("reduce {} --procedure sk", ["skydip"]),
        ("simulate {} --preset h", ["hera"]),
        ("atm info iram", ["iram_30m"]),
    ],
)
def test_values_complete(night: Path, line: str, expected: list[str]) -> None:
    assert completed("gpucal " + line.format(night)) == expected


MODULES = [
    *("gpucal", "gpucal.cli", "gpucal.cli.main", "gpucal.plot", "gpucal.simulate"),
    *("gpucal.export", "gpucal.online", "gpucal.procedures", "cpu_fallback"),
]


@pytest.mark.parametrize("module", MODULES)
def test_python_m_has_no_traceback(module: str) -> None:
    for args in ([], ["/nowhere/at.all", "/nowhere/else"]):
        done = run("-m", module, *args)
        assert done.returncode != 0
        said = done.stdout + done.stderr
        assert "Traceback" not in said
        assert "No module named" not in said
        assert re.search(r"gpucal|usage", said)


def test_python_m_gpucal_is_the_command() -> None:
    assert run("-m", "gpucal", "--version").stdout == run("-m", "gpucal.cli", "--version").stdout


@pytest.mark.parametrize(
    "args",
    [
        ["calibrate", "a", "b", "--scans", "x"],
        ["inspect", "a", "--scans", "x"],
        ["plot", "a", "-o", "b", "--scans", "x"],
        ["plot", "a", "-o", "b", "--scan", "x"],
        ["reduce", "a", "--scans", "x"],
        ["reduce", "a", "--scan", "x"],
        ["export", "class", "a", "b", "--scans", "x"],
        ["export", "raw-fits", "a", "b", "--scans", "x"],
        ["import", "sdfits", "a", "b", "--scans", "x"],
        ["import", "raw-fits", "a", "b", "--scans", "x"],
        ["online", "submit", "--replay", "a", "--out", "b", "--scans", "x"],
    ],
)
def test_every_list_of_scans_is_read_the_same_way(
    args: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a").mkdir()
    assert main(args) == 64
    assert "scans is 'x', expected numbers and ranges such as 1,5-9" in capsys.readouterr().err


def test_plot_and_reduce_take_several_scans(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(write_l1(tmp_path / "l1.zarr", (7, 8, 9), (16, 2, 1, 2, 2)))
    for number in (7, 8, 9):
        group = zarr.open_group(path)[f"scan_{number:06d}"]
        for name in ("otf_lon", "otf_lat"):
            group.create_array(name, shape=(2, 2), dtype="f8")  # type: ignore[union-attr]
    assert main(["plot", path, "--scans", "7-8", "-o", str(tmp_path / "p")]) == 0
    names = {part.name[:11] for part in (tmp_path / "p").iterdir()}
    assert names == {"scan_000007", "scan_000008", "night.png"}
    capsys.readouterr()
    one = ["reduce", path, "--procedure", "on-off", "--json"]
    assert main([*one, "--scan", "7"]) == 0
    assert json.loads(capsys.readouterr().out)["scan"] == 7
    assert main([*one, "--scans", "7,9,77"]) == 2
    streams = capsys.readouterr()
    assert [report["scan"] for report in json.loads(streams.out)] == [7, 9]
    assert "no scan 77" in streams.err
