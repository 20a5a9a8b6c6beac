"""``reduce`` on raw counts and on the calibrated store: one table, named, and the same numbers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from builders.night_stores import KINDS, fast_folder, make_night, small_setup

from gpucal import (
    CalibrationConfig,
    ConfigError,
    ReduceOptions,
    calibrate_scan,
    calibrate_store,
    load_table,
    main,
    open_l0,
    open_l1,
    reduce_scan,
    save_table,
)
from gpucal.procedures.switching import LineWindow

LINE = ReduceOptions(window=LineWindow(230.3e9, 230.7e9, rest_hz=230.5e9))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A night of every mode at a site that a packaged table fits; its own table lies beside it."""
    with fast_folder(tmp_path_factory.mktemp("one")) as place:
        make_night(place, small_setup(kinds=KINDS, channels=128))
        (place / "table.npz").rename(place / "l0.zarr.atm.npz")
        yield place


@pytest.fixture(scope="module")
def l1(folder: Path) -> Path:
    """Calibrated without a word about the atmosphere."""
    assert calibrate_store(folder / "l0.zarr", folder / "l1.zarr", config()).exit_code == 0
    return folder / "l1.zarr"


def config(**options: Any) -> CalibrationConfig:
    return CalibrationConfig(**{"workers": 1, **options})


@pytest.mark.parametrize("number", range(1, len(KINDS) + 1))
def test_both_ways_give_the_same_numbers(folder: Path, l1: Path, number: int) -> None:
    raw: Any = reduce_scan(
        folder / "l0.zarr", number, procedure="on-off", config=config(), options=LINE
    )
    stored: Any = reduce_scan(l1, number, procedure="on-off", options=LINE)
    assert raw.atmosphere == stored.atmosphere
    assert "l0.zarr.atm.npz (sha256 " in raw.atmosphere
    for name in ("spectrum", "rms", "expected", "ratio", "time"):
        one, two = getattr(raw.result[""], name), getattr(stored.result[""], name)
        np.testing.assert_allclose(one, two, rtol=1e-9, atol=1e-12, err_msg=name)
    for one, two in zip(raw.result[""].line, stored.result[""].line, strict=True):
        assert one.area.value == pytest.approx(two.area.value, rel=1e-9, nan_ok=True)
        assert one.area.error == pytest.approx(two.area.error, rel=1e-9, nan_ok=True)


@pytest.mark.parametrize("scope", ["per-pixel", "per-pair"])
def test_other_scopes_of_the_water_agree_to_its_scatter(
    folder: Path, tmp_path: Path, scope: str
) -> None:
    """L1 has one opacity for all; T_sys* of single pixels and pairs differs by 1e-4."""
    own = config(pwv_scope=scope, scans="2")
    calibrate_store(folder / "l0.zarr", tmp_path / "l1", own)
    raw: Any = reduce_scan(folder / "l0.zarr", 2, procedure="on-off", config=own)
    stored: Any = reduce_scan(tmp_path / "l1", 2, procedure="on-off")
    np.testing.assert_allclose(raw.result[""].expected, stored.result[""].expected, rtol=1e-3)


def test_the_table_beside_a_store_is_everybodys(folder: Path, l1: Path) -> None:
    """In memory too; a table that is asked for by name wins, and so does no table."""
    [scan] = open_l0(folder / "l0.zarr").load(1)
    found = calibrate_scan(scan, config())
    np.testing.assert_array_equal(np.asarray(found.spectra), open_l1(l1)[1]["spectra"][...])
    assert found.quality["table_name"].endswith("l0.zarr.atm.npz")
    asked = reduce_scan(
        folder / "l0.zarr", 1, procedure="on-off", config=config(atmosphere="iram_30m")
    )
    assert asked.atmosphere.startswith("table iram_30m (sha256 ")
    assert asked.atmosphere.endswith(", layered sky")
    own = config(atmosphere="iram_30m", t_atm=260.0)
    flat = reduce_scan(folder / "l0.zarr", 1, procedure="on-off", config=own)
    assert flat.atmosphere.endswith(", isothermal sky (T_atm was given)")
    none = reduce_scan(folder / "l0.zarr", 1, procedure="on-off", config=config(tau=0.2))
    assert none.atmosphere == "no table, tau 0.2"


def test_a_calibrated_store_keeps_its_table(folder: Path, l1: Path, tmp_path: Path) -> None:
    """Another one is refused rather than ignored; the same one under another name is the same."""
    with pytest.raises(ConfigError, match="not with table iram_30m") as error:
        reduce_scan(l1, 1, procedure="on-off", config=config(atmosphere="iram_30m"))
    assert "l0.zarr.atm.npz" in error.value.message
    assert "raw store" in error.value.hint
    with pytest.raises(ConfigError, match=r"not with no table, tau 0\.1"):
        reduce_scan(l1, 1, procedure="on-off", config=config(tau=0.1))
    shutil.copy(folder / "l0.zarr.atm.npz", tmp_path / "copy.npz")
    same = config(atmosphere=str(tmp_path / "copy.npz"))
    assert reduce_scan(l1, 1, procedure="on-off", config=same).valid


