"""Atmosphere tables on disk, the packaged ones, and the choice by site."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from gpucal import (
    AtmosphereTable,
    ConfigError,
    GpucalError,
    GpucalWarning,
    TableError,
    load_table,
    save_table,
)
from gpucal.cli.commands.atm import app
from gpucal.io.atmosphere import build as atm_build
from gpucal.io.atmosphere import levels as atm_levels
from gpucal.io.atmosphere.choice import site_table
from gpucal.io.atmosphere.tables import packaged_tables

ATTRS = {
    "model": "made up",
    "site": "nowhere, 100 % cloud",
    "alt_m": 1234.5,
    "pwv_range_mm": np.array([0.5, 4.0]),
}


COLUMNS = ("b", "q", "c_dry", "c_o3", "c_minor")


def make_table(attrs: Mapping[str, Any] = ATTRS) -> AtmosphereTable:
    rng = np.random.default_rng(5)
    f = np.concatenate([np.linspace(100e9, 110e9, 50), np.linspace(200e9, 205e9, 30)])
    columns: dict[str, Any] = {n: rng.uniform(0, 1, f.size) for n in COLUMNS}
    edges = np.array([[100e9, 110e9], [200e9, 205e9]])
    return AtmosphereTable(f, **columns, band_edges_hz=edges, attrs=attrs)


@pytest.mark.parametrize("ending", [".npz", ".zarr"])
def test_round_trip(tmp_path: Path, ending: str) -> None:
    table = make_table()
    path = tmp_path / f"t{ending}"
    save_table(path, table)
    save_table(path, table)  # replaces
    got = load_table(path)
    for name in ("freq_hz", "b", "q", "c_dry", "c_o3", "c_minor", "band_edges_hz"):
        np.testing.assert_array_equal(getattr(got, name), getattr(table, name))
    assert got.pwv_range_mm == (0.5, 4.0)
    assert got.attrs["site"] == ATTRS["site"]
    assert got.attrs["alt_m"] == 1234.5
    assert got.path == str(path)
    assert sorted(item.name for item in tmp_path.iterdir()) == [path.name]
    (tmp_path / "b").mkdir()
    save_table(tmp_path / "b" / path.name, table)
    assert load_table(tmp_path / "b" / path.name).sha256 == got.sha256
    assert len(got.sha256) == 64


def test_npz_bytes_depend_on_the_table_alone(tmp_path: Path) -> None:
    save_table(tmp_path / "a.npz", make_table())
    save_table(tmp_path / "b.npz", make_table(dict(reversed(ATTRS.items()))))
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_checksum_follows_the_content(tmp_path: Path) -> None:
    save_table(tmp_path / "a.zarr", make_table())
    first = load_table(tmp_path / "a.zarr").sha256
    save_table(tmp_path / "a.zarr", make_table(ATTRS | {"site": "elsewhere"}))
    assert load_table(tmp_path / "a.zarr").sha256 != first


def test_foreign_zarr_v2_is_read(tmp_path: Path) -> None:
    group = zarr.open_group(tmp_path / "t.zarr", mode="w", zarr_format=2)
    for name in ("freq_hz", "b", "c_dry"):
        group.create_array(name, data=np.array([1.0, 2.0, 3.0]))
    group.attrs.update({"model": "m", "pwv_range_mm": [0.1, 2]})
    table = load_table(tmp_path / "t.zarr")
    np.testing.assert_array_equal(table.freq_hz, [1, 2, 3])
    np.testing.assert_array_equal(table.q, 0)
    assert table.pwv_range_mm == (0.1, 2.0)


def write(path: Path, **entries: Any) -> Path:
    np.savez(path, **entries)
    return path


GOOD = {"freq_hz": [1e9, 2e9], "b": [1.0, 2.0], "c_dry": [0.1, 0.2]}
KNOWN = {"model": "m", "pwv_range_mm": [0.1, 1.0]}


def test_missing_columns_are_zero_and_single_precision_is_read(tmp_path: Path) -> None:
    entries = GOOD | KNOWN | {"b": np.array([1, 2], dtype=np.float32)}
    table = load_table(write(tmp_path / "t.npz", **entries))
    for name in ("q", "c_o3", "c_minor"):
        np.testing.assert_array_equal(getattr(table, name), [0.0, 0.0])
    assert table.b.dtype == np.float64
    assert table.band_edges_hz is None


@pytest.mark.parametrize("missing", ["model", "pwv_range_mm"])
def test_missing_provenance_is_a_warning(tmp_path: Path, missing: str) -> None:
    entries = GOOD | {key: value for key, value in KNOWN.items() if key != missing}
    path = write(tmp_path / "t.npz", **entries)
    with pytest.warns(GpucalWarning, match=missing):
        load_table(path)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"freq_hz": None}, "has no freq_hz"),
        ({"b": None}, "has no b"),
        ({"c_dry": None}, "has no c_dry"),
        ({"freq_hz": [2e9, 1e9]}, "strictly rising"),
        ({"b": [1.0, np.nan]}, r"b\[1\] is nan"),
        ({"q": [1.0]}, "q has 1 values"),
        ({"b": ["wet", "dry"]}, "does not hold numbers"),
        ({"band_edges_hz": [[2e9, 1e9]]}, "rise from band to band"),
        ({"pwv_range_mm": [2.0, 1.0]}, "pwv_range_mm"),
    ],
)
def test_malformed_files(tmp_path: Path, changes: dict[str, Any], text: str) -> None:
    entries = {k: v for k, v in (GOOD | KNOWN | changes).items() if v is not None}
    with pytest.raises(TableError, match=text) as caught:
        load_table(write(tmp_path / "t.npz", **entries))
    assert "t.npz" in str(caught.value)


@given(content=st.binary(max_size=200))
def test_garbage_is_a_table_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "t.npz"
    path.write_bytes(content)
    with pytest.raises(TableError):
        load_table(path)


def test_pickles_are_not_run(tmp_path: Path) -> None:
    np.savez(tmp_path / "t.npz", freq_hz=np.array([object()]))
    with pytest.raises(TableError, match="cannot be read"):
        load_table(tmp_path / "t.npz")


def test_paths_that_are_no_table(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="iram_30m"):
        load_table(tmp_path / "missing.npz")
    (tmp_path / "t.txt").write_text("1 2 3")
    with pytest.raises(TableError, match="neither"):
        load_table(tmp_path / "t.txt")
    (tmp_path / "t.zarr").mkdir()
    with pytest.raises(TableError, match="cannot be read"):
        load_table(tmp_path / "t.zarr")


def test_save_errors(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="ends neither"):
        save_table(tmp_path / "t.dat", make_table())
    with pytest.raises(TableError, match="cannot be written"):
        save_table(tmp_path / "no" / "t.npz", make_table())
    assert list(tmp_path.iterdir()) == []


def test_packaged_tables_are_complete() -> None:
    tables = packaged_tables()
    assert set(tables) == {"chile_5600m", "iram_30m", "sofia_great"}
    for name, path in tables.items():
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            table = load_table(name)
        assert table.sha256 == load_table(path).sha256
        assert path.stat().st_size < 1_000_000
        for key in ("model", "version", "site", "alt_m", "pwv_range_mm", "credit", "licence"):
            assert key in table.attrs, (name, key)
        assert table.pwv_range_mm is not None
        lo, hi = table.pwv_range_mm
        for column in (table.b, table.c_dry, table.c_o3, table.c_minor):
            assert np.all(column >= 0)
        assert table.layered == (name != "sofia_great")
        for pwv in (lo, hi):  # the sky never emits more than it absorbs
            assert np.all(table.b * pwv + table.q * pwv**2 + table.c_dry > 0)


@pytest.mark.parametrize("name", ["iram_30m", "chile_5600m"])
def test_packaged_ranges(name: str) -> None:
    table, site = load_table(name), atm_build.SITES[name]
    assert table.range_hz == site.range_hz
    assert table.pwv_range_mm == site.pwv_range_mm


def site(lat: float | None = None, alt: float | None = None) -> dict[str, Any]:
    given = {"lat_deg": lat, "lon_deg": -67.0, "alt_m": alt}
    return {key: value for key, value in given.items() if value is not None}


@pytest.mark.parametrize(
    ("attrs", "name"),
    [
        ({"telescope": "IRAM 30m"}, "iram_30m"),
        ({"telescope": "IRAM-30M", "site": site(37.07, 2850)}, "iram_30m"),
        ({"telescope": "30m"}, "iram_30m"),
        ({"telescope": "30ME0HLI-F01"}, "iram_30m"),
        ({"telescope": "CCAT", "site": site(-22.99, 5612.0)}, "chile_5600m"),
        ({"telescope": "FYST"}, "chile_5600m"),
        ({"telescope": "SOFIA", "site": site(40.0, 13100.0)}, "sofia_great"),
        ({"telescope": "NOEMA", "site": site(44.6, 2550.0)}, "iram_30m"),
        ({"site": site(-23.0, 5500.0)}, "chile_5600m"),
        ({"site": site(alt=12300.0)}, "sofia_great"),
    ],
)
def test_site_choice(attrs: dict[str, Any], name: str) -> None:
    assert site_table(attrs) == name


@pytest.mark.parametrize(
    "attrs",
    [
        {},
        {"telescope": "GBT", "site": site(38.4, 824.0)},
        {"telescope": "APEX", "site": site(-23.0, 5105.0)},
        {"telescope": "SPT", "site": site(-90.0, 2835.0)},
        {"telescope": "CCAT", "site": site(40.0, 100.0)},
        {"telescope": None, "site": "Chile"},
        {"telescope": "APEX", "site": {"alt_m": "high"}},
        {"telescope": "APEX", "site": {"alt_m": float("nan")}},
    ],
)
def test_no_table_for_the_site(attrs: dict[str, Any]) -> None:
    with pytest.raises(TableError, match="--atmosphere") as caught:
        site_table(attrs)
    assert "iram_30m" in str(caught.value)


def test_command_info() -> None:
    runner = CliRunner()
    listed = runner.invoke(app, ["info"])
    assert listed.exit_code == 0
    assert "sofia_great" in listed.stdout
    shown = runner.invoke(app, ["info", "iram_30m"])
    assert "MWL24" in shown.stdout
    assert load_table("iram_30m").sha256 in "".join(shown.stdout.split())
    facts = json.loads(runner.invoke(app, ["info", "sofia_great", "--json"]).stdout)
    assert facts["bands_ghz"][3] == [4700.0, 4790.0]
    assert facts["pwv_range_mm"] == [0.002, 0.05]
    assert facts["sky"] == "isothermal (no emission columns)"
    everything = json.loads(runner.invoke(app, ["info", "--json"]).stdout)
    assert everything["chile_5600m"]["range_ghz"] == [200.0, 960.0]
    assert everything["chile_5600m"]["sky"] == "layered"
    assert isinstance(runner.invoke(app, ["info", "nothing"]).exception, TableError)


def test_command_build_refuses_before_computing(tmp_path: Path) -> None:
    runner = CliRunner()
    out = str(tmp_path / "t.npz")
    for arguments, text in (
        (["--site", "moon", "-o", out], "moon"),
        (["--site", "iram_30m", "-o", str(tmp_path / "t.txt")], "ends neither"),
        (["--site", "iram_30m", "-o", str(tmp_path / "no" / "t.npz")], "no directory"),
        (["--site", "iram_30m", "-o", out, "--freq-ghz", "100", "1900"], "am"),
        (["--site", "iram_30m", "-o", out, "--profile", "martian"], "martian"),
        (["--site", "iram_30m", "-o", out, "--alt-m", "-5"], "altitude"),
        (["--site", "iram_30m", "-o", out, "--pwv-mm", "5", "1"], "PWV"),
    ):
        error = runner.invoke(app, ["build", *arguments]).exception
        assert isinstance(error, ConfigError), arguments
        assert text in str(error)


def test_build_without_pyrtlib_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyrtlib.absorption_model", None)
    with pytest.raises(GpucalError, match=r"atm-build") as caught:
        atm_build.build_table(atm_build.SITES["iram_30m"])
    assert "pyrtlib" in str(caught.value)


def emitted_less(freq: Any, absorption: Any, z_km: Any, t_k: Any, airmass: float) -> Any:
    """(1 - t) - J_em/J_ground of levels by summing over thin sublayers; absorption [N,L] Np/km."""
    fine = np.concatenate([np.linspace(a, b, 50)[:-1] for a, b in pairwise(z_km)] + [z_km[-1:]])
    middle, step = 0.5 * (fine[1:] + fine[:-1]), np.diff(fine)
    x = 6.62607015e-34 / 1.380649e-23 * freq[:, None]
    ratio = np.expm1(x / t_k[0]) / np.expm1(x / np.interp(middle, z_km, t_k))
    k = np.exp([np.interp(middle, z_km, np.log(np.maximum(row, 1e-300))) for row in absorption])
    seen = np.exp(-airmass * np.concatenate([0 * k[:, :1], np.cumsum(k * step, axis=1)], axis=1))
    return np.sum((1.0 - ratio) * (seen[:, :-1] - seen[:, 1:]), axis=1)


@pytest.mark.parametrize("name", ["iram_30m", "chile_5600m"])
def test_packaged_tables_hold_between_their_knots(name: str) -> None:
    pytest.importorskip("pyrtlib")
    table, site = load_table(name), atm_build.SITES[name]
    models, air = atm_levels.load_models(), atm_levels.air_above(site.alt_m, site.profile)
    rng = np.random.default_rng(7)
    knots = np.arange(table.freq_hz.size)
    f = np.sort(np.interp(rng.uniform(0, knots[-1], 25), knots, table.freq_hz))
    pwv = np.array([site.pwv_range_mm[0], 1.0, site.pwv_range_mm[1]])
    absorbed = np.stack([atm_levels.air_absorption(models, air, x / 1e9, pwv) for x in f], axis=1)
    z = air.z_km[: air.dense]
    water = np.stack([atm_levels.water_and_dry(z, a, pwv) for a in absorbed.swapaxes(0, 1)], axis=1)
    each = atm_levels.narrow_absorption(models, air, f / 1e9)
    narrow = each.sum(axis=0)
    got = table.channel_opacity(f, 1.0)
    for i, p in enumerate(pwv):
        opacity = np.stack([atm_levels.column(air.z_km, x) for x in each])
        want = np.exp(-(water[0] * p + water[1] * p**2 + water[2] + opacity.sum(axis=0)))
        np.testing.assert_allclose(
            got.transmission(p, 1.0), want, atol=table.attrs["knot_tolerance"]
        )
        levels = narrow.T.copy()
        levels[:, : air.dense] += absorbed[1 + i]
        for airmass in (1.0, 1.7):
            less = emitted_less(f, levels, air.z_km, air.t_k, airmass)
            # lines of oxygen, ozone and CO do not thin out with height as the rest does
            off_lines = water[2] + opacity.sum(axis=0) < 0.1
            assert np.count_nonzero(off_lines) > 2
            wrong = np.abs(got.departure(p, airmass) - less)
            assert np.all(wrong < np.where(off_lines, 5e-4, 6e-3)), (p, airmass)


def test_build_a_small_table(tmp_path: Path) -> None:
    pytest.importorskip("pyrtlib")
    result = CliRunner().invoke(
        app,
        f"build --site here --alt-m 3000 --freq-ghz 230.2 230.7 --pwv-mm 1 5 --json --quiet -o {tmp_path}/t.npz "
        "--profile 'us standard'",
    )
    assert result.exit_code == 0, result.exception
    facts = json.loads(result.stdout)
    assert facts["range_ghz"] == [230.2, 230.7]
    assert facts["pwv_range_mm"] == [1.0, 5.0]
    table = load_table(tmp_path / "t.npz")
    t = table.channel_opacity(np.array([230.3e9, 230.538e9]), 1e5).transmission(2.0, 1.0)
    assert 0.85 < t[0] < 0.90
    assert 0.003 < t[0] - t[1] < 0.03  # telluric CO
    # the air that emits is some 10 K colder than the ground, and follows the weather
    less = table.channel_opacity(np.array([230.3e9]), 1e5).departure(2.0, 1.0)[0]
    assert 0.02 < less / (1.0 - t[0]) < 0.08
    assert table.slopes is not None
    assert np.all((table.slopes[0] < -1.0) & (table.slopes[0] > -8.0))
