"""``gpucal flag``: what it says, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from builders.night_stores import fast_folder
from builders.synthetic_l1 import write_l1

from gpucal import Flag, main

SHAPE = (32, 4, 2, 3, 3)


def flagged(store: Path) -> int:
    values: Any = zarr.open_group(store, mode="r")["scan_000005/flags"]
    return int(np.count_nonzero(np.asarray(values[...]) & int(Flag.MANUAL)))


def test_flag_list_and_undo(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with fast_folder(tmp_path) as folder:
        store = write_l1(folder / "l1.zarr", (5, 6), SHAPE)
        given = ["--scan", "5", "--receiver", "1", "--pixel", "0-1", "--channels", "3:4"]
        assert main(["flag", str(store), *given, "--subscan", "2", "--reason", "spur"]) == 0
        said = capsys.readouterr().out
        assert "rule 1: scan 5, receiver 1, pixel 0-1, subscan 2, channel 3-4: 16 samples" in said
        assert f"undo: gpucal flag {store} --undo 1" in said
        assert flagged(store) == 16
        assert main(["flag", str(store), "--dumps", "0", "--reason", "moving"]) == 0
        capsys.readouterr()
        assert main(["flag", str(store), "--list"]) == 0
        head, one, two = capsys.readouterr().out.rstrip().splitlines()
        assert head.split()[:3] == ["id", "when", "(UTC)"]
        assert one.split()[0] == "1"
        assert one.rstrip().endswith("spur")
        assert "5-6" in two
        assert "dump 0" in two
        assert main(["flag", str(store), "--undo", "last"]) == 0
        assert "rule 2 taken back: scan 5-6, dump 0 (moving)" in capsys.readouterr().out
        assert main(["flag", str(store), "--undo", "1"]) == 0
        assert flagged(store) == 0
        capsys.readouterr()
        assert main(["flag", str(store), "--list"]) == 0
        assert "nothing is flagged by hand" in capsys.readouterr().out


def test_rules_of_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with fast_folder(tmp_path) as folder:
        store = write_l1(folder / "l1.zarr", (5,), SHAPE)
        rules = folder / "rules.toml"
        rules.write_text(
            '[[flag]]\nscans = 5\npixels = 1\nreason = "dead"\n'
            '[[flag]]\npixels = 8\nreason = "another array"\n'
        )
        assert main(["flag", str(store), "--rules", str(rules)]) == 0
        streams = capsys.readouterr()
        assert "(another array): there is no pixel 8, only 0 to 2" in streams.err
        assert flagged(store) == 32 * 4 * 2 * 3


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        ([], 64, "nothing is asked for"),
        (["--list", "--undo", "last"], 64, "exclude each other"),
        (["--pixel", "1"], 64, "a flag needs a reason"),
        (["--reason", "spur"], 64, "would flag the whole store"),
        (["--pixel", "1", "--reason", "x", "--scan", "9"], 1, "has no scan 9"),
        (["--pixel", "7", "--reason", "x", "--scan", "5"], 1, "scan 5: there is no pixel 7"),
        (["--channels", "1:2:3", "--reason", "x"], 64, "channels is '1:2:3', expected"),
        (["--undo", "4"], 1, "no flag rule 4"),
        (["--rules", "none.toml"], 64, "none.toml cannot be read"),
    ],
)
def test_what_is_refused_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], args: list[str], code: int, said: str
) -> None:
    store = write_l1(tmp_path / "l1.zarr", (5,), SHAPE)
    assert main(["flag", str(store), *args]) == code
    streams = capsys.readouterr()
    assert streams.out == ""
    assert streams.err.startswith("gpucal: error: ")
    assert said in streams.err
    assert streams.err.count("\n") == 1
    assert flagged(store) == 0
