"""The example for instrument teams runs as it stands, and its tables name what the reader knows."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from builders.groups import loads_of, source_of

from gpucal import open_l0
from gpucal.axes import CAL_MODES, SOURCE_MODES
from gpucal.io.l0.schema import ARRAYS, ScanAttrs

PAGE = (Path(__file__).parents[3] / "docs" / "reference" / "l0.md").read_text(encoding="utf-8")


def test_the_examples_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    at_once, by_subscan = re.findall(r"```python\n(.*?)```", PAGE, flags=re.S)
    space: dict[str, Any] = {}
    exec(compile(at_once, "l0.md", "exec"), space)
    assert capsys.readouterr().out == "(512, 4, 1, 64)\n"
    exec(compile(by_subscan, "l0.md", "exec"), space)
    assert capsys.readouterr().out == "[25650, 25651]\n"
    (scan,) = open_l0(tmp_path / "night.zarr").load(25651)
    assert loads_of(scan).sobsmode == ("HOT", "COLD")
    assert source_of(scan).sobsmode == ("OFF", "ON", "OFF")


def test_the_tables_are_complete() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("| `")]
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row.split("|")[1])}
    assert named == {*ARRAYS, "sobsmode"}
    for mode in SOURCE_MODES | CAL_MODES:
        assert mode in PAGE
    for attribute in ScanAttrs.model_fields:
        assert f"`{attribute}`" in PAGE
