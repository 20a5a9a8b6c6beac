"""Attacks on the other files that are read: SDFITS, flags, raw FITS, CLASS, am, tables, TOML, and L1."""

from __future__ import annotations

import functools
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builders import gbt
from builders.export.spectra import make_spectrum

from attacks import runner
from attacks.attack import DONE, Attack, seeds, thinned
from attacks.edits import flip
from attacks.files import CHANGES
from attacks.night import clean_run, good_night
from attacks.runner import Ended
from attacks.verdict import SILENT, Clean, Verdict, how_it_ended
from gpucal import export_raw_fits, open_l0, write_class

AMC_FREQ = [200.0 + n for n in range(11)]


@dataclass(frozen=True)
class Format:
    """A kind of file: how a good one is made in a folder, the command that reads it, and what to ask of the result.

    check: what is wrong with what a run left in the folder; "" when it is right, or when nobody could tell.
    """

    name: str
    make: Callable[[Path], Path]
    command: Callable[[Path, Path], list[str]]
    check: Callable[[Path, Ended], str] = lambda folder, ended: ""
    imports: str = ""


def _sdfits(folder: Path) -> Path:
    rows = []
    for scan, procedure in (
        (5, "Track:NONE:TPNOCAL"),
        (6, "Nod:NONE:TPNOCAL"),
        (7, "Nod:NONE:TPNOCAL"),
    ):
        position = "Calibration" if scan == 5 else "Observing"
        more = {"OBSMODE": procedure, "CALPOSITION": position, "PROCSEQN": max(1, scan - 5)}
        rows += [
            gbt.row(scan, second, FDNUM=feed, **more) for second in (0.0, 2.0) for feed in (0, 1)
        ]
    return gbt.write_table(folder / "night.fits", rows)


def _flags(folder: Path) -> Path:
    _sdfits(folder)
    path = folder / "night.flag"
    head = "[header]\nversion = 1.0\n[flags]\n#RECNUM,SCAN,INTNUM,PLNUM,IFNUM,FDNUM,BCHAN,ECHAN,IDSTRING\n"
    path.write_text(head + "*|6|0|0|0|1|3|5|spur\n*|7|*|*|*|*|8|8|line\n")
    return path


def _raw_fits(folder: Path) -> Path:
    export_raw_fits(good_night().l0, folder / "raw", scans=[2])
    (found,) = sorted(folder.glob("raw/**/*.fits"))
    return found


def _same_scan(folder: Path, ended: Ended) -> str:
    """A raw FITS file has checksums: what is imported is what was exported."""
    store = folder / "out.zarr"
    if ended.code or not store.exists():
        return ""
    found, good = (open_l0(p).load(2)[0].source for p in (store, good_night().l0))
    assert found is not None
    assert good is not None
    same = all((found.counts.read(0, 32, s) == good.counts.read(0, 32, s)).all() for s in range(4))
    return "" if same else "the imported counts are not those exported"


def _class(folder: Path) -> Path:
    path = folder / "spectra.30m"
    write_class(path, [make_spectrum(64, seed) for seed in range(4)])
    return path


def _am(folder: Path) -> Path:
    for n, pwv in enumerate((0.5, 1.0, 3.0)):
        rows = [f"{f:.7e} {0.05 + 0.001 * f + 0.2 * pwv:.12e} 100.0" for f in AMC_FREQ]
        (folder / f"run{n}.out").write_text("\n".join(rows) + "\n")
    return folder / "run1.out"


def _read_am(path: Path, folder: Path) -> list[str]:
    runs = [str(folder / f"run{n}.out") for n in range(3)]
    water = ["--pwv", "0.5", "--pwv", "1", "--pwv", "3"]
    return ["atm", "import", *runs, *water, "--out", str(folder / "table.npz")]


def _table(folder: Path) -> Path:
    return Path(shutil.copy(good_night().table, folder / "table.npz"))


def _toml(folder: Path) -> Path:
    path = folder / "night.toml"
    path.write_text(
        'scans = "2"\nworkers = 1\natmosphere = "none"\ntau = 0.2\nt_hot = 290.0\nclip_counts = 0.1\n'
        'dtype = "f32"\npartial = false\n'
    )
    return path


def _l1(folder: Path, number: int = 2) -> Path:
    store = folder / "l1.zarr"
    shutil.copytree(clean_run().store, store)
    chunks = (store / f"scan_{number:06d}/spectra/c").rglob("*")
    return next(p for p in sorted(chunks) if p.is_file())


def _l1_on_off(folder: Path) -> Path:
    return _l1(folder, 1)


