"""Attacks from outside: the file system fails, signals come, the clock jumps, another run works in the same place."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from builders.broken.night import Night, spectra

from attacks import runner
from attacks.attack import SEED
from attacks.night import clean_run, command
from attacks.runner import Begun, Ended
from attacks.verdict import SILENT, Verdict, failures, how_it_ended

ALL = (1, 2, 3, 4)


@dataclass(frozen=True)
class Fault:
    """A fault around a run.

    attack  calibrates ``night`` while something goes wrong, and returns how the last run ended
    codes   exit codes that are right
    again   whether the same command afterwards must do the rest, so that the store is that of the good night
    """

    name: str
    attack: Callable[[Night], Ended]
    codes: frozenset[int] = frozenset({0, 1, 2})
    again: bool = True
    rare: bool = False

    @property
    def id(self) -> str:
        return self.name.replace(" ", "-")

    def verdict(self, night: Night) -> Verdict:
        """Whole scans or none, each that is there as from the good night, and the rest by the same command."""
        ended = self.attack(night)
        fault = how_it_ended(ended, codes=self.codes)
        if fault is not None:
            return fault
        if ended.code not in self.codes:
            return Verdict("wrong exit code", f"{ended.code}: {ended.said[-1500:]}")
        if wrong := whole_scans(night):
            return Verdict(SILENT, wrong)
        there = {int(path.name[-6:]) for path in night.out.glob("scan_*")}
        if ended.code == 0 and there != set(ALL):
            return Verdict("lost", f"exit code 0 with scans {sorted(there)}: {ended.said[-1500:]}")
        if not self.again:
            return Verdict("done")
        after = runner.run(command(night), night.folder / "again")
        if after.code != 0 or failures(night.out) or staging_of(night).exists():
            return Verdict("not mended", f"{after.code}: {after.said[-1500:]}")
        if wrong := whole_scans(night, ALL):
            return Verdict(SILENT, wrong)
        return Verdict("done", ended.said[-300:])


def staging_of(night: Night) -> Path:
    return night.out.with_name(night.out.name + ".staging")


def whole_scans(night: Night, expected: tuple[int, ...] = ()) -> str:
    """Which scan of OUT is not that of the good night; "" when all are."""
    good = clean_run().store
    there = [n for n in ALL if (night.out / f"scan_{n:06d}").exists()]
    for number in {*there, *expected}:
        if spectra(night.out, number) != spectra(good, number):
            return f"scan {number} is not that of the good night"
    return ""


def begin(night: Night, name: str = "said", options: tuple[str, ...] = ()) -> Begun:
    return runner.start(command(night, options), night.folder / name)


def wait_for(path: Path, begun: Begun, seconds: float = 30.0) -> None:
    """Wait until ``path`` is there or the command has ended."""
    until = time.monotonic() + seconds
    while not path.exists() and begun.process.exitcode is None and time.monotonic() < until:
        time.sleep(0.001)


# --- the file system ------------------------------------------------------------------------------


def _limited(size: int) -> Callable[[Night], Ended]:
    """Files may not be longer than ``size`` bytes: the disk is full, so to speak."""

    def attack(night: Night) -> Ended:
        return runner.run(
            command(night),
            night.folder / "said",
            before=_no_file_signal,
            limits={"RLIMIT_FSIZE": size},
        )

    return attack


def _no_file_signal() -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)


def _few_files(count: int) -> Callable[[Night], Ended]:
    def attack(night: Night) -> Ended:
        limits = {"RLIMIT_NOFILE": count}
        return runner.run(command(night), night.folder / "said", limits=limits)

    return attack


def _few_threads(night: Night) -> Ended:
    return runner.run(command(night, ("--workers", "4")), night.folder / "said", before=_no_threads)


def _no_threads() -> None:
    """Every thread after the first few is refused."""
    import _thread
    import threading

    real, made = _thread.start_new_thread, []

    def start(*given: object) -> int:
        made.append(1)
        if len(made) > 4:
            raise RuntimeError("can't start new thread")
        return real(*given)  # type: ignore[call-overload,no-any-return]

    threading._start_new_thread = start  # type: ignore[attr-defined]


def _removing(what: Callable[[Night], Path]) -> Callable[[Night], Ended]:
    """Something is removed again and again while the command runs."""

    def attack(night: Night) -> Ended:
        begun = begin(night)
        wait_for(what(night), begun)
        for _ in range(20):
            shutil.rmtree(what(night), ignore_errors=True)
            time.sleep(0.005)
        return begun.end()

    return attack


def _removed_once(after_s: float) -> Callable[[Night], Ended]:
    def attack(night: Night) -> Ended:
        begun = begin(night)
        wait_for(staging_of(night), begun)
        time.sleep(after_s)
        shutil.rmtree(staging_of(night), ignore_errors=True)
        return begun.end()

    return attack


def _raw_data_go(night: Night) -> Ended:
    """The raw store is taken away in the middle, and put back afterwards."""
    begun = begin(night)
    wait_for(night.out, begun)
    aside = night.folder / "aside"
    night.l0.rename(aside)
    ended = begun.end()
    aside.rename(night.l0)
    return ended


def _out_is(make: Callable[[Path], object]) -> Callable[[Night], Ended]:
    """OUT, or what stages it, is something else already."""

    def attack(night: Night) -> Ended:
        make(night.out)
        ended = runner.run(command(night), night.folder / "said")
        for path in (night.out, staging_of(night)):
            if path.is_symlink() or path.is_file() or path.is_fifo():
                path.unlink()
        return ended

    return attack


def _staging(path: Path) -> Path:
    return path.with_name(path.name + ".staging")


def file_system() -> Iterator[Fault]:
    """Full disks, limits, folders that vanish, and an OUT that is none."""
    for size in (1500, 2200, 3000, 4500, 6000):
        yield Fault(f"files up to {size} bytes", _limited(size), frozenset({1, 2}))
    yield Fault("twelve open files", _few_files(12))
    yield Fault("twenty open files", _few_files(20))
    yield Fault("no more threads", _few_threads)
    yield Fault("staging removed all the time", _removing(staging_of))
    yield Fault("OUT removed all the time", _removing(lambda n: n.out))
    for after in (0.0, 0.05, 0.1, 0.2):
        name = f"staging removed after {after:g} s"
        yield Fault(name, _removed_once(after))
    yield Fault("raw data taken away", _raw_data_go)
    refused = frozenset({1, 64})
    yield Fault("OUT is a file", _out_is(lambda p: p.write_text("mine")), refused)
    yield Fault("OUT is a FIFO", _out_is(os.mkfifo), refused)
    yield Fault("OUT is a loop", _out_is(lambda p: p.symlink_to(p.name)), refused)
    yield Fault("OUT is a device", _out_is(lambda p: p.symlink_to("/dev/null")), refused)
    yield Fault("staging is a file", _out_is(lambda p: _staging(p).write_text("mine")), refused)
    yield Fault("staging is a FIFO", _out_is(lambda p: os.mkfifo(_staging(p))), refused)


# --- signals ----------------------------------------------------------------------------------------


def _signalled(number: signal.Signals, source: random.Random) -> Callable[[Night], Ended]:
    """A signal at a random moment of the first second and a half."""
    after = source.random() ** 2 * 1.5

    def attack(night: Night) -> Ended:
        begun = begin(night)
        wait_for(night.folder / "said" / "stdout", begun)  # before that it is no gpucal yet
        time.sleep(after)
        if begun.process.exitcode is None:
            os.kill(begun.pid, number)
        return begun.end()

    return attack


def signals(count: int) -> Iterator[Fault]:
    """SIGINT ends with 130, the others kill; nothing half done is left, and the same command does the rest."""
    kinds = {
        signal.SIGINT: frozenset({0, 130}),
        signal.SIGTERM: frozenset({0, 130, 143, -15}),
        signal.SIGKILL: frozenset({0, -9}),
        signal.SIGHUP: frozenset({0, 130, -1}),
    }
    for n in range(count):
        source = random.Random(f"{SEED} signal {n}")
        number = list(kinds)[n % len(kinds)]
        yield Fault(f"{number.name} {n}", _signalled(number, source), kinds[number])


# --- clocks, and other runs -------------------------------------------------------------------------


def _with_clock(before: Callable[[], None]) -> Callable[[Night], Ended]:
    return lambda night: runner.run(command(night), night.folder / "said", before=before)


def _clock_back() -> None:
    real, begun = time.time, time.time()
    time.time = lambda: 2 * begun - real()


def _clock_wild() -> None:
    source = random.Random(1)
    time.time = lambda: source.choice((0.0, 4e9, 1e9, -1e8))


def _clock_in_1970() -> None:
    time.time = lambda: 0.0


def _two(options: tuple[str, ...], after_s: float) -> Callable[[Night], Ended]:
    """Two runs into one OUT, the second begins a little later: one does everything, the other is refused at once."""

    def attack(night: Night) -> Ended:
        first = begin(night)
        time.sleep(after_s)
        second = begin(night, "second", options)
        ended, other = first.end(), second.end()
        fault = how_it_ended(other)
        assert fault is None, fault
        both = sorted((ended, other), key=lambda e: e.code)
        if not options and both[1].code == 0:  # the second found everything done
            return ended
        assert both[1].code in (1, 64), both[1].said
        assert "another run" in both[1].said or "settings" in both[1].said, both[1].said
        if (
            options and other.code == 0
        ):  # the second was quicker; its store is not that of the good night
            shutil.rmtree(night.out)
            return runner.run(command(night), night.folder / "third")
        return both[0]

    return attack


def clocks_and_runs() -> Iterator[Fault]:
    """Clocks that jump, and two runs on one OUT."""
    done = frozenset({0})
    yield Fault("clock runs backwards", _with_clock(_clock_back), done)
    yield Fault("clock jumps", _with_clock(_clock_wild), done)
    yield Fault("clock in 1970", _with_clock(_clock_in_1970), done)
    for after in (0.0, 0.1, 0.4):
        yield Fault(f"two equal runs {after:g}", _two((), after), done)
        other = _two(("--t-hot", "300"), after)
        yield Fault(f"two different runs {after:g}", other, done)


def fault_attacks(count: int) -> list[Fault]:
    """The whole table, with ``count`` signals."""
    return [*file_system(), *signals(count), *clocks_and_runs()]
