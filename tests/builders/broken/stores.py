"""Stores, tables, options and outputs with which nothing can be done."""

from __future__ import annotations

import shutil
from typing import Any

import numpy as np

from builders.broken.cases import Damage, StoreCase, each, steps
from builders.broken.night import Night


def _write(path: Any, text: str) -> None:
    path.write_text(text)


def _calibrated_otherwise(n: Night) -> None:
    from gpucal import main

    line = ["calibrate", str(n.l0), str(n.out), "--atmosphere", str(n.table), "--quiet"]
    assert main([*line, "--scans", "2", "--dtype", "f32"]) == 0


def _config(text: str) -> Damage:
    def damage(n: Night) -> tuple[str, str]:
        path = n.folder / "night.toml"
        path.write_text(text)
        return ("--config", str(path))

    return damage


def _table(**changes: Any) -> Damage:
    """Change columns of the table; None removes one."""

    def damage(n: Night) -> None:
        with np.load(n.table) as stored:
            columns = {**dict(stored), **changes}
        np.savez(n.table, **{k: v for k, v in columns.items() if v is not None})

    return damage


def _hole_in_table(n: Night) -> None:
    with np.load(n.table) as stored:
        columns = dict(stored)
    columns["b"][5] = np.nan
    np.savez(n.table, **columns)


def _unknown_site(n: Night) -> tuple[str, str]:
    n.set_attrs(n.l0, telescope="Backyard", site={"lat_deg": 50.0, "lon_deg": 7.0, "alt_m": 60.0})
    return ("--atmosphere", "auto")


STORE = (
    StoreCase("store missing", lambda n: shutil.rmtree(n.l0), ("l0.zarr does not exist",)),
    StoreCase(
        "store is a file",
        steps(lambda n: shutil.rmtree(n.l0), lambda n: _write(n.l0, "text")),
        ("l0.zarr is a file", "expected an L0 store"),
        hint="An L0 store is a folder",
    ),
    StoreCase(
        "store without document",
        lambda n: (n.l0 / "zarr.json").unlink(),
        ("l0.zarr is not a Zarr group",),
        hint="zarr.json or .zgroup",
    ),
    StoreCase(
        "store document broken",
        lambda n: _write(n.l0 / "zarr.json", '{"zarr_format": 3'),
        ("l0.zarr", "zarr.json", "not valid JSON"),
        hint="Restore it from a copy",
    ),
    StoreCase(
        "store of a newer format",
        lambda n: n.set_attrs(n.l0, format_version=99),
        ("format_version 99", "reads up to 1"),
        hint="Update gpucal",
    ),
    StoreCase(
        "store already calibrated",
        lambda n: n.set_attrs(n.l0, format="gpucal-l1"),
        ("format 'gpucal-l1'", "expected 'gpucal-l0'"),
        hint="raw counts",
    ),
    StoreCase(
        "store without scans",
        each(lambda n, number: n.remove(number, ""), 1, 2, 3),
        ("l0.zarr holds no scan at all", "nothing to calibrate"),
        hint="gpucal inspect",
    ),
    StoreCase(
        "output is a file",
        lambda n: _write(n.out, "text"),
        ("l1.zarr is a file", "expected a directory"),
        hint="Choose another output",
    ),
    StoreCase(
        "output holds other files",
        steps(lambda n: n.out.mkdir(), lambda n: _write(n.out / "notes.txt", "text")),
        ("l1.zarr holds other files",),
        hint="Choose another output",
    ),
    StoreCase(
        "output is a raw store",
        lambda n: shutil.copytree(n.l0, n.out),
        ("l1.zarr has the format 'gpucal-l0'", "expected 'gpucal-l1'"),
        hint="Choose another output",
    ),
    StoreCase(
        "output document broken",
        steps(lambda n: n.out.mkdir(), lambda n: _write(n.out / "zarr.json", "{")),
        ("l1.zarr has no readable zarr.json",),
        hint="Choose another output",
    ),
    StoreCase(
        "output below a file",
        lambda n: _write(n.folder / "l1.zarr.staging", "text"),
        ("l1.zarr cannot be written", "staging"),
    ),
    StoreCase(
        "table missing",
        lambda n: n.table.unlink(),
        ("no atmosphere table", "table.npz"),
        hint="iram_30m",
    ),
    StoreCase(
        "table is text",
        lambda n: _write(n.table, "230 0.1\n231 0.1\n"),
        ("table.npz is not a .npz file",),
        hint="gpucal atm import",
    ),
    StoreCase(
        "table of an unknown kind",
        lambda n: ("--atmosphere", str(n.table.rename(n.folder / "table.dat"))),
        ("table.dat is neither a .npz file nor a .zarr directory",),
    ),
    StoreCase("table with a hole", _hole_in_table, ("table.npz: b[5] is nan", "finite number")),
    StoreCase("table without water", _table(b=None), ("table.npz has no b", "freq_hz, b, c_dry")),
    StoreCase(
        "table of words", _table(b=np.array(["wet"] * 4)), ("table.npz: b does not hold numbers",)
    ),
    StoreCase(
        "site without a table",
        _unknown_site,
        ("no packaged atmosphere table fits", "Backyard", "60 m", "iram_30m is for 2850 m"),
        hint="--tau 0.1",
    ),
    StoreCase(
        "configuration broken",
        _config("t_hot = = 3"),
        ("night.toml is not valid TOML", "line 1"),
        code=64,
    ),
    StoreCase(
        "configuration missing",
        lambda n: ("--config", str(n.folder / "none.toml")),
        ("none.toml cannot be read", "No such file"),
        code=64,
    ),
    StoreCase(
        "option that does not exist",
        _config("t_hott = 290.0"),
        ("'t_hott' does not exist",),
        code=64,
        hint="gpucal calibrate --help",
    ),
    StoreCase(
        "option of a wrong value",
        _config('mode = "raster"'),
        ("mode is 'raster'", "expected auto", "otf-chopped"),
        code=64,
        hint="gpucal calibrate --help",
    ),
    StoreCase(
        "option of a wrong type",
        _config('f_eff = "high"'),
        ("f_eff is 'high'", "expected a number above 0 and at most 1"),
        code=64,
        hint="gpucal calibrate --help",
    ),
    StoreCase(
        "codec unknown",
        lambda n: ("--codec", "bzip2"),
        ("codec is 'bzip2'", "expected zstd:LEVEL"),
        code=64,
    ),
    StoreCase(
        "list of scans",
        lambda n: ("--scans", "one"),
        ("scans is 'one'", "1,5-9"),
        code=64,
    ),
    StoreCase(
        "load temperatures swapped by options",
        lambda n: ("--t-hot", "80", "--t-cold", "290"),
        ("t_hot is 80.0 K, not above t_cold, 290.0 K",),
        code=64,
    ),
    StoreCase(
        "scan there with another configuration",
        _calibrated_otherwise,
        ("scan 2 of ", "exists with other settings (differences: ", "nothing was changed"),
        code=64,
        hint="Use --overwrite",
    ),
)