def _l1_document(folder: Path) -> Path:
    _l1(folder)
    return folder / "l1.zarr/scan_000002/spectra/zarr.json"


def _on_l1(*words: str) -> Callable[[Path, Path], list[str]]:
    def command(path: Path, folder: Path) -> list[str]:
        places = {"L1": str(folder / "l1.zarr"), "OUT": str(folder / "result")}
        return [places.get(word, word) for word in words]

    return command


def _imported(kind: str) -> Callable[[Path, Path], list[str]]:
    def command(path: Path, folder: Path) -> list[str]:
        name = folder / "night.fits" if kind == "sdfits" else path
        return ["import", kind, str(name), str(folder / "out.zarr")]

    return command


FORMATS = (
    Format("SDFITS", _sdfits, _imported("sdfits")),
    Format("flags", _flags, _imported("sdfits")),
    Format("raw FITS", _raw_fits, _imported("raw-fits"), _same_scan),
    Format("CLASS", _class, lambda path, folder: ["inspect", str(path)]),
    Format("CLASS drawn", _class, lambda p, folder: ["plot", str(p), "-o", str(folder / "pic")]),
    Format("am", _am, _read_am),
    Format("table", _table, lambda path, folder: ["atm", "info", str(path)]),
    Format(
        "TOML",
        _toml,
        lambda path, folder: [
            *("calibrate", str(good_night().l0), str(folder / "out.zarr")),
            *("--config", str(path)),
        ],
    ),
    Format("L1 exported", _l1, _on_l1("export", "sdfits", "L1", "OUT")),
    Format("L1 as CLASS", _l1, _on_l1("export", "class", "L1", "OUT")),
    Format(
        "L1 reduced", _l1_on_off, _on_l1("reduce", "L1", "--scan", "1", "--procedure", "on-off")
    ),
    Format("L1 inspected", _l1_document, _on_l1("inspect", "L1")),
    Format("L1 document exported", _l1_document, _on_l1("export", "sdfits", "L1", "OUT")),
)
SLOW = {"CLASS drawn", "L1 as CLASS", "L1 document exported"}
"""Only two ways of these are tried in an ordinary run of the tests."""
WAYS = ("cut", "empty", "zeros", "longer", "gone", "directory", "FIFO", "link to zeros")


@dataclass(frozen=True)
class FormatAttack(Attack):
    """A file of a format, broken by ``change``."""

    format: Format = FORMATS[0]
    change: Callable[[Path], Any] = lambda path: None

    def verdict(self, folder: Path) -> Verdict:
        """Make the good file, break it, read it."""
        path = self.format.make(folder)
        self.change(path)
        ended = runner.run(self.format.command(path, folder), folder / "said")
        fault = how_it_ended(ended, good_run(self.format))
        if fault is not None:
            return fault
        if wrong := self.format.check(folder, ended):
            return Verdict(SILENT, wrong)
        return Verdict(DONE, ended.said[-500:])


@functools.cache
def good_run(chosen: Format) -> Clean:
    """The command over the good file; it must succeed."""
    with tempfile.TemporaryDirectory(dir=good_night().folder) as name:
        folder = Path(name)
        ended = runner.run(chosen.command(chosen.make(folder), folder), folder / "said")
        assert ended.code == 0, ended.said
        assert not chosen.check(folder, ended)
        return Clean(folder, ended)


def _nothing(night: Any) -> None:
    """A format attack breaks no night."""


def table() -> Iterator[FormatAttack]:
    """Each format in each way."""
    done = frozenset({DONE})
    for chosen in FORMATS:
        for way in WAYS:
            name = f"{chosen.name} {way}"
            rare = chosen.name in SLOW and way not in ("cut", "FIFO")
            change = CHANGES[way]
            yield FormatAttack(name, _nothing, done, rare=rare, format=chosen, change=change)


def seeded() -> Iterator[FormatAttack]:
    """Random bits of each format in turn."""
    for n, source in enumerate(seeds("formats")):
        chosen = FORMATS[n % len(FORMATS)]
        name = f"seeded {chosen.name} {n}"
        done = frozenset({DONE})
        yield FormatAttack(name, _nothing, done, format=chosen, change=_flip(source))


def _flip(source: random.Random) -> Callable[[Path], Any]:
    def change(path: Path) -> None:
        """Text files get many flips, others few: most bits of a picture of numbers mean little."""
        size = path.stat().st_size
        flip(path, source, source.choice((1, 2, 1 + size // 200)))

    return change


def format_attacks() -> list[Attack]:
    """The whole table."""
    return list(thinned([*table(), *seeded()], 4))
