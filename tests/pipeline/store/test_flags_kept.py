"""Flag rules and calibration: kept when a scan is calibrated again, given as a file, used by all that reads L1."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from builders.night_stores import assert_same, fast_folder, make_night, small_setup

import gpucal
from gpucal import (
    CalibrationConfig,
    ConfigError,
    Flag,
    FlagRule,
    L1Error,
    Selection,
    StoreReport,
    calibrate_scan,
    calibrate_store,
    load_table,
    open_l0,
    open_l1,
    reduce_scan,
    spectra_of_store,
    to_spectrum1d,
)
from gpucal.io.l1.flag_file import check_scans
from gpucal.plot.binning import read_binned
from gpucal.plot.source import open_views

MANUAL = int(Flag.MANUAL)


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with fast_folder(tmp_path_factory.mktemp("night")) as folder:
        make_night(folder, small_setup(kinds=("tp", "otf")))
        small = folder / "small"
        small.mkdir()
        make_night(small, small_setup(kinds=("tp", "otf"), pixels=2))
        run(folder, folder / "l1.zarr")
        yield folder


@pytest.fixture
def l1(night: Path, tmp_path: Path) -> Iterator[Path]:
    with fast_folder(tmp_path) as folder:
        shutil.copytree(night / "l1.zarr", folder / "l1.zarr")
        yield folder / "l1.zarr"


def run(folder: Path, out: Path, **options: Any) -> StoreReport:
    # In rows of four dumps a narrow line may be in one sample alone: nothing is judged here.
    options = {"atmosphere": str(folder / "table.npz"), "workers": 1, "spike_sigma": 0.0, **options}
    return calibrate_store(folder / "l0.zarr", out, CalibrationConfig(**options))


def bits(store: Path, scan: int) -> np.ndarray[Any, Any]:
    values: Any = zarr.open_group(store, mode="r")[f"scan_{scan:06d}/flags"]
    found: np.ndarray[Any, Any] = np.asarray(values[...] & MANUAL) != 0
    return found


def test_a_scan_that_is_calibrated_again_keeps_its_rules(night: Path, l1: Path) -> None:
    gpucal.flag(l1, scans=1, pixels=1, subscans=1, channels="5:9", reason="spur")
    before = bits(l1, 1)
    report = run(night, l1, overwrite=True, clip_trec=10000.0)
    assert report.exit_code == 0
    assert not any(s.warnings for s in report.summaries)
    np.testing.assert_array_equal(bits(l1, 1), before)
    (rule,) = gpucal.flag_rules(l1)
    assert (rule.id, rule.scans) == ("1", (1,))
    gpucal.unflag(l1)
    run(night, night / "other.zarr", clip_trec=10000.0)
    assert_same(l1, night / "other.zarr")


def test_a_rule_for_a_pixel_that_is_gone_is_said_and_stays_on_record(night: Path, l1: Path) -> None:
    gpucal.flag(l1, scans=1, pixels="1-2", reason="dead")
    report = run(night / "small", l1, overwrite=True)
    said = [text for s in report.summaries for text in s.warnings]
    assert said == ["scan 1: flag rule 1 (dead): there is no pixel 2, only 0 to 1."]
    expected = np.zeros(bits(l1, 1).shape, dtype=bool)
    expected[:, :, :, 1] = True
    np.testing.assert_array_equal(bits(l1, 1), expected)
    run(night, l1, overwrite=True)
    assert bits(l1, 1)[:, :, :, 1:].all()


def test_rules_of_a_band_that_failed_wait_for_it(tmp_path: Path) -> None:
    with fast_folder(tmp_path) as folder:
        make_night(folder, small_setup("chai", ("tp",), channels=32))
        out = folder / "l1.zarr"
        run(folder, out)
        gpucal.flag(out, scans=1, band="band_2", pixels=1, reason="dead")
        whole = bits_of_band(out)
        chunks = folder / "l0.zarr/scan_000001/band_2"
        chunks.rename(folder / "aside")
        run(folder, out, overwrite=True)
        assert open_l1(out)[1].bands == ["band_1"]
        (folder / "aside").rename(chunks)
        run(folder, out, overwrite=True)
        np.testing.assert_array_equal(bits_of_band(out), whole)
        assert [rule.reason for rule in gpucal.flag_rules(out)] == ["dead"]


def bits_of_band(store: Path) -> np.ndarray[Any, Any]:
    values: Any = zarr.open_group(store, mode="r")["scan_000001/band_2/flags"]
    found: np.ndarray[Any, Any] = np.asarray(values[...] & MANUAL) != 0
    return found


RULES = """
[[flag]]
scans = 1
pixels = "0-1"
channels = "5:9"
reason = "spur"

