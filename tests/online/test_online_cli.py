"""``gpucal online`` as an operator types it: words, exit codes, and a real supervisor that is told to stop."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import typer
from builders import procedure_scans as scans

from gpucal import main
from gpucal.cli.commands.online import serve
from gpucal.cli.main import app
from gpucal.online.queue.events import job_from_json
from gpucal.online.queue.pipe import TASKS, Pipe
from gpucal.online.site.config import OnlineConfig, load_online_config
from gpucal.online.workers.control import pending_requests

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "how-to" / "online.md"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to be in, with a night of two scans in ``night.zarr``."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GPUCAL_ONLINE_CONFIG", raising=False)
    off, on = scans.Sub("OFF"), scans.Sub("ON", strength=3.0)
    for number in (4, 5):
        attrs: dict[str, Any] = {"obs_procedure": "onoff", "project": "p7", "line": "12CO"}
        scans.write(tmp_path / "night.zarr", number, [off, on, off], scans.Scene(), **attrs)
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = main(["online", *words])
    out, err = capsys.readouterr()
    return code, out, " ".join(err.split())


def jobs(folder: Path, task: str = "calibration") -> list[Any]:
    directory = Pipe(folder / "pipe").task(task)
    return [job_from_json((directory.path / name).read_bytes()) for name in directory.names()]


def test_submit_one_subscan(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = "submit --store night.zarr --scan 4 --subscan 1"
    code, out, _ = run(capsys, *words.split())
    assert code == 0
    assert out == "p7.00000004.s00001.json: submitted to calibration, fits_heterodyne\n"
    (job,) = jobs(place)
    assert job == jobs(place, "fits_heterodyne")[0]
    assert (job.scan, job.subscan, job.group, job.project) == (4, 1, "source", "p7")
    assert (job.procedure, job.setup, job.obs_class) == ("onoff", "12CO", "heterodyne")
    assert (job.end_of_scan, job.cancelled) == (False, False)
    assert job.store == str(place / "night.zarr")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--subscan 2 --end", (2, "source", True, False, "p7")),
        ("--subscan 1 --cancelled --project p8", (1, "source", False, True, "p8")),
        ("--subscan 0 --group calibration", (0, "calibration", False, False, "p7")),
        ("--end", (-1, "source", True, False, "p7")),
        ("--cancelled", (-1, "source", True, True, "p7")),
    ],
)
def test_submit_says_how_the_scan_goes_on(
    place: Path, capsys: pytest.CaptureFixture[str], words: str, expected: tuple[Any, ...]
) -> None:
    assert run(capsys, *f"submit --store night.zarr --scan 5 {words}".split())[0] == 0
    (job,) = jobs(place)
    assert (job.subscan, job.group, job.end_of_scan, job.cancelled, job.project) == expected


def test_submit_a_replay(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = "submit --replay night.zarr --out grown.zarr --speed inf --scans 5 --project demo"
    code, out, err = run(capsys, *words.split())
    assert (code, err) == (0, "")
    assert out.splitlines()[-2:] == ["scan 5 source subscan 2, end of scan", "5 subscans submitted"]
    assert {(job.scan, job.project) for job in jobs(place)} == {(5, "demo")}
    assert len(jobs(place)) == 5
    # a second time: the scan is there already, and is said to be left out
    code, out, _ = run(capsys, *words.split())
    assert code == 2
    assert "scan 5 cannot be copied and is left out" in out


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ("submit", 64, "expected --store, --scan and --subscan"),
        ("submit --store night.zarr --scan 4", 64, "expected --store, --scan and --subscan"),
        ("submit --store night.zarr --scan 9 --end", 1, "holds no scan 9"),
        ("submit --store nowhere.zarr --scan 9 --end", 1, "nowhere.zarr"),
        ("submit --store night.zarr --scan 4 --subscan -2", 64, "--subscan is -2"),
        ("submit --store night.zarr --scan 4 --subscan 0 --group sky", 64, "--group is 'sky'"),
        ("submit --store night.zarr --scan 4 --end --speed 2", 64, "--speed belongs to --replay"),
        ("submit --replay night.zarr", 64, "--replay needs --out"),
        ("submit --replay night.zarr --out g.zarr --end", 64, "--end belongs to --store"),
        ("submit --replay night.zarr --out g.zarr --speed 0", 64, "--speed is 0"),
        ("submit --replay night.zarr --out g.zarr --speed nan", 64, "--speed is nan"),
        ("submit --replay night.zarr --out g.zarr --scans x", 64, "expected numbers and ranges"),
        ("submit --replay night.zarr --out g.zarr --scans 77", 1, "holds none of these scans"),
        ("retry calibration x.json", 1, "there is no pipe at"),
        ("status", 1, "there is no pipe at"),
        ("stop", 1, "there is no pipe at"),
        ("run --config nowhere.toml", 64, "nowhere.toml cannot be read"),
        ("run --no-such-option", 64, "No such option"),
        ("serve --token-file nowhere", 64, "the token file nowhere cannot be read"),
    ],
)
def test_what_is_wrong_is_one_sentence(
    place: Path, capsys: pytest.CaptureFixture[str], words: str, code: int, said: str
) -> None:
    found, out, err = run(capsys, *words.split())
    assert (found, out) == (code, "")
    assert err.startswith("gpucal: error: ")
    assert said in err
    assert "Traceback" not in err
    assert not (place / "data").exists()


def test_retry(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for subscan in range(3):
        run(capsys, *f"submit --store night.zarr --scan 4 --subscan {subscan}".split())
    directory = Pipe(place / "pipe").task("calibration")
    for _ in range(3):
        claim = directory.claim()
        assert claim is not None
        assert directory.fail(claim, "it was the disk", attempts=1)
    names = [name for name, _ in directory.failed()]
    assert run(capsys, "retry", "calibration", names[1])[:2] == (0, f"{names[1]}: is tried again\n")
    assert [job.attempt for job in jobs(place)] == [0]
    code, _, err = run(capsys, "retry", "calibration", "x.json")
    assert (code, "has no failed job 'x.json'" in err) == (1, True)
    code, _, err = run(capsys, "retry", "nothing", "--all")
    assert (code, "there is no task 'nothing'" in err) == (1, True)
    assert run(capsys, "retry", "calibration")[0] == 64
    assert run(capsys, "retry", "calibration", names[0], "--all")[0] == 64
    (directory.path / ".failed" / names[0]).write_text("{")  # spoiled: the others are put back
    code, out, _ = run(capsys, "retry", "calibration", "--all")
    assert code == 2
    assert f"{names[2]}: is tried again" in out
    assert f"{names[0]} cannot be tried again" in out
    assert len(jobs(place)) == 2


def test_requests_are_left_for_the_supervisor(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Pipe("pipe").create()
    code, out, _ = run(capsys, "restart", "plot")
    assert code == 0
    assert "no worker lives at this moment" in out
    assert run(capsys, "stop")[0] == 0
    assert {(r.action, r.task) for r in pending_requests("pipe")} == {
        ("restart", "plot"),
        ("stop", ""),
    }
    code, _, err = run(capsys, "restart", "nothing")
    assert (code, "there is no task 'nothing'" in err) == (1, True)


@pytest.mark.parametrize(
    ("words", "package"), [("run", "watchfiles"), ("status", "sqlalchemy"), ("serve", "uvicorn")]
)
def test_a_package_that_is_missing(
    place: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    words: str,
    package: str,
) -> None:
    real = importlib.util.find_spec

    def without(name: str, *more: Any) -> Any:
        return None if name == package else real(name, *more)

    monkeypatch.setattr(importlib.util, "find_spec", without)
    code, _, err = run(capsys, words)
    assert code == 1
    assert err == (
        f"gpucal: error: this command needs the package {package}, which is not installed. "
        "Install it with: pip install 'gpucal[online]'."
    )


def test_the_command_line_stays_light() -> None:
    """gpucal --help works without the extra, and loads none of it."""
    code = "import gpucal.cli.main, sys; print(*{m.split('.')[0] for m in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    extra = {"sqlalchemy", "watchfiles", "starlette", "uvicorn", "anyio"}
    assert not extra & set(done.stdout.split())


def test_the_token_comes_from_a_file_or_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GPUCAL_TOKEN", raising=False)
    assert serve._token(None) == ""
    monkeypatch.setenv("GPUCAL_TOKEN", "from outside ")
    assert serve._token(None) == "from outside"
    path = tmp_path / "token"
    path.write_text("secret\n")
    assert serve._token(path) == "secret"
    path.write_text(" \n")
    with pytest.raises(Exception, match="is empty"):
        serve._token(path)


def wait_for(happened: Any, seconds: float = 300.0) -> None:
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.1)


@pytest.mark.parametrize("how", ["SIGTERM", "SIGINT", "stop"])
def test_run_until_it_is_told_to_stop(
    place: Path, capsys: pytest.CaptureFixture[str], how: str
) -> None:
    """A job is done, and the end is orderly. An old request to stop does not count."""
    workers = "\n".join(f"{task} = {int(task == 'fits_heterodyne')}" for task in TASKS)
    (place / "site.toml").write_text(f"poll = 0.2\n[workers]\n{workers}\n")
    site = ["--config", "site.toml"]
    Pipe("pipe").create()
    run(capsys, "stop", *site)
    words = "submit --store night.zarr --scan 4 --subscan 2 --end"
    run(capsys, *words.split(), *site)
    command = [sys.executable, "-m", "gpucal.cli.main", "online", "run", *site]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        wait_for((place / "data" / "p7" / "fits" / "scan_000004.fits").is_file)
        if how == "stop":
            code, out, _ = run(capsys, "stop", *site)
            assert (code, out) == (0, "asked to stop when the jobs in hand are finished\n")
        else:
            process.send_signal(getattr(signal, how))
        out, err = process.communicate(timeout=300)
    finally:
        process.kill()
    assert (process.returncode, err) == (0, "")
    assert f"pipe      {place / 'pipe'}" in out
    assert "page      gpucal online serve" in out
    assert out.endswith("stopped\n")
    directory = Pipe("pipe").task("fits_heterodyne")
    assert not directory.names()
    assert not list(directory.claims(lambda _: True))


def in_background(*words: str) -> subprocess.Popen[str]:
    """The command as a script starts it in the background: with SIGINT ignored."""
    return subprocess.Popen(
        [sys.executable, "-m", "gpucal.cli.main", "online", *words],
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("command", ["run", "serve --port 0"])
def test_a_job_in_the_background_does_not_hear_ctrl_c(place: Path, command: str) -> None:
    """It is meant for what is in front; SIGTERM ends both."""
    workers = "\n".join(f"{task} = 0" for task in TASKS)
    (place / "site.toml").write_text(f"poll = 0.2\n[workers]\n{workers}\n")
    process = in_background(*command.split(), "--config", "site.toml")
    try:
        assert process.stdout is not None
        first = process.stdout.readline()
        assert first.split()[0] in ("pipe", "page")
        wait_for(lambda: takes(process.pid, signal.SIGTERM))
        process.send_signal(signal.SIGINT)
        assert not takes(process.pid, signal.SIGINT)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=300)
    finally:
        process.kill()
    assert "KeyboardInterrupt" not in out + err
    assert process.returncode in (0, -signal.SIGTERM)


def takes(pid: int, number: signal.Signals) -> bool:
    """Whether a process has a handler of its own for a signal."""
    text = Path(f"/proc/{pid}/status").read_text()
    (caught,) = re.findall(r"^SigCgt:\s*([0-9a-f]+)$", text, re.M)
    return bool(int(caught, 16) >> (number - 1) & 1)


# --- docs/how-to/online.md ---------------------------------------------------------------------


def config_keys() -> dict[str, str]:
    """Key -> default, as the table of the page has them."""
    text = PAGE.read_text("utf-8")
    table = text[text.index("| key | default |") :].split("\n\n")[0]
    rows = [line.strip("|").split("|") for line in table.splitlines()[2:]]
    return {row[0].strip().strip("`"): row[1].strip().strip("`") for row in rows}


def test_every_option_of_the_configuration_is_on_the_page() -> None:
    keys = config_keys()
    assert list(keys) == list(OnlineConfig.model_fields)
    for name, field in OnlineConfig.model_fields.items():
        default = field.get_default(call_default_factory=True)
        if isinstance(default, bool | int | float | str):
            assert json.loads(keys[name]) == default, name
        elif isinstance(default, Path):
            assert json.loads(keys[name]) == str(default), name


def command_lines() -> list[list[str]]:
    """The commands of the page, without what surrounds them in a unit or a shell."""
    found = []
    for line in PAGE.read_text("utf-8").splitlines():
        if re.match(r" {4,}gpucal ", line):
            text = re.split(r"\s+#|\s&$", line.strip())[0]
            found.append(shlex.split(text)[1:])
    return found


def test_commands_of_the_page_are_known() -> None:
    """Every command and option of the page exists; the page shows every command."""
    seen = set()
    top = typer.main.get_command(app)
    for words in command_lines():
        command: Any = top
        rest = list(words)
        while rest and rest[0] in getattr(command, "commands", {}):
            command = command.commands[rest.pop(0)]
        known = {name for parameter in command.params for name in parameter.opts}
        assert {w for w in rest if w.startswith("--")} <= known, words
        if words[0] == "online":
            seen.add(words[1])
    assert seen == {"run", "status", "submit", "retry", "restart", "stop", "serve", "rehearse"}


def test_messages_of_the_page_are_those_of_the_program() -> None:
    """The words of every message in the table, without names and numbers, stand in the source."""
    text = PAGE.read_text("utf-8")
    table = text[text.index("| message | meaning | to do |") :].split("\n\n")[0]
    rooms = (ROOT / "gpucal" / room for room in ("online", "pipeline"))
    source = "".join(p.read_text("utf-8") for room in rooms for p in sorted(room.rglob("*.py")))
    source = re.sub(r'"\s*\n\s*f?"', "", source)  # a long text is written in pieces
    count = 0
    for row in table.splitlines()[2:]:
        for message in re.findall(r"`([^`]+)`", row.split("|")[1]):
            words = re.split(r"\b[A-Z]+\b|[0-9.]{2,}|\d+|\[.*", message)
            parts = [part.strip(" :.,") for part in words]
            assert max(len(part) for part in parts) > 5, message
            for part in parts:
                assert part in source, (message, part)
            count += 1
    assert count > 15


@pytest.mark.parametrize("name", ["gpucal-online", "gpucal-online-page"])
def test_units_are_what_systemd_expects(name: str, tmp_path: Path) -> None:
    text = (ROOT / "docs" / "systemd" / f"{name}.service").read_text("utf-8")
    (start,) = re.findall(r"^ExecStart=(.*)$", text, re.M)
    words = shlex.split(start)
    assert words[0].startswith("/")
    assert words[1:3] in (["online", "run"], ["online", "serve"])
    assert "Restart=always" in text
    if not os.access("/usr/bin/systemd-analyze", os.X_OK):
        pytest.skip("no systemd-analyze here")
    unit = tmp_path / f"{name}.service"
    # the program and the user of the unit need not exist where the tests run
    unit.write_text(text.replace(words[0], "/bin/true"))
    done = subprocess.run(
        ["/usr/bin/systemd-analyze", "verify", "--man=no", str(unit)],
        capture_output=True,
        text=True,
        check=False,
    )
    complaints = [x for x in done.stderr.splitlines() if unit.name in x]
    assert not complaints


def test_a_table_beside_the_configuration_is_found(tmp_path: Path) -> None:
    (tmp_path / "night.npz").touch()
    (tmp_path / "site.toml").write_text('data = "d"\n[calibration]\natmosphere = "night.npz"\n')
    config = load_online_config(tmp_path / "site.toml")
    assert config.calibration.atmosphere == str(tmp_path / "night.npz")
    assert config.data == tmp_path / "d"
    (tmp_path / "site.toml").write_text('[calibration]\natmosphere = "none"\n')
    assert load_online_config(tmp_path / "site.toml").calibration.atmosphere == "none"
