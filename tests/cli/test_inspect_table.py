"""``gpucal inspect --table``: the night for pandas, astropy and whatever reads JSON."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import pytest
import zarr
from astropy.table import Table
from builders.l0_by_hand import add_scan, new_night
from builders.synthetic_l1 import write_l1

from gpucal import main


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    path, root = new_night(tmp_path / "night.zarr")
    add_scan(root, 1, cal=["HOT", "COLD"], mjd=60000.0)
    add_scan(root, 2, source=["OFF", "ON", "OFF"], mjd=60000.5)
    return path


@pytest.fixture
def calibrated(raw: Path, tmp_path: Path) -> Path:
    """Calibrated with tau 0.2 and a forward efficiency of 0.95, gain of the image 1."""
    out = tmp_path / "l1.zarr"
    options = ["--atmosphere", "none", "--tau", "0.2", "--max-cal-age", "1e6", "--quiet"]
    assert main(["calibrate", str(raw), str(out), *options]) == 0
    return out


def printed(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    capsys.readouterr()
    assert main(["inspect", *args]) == 0
    return capsys.readouterr().out


def test_raw_store_as_csv(raw: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = pd.read_csv(io.StringIO(printed(capsys, str(raw), "--table", "csv")))
    assert list(table.scan) == [1, 2]
    assert list(table.kind) == ["load", "science"]
    assert table.ut[1] == "2023-02-25T12:00:10"
    assert table.elevation[1] == pytest.approx(np.degrees(0.9), abs=1e-3)
    assert list(table.channels) == [8, 8]
    assert list(table.subscans) == [2, 3]
    assert table.load_scan[1] == 1


def test_calibrated_store_in_all_formats(
    calibrated: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = pd.read_csv(io.StringIO(printed(capsys, str(calibrated), "--table", "csv")))
    # counts: HOT 3000 at 290 K, COLD 1500 at 77 K, OFF 2000
    row = table.iloc[0]
    assert (row.scan, row.source, row["mode"]) == (2, "DR21", "tp")
    hot, cold = (22.077 / np.expm1(22.077 / t) for t in (290.0, 77.0))  # h nu / k at 460 GHz
    assert row.t_rec == pytest.approx(hot - 2 * cold, rel=0.005)
    assert row.tau == pytest.approx(0.2)
    slant = 0.2 / np.sin(0.9)
    star = row.t_sys / (0.5 * 0.95 * np.exp(-slant))
    assert row.t_sys_star == pytest.approx(star, rel=1e-4)
    found = Table.read(printed(capsys, str(calibrated), "--table", "ecsv"), format="ascii.ecsv")
    assert str(found["t_sys_star"].unit) == "K"
    assert str(found["elevation"].unit) == "deg"
    assert found["t_sys"][0] == row.t_sys
    assert found.meta["format"] == "gpucal-l1"
    (listed,) = json.loads(printed(capsys, str(calibrated), "--table", "json"))
    assert listed["t_sys"] == row.t_sys
    assert listed["pwv"] is None


def test_bands_names_with_spaces_and_unknown_values(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_l1(tmp_path / "l1.zarr", (7,), (16, 2, 1, 2, 2), bands=("band_1", "band_2"))
    zarr.open_group(path / "scan_000007" / "band_1").attrs["source"] = 'Orion "KL", north'
    found = Table.read(printed(capsys, str(path), "--table", "ecsv"), format="ascii.ecsv")
    assert list(found["band"]) == ["band_1", "band_2"]
    assert found["source"][0] == 'Orion "KL", north'
    assert found["t_sys_star"].mask.all()  # the store does not tell its gains
    assert found["flagged"][0] == pytest.approx(2.0)


def test_problems_go_to_stderr(raw: Path, capsys: pytest.CaptureFixture[str]) -> None:
    zarr.open_group(raw)["scan_000002/source/tamb"][...] = -5.0  # type: ignore[index]
    assert main(["inspect", str(raw), "--table", "csv"]) == 2
    streams = capsys.readouterr()
    assert pd.read_csv(io.StringIO(streams.out)).problems.tolist() == [0, 1]
    assert "gpucal: problem: scan 2, subscan 0: tamb is -5" in streams.err


def test_selection_and_wrong_options(raw: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, str(raw), "--table", "json", "--scans", "2-9")
    assert [row["scan"] for row in json.loads(text)] == [2]
    assert main(["inspect", str(raw), "--scans", "5"]) == 1
    assert "has no scan 5" in capsys.readouterr().err
    assert main(["inspect", str(raw), "--table", "xls"]) == 64
    assert main(["inspect", str(raw), "--table", "csv", "--json"]) == 64
    assert main(["inspect", str(raw), "--scans", "x"]) == 64
    assert "--scans is 'x', expected numbers and ranges" in capsys.readouterr().err
