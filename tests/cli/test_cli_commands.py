"""The other commands and the entry point."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from builders.synthetic_l1 import write_l1

from gpucal import GpucalWarning, __version__, main
from gpucal.cli.commands.info import collect, extras

ROOT = Path(__file__).resolve().parents[2]


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"gpucal {__version__}\n"


def test_no_command_shows_the_help_and_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 64
    streams = capsys.readouterr()
    for command in ("calibrate", "simulate", "import", "inspect", "plot", "atm", "info"):
        assert command in streams.out + streams.err


@pytest.mark.parametrize(
    "args",
    [["bogus"], ["inspect"], ["plot", "x"], ["atm", "bogus"], ["import", "bogus"], ["--bogus"]],
)
def test_usage_errors_are_64(capsys: pytest.CaptureFixture[str], args: list[str]) -> None:
    assert main(args) == 64
    streams = capsys.readouterr()
    assert streams.out == ""
    assert streams.err.startswith("gpucal: error: ")
    assert "--help" in streams.err


def test_entry_point_as_a_process(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "gpucal.cli.main", "inspect", str(tmp_path / "nothing.zarr")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("gpucal: error: ")
    assert "does not exist" in done.stderr
    assert "Traceback" not in done.stderr


def test_importing_the_command_line_stays_light() -> None:
    code = (
        "import sys, gpucal.cli.main; "
        "print([m for m in ('matplotlib', 'astropy', 'xarray', 'dask', 'cupy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_our_warnings_are_sentences(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def warn(**_: Any) -> int:
        warnings.simplefilter("always")
        warnings.warn("the table is old.", GpucalWarning, stacklevel=1)
        return 0

    class Command:
        main = staticmethod(warn)

    monkeypatch.setattr("typer.main.get_command", lambda _: Command)
    assert main(["info"]) == 0
    assert capsys.readouterr().err == "gpucal: warning: the table is old.\n"


# --- info


def test_info_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["gpucal"] == __version__
    assert facts["libraries"]["numpy"] == np.__version__
    assert facts["backends"]["cpu"]["available"] is True
    assert facts["backends"]["cuda"]["available"] is False
    assert facts["device"]["cores"] >= 1
    assert facts["device"]["memory_bytes"] > 2**28
    assert all(name.endswith((".npz", ".zarr")) for name in facts["atmosphere_tables"])


def test_info_says_how_to_install_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["info"]) == 0
    out = capsys.readouterr().out
    for extra in ("fits", "plot", "cluster", "atm-build"):
        assert f"pip install 'gpucal[{extra}]'" in out
    assert "not available" in out
    assert "\x1b" not in out


def test_info_names_every_extra(capsys: pytest.CaptureFixture[str]) -> None:
    stated = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert main(["info", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["extras"]
    assert set(stated["optional-dependencies"]) <= set(found)
    assert found["fits"]["available"] is True
    assert found["cuda13"]["available"] is False
    assert main(["info"]) == 0
    text = capsys.readouterr().out
    for name in stated["optional-dependencies"]:
        assert f"extra {name}" in text


def test_info_tells_an_extra_that_is_there_in_part(monkeypatch: pytest.MonkeyPatch) -> None:
    class About:
        def get_all(self, key: str) -> list[str]:
            return {
                "Provides-Extra": ["fits", "mine", "both"],
                "Requires-Dist": [
                    "astropy>=6; extra == 'fits'",
                    'no-such-thing[x]>=2; sys_platform == "linux" and extra == "fits"',
                    "elsewhere; sys_platform == 'plan9' and extra == 'fits'",
                    "numpy; extra == 'mine'",
                    "gpucal[fits,mine]; extra == 'both'",
                ],
            }[key]

    monkeypatch.setattr("importlib.metadata.metadata", lambda name: About())
    assert extras()["both"] == ["astropy", "no-such-thing", "numpy"]
    found = collect()["extras"]
    assert found["fits"]["missing"] == ["no-such-thing"]
    assert found["fits"]["available"] is False
    assert found["mine"]["available"] is True


# --- inspect


def put(group: Any, name: str, values: Any, dtype: Any = np.float64) -> None:
    values = np.asarray(values, dtype=dtype)
    array = group.create_array(name, shape=values.shape, dtype=dtype)
    array[...] = values


def write_group(
    group: Any,
    modes: Sequence[str],
    mjd: float,
    shape: tuple[int, ...] = (8, 2, 1, 2),
    freq: float = 460e9,
) -> None:
    c, d, r, a = shape
    s = len(modes)
    put(group, "data_5d", np.full((c, d, r, a, s), 1000), np.int32)
    group.attrs["sobsmode"] = list(modes)
    put(group, "mjd", mjd + np.arange(s) / 8640.0)
    for name, value in (("exptime", 1.0), ("elevation", 0.9), ("azimuth", 1.0)):
        put(group, name, np.full(s, value), np.float32)
    for name, value in (("signal_freq", freq), ("image_freq", freq - 12e9), ("freq_res", 1e6)):
        put(group, name, np.full(s, value))
    put(group, "ref_channel", np.zeros(s), np.float32)
    put(group, "pamb", np.full(s, 400.0), np.float32)
    put(group, "tamb", np.full(s, 270.0), np.float32)
    if "HOT" in modes:
        put(group, "thot", np.full(s, 290.0), np.float32)
        put(group, "tcold", np.full(s, 77.0), np.float32)


def add_scan(
    root: zarr.Group,
    number: int,
    *,
    cal: Sequence[str] | None = None,
    source: Sequence[str] | None = None,
    mjd: float = 60000.0,
    freq: float = 460e9,
    lloadsn: int | None = None,
) -> zarr.Group:
    scan = root.create_group(f"scan_{number:06d}")
    scan.attrs.update({"scan_number": number, "source": "DR21", "complete": True})
    if cal:
        write_group(scan.create_group("calibration"), cal, mjd, freq=freq)
    if source:
        group = scan.create_group("source")
        write_group(group, source, mjd, freq=freq)
        if lloadsn is not None:
            put(group, "lloadsn", np.full(len(source), lloadsn), np.int32)
    return scan


@pytest.fixture
def night(tmp_path: Path) -> tuple[Path, zarr.Group]:
    path = tmp_path / "night.zarr"
    root = zarr.open_group(path, mode="w", zarr_format=3)
    root.attrs.update({"format": "gpucal-l0", "format_version": 1, "telescope": "TEST"})
    add_scan(root, 1, cal=["HOT", "COLD"], mjd=60000.00)
    add_scan(root, 2, cal=["HOT", "COLD"], mjd=60000.02)
    add_scan(root, 3, source=["OFF", "ON"], mjd=60000.03)
    add_scan(root, 4, source=["OTF-OFF", "OTF-ON", "OTF-OFF"], mjd=60000.04, lloadsn=1)
    return path, root


def inspect_json(path: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, Any]:
    code = main(["inspect", str(path), "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_inspect_l0(night: tuple[Path, zarr.Group], capsys: pytest.CaptureFixture[str]) -> None:
    path, _ = night
    code, report = inspect_json(path, capsys)
    assert code == 0
    rows = {row["scan"]: row for row in report["scans"]}
    assert [rows[n]["kind"] for n in (1, 2, 3, 4)] == ["load", "load", "science", "science"]
    assert (rows[3]["mode"], rows[4]["mode"]) == ("tp", "otf")
    assert (rows[3]["load_scan"], rows[3]["load_rule"]) == (2, "earlier")
    assert (rows[4]["load_scan"], rows[4]["load_rule"]) == (1, "lloadsn")
    assert rows[4]["shape"] == [8, 2, 1, 2, 3]
    assert rows[4]["bytes"] == 8 * 2 * 2 * 3 * 4
    assert rows[3]["frequency_ghz"] == pytest.approx([460.0, 460.007])
    assert main(["inspect", str(path)]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "2 load, 2 science" in out


def test_inspect_names_problems_and_goes_on(
    night: tuple[Path, zarr.Group], capsys: pytest.CaptureFixture[str]
) -> None:
    path, root = night
    add_scan(root, 5, source=["OFF", "ON"], mjd=60000.05, freq=230e9)  # no loads at 230 GHz
    add_scan(root, 6, source=["ON", "ON"], mjd=60000.06)  # no OFF
    scan = add_scan(root, 7, source=["OFF", "ON"], mjd=60000.07)
    scan.attrs.update({"complete": False, "n_subscans_planned": 6})
    root.create_group("scan_000008")
    code, report = inspect_json(path, capsys)
    assert code == 2
    problems = {row["scan"]: " ".join(row["problems"]) for row in report["scans"]}
    assert problems[3] == problems[4] == ""
    assert "no load scan" in problems[5]
    assert problems[6].startswith("scan 6")
    assert "incomplete" in problems[7]
    assert "neither source/ nor calibration/" in problems[8]
    assert len(report["problems"]) == 4
    assert {row["scan"]: row["kind"] for row in report["scans"]}[7] == "science"
    assert main(["inspect", str(path)]) == 2
    assert capsys.readouterr().out.count("problem: ") == 4


def test_inspect_of_an_unusable_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(tmp_path)]) == 1
    assert capsys.readouterr().err.startswith("gpucal: error: ")
    root = zarr.open_group(tmp_path / "empty.zarr", mode="w", zarr_format=3)
    root.attrs.update({"format": "gpucal-l0", "format_version": 1})
    assert main(["inspect", str(tmp_path / "empty.zarr")]) == 1


def test_load_scan_later_only_within_the_age(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "night.zarr"
    root = zarr.open_group(path, mode="w", zarr_format=3)
    root.attrs.update({"format": "gpucal-l0", "format_version": 1})
    add_scan(root, 1, source=["OFF", "ON"], mjd=60000.00)
    add_scan(root, 2, source=["OFF", "ON"], mjd=60000.47)
    add_scan(root, 3, cal=["HOT", "COLD"], mjd=60000.50)
    _, report = inspect_json(path, capsys)
    rows = {row["scan"]: row for row in report["scans"]}
    assert (rows[2]["load_scan"], rows[2]["load_rule"]) == (3, "later")
    assert rows[1]["load_scan"] is None


def test_inspect_l1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_l1(tmp_path / "l1.zarr", (7, 8), (16, 2, 1, 2, 2), bands=("band_1", "band_2"))
    code, report = inspect_json(path, capsys)
    assert code == 0
    assert report["format"] == "gpucal-l1"
    assert [(r["scan"], r["band"]) for r in report["scans"]] == [
        (n, b) for n in (7, 8) for b in ("band_1", "band_2")
    ]
    assert report["scans"][0]["qa"]["flagged_fraction"] == pytest.approx(0.02)
    assert report["scans"][0]["shape"] == [16, 2, 1, 2, 2]


def test_inspect_l1_finds_missing_arrays_and_recorded_failures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_l1(tmp_path / "l1.zarr", (7, 8), (16, 2, 1, 2, 2))
    group = zarr.open_group(path / "scan_000007", mode="a")
    del group["t_sys"]
    entry = {"scan": 9, "stage": "load", "error": "LoadError", "message": "no loads.", "hint": ""}
    (path / "failures.json").write_text(json.dumps([entry]))
    code, report = inspect_json(path, capsys)
    assert code == 2
    assert "t_sys missing" in report["problems"][0]
    assert "scan 9 failed in load: no loads." in report["problems"][1]


# --- plot


def test_plot_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_l1(tmp_path / "l1.zarr", (7, 8), (16, 2, 1, 2, 2))
    assert main(["plot", str(path), "--scan", "8", "-o", str(tmp_path / "p")]) == 0
    listed = capsys.readouterr().out.split()
    assert listed == sorted(map(str, (tmp_path / "p").iterdir()), key=listed.index)
    assert len(listed) == 4
    assert main(["plot", str(path), "--scan", "9", "-o", str(tmp_path / "p")]) == 1
    assert "has no scan 9. It has 2 scans: 7-8" in capsys.readouterr().err
    assert main(["plot", str(path), "-o", str(tmp_path / "p"), "--format", "gif"]) == 64
