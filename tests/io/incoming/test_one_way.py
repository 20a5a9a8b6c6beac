"""What all importers share, shown with a format of one line per scan: recognise, plan, write, resume."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer

from gpucal import (
    ConfigError,
    CountsMaker,
    GroupArrays,
    ImportFormatError,
    L0Error,
    export_raw_fits,
    import_raw,
    main,
    open_l0,
)
from gpucal.io.incoming import formats
from gpucal.io.incoming.assumptions import Assumptions
from gpucal.io.incoming.file_index import FileIndex, cache_folder
from gpucal.io.incoming.glimpse import Glimpse, glimpse
from gpucal.io.incoming.landing import check_values, digest_of, is_same, writer_of
from gpucal.io.incoming.profile import COMMON, ProfileKey, load_profile
from gpucal.io.incoming.protocol import (
    ImportPlan,
    Lost,
    PlannedScan,
    RawFormat,
    Request,
    ScanContent,
    nbytes_of,
    planned_band,
    root_attrs,
)

MAGIC = b"TOY1"
SITE = {"lat_deg": 47.0, "lon_deg": 9.0, "alt_m": 1000.0}


class Toy(RawFormat):
    """A file is MAGIC and JSON: number, level, elevation."""

    name = "toy"
    title = "toy files"
    profile_keys = {**COMMON, "pixels": ProfileKey("number of pixels", choices=(1, 2))}
    broken_on_reading: tuple[int, ...] = ()
    interrupted_on: int | None = None
    looked: list[str] = []

    def probe(self, glimpse: Glimpse) -> bool:
        return glimpse.head.startswith(MAGIC) or glimpse.path.suffix == ".toy"

    def plan(self, request: Request) -> ImportPlan:
        scans, lost = [], []
        files = self.files(request)
        for path in files:
            try:
                facts = request.index.facts(path, "toy/1", self._look)
                if request.scans is None or facts["number"] in request.scans:
                    scans.append(self._planned(path, facts, request))
            except ImportFormatError as error:
                lost.append(Lost(error.scan, "", error))
        root = root_attrs(telescope="TOY", instrument="T", site=SITE)
        return ImportPlan(root, scans, lost, files)

    def _look(self, path: Path) -> dict[str, Any]:
        self.looked.append(path.name)
        text = path.read_bytes()
        if not text.startswith(MAGIC):
            raise ImportFormatError(f"{path} does not begin with TOY1.", hint="Copy it again.")
        return dict(json.loads(text[4:]))

    def _planned(self, path: Path, facts: dict[str, Any], request: Request) -> PlannedScan:
        assumed = Assumptions(request.profile)
        number, pixels = int(facts["number"]), int(assumed.take("pixels", 1, "no word on pixels"))
        f_eff = assumed.take("f_eff", 0.9, "the file has no forward efficiency")

        def make(subscan: int) -> Any:
            if number in self.broken_on_reading:
                raise ImportFormatError(f"{path} ends early.", hint="Copy it again.")
            if number == self.interrupted_on:
                raise KeyboardInterrupt
            return np.full((8, 2, 1, pixels), facts["level"] + subscan, np.float32)

        each = np.ones(3)
        group = GroupArrays(
            CountsMaker((8, 2, 1, pixels, 3), np.dtype("f4"), make),
            ["OFF", "ON", "OFF"],
            {
                "mjd": 61000.0 + number + np.arange(3) / 1e4,
                "exptime": each,
                "elevation": float(facts["elevation"]) * each,
                "azimuth": each,
                "signal_freq": 1e11 * each,
                "image_freq": 1e11 * each,
                "freq_res": 1e6 * each,
                "ref_channel": 0 * each,
            },
        )
        check_values(group, loads=False)
        attrs = {"f_eff": f_eff, "gain_image": 0.0, "source": "TOY"}
        identity = digest_of([path], request)
        return PlannedScan(
            number,
            writer_of(
                number,
                lambda: ScanContent(attrs, {"": {"source": group}}),
                identity=identity,
                assumptions=assumed,
            ),
            (planned_band("", {"source": group}, backend="toy"),),
            kind="tp",
            source="TOY",
            origin=str(path),
            nbytes=nbytes_of(group),
            same_as=is_same(identity),
        )


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Toy:
    """The toy format among those that there are, and an index of this test alone."""
    made = Toy()
    made.looked = []
    real = formats.format_named
    monkeypatch.setenv("GPUCAL_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(formats, "NAMES", ("toy", *formats.NAMES))
    for place in ("formats.format_named", "one_way.format_named"):
        monkeypatch.setattr(
            f"gpucal.io.incoming.{place}", lambda name: made if name == "toy" else real(name)
        )
    return made


def write(folder: Path, number: int, level: float = 1.0, elevation: float = 0.5) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"s{number}.toy"
    facts = {"number": number, "level": level, "elevation": elevation}
    path.write_bytes(MAGIC + json.dumps(facts).encode())
    return path


def level_of(store: Path, number: int) -> float:
    source = open_l0(store).load(number)[0].source
    assert source is not None
    return float(np.asarray(source.counts.read(0, 1, 0))[0, 0, 0, 0])


def test_scans_are_added_and_those_there_are_kept(toy: Toy, tmp_path: Path) -> None:
    out = tmp_path / "l0"
    assert import_raw(write(tmp_path / "a", 1), out, format="toy").scans == (1,)
    write(tmp_path / "a" / "deep", 2)
    report = import_raw(tmp_path / "a", out, format="toy")
    assert (report.scans, report.present, report.exit_code) == ((2,), (1,), 0)
    write(tmp_path / "a", 1, level=7.0)
    report = import_raw(tmp_path / "a", out, format="toy")
    assert (report.scans, report.present, report.exit_code) == ((), (2,), 2)
    assert "holds another scan of this number" in report.lost[0].sentence
    assert level_of(out, 1) == 1.0
    report = import_raw(tmp_path / "a", out, format="toy", overwrite=True)
    assert (sorted(report.scans), report.present) == ([1, 2], ())
    assert level_of(out, 1) == 7.0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "cache", "l0"]


def test_a_scan_in_the_store_that_cannot_be_opened_costs_itself_alone(
    toy: Toy, tmp_path: Path
) -> None:
    for n in (1, 2):
        write(tmp_path / "a", n)
    out = tmp_path / "l0"
    import_raw(tmp_path / "a", out, format="toy")
    (out / "scan_000001" / "zarr.json").write_text("{")
    write(tmp_path / "a", 3)
    report = import_raw(tmp_path / "a", out, format="toy")
    assert (report.scans, report.present, len(report.lost)) == ((3,), (2,), 1)
    assert report.lost[0].sentence.startswith("scan 1: ")


def test_a_copy_of_the_raw_data_is_the_same(toy: Toy, tmp_path: Path) -> None:
    original = write(tmp_path / "a", 1)
    import_raw(original, tmp_path / "l0", format="toy")
    copy = write(tmp_path / "b", 1)
    os.utime(copy, ns=(1, 1))
    assert import_raw(copy, tmp_path / "l0", format="toy").present == (1,)


def test_an_interrupted_import_goes_on(toy: Toy, tmp_path: Path) -> None:
    for n in (1, 2, 3):
        write(tmp_path / "a", n)
    out = tmp_path / "l0"
    toy.interrupted_on = 2
    with pytest.raises(KeyboardInterrupt):
        import_raw(tmp_path / "a", out, format="toy")
    assert open_l0(out).numbers() == [1]
    toy.interrupted_on = None
    report = import_raw(tmp_path / "a", out, format="toy")
    assert (report.scans, report.present) == ((2, 3), (1,))
    assert not (tmp_path / "l0.staging").exists()


def test_a_scan_that_fails_while_it_is_written_costs_itself_alone(
    toy: Toy, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for n in (1, 2, 3):
        write(tmp_path / "a", n)
    (tmp_path / "a" / "s4.toy").write_bytes(b"")
    write(tmp_path / "a", 5, elevation=-0.5)
    toy.broken_on_reading = (2,)
    from gpucal.cli.commands.import_ import run

    out = tmp_path / "l0"
    with pytest.raises(typer.Exit) as left:
        run.run_import("toy", [tmp_path / "a", out], run.Asked())
    assert left.value.exit_code == 2
    said = capsys.readouterr()
    assert "2 scans written" in said.out
    lines = [line for line in said.err.splitlines() if line.startswith("not imported: ")]
    assert len(lines) == 3
    assert any("s4.toy does not begin with TOY1. Copy it again." in line for line in lines)
    assert any(line.startswith("not imported: scan 2: ") for line in lines)
    assert any("elevation of dump 0 is -0.5 rad" in line for line in lines)
    assert open_l0(out).numbers() == [1, 3]


def test_nothing_left_is_an_error_and_leaves_nothing(toy: Toy, tmp_path: Path) -> None:
    bad = tmp_path / "bad.toy"
    bad.write_bytes(b"nonsense")
    with pytest.raises(ImportFormatError, match="does not begin with TOY1"):
        import_raw(bad, tmp_path / "l0", format="toy")
    assert not (tmp_path / "l0").exists()
    with pytest.raises(L0Error, match="is not a Zarr group"):
        import_raw(write(tmp_path, 1), tmp_path / "cache", format="toy")
    with pytest.raises(ImportFormatError, match="does not exist"):
        import_raw(tmp_path / "no", tmp_path / "l0", format="toy")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ImportFormatError, match="holds none of the toy files"):
        import_raw(tmp_path / "empty", tmp_path / "l0", format="toy")


def test_links_back_and_hidden_files_and_stores_are_not_followed(toy: Toy, tmp_path: Path) -> None:
    deep = tmp_path / "a" / "deep"
    write(deep, 1)
    write(tmp_path / "a" / ".hidden", 2)
    (deep / "back").symlink_to(tmp_path / "a")
    import_raw(tmp_path / "a", tmp_path / "a" / "l0", format="toy")
    assert import_raw(tmp_path / "a", tmp_path / "a" / "l0", format="toy").present == (1,)


def test_an_unknown_option_is_an_error(toy: Toy, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'flag' is none of sdfits, .* did you mean 'flags'"):
        import_raw(tmp_path, tmp_path / "l0", format="sdfits", flag=True)
    with pytest.raises(
        ConfigError, match=r"raw format 'sdfit' is unknown, .*did you mean 'sdfits'"
    ):
        import_raw(tmp_path, tmp_path / "l0", format="sdfit")


def test_the_bar_counts_scans_and_bytes(toy: Toy, tmp_path: Path) -> None:
    import io

    from rich.console import Console

    from gpucal.cli.show.import_progress import ImportBars
    from gpucal.io.incoming.landing import land

    for n in (1, 2, 3):
        write(tmp_path / "a", n)
    toy.broken_on_reading = (2,)
    plan = toy.plan(Request([tmp_path / "a"]))
    shown = io.StringIO()
    with ImportBars(plan, Console(file=shown, force_terminal=True, width=100)) as bars:
        land(plan, tmp_path / "l0", whole_store=False, overwrite=False, progress=bars)
        (task,) = bars._progress.tasks
        assert (task.completed, task.total) == (3 * 192, 3 * 192)
        assert task.fields["count"] == "3/3 scans"


def test_a_store_of_another_telescope_is_refused(toy: Toy, tmp_path: Path) -> None:
    from gpucal import create_l0

    create_l0(tmp_path / "l0", telescope="X", instrument="T", site=SITE)
    with pytest.raises(ImportFormatError, match=r"is of telescope 'TOY', .* of 'X'"):
        import_raw(write(tmp_path / "a", 1), tmp_path / "l0", format="toy")


def test_a_folder_is_looked_at_once(toy: Toy, tmp_path: Path) -> None:
    """Also by the next process: what is known lies in the cache, as long as the files do not change."""
    for n in range(1, 6):
        write(tmp_path / "a", n)
    (tmp_path / "a" / "notes.txt").write_text("hello")
    asked = Request([tmp_path / "a"], index=FileIndex(cache_folder()))
    assert len(toy.plan(asked).scans) == 5
    asked.index.save()
    first = asked.index.looked
    again = Request([tmp_path / "a"], index=FileIndex(cache_folder()))
    assert len(toy.plan(again).scans) == 5
    assert (first, again.index.looked, len(toy.looked)) == (11, 0, 5)
    changed = write(tmp_path / "a", 3, level=2.5)
    os.utime(changed, ns=(1, 1))
    third = Request([tmp_path / "a"], index=FileIndex(cache_folder()))
    toy.plan(third)
    assert toy.looked[5:] == ["s3.toy"]
    for kept in cache_folder().iterdir():
        kept.write_text("{")
    broken = Request([tmp_path / "a"], index=FileIndex(cache_folder()))
    assert len(toy.plan(broken).scans) == 5


def test_auto_recognises_and_says_what_it_saw(
    toy: Toy, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "a", 1)
    (tmp_path / "a" / "notes.txt").write_text("weather: fine\n")
    out = str(tmp_path / "l0")
    assert main(["import", "auto", str(tmp_path / "a"), out]) == 0
    said = capsys.readouterr()
    assert "1 file of toy (toy files)" in said.err
    assert "notes.txt is a text that begins 'weather: fine'" in said.err
    from builders.gbt import nod, write_table

    table = write_table(tmp_path / "a" / "bank.fits", nod())
    assert main(["import", "auto", str(tmp_path / "a"), out]) == 1
    assert "several formats: 1 of sdfits" in capsys.readouterr().err
    assert main(["import", "auto", str(table), str(tmp_path / "gbt")]) == 0
    assert open_l0(tmp_path / "gbt").numbers() == [5]
    # the same scan as raw FITS is of the GBT too, and no SDFITS
    (raw,) = export_raw_fits(tmp_path / "gbt", tmp_path / "raw")
    assert main(["import", "auto", str(raw), str(tmp_path / "again")]) == 0
    assert open_l0(tmp_path / "again").numbers() == [5]
    capsys.readouterr()
    (tmp_path / "x.h5").write_bytes(b"\x89HDF\r\n")
    (tmp_path / "y").write_bytes(b"")
    assert main(["import", "auto", str(tmp_path / "x.h5"), str(tmp_path / "y"), out]) == 1
    said = capsys.readouterr()
    assert "x.h5 is an HDF5 file" in said.err
    assert "y is empty" in said.err
    both = [str(tmp_path / "a" / "s1.toy"), str(tmp_path / "x.h5")]
    assert main(["import", "auto", *both, out]) == 1
    assert "Leave them out" in capsys.readouterr().err


def test_a_dry_run_prints_the_plan_and_writes_nothing(
    toy: Toy, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from builders.gbt import nod, vane, write_table

    table = write_table(tmp_path / "bank.fits", vane() + nod())
    assert main(["import", "sdfits", str(table), str(tmp_path / "l0"), "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "NOD 5 6" in said
    assert "HOT SKY" in said
    assert "nothing was written" in said
    assert main(["import", "auto", "--dry-run", str(table)]) == 0
    assert not (tmp_path / "l0").exists()
    a, b = write(tmp_path / "a", 1), write(tmp_path / "a", 2)
    import_raw(a, tmp_path / "l0")
    assert main(["import", "auto", str(a), str(b), str(tmp_path / "l0"), "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    (row,) = [line for line in lines if "is in the store already" in line]
    assert row.split()[0] == "1"
    assert open_l0(tmp_path / "l0").numbers() == [1]


def test_what_was_assumed_is_kept_and_shown(
    toy: Toy, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    profile = tmp_path / "site.toml"
    profile.write_text("[toy]\npixels = 2\n")
    out = tmp_path / "l0"
    args = [str(write(tmp_path / "a", 1)), str(out), "--profile", str(profile)]
    assert main(["import", "auto", *args]) == 0
    assert open_l0(out).load(1)[0].attrs["assumptions"] == [
        {"what": "pixels", "value": 2, "why": "no word on pixels", "from": "profile"},
        {
            "what": "f_eff",
            "value": 0.9,
            "why": "the file has no forward efficiency",
            "from": "default",
        },
    ]
    main(["inspect", str(out)])
    said = capsys.readouterr().out
    assert "assumed: f_eff = 0.9 (the file has no forward efficiency)\n" in said
    assert "from the profile: pixels = 2 (no word on pixels)\n" in said
    import_raw(write(tmp_path / "a", 2), out, format="toy")
    main(["inspect", str(out)])
    said = capsys.readouterr().out
    assert "assumed: f_eff = 0.9 (the file has no forward efficiency)\n" in said
    assert "from the profile: pixels = 2 (no word on pixels), scan 1\n" in said
    assert "assumed: pixels = 1 (no word on pixels), scan 2\n" in said
    with pytest.raises(L0Error, match="holds another scan"):  # what was set belongs to the scan
        import_raw(tmp_path / "a" / "s1.toy", tmp_path / "l0", format="toy")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[toy]\npixel = 2\n", r"key 'pixel', expected .* did you mean 'pixels'"),
        ("[toy]\npixels = 3\n", "pixels in .toy. is 3, expected 1 or 2"),
        ("[toy]\nf_eff = 92\n", r"f_eff in .toy. is 92, expected a number of 0.05..1"),
        ("[toy]\nf_eff = true\n", "f_eff in .toy. is True"),
        ("[toi]\n", "has 'toi', expected tables named .*did you mean 'toy'"),
        ("f_eff = 0.9\n", "has 'f_eff', expected tables"),
        ("[toy", "is not valid TOML"),
        ("[toy]\nreceiver = 3\n", "toy.receiver is 3, expected tables"),
        ("[toy.receiver.A]\nt_hot = 20.0\n", "t_hot in .toy.receiver.A. is 20.0"),
    ],
)
def test_a_wrong_profile_is_one_sentence(toy: Toy, tmp_path: Path, text: str, said: str) -> None:
    profile = tmp_path / "site.toml"
    profile.write_text(text)
    with pytest.raises(ConfigError, match=said):
        load_profile(profile, "toy", {"toy": toy.profile_keys})
    with pytest.raises(ConfigError, match="cannot be read"):
        load_profile(tmp_path / "none.toml", "toy", {"toy": toy.profile_keys})


def test_a_receiver_has_values_of_its_own(toy: Toy, tmp_path: Path) -> None:
    profile = tmp_path / "site.toml"
    profile.write_text("[toy]\nf_eff = 0.9\n[toy.receiver.A]\nf_eff = 0.8\n")
    made = load_profile(profile, "toy", {"toy": toy.profile_keys})
    assert [made.get("f_eff", r) for r in ("", "A", "B")] == [0.9, 0.8, 0.9]
    assert made.get("t_hot") is None


def test_a_glimpse_of_a_fits_file(tmp_path: Path) -> None:
    import gzip

    from builders.gbt import nod, write_table

    table = write_table(tmp_path / "bank.fits", nod())
    seen = glimpse(table)
    assert seen.extension["EXTNAME"] == "SINGLE DISH"
    assert "first table SINGLE DISH" in seen.words()
    packed = tmp_path / "bank.fits.gz"
    packed.write_bytes(gzip.compress(table.read_bytes()))
    assert glimpse(packed).extension == seen.extension
    packed.write_bytes(packed.read_bytes()[:200])
    assert glimpse(packed).words().startswith("unreadable")
    (tmp_path / "x.apex").write_bytes(b"9A  " + bytes(99))
    assert glimpse(tmp_path / "x.apex").words() == "a CLASS file"
    assert glimpse(tmp_path / "no").words() == "unreadable (No such file or directory)"
