"""Ctrl-C and SIGTERM in the first moments: one sentence or none, no traceback, nothing on the disk."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
from builders.night_stores import make_night, small_setup

from gpucal.cli import interrupts
from gpucal.io.files import atomic
from gpucal.pipeline.store.interrupt import raises

PROGRAM = """
import os, runpy, sys

module, number, sys.argv = sys.argv[1], int(sys.argv[2]), ["gpucal", *sys.argv[3:]]

class Signals:
    def find_spec(self, name, path=None, target=None):
        if name == module and not sent:
            sent.append(name)
            os.kill(os.getpid(), number)

sent = []
sys.meta_path.insert(0, Signals())
runpy.run_module("gpucal", run_name="__main__", alter_sys=True)
"""


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("night")
    make_night(folder, small_setup(kinds=("tp",)))
    return folder


def interrupted_at(module: str, number: int, night: Path, out: Path) -> tuple[int, str]:
    """Exit code and stderr of a run that gets a signal when it begins to import a module."""
    command = [sys.executable, "-c", PROGRAM, module, str(number), "calibrate"]
    command += [str(night / "l0.zarr"), str(out), "--atmosphere", str(night / "table.npz")]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=300, env={**os.environ}, check=False
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    "module", ["typer", "gpucal.cli.commands.calibrate", "numpy", "zarr.storage", "google_crc32c"]
)
def test_ctrl_c_during_an_import(module: str, night: Path, tmp_path: Path) -> None:
    code, said = interrupted_at(module, signal.SIGINT, night, tmp_path / "out")
    assert code == 130
    assert said == f"gpucal: {interrupts.INTERRUPTED}\n"
    assert not list(tmp_path.iterdir())


def test_sigterm_during_an_import(night: Path, tmp_path: Path) -> None:
    code, said = interrupted_at("zarr.storage", signal.SIGTERM, night, tmp_path / "out")
    assert (code, said) == (-signal.SIGTERM, "")
    assert not list(tmp_path.iterdir())


def test_handlers_of_others_stay() -> None:
    before = signal.getsignal(signal.SIGINT)
    try:
        for other in (signal.SIG_IGN, lambda *_: None):
            signal.signal(signal.SIGINT, other)
            interrupts.end_at_once()
            with interrupts.between_imports():
                assert signal.getsignal(signal.SIGINT) is other
        signal.signal(signal.SIGINT, signal.default_int_handler)
        with interrupts.between_imports():
            assert signal.getsignal(signal.SIGINT) is interrupts.interrupt
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_once_something_is_written_an_import_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then the exception comes, so that what was begun is cleaned up."""
    monkeypatch.setattr(interrupts, "_end", lambda *_: pytest.fail("ended"))
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "slow_to_import.py").write_text(
        "import signal\nsignal.raise_signal(signal.SIGINT)\nwhole = True\n"
    )
    atomic.discard(atomic.new_staged(tmp_path / "store", "scan_000001"))
    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, interrupts.end_or_interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):  # noqa: PT012 - it comes while we wait
            imported = import_module("slow_to_import")
            assert imported.whole
            signal.pause()
    finally:
        signal.signal(signal.SIGINT, before)


def test_what_only_raises_is_known() -> None:
    """A run replaces such a handler by one that stops at the next safe point."""
    assert raises(interrupts.interrupt)
    assert raises(interrupts.end_or_interrupt)
    assert raises(signal.default_int_handler)
    assert not raises(signal.SIG_IGN)
    with pytest.raises(KeyboardInterrupt):
        interrupts.interrupt(signal.SIGINT, None)