def test_a_table_that_is_gone_or_changed_is_named(folder: Path, tmp_path: Path) -> None:
    table = tmp_path / "mine.npz"
    shutil.copy(folder / "l0.zarr.atm.npz", table)
    out = tmp_path / "l1"
    calibrate_store(folder / "l0.zarr", out, config(atmosphere=str(table), scans="1"))
    before: Any = reduce_scan(out, 1, procedure="on-off")
    assert before.warnings == ()
    loaded = load_table(table)
    save_table(table, type(loaded)(**{**vars(loaded), "b": loaded.b * 1.1}))
    [changed] = reduce_scan(out, 1, procedure="on-off").warnings
    assert f"{table} (sha256 " in changed
    assert "has changed since" in changed
    table.unlink()
    gone: Any = reduce_scan(out, 1, procedure="on-off")
    [text] = gone.warnings
    assert f"{table} (sha256 " in text
    assert "cannot be found" in text
    np.testing.assert_array_equal(gone.result[""].spectrum, before.result[""].spectrum)


def test_a_packaged_table_is_known_wherever_it_lies(folder: Path, tmp_path: Path) -> None:
    """The store may have been calibrated on another machine."""
    out = tmp_path / "l1"
    calibrate_store(folder / "l0.zarr", out, config(atmosphere="iram_30m", scans="1"))
    document = out / "scan_000001/zarr.json"
    content = json.loads(document.read_text())
    recorded = content["attributes"]["provenance"]["atmosphere_table"]
    recorded["name"] = "/opt/elsewhere/gpucal/data/iram_30m.npz"
    document.write_text(json.dumps(content))
    found = reduce_scan(out, 1, procedure="on-off")
    assert found.atmosphere.startswith("table iram_30m (sha256 ")
    assert found.atmosphere.endswith(", layered sky")
    assert not [text for text in found.warnings if "found" in text]


def test_the_command_names_the_table(
    folder: Path, l1: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = []
    for store in (folder / "l0.zarr", l1):
        assert main(["reduce", str(store), "--scan", "1", "--procedure", "on-off"]) == 0
        said.append(capsys.readouterr().out.partition("atmosphere: ")[2])
    assert said[0] == said[1]
    assert "l0.zarr.atm.npz (sha256 " in said[0].splitlines()[0]
    assert "isothermal sky (the table has no emission columns)" in " ".join(said[0].split())
    assert main(["reduce", str(l1), "--scan", "1", "--procedure", "on-off", "--json"]) == 0
    assert "l0.zarr.atm.npz" in json.loads(capsys.readouterr().out)["atmosphere"]
    args = ["calibrate", str(folder / "l0.zarr"), str(tmp_path / "l1"), "--scans", "1"]
    assert main([*args, "--workers", "1"]) == 0
    assert "atmosphere: table " in capsys.readouterr().out
    assert main([*args, "--workers", "1", "--overwrite", "--tau", "0.2"]) == 0
    assert "atmosphere: no table, tau 0.2" in capsys.readouterr().out


def test_alarms_of_the_store_come_with_the_result(folder: Path, tmp_path: Path) -> None:
    """What cried when it was calibrated cries when it is reduced."""
    own = config(scans="1", t_hot=372.0)
    calibrate_store(folder / "l0.zarr", tmp_path / "l1", own)
    stored = reduce_scan(tmp_path / "l1", 1, procedure="on-off")
    raw = reduce_scan(folder / "l0.zarr", 1, procedure="on-off", config=own)
    for found in (stored, raw):
        assert any("the HOT load is at 372.0 K" in text for text in found.warnings)


def test_a_scatter_that_cannot_be_right_is_said(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "l0.zarr", tmp_path / "l0.zarr")
    array: Any = zarr.open_array(str(tmp_path / "l0.zarr/scan_000001/source/data_5d"), mode="r+")
    counts = array[...]
    rough = counts * np.random.default_rng(3).normal(1.0, 0.011, counts.shape)
    array[...] = np.where(counts == np.iinfo(np.int32).min, counts, np.rint(rough))
    own = config(atmosphere=str(folder / "l0.zarr.atm.npz"))
    for store, words in ((tmp_path / "l0.zarr", 1), (folder / "l0.zarr", 0)):
        found = reduce_scan(store, 1, procedure="on-off", config=own)
        assert sum("rms/expected is" in text for text in found.warnings) == words
