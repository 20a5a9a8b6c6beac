"""``gpucal inspect`` names everything that is wrong, each in a sentence of its own."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from builders.l0_by_hand import add_scan, new_night, put

from gpucal import main

Change = Callable[[Any, Any], None]
"""(group source/, scan group) -> changed in place."""


def values(**arrays: Any) -> Change:
    """Give arrays of source/ other values; a number stands for all three subscans."""

    def change(source: Any, scan: Any) -> None:
        for name, value in arrays.items():
            if name in source:
                del source[name]
            array = np.broadcast_to(value, 3) if np.ndim(value) == 0 else np.asarray(value)
            put(source, name, array, array.dtype if array.dtype.kind == "i" else np.float64)

    return change


def modes(*words: str) -> Change:
    def change(source: Any, scan: Any) -> None:
        source.attrs["sobsmode"] = list(words)

    return change


def attrs(**given: Any) -> Change:
    def change(source: Any, scan: Any) -> None:
        scan.attrs.update(given)

    return change


def reversed_counts(source: Any, scan: Any) -> None:
    del source["data_5d"]
    put(source, "data_5d", np.ones((3, 2, 1, 2, 8)), np.int32)


def permuted_counts(source: Any, scan: Any) -> None:
    """[D, C, R, A, S], told by the names of the axes alone."""
    del source["data_5d"]
    names = ["dump", "channel", "receiver", "array", "subscan"]
    source.create_array("data_5d", shape=(2, 8, 1, 2, 3), dtype="i4", dimension_names=names)


def square_times(source: Any, scan: Any) -> None:
    """mjd [S, D] where both are 3: only the names of the axes tell it."""
    del source["data_5d"], source["mjd"]
    put(source, "data_5d", np.ones((8, 3, 1, 2, 3)), np.int32)
    times = 60000.01 + np.arange(9.0).reshape(3, 3) / 86400
    made = source.create_array("mjd", shape=(3, 3), dtype="f8", dimension_names=["subscan", "dump"])
    made[...] = times


def wrong_name(source: Any, scan: Any) -> None:
    del source["azimuth"]
    put(source, "azimut", np.ones(3))


CASES: Mapping[str, tuple[Change, list[str]]] = {
    "celsius": (values(tamb=-5.0), ["tamb is -5", "deg C, add 273.15"]),
    "celsius, warm": (values(tamb=12.0), ["tamb is 12", "deg C"]),
    "mbar": (values(pamb=1013.0), ["pamb is 1013", "mbar"]),
    "pascal": (values(pamb=54000.0), ["pamb is 54000", "Pa, multiply"]),
    "offset": (values(otf_lon=[0.0, 50.0, 0.0]), ["subscan 1", "otf_lon", "50 deg", "arcsec"]),
    "pixel": (values(pixel_offset_lat=[[0.0, 40.0]]), ["pixel 1", "pixel_offset_lat", "arcsec"]),
    "no such load": (
        values(lloadsn=np.full(3, 99, "i4")),
        ["lloadsn is 99, which is not in", "Scan 1"],
    ),
    "load without HOT": (values(lloadsn=np.full(3, 2, "i4")), ["lloadsn is 2, which holds no HOT"]),
    "reversed": (reversed_counts, ["axes look reversed", "(8, 2, 1, 2, 3)"]),
    "permuted": (permuted_counts, ["axes of array data_5d", "Transpose"]),
    "square": (square_times, ["axes of array mjd are named [subscan, dump]"]),
    "julian date": (values(mjd=2460000.5 + np.arange(3)), ["Julian date"]),
    "order": (values(mjd=[60001.0, 60000.0, 60002.0]), ["mjd runs backwards"]),
    "negative": (values(exptime=-1.0), ["exptime", "expected more than 0"]),
    "milliseconds": (values(exptime=4000.0), ["exptime 4000 s", "ms, divide by 1000"]),
    "degrees": (values(elevation=51.0), ["elevation", "it looks like degrees"]),
    "gigahertz": (values(signal_freq=460.0), ["signal_freq is 460", "GHz"]),
    "sign": (values(freq_res=[1e6, -1e6, 1e6]), ["subscan 1", "the same sign"]),
    "sign of all": (values(freq_res=-1e6), ["no load scan", "freq_res 1e+06 Hz, here -1e+06 Hz"]),
    "another tuning": (values(signal_freq=230e9), ["no load scan", "signal_freq 4.6e+11 Hz"]),
    "word": (modes("OFFF", "ON", "OFF"), ["'OFFF' in source/ is unknown", "Did you mean OFF?"]),
    "no OFF": (modes("ON", "ON", "ON"), ["no OFF subscan for ON"]),
    "percent": (attrs(f_eff=95), ["f_eff is 95"]),
    "name": (wrong_name, ["array azimuth is missing"]),
}


def inspected(path: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    main(["inspect", str(path), "--json"])
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def night_with(tmp_path: Path, *changes: Change) -> Path:
    """Loads in scan 1, a good scan 2, and scan 3 changed."""
    path, root = new_night(tmp_path / "night.zarr")
    add_scan(root, 1, cal=["HOT", "COLD"], mjd=60000.0)
    for number in (2, 3):
        add_scan(root, number, source=["OFF", "ON", "OFF"], mjd=60000.0 + 0.001 * number)
    for change in changes:
        change(root["scan_000003/source"], root["scan_000003"])
    return path


@pytest.mark.parametrize("case", CASES)
def test_each_fault_has_its_sentence(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change, words = CASES[case]
    report = inspected(night_with(tmp_path, change), capsys)
    hits = [p for p in report["problems"] if all(word in p for word in words)]
    assert len(hits) == 1, report["problems"]
    assert "scan 3" in hits[0]
    assert not [p for p in report["problems"] if "scan 3" not in p]


def test_a_good_night_has_no_problem_and_no_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = inspected(night_with(tmp_path), capsys)
    assert report["problems"] == []
    assert report["warnings"] == []
    assert not any(row["warnings"] for row in report["scans"])


def test_all_faults_of_one_scan_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    together = (
        "celsius",
        "mbar",
        "offset",
        "degrees",
        "gigahertz",
        "julian date",
        "word",
        "percent",
    )
    path = night_with(tmp_path, *(CASES[name][0] for name in together), reversed_counts)
    problems = inspected(path, capsys)["problems"]
    for name in (*together, "reversed"):
        words = CASES[name][1]
        assert any(all(word in p for word in words) for p in problems), (name, problems)


def test_names_that_are_no_scan_and_numbers_that_come_twice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = night_with(tmp_path)
    shutil.copytree(path / "scan_000003", path / "scan100")
    shutil.copytree(path / "scan_000003", path / "night_5")
    shutil.copytree(path / "scan_000003", path / "scan_2")
    problems = inspected(path, capsys)["problems"]
    assert problems[0].startswith("scan 2: the number stands for 2 groups, scan_000002 and scan_2")
    assert "the group night_5 is not read" in problems[1]
    assert "the group scan100 is not read" in problems[2]
    assert "scan_000100" in problems[2]
    assert main(["inspect", str(path)]) == 2


def test_load_temperatures_in_celsius(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = night_with(tmp_path)
    loads = zarr.open_group(path)["scan_000001/calibration"]
    for name, value in (("thot", 22.0), ("tcold", -196.0)):
        loads[name][...] = value  # type: ignore[index]
    problems = " ".join(inspected(path, capsys)["problems"])
    assert "thot is 22 K" in problems
    assert "tcold is -196" in problems
    assert problems.count("deg C, add 273.15") == 2


def test_remarks_on_what_may_be_right(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = night_with(tmp_path, attrs(obs_procedure="pointng", feff=0.9), values(pamb=497.0))
    del zarr.open_group(path)["scan_000003"].attrs["f_eff"]
    zarr.open_group(path).attrs["site"] = {"lat_deg": -23.0, "lon_deg": -67.7, "alt_m": 5600.0}
    row = next(row for row in inspected(path, capsys)["scans"] if row["scan"] == 3)
    said = " ".join(row["warnings"])
    assert "did you mean pointing?" in said
    assert "attribute feff is not used: did you mean f_eff?" in said
    assert "pamb is 497 Torr" in said
    assert row["problems"] == []


def test_calibrate_refuses_what_would_be_a_plausible_wrong_number(tmp_path: Path) -> None:
    """An air temperature of 12 "K" and counts with swapped axes gave spectra without a word."""
    expected = {"good": 0, "celsius, warm": 1, "permuted": 1, "square": 1}
    for name, code in expected.items():
        changes = [CASES[name][0]] if name in CASES else []
        path = night_with(tmp_path / name, *changes)
        shutil.rmtree(path / "scan_000002")
        options = ["--atmosphere", "none", "--tau", "0.1", "--quiet"]
        assert main(["calibrate", str(path), str(tmp_path / f"{name}.l1"), *options]) == code


def test_positions_of_imported_files_are_no_offsets(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An importer keeps the coordinates that CTYPE2 names; they may be anywhere on the sky."""
    from builders.gbt import nod, vane, write_table

    rows = [*vane(2), *nod(5)]
    for row in rows:
        row["CTYPE2"] = "RA"
    assert abs(float(rows[0]["CRVAL2"])) > 10
    file = write_table(tmp_path / "night.raw.vegas.fits", rows)
    store = tmp_path / "imported.zarr"
    assert main(["import", "sdfits", str(file), str(store)]) == 0
    capsys.readouterr()
    report = inspected(store, capsys)
    assert [p for p in report["problems"] if "otf_l" in p] == []
    galactic = {"CTYPE2": "GLON"}
    path = night_with(tmp_path, values(otf_lon=207.5), attrs(scan_metadata=galactic))
    assert inspected(path, capsys)["problems"] == []
    path = night_with(tmp_path / "b", values(otf_lon=207.5), attrs(scan_metadata={}))
    assert "deg from the source" in inspected(path, capsys)["problems"][0]
