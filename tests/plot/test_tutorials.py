"""The tutorials run as plain Python, and the pages made from them are those of the scripts."""

from __future__ import annotations

import importlib
import re
import runpy
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"
SCRIPTS = sorted((DOCS / "tutorials").glob("*.py"))


@pytest.mark.slow
@pytest.mark.filterwarnings("default:::astropy")
def test_night(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    space = runpy.run_path(str(DOCS / "tutorials" / "night.py"))
    assert space["many"] < 0.05 * space["one"]
    assert len(space["files"]) == len(set(space["files"])) > 10
    assert "bias of the mean" in capsys.readouterr().out


@pytest.mark.realdata
@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_gbt(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    realdata: Path,
) -> None:
    pytest.importorskip("specutils")
    monkeypatch.setenv("GPUCAL_REALDATA", str(realdata.resolve()))
    monkeypatch.chdir(tmp_path)
    space = runpy.run_path(str(DOCS / "tutorials" / "gbt.py"))
    assert space["velocity"][space["peak"]] == pytest.approx(-2.94, abs=0.05)
    assert "T_sys* = 234.340 K" in capsys.readouterr().out


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda p: p.stem)
def test_page_belongs_to_the_script(script: Path) -> None:
    """The page holds the code and the text of today's script; its pictures are there and small."""
    sys.path.insert(0, str(DOCS))
    try:
        build_tutorials = importlib.import_module("build_tutorials")
    finally:
        sys.path.remove(str(DOCS))
    page = script.with_suffix(".md").read_text(encoding="utf-8")
    kinds = []
    for kind, content in build_tutorials.cells(script.read_text(encoding="utf-8")):
        kinds.append(kind)
        if kind == "code":
            assert f"```python\n{content}\n```" in page
        else:
            moved = build_tutorials.PICTURE.sub(rf"](../pictures/{script.stem}_\1.png)", content)
            assert moved in page
    assert kinds.count("code") == page.count("```python")
    pictures = re.findall(r"\]\(\.\./pictures/(\w+\.png)\)", page)
    assert pictures
    for name in pictures:
        assert 5000 < (DOCS / "pictures" / name).stat().st_size <= build_tutorials.LARGEST


def test_pictures_are_small_together() -> None:
    total = sum(p.stat().st_size for p in (DOCS / "pictures").glob("*.png"))
    assert total < 1_500_000
