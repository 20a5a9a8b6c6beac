"""The example for instrument teams runs as it stands, and its tables name what the reader knows."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gpucal.axes import CAL_MODES, SOURCE_MODES
from gpucal.io.l0.schema import ARRAYS, ScanAttrs

PAGE = (Path(__file__).parents[3] / "docs" / "l0.md").read_text(encoding="utf-8")


def test_the_example_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.S)
    exec(compile(code, "l0.md", "exec"), {})
    assert capsys.readouterr().out == "(512, 4, 1, 64)\n"


def test_the_tables_are_complete() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("| `")]
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row.split("|")[1])}
    assert named == {*ARRAYS, "sobsmode"}
    for mode in SOURCE_MODES | CAL_MODES:
        assert mode in PAGE
    for attribute in ScanAttrs.model_fields:
        assert f"`{attribute}`" in PAGE
