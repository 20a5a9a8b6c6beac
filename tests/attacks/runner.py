"""Run one command in a process of its own, with a limit of time and of memory, and say how it ended.

The processes are forked from a server that has the package loaded, so that they cost little more than the command.
"""

from __future__ import annotations

import functools
import multiprocessing
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpucal import main

HANG_S = 60.0
"""A command that takes a second and has not ended after so long hangs."""
ADDRESS_SPACE = 6 << 30
"""Bytes; what wants more has no plan for its memory."""
PRELOAD = [
    "astropy.coordinates",
    "astropy.io.fits",
    "astropy.time",
    "astropy.units",
    "array_api_compat.numpy",
    "cpu_fallback",
    "gpucal.cli.main",
    "gpucal.cli.show.progress",
    "gpucal.io.gbt.importer",
    "gpucal.io.raw_fits.importer",
    "gpucal.pipeline.calibrate",
    "gpucal.pipeline.store.run",
    "matplotlib.figure",
    "rich.progress",
    "rich.table",
    "scipy.optimize",
    "zarr",
]


@dataclass(frozen=True)
class Ended:
    """How a command ended: exit code (negative: a signal), what it said, and what it took."""

    code: int
    out: str
    err: str
    seconds: float
    peak_mib: float
    hung: bool

    @property
    def said(self) -> str:
        return self.out + self.err


@functools.cache
def _context() -> Any:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    return context


def run(
    argv: Sequence[str],
    folder: Path,
    *,
    before: Callable[[], None] | None = None,
    limits: Mapping[str, int] | None = None,
    hang_s: float = HANG_S,
    meanwhile: Callable[[int], None] | None = None,
) -> Ended:
    """Run ``gpucal *argv``; what it says goes through files in ``folder``.

    before: a function of a module, called in the new process. limits: name of a limit of ``resource`` -> value.
    meanwhile: called with the process number while the command runs.
    """
    begun = start(argv, folder, before=before, limits=limits)
    if meanwhile is not None:
        meanwhile(begun.pid)
    return begun.end(hang_s)


def start(
    argv: Sequence[str],
    folder: Path,
    *,
    before: Callable[[], None] | None = None,
    limits: Mapping[str, int] | None = None,
) -> Begun:
    """Begin a command as ``run`` does, and do not wait for it."""
    folder.mkdir(parents=True, exist_ok=True)
    process = _context().Process(
        target=_child, args=(list(argv), str(folder), before, dict(limits or {}))
    )
    process.start()
    return Begun(process, folder, time.monotonic())


@dataclass
class Begun:
    """A command that runs."""

    process: Any
    folder: Path
    since: float

    @property
    def pid(self) -> int:
        return int(self.process.pid)

    def end(self, hang_s: float = HANG_S) -> Ended:
        """Wait for it; kill it when it hangs."""
        self.process.join(hang_s)
        hung = self.process.exitcode is None
        if hung:
            self.process.kill()
            self.process.join()
        seconds = time.monotonic() - self.since
        peak = self.folder / "peak"
        return Ended(
            self.process.exitcode,
            _text(self.folder / "stdout"),
            _text(self.folder / "stderr"),
            seconds,
            float(_text(peak) or 0) / 1024,
            hung,
        )


def _text(path: Path) -> str:
    return path.read_text(errors="replace") if path.exists() else ""


def _child(
    argv: list[str], folder: str, before: Callable[[], None] | None, limits: dict[str, int]
) -> None:
    """What the new process does; it ends without the closing work of multiprocessing."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        target = os.open(f"{folder}/{name}", os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o644)
        os.dup2(target, descriptor)
        os.close(target)
    for name, value in {"RLIMIT_AS": ADDRESS_SPACE, **limits}.items():
        kind = getattr(resource, name)
        resource.setrlimit(kind, (value, resource.getrlimit(kind)[1]))
    if before is not None:
        before()
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        code = main(argv)
    except (
        KeyboardInterrupt
    ):  # before main could look out for it; as the script ``gpucal`` ends then
        code = 130
    sys.stdout.flush()
    sys.stderr.flush()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with open(f"{folder}/peak", "w") as stream:
        stream.write(str(peak))
    os._exit(code)