[[flag]]
dumps = [0]
reason = "the telescope still moved"
"""


def expected_of_rules(shape: tuple[int, ...], scan: int) -> np.ndarray[Any, Any]:
    found = np.zeros(shape, dtype=bool)
    found[:, 0] = True
    if scan == 1:
        found[5:10, :, :, :2] = True
    return found


def test_rules_of_a_file_reach_new_scans_and_those_that_are_there(
    night: Path, l1: Path, tmp_path: Path
) -> None:
    path = tmp_path / "rules.toml"
    path.write_text(RULES)
    fresh = l1.with_name("fresh.zarr")
    assert {s.status for s in run(night, fresh, flags=str(path)).summaries} == {"calibrated"}
    assert {s.status for s in run(night, l1, flags=str(path)).summaries} == {"skipped"}
    for store in (fresh, l1):
        for scan in (1, 2):
            found = bits(store, scan)
            np.testing.assert_array_equal(found, expected_of_rules(found.shape, scan))
    assert len(gpucal.flag_rules(l1)) == 2
    run(night, l1, flags=str(path), overwrite=True)  # known again, not recorded twice
    assert len(gpucal.flag_rules(l1)) == 2
    for rule in gpucal.flag_rules(l1):
        gpucal.unflag(l1, rule.id)
    assert_same(l1, night / "l1.zarr")


def test_rules_of_a_file_count_in_memory_and_in_a_reduction_too(
    night: Path, tmp_path: Path
) -> None:
    path = tmp_path / "rules.toml"
    path.write_text(RULES)
    table = night / "table.npz"
    config = CalibrationConfig(atmosphere=str(table), flags=str(path), workers=1)
    (scan,) = open_l0(night / "l0.zarr").load(1)
    found = calibrate_scan(scan, config, table=load_table(table))
    by_hand = (np.asarray(found.flags) & MANUAL) != 0
    np.testing.assert_array_equal(by_hand, expected_of_rules(by_hand.shape, 1))
    path.write_text('[[flag]]\npixels = 2\nreason = "dead"\n')
    seen = []
    for one in (config.model_copy(update={"flags": ""}), config):
        result = reduce_scan(night / "l0.zarr", 1, procedure="on-off", config=one).result
        assert isinstance(result, dict)
        seen.append(np.isfinite(result[""].spectrum).any(axis=0))  # [R,A]
    assert seen[0].all()
    np.testing.assert_array_equal(seen[1], [[True, True, False]] * 2)


WRONG: list[tuple[str, str]] = [
    (
        "[[flag]]\npixles = 1\nreason = 'x'\n",
        r"rule 1: there is no key 'pixles'.*Did you mean pixels",
    ),
    ("[[flag]]\npixels = 1\n", r"rule 1: the reason is missing"),
    ("[[flag]]\nreason = 'x'\n", r"rule 1: nothing is chosen"),
    ("[[flag]]\npixels = 1.5\nreason = 'x'\n", r"pixels is 1.5, expected a number"),
    ("[[flag]]\npixels = []\nreason = 'x'\n", r"pixels is \[\]"),
    ("[[flag]]\npixels = ''\nreason = 'x'\n", r"pixels is empty"),
    (
        "[[flag]]\nchannels = '9:5'\nreason = 'x'\n",
        r"rule 1: channels holds '9:5', which runs back",
    ),
    ("[[flag]]\nscans = 99\nreason = 'x'\n", r"rule 1 \(x\): there is no scan 99"),
    ("[[flags]]\nscans = 1\nreason = 'x'\n", r"unknown key 'flags'"),
    ("flag = 3\n", r"hold no table \[\[flag\]\]"),
    ("", r"hold no table \[\[flag\]\]"),
    ("[[flag]\n", r"are not valid TOML"),
]


@pytest.mark.parametrize(("text", "said"), WRONG, ids=[w[1] for w in WRONG])
def test_wrong_rules_are_refused_before_anything_is_written(
    night: Path, tmp_path: Path, text: str, said: str
) -> None:
    path = tmp_path / "rules.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        run(night, tmp_path / "out.zarr", flags=str(path))
    assert_matches(said, str(caught.value))
    assert not (tmp_path / "out.zarr").exists()


def test_rules_of_a_file_may_name_scans_that_are_not_there() -> None:
    rules = [FlagRule("spur", (1, 2, 3)), FlagRule("spur", ())]
    check_scans(rules, (1, 3), "rules.toml")
    with pytest.raises(ConfigError, match=r"rule 1 \(spur\): there is no scan 1"):
        check_scans(rules, (7,), "rules.toml")


def assert_matches(pattern: str, text: str) -> None:
    import re

    assert re.search(pattern, text), text


def test_a_missing_file_of_rules_is_named(night: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none.toml cannot be read: No such file"):
        run(night, tmp_path / "out.zarr", flags=str(tmp_path / "none.toml"))


def test_a_rule_that_does_not_fit_the_scan_it_names_fails_that_scan(
    night: Path, tmp_path: Path
) -> None:
    path = tmp_path / "rules.toml"
    path.write_text('[[flag]]\nscans = 1\npixels = 7\nreason = "dead"\n')
    report = run(night, tmp_path / "out.zarr", flags=str(path))
    assert report.exit_code == 2
    (failure,) = report.failures
    assert failure.scan == 1
    assert "(dead): there is no pixel 7, only 0 to 2" in failure.message
    path.write_text('[[flag]]\npixels = 7\nreason = "dead"\n')
    report = run(night, tmp_path / "out.zarr", flags=str(path))
    assert report.exit_code == 0


def test_all_that_reads_l1_leaves_the_samples_out(l1: Path) -> None:
    scan = open_l1(l1)[1]
    values = np.array(scan["spectra"][...], dtype=np.float64)
    channel = 30
    assert np.isfinite(values[channel, :, 0, 1]).all()
    bent = np.array(values)
    bent[channel, 0, 0, 1] = 1e6  # a spike in the first dump
    array: Any = zarr.open_group(l1, mode="r+")["scan_000001/spectra"]
    array[...] = bent
    gpucal.flag(l1, scans=1, receivers=0, pixels=1, channels=channel, dumps=0, reason="spike")

    assert np.nanmax(np.asarray(scan["spectra"][...])) == 1e6
    dumps = [s.values for s in spectra_of_store(open_l1(l1), Selection(scans=frozenset({1})))]
    means = spectra_of_store(open_l1(l1), Selection(scans=frozenset({1}), average="subscans"))
    for spectrum in (*dumps, *(s.values for s in means)):
        assert np.nanmax(np.abs(spectrum)) < 1e4
    found = to_spectrum1d(scan, receiver=0, pixel=1)
    assert np.nanmax(found.flux.value) < 1e4
    result = reduce_scan(l1, 1, procedure="on-off").result
    assert isinstance(result, dict)
    assert np.nanmax(np.abs(result[""].spectrum)) < 1e4
    (view,) = open_views(l1, 1)
    binned = read_binned(view, (0, 1))
    assert np.nanmax(binned.mean) < 1e4
    assert np.nanmax(binned.waterfall) < 1e4
    assert float(open_l1(l1).to_xarray(1)["spectra"].max()) < 1e4
    gpucal.unflag(l1)
    assert np.nanmax(read_binned(view, (0, 1)).mean) > 1e4


def test_a_flagged_channel_is_not_in_a_map(l1: Path) -> None:
    from gpucal.plot.sky_map import _integrate

    (view,) = open_views(l1, 2)
    channels = np.zeros((view.shape[0], view.shape[2]), dtype=bool)
    channels[30:34] = True
    gpucal.flag(l1, scans=2, channels="30:33", pixels=0, reason="spur")
    found = _integrate(view, channels)
    assert np.isnan(found[:, :, 0]).all()
    assert np.isfinite(found[:, :, 1]).all()


def test_a_scan_in_the_way_is_still_refused(night: Path, l1: Path) -> None:
    gpucal.flag(l1, scans=1, pixels=1, reason="dead")
    with pytest.raises(gpucal.OtherSettingsError, match="clip-trec 20000, now 10000"):
        run(night, l1, clip_trec=10000.0)
    assert bits(l1, 1).any()


def test_rules_of_a_file_are_for_scans_of_the_store(l1: Path) -> None:
    from gpucal.io.l1.flag_file import load_rules
    from gpucal.io.l1.manual_flags import apply_rules

    path = l1.with_name("rules.toml")
    path.write_text('[[flag]]\nscans = 1\npixels = 9\nreason = "dead"\n')
    with pytest.raises(L1Error, match="no pixel 9"):
        apply_rules(l1, load_rules(path))
    assert not bits(l1, 1).any()
