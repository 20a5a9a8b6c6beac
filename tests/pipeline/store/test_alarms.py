"""Numbers that cannot be right are alarms: in the report, in L1, on the screen, and in the exit code with --strict."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from builders.night_stores import contents, fast_folder, make_night, small_setup

from gpucal import (
    CalibrationConfig,
    StoreReport,
    calibrate_scan,
    calibrate_store,
    main,
    open_l0,
    open_l1,
    simulate_scan,
)
from gpucal.pipeline.scan.alarms import alarms_of
from gpucal.pipeline.store.report import ScanSummary

Change = Callable[[Path], None]


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with fast_folder(tmp_path_factory.mktemp("night")) as folder:
        make_night(folder, small_setup(kinds=("tp", "otf"), channels=256, dumps=8, n_on=3))
        yield folder


def run(folder: Path, out: Path, **options: Any) -> StoreReport:
    options = {"atmosphere": str(folder / "table.npz"), "workers": 1, **options}
    return calibrate_store(folder / "l0.zarr", out, CalibrationConfig(**options))


def changed(night: Path, folder: Path, change: Change) -> Path:
    """A copy of the night with another first scan."""
    shutil.copytree(night, folder)
    change(folder / "l0.zarr/scan_000001")
    return folder


def values(name: str, new: Callable[[Any], Any], *groups: str) -> Change:
    """Change an array of the first scan, in all groups that have it."""

    def change(scan: Path) -> None:
        for group in groups or ("source", "calibration"):
            if (scan / group / name).exists():
                array: Any = zarr.open_array(str(scan / group / name), mode="r+")
                array[...] = np.asarray(new(array[...])).astype(array.dtype)

    return change


def site(**attrs: Any) -> Change:
    """Change the site of the store."""

    def change(scan: Path) -> None:
        root: Any = zarr.open_group(str(scan.parent), mode="r+")
        root.attrs["site"] = {**dict(root.attrs["site"]), **attrs}

    return change


def noisy(counts: Any) -> Any:
    """Counts with some thirty times the noise of the radiometer equation."""
    rough = counts * np.random.default_rng(3).normal(1.0, 0.011, counts.shape)
    return np.where(counts == np.iinfo(np.int32).min, counts, np.rint(rough))


def mostly_lost(counts: Any) -> Any:
    """All dumps but the last are fill."""
    counts[:, :-1] = np.iinfo(np.int32).min
    return counts


CASES: dict[str, tuple[Change, dict[str, Any], dict[str, str]]] = {
    # what is wrong: (change of the store, options, kind of alarm -> words of its sentence)
    "noise of no receiver": (values("data_5d", noisy, "source"), {}, {"rms": "exptime"}),
    "MHz for Hz": (values("freq_res", lambda x: x / 1e6), {}, {"rms": "freq_res"}),
    "vane in Fahrenheit": (values("thot", lambda x: 0 * x + 372), {}, {"t_hot": "372.0 K"}),
    "hot load given wrong": (values("thot", lambda x: x), {"t_hot": 372.0}, {"t_hot": "--t-hot"}),
    "cold load warmer": (
        values("tcold", lambda x: x),
        {"t_cold": 110.0, "alarm_t_cold_high": 100.0},
        {"t_cold": "110.0 K"},
    ),
    "pressure of another site": (
        values("pamb", lambda x: 0 * x + 390.0),
        {},
        {"site": "a recorded pressure of 520 hPa"},
    ),
    "altitude of another site": (
        site(alt_m=5612.0),
        {},
        {"site": "the site at 5612 m"},
    ),
    "table of another site": (
        values("thot", lambda x: x),
        {"atmosphere": "chile_5600m"},
        {"site": "chile_5600m", "chi2": "chile_5600m", "pwv": "outside the range of 0.1 to 3 mm"},
    ),
    "opacity too large": (
        values("thot", lambda x: x),
        {"atmosphere": "none", "tau": 3.0},
        {"tau": "by the counts of the OFF"},
    ),
    "another gain for the sky": (
        values("data_5d", lambda x: (0.55 * x).astype(x.dtype), "source"),
        {"atmosphere": "none", "tau": 0.1},
        {"sky": "same gain", "tau": "opacity"},
    ),
    "a sky below 0 K": (
        values("data_5d", lambda x: x // 3, "source"),
        {"atmosphere": "none", "tau": 0.1},
        {"flagged": "100 % of the samples are flagged and blank"},
    ),
    "most of it never written": (
        values("data_5d", mostly_lost, "source"),
        {},
        {"flagged": "of the samples are flagged and blank"},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_absurd_numbers_raise_an_alarm(night: Path, tmp_path: Path, name: str) -> None:
    """The scan is calibrated all the same; the other scan, which is good, has no alarm of its own."""
    change, options, wanted = CASES[name]
    folder = changed(night, tmp_path / "night", change)
    report = run(folder, tmp_path / "l1", scans="1", **options)
    [summary] = report.summaries
    assert (summary.status, report.exit_code) == ("calibrated", 0)
    assert summary.alarms.keys() == wanted.keys()
    for kind, words in wanted.items():
        assert words in summary.alarms[kind]
        assert summary.alarms[kind] in summary.warnings
    assert open_l1(tmp_path / "l1")[1].attrs["qa"]["alarms"] == summary.alarms
    assert run(folder, tmp_path / "strict", scans="1", strict=True, **options).exit_code == 2


def test_good_nights_have_no_alarm(night: Path, tmp_path: Path) -> None:
    report = run(night, tmp_path / "l1", strict=True)
    assert report.exit_code == 0
    assert [dict(s.alarms) for s in report.summaries] == [{}, {}]


@pytest.mark.parametrize("recording", [{"dtype": "i32"}, {"dtype": "f64"}])
def test_counts_without_noise_have_no_alarm(tmp_path: Path, recording: dict[str, Any]) -> None:
    """They say so themselves: the rms is far below what is expected of a receiver."""
    make_night(tmp_path, small_setup(kinds=("tp", "otf")), noise=False, **recording)
    report = run(tmp_path, tmp_path / "l1", strict=True)
    assert max(s.rms_ratio for s in report.summaries) < 0.2
    assert report.exit_code == 0
    made = simulate_scan(small_setup(), "tp", 1)
    assert calibrate_scan(made.scan, table=made.table).quality["alarms"] == {}


def lines(share: float, height: float, seed: int = 0) -> Change:
    """Lines in a share of the channels of every ON, each of its own height in units of its counts."""

    def change(scan: Path) -> None:
        array: Any = zarr.open_array(str(scan / "source/data_5d"), mode="r+")
        counts = array[...].astype(np.float64)
        rng = np.random.default_rng(seed)
        n = counts.shape[0]
        strength = np.where(rng.uniform(size=n) < share, height * rng.uniform(size=n), 0.0)
        on = [i for i, mode in enumerate(modes(scan)) if mode == "ON"]
        for i in on:
            fill = counts[..., i] == np.iinfo(np.int32).min
            counts[..., i] = np.where(
                fill, counts[..., i], counts[..., i] * (1 + strength[:, None, None, None])
            )
        array[...] = counts.astype(array.dtype)

    return change


def modes(scan: Path) -> list[str]:
    """Modes of the subscans of the source."""
    source = open_l0(scan.parent).load(int(scan.name[-6:]))[0].source
    assert source is not None
    return list(source.sobsmode)


@pytest.mark.parametrize(
    ("share", "height"), [(0.02, 50.0), (0.9, 0.05)], ids=["masers", "forest of lines"]
)
def test_lines_are_no_alarm(night: Path, tmp_path: Path, share: float, height: float) -> None:
    """A strong maser and a line-rich source: the quiet channels tell the noise."""
    folder = changed(night, tmp_path / "night", lines(share, height))
    [summary] = run(folder, tmp_path / "l1", scans="1").summaries
    assert "rms" not in summary.alarms
    qa = open_l1(tmp_path / "l1")[1].attrs["qa"]
    quiet = np.array(qa["rms_ratio_line_free"], dtype=float)
    assert 0.5 < np.nanmedian(quiet) < 3.0
    # What is wrong for every channel is seen in them too.
    values("data_5d", noisy, "source")(folder / "l0.zarr/scan_000001")
    [summary] = run(folder, tmp_path / "l1", scans="1", overwrite=True).summaries
    assert "rms" in summary.alarms


def test_one_bad_pixel_is_named(night: Path, tmp_path: Path) -> None:
    """The median over pixels, which the table shows, hides it."""

    def noisy(scan: Path) -> None:
        array: Any = zarr.open_array(str(scan / "source/data_5d"), mode="r+")
        counts = array[...].astype(np.float64)
        wild = np.random.default_rng(3).normal(1.0, 0.3, counts[:, :, 1, 2].shape)
        fill = counts[:, :, 1, 2] == np.iinfo(np.int32).min
        counts[:, :, 1, 2] = np.where(fill, counts[:, :, 1, 2], counts[:, :, 1, 2] * wild)
        array[...] = counts.astype(array.dtype)

    folder = changed(night, tmp_path / "night", noisy)
    [summary] = run(folder, tmp_path / "l1", scans="1").summaries
    assert "in receiver 1, pixel 2 (1 of 6 pixels)" in summary.alarms["rms"]
    assert summary.rms_ratio < 3.0


def test_thresholds_are_options_and_change_no_byte(night: Path, tmp_path: Path) -> None:
    """Any threshold can be crossed, and moved so that it is not; the arrays are the same."""
    tight: dict[str, tuple[float, str]] = {
        "alarm_t_hot_low": (300.0, "t_hot"),
        "alarm_t_hot_high": (280.0, "t_hot"),
        "alarm_t_cold_high": (70.0, "t_cold"),
        "alarm_t_rec": (100.0, "t_rec"),
        "alarm_t_sys": (150.0, "t_sys"),
        "alarm_chi2": (1e-9, "chi2"),
        "alarm_flagged": (1e-3, "flagged"),
    }
    run(night, tmp_path / "l1", scans="1-2")
    qa = open_l1(tmp_path / "l1")[1].attrs["qa"]
    for option, (value, kind) in tight.items():
        assert kind in alarms_of(qa, CalibrationConfig.model_validate({option: value}))
    for factor, limit in ((0.5, {"alarm_rms_low": 0.8}), (2.0, {"alarm_rms_high": 1.3})):
        scaled = {
            k: (factor * np.array(qa[k], dtype=float)).tolist() for k in qa if "rms_ratio" in k
        }
        assert "rms" in alarms_of({**qa, **scaled}, CalibrationConfig.model_validate(limit))
        assert alarms_of({**qa, **scaled}, CalibrationConfig()) == {}
    assert alarms_of(qa, CalibrationConfig()) == {}
    run(night, tmp_path / "other", scans="1-2", alarm_t_hot_high=280.0)
    one, two = contents(tmp_path / "l1"), contents(tmp_path / "other")
    assert {n: b for n, b in one.items() if "/c/" in n} == {
        n: b for n, b in two.items() if "/c/" in n
    }
    assert open_l1(tmp_path / "other")[1].attrs["qa"]["alarms"].keys() == {"t_hot"}


def test_a_finished_scan_is_judged_again(night: Path, tmp_path: Path) -> None:
    """By the thresholds of today, whatever was believed when it was calibrated."""
    run(night, tmp_path / "l1", scans="1")
    report = run(night, tmp_path / "l1", scans="1", alarm_t_rec=100.0, strict=True)
    [summary] = report.summaries
    assert (summary.status, report.exit_code) == ("skipped", 2)
    assert "believable is" in summary.alarms["t_rec"]


def test_the_screen(night: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A marked cell and a line in the table; a line on stderr when quiet; an object in JSON."""
    folder = changed(night, tmp_path / "night", values("data_5d", noisy, "source"))
    common = [
        *("calibrate", str(folder / "l0.zarr"), str(tmp_path / "l1")),
        *("--atmosphere", str(folder / "table.npz")),
    ]
    assert main(common) == 0
    out = capsys.readouterr().out
    row = next(line.split() for line in out.splitlines() if line.split()[:1] == ["1"])
    assert row[row.index("!") + 1].startswith("2")
    assert row[-1] == "calibrated"
    assert "2 calibrated, 0 skipped, 0 failed, 1 with alarms" in out
    [line] = [line for line in out.splitlines() if line.startswith("alarm (scan 1): ")]
    assert "rms/expected is" in line
    # Quiet, and finished by now: nothing on stdout, one line on stderr.
    assert main([*common, "--quiet", "--strict"]) == 2
    streams = capsys.readouterr()
    assert streams.out == ""
    assert streams.err.count("\n") == 1
    assert "scan 1 alarm: rms/expected is" in streams.err
    assert main([*common, "--quiet", "--strict", "--alarm-rms-high", "100"]) == 0
    assert capsys.readouterr().err == ""
    toml = tmp_path / "night.toml"
    toml.write_text("strict = true\nalarm-rms-high = 4.0\n")
    assert main([*common, "--json", "--config", str(toml)]) == 2
    events = [json.loads(text) for text in capsys.readouterr().out.splitlines()]
    assert events[-1]["exit_code"] == 2
    assert events[-1]["summaries"][0]["alarms"]["rms"].startswith("rms/expected is")


def test_strict_does_not_hide_what_is_worse() -> None:
    good = ScanSummary(1, "", "tp", "calibrated", alarms={"rms": "absurd"})
    assert StoreReport((good,), (), strict=True).exit_code == 2
    assert StoreReport((good,), ()).exit_code == 0
    assert StoreReport((good,), (), interrupted=True, strict=True).exit_code == 130
    assert StoreReport((replace(good, alarms={}),), (), strict=True).exit_code == 0


def test_an_old_store_has_no_alarm_for_lack_of_numbers() -> None:
    assert alarms_of({}, CalibrationConfig()) == {}
    assert alarms_of({"rms_ratio": [["NaN", 1.0]], "pwv": "NaN"}, CalibrationConfig()) == {}
    assert "rms" in alarms_of({"rms_ratio": [["NaN", 30.0]]}, CalibrationConfig())
