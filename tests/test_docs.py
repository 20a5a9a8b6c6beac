"""The documents against the code and each other: citations, links, navigation, names, options, examples."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gpucal import CalibrationConfig, main, open_l1

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PHYSICS = DOCS / "reference" / "physics.md"
ROOMS = ("gpucal", "cpu_fallback", "tests", "bench", "scripts")

TOP = [p for name in ("README", "CONTRIBUTING", "SECURITY") if (p := ROOT / f"{name}.md").exists()]
PAGES = sorted(DOCS.rglob("*.md"))


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


# --- citations of the physics page -----------------------------------------------------------------

_NUMBER = r"\d+(?:\.\d+)*(?!\w)"
_REMARK = r"(?:\s\([^()]*\))?"
_LIST = rf"{_NUMBER}{_REMARK}(?:(?:\s?,\s(?:and\s)?|\sand\s|\sto\s|\s?[-–]\s?){_NUMBER}{_REMARK})*"
_SECTIONS = re.compile(rf"\bphysics(?:\spage)?,?\s(?:sections?\s)?({_LIST})", re.IGNORECASE)
_OWN_SECTIONS = re.compile(rf"\bsections?\s({_LIST})", re.IGNORECASE)
_EQUATIONS = re.compile(
    r"\bequations?\s(\(\d+\.\d+\w?\)(?:(?:\s?,\s|\sand\s|\sto\s|\s?[-–]\s?)\(\d+\.\d+\w?\))*)",
    re.IGNORECASE,
)
PHYSICS_ROOMS = ("tests/oracle/",)
"""Written from the physics page alone: each "section N" there is one of it."""


def numbers(text: str) -> list[str]:
    """The sections of a list such as "2, 3 to 5 and 9"; ranges are filled in."""
    bare = re.sub(r"\([^()]*\)", "", text)
    found: list[str] = []
    for part in re.split(r",\s(?:and\s)?|\sand\s", bare):
        ends = re.findall(_NUMBER, part)
        if len(ends) == 2 and all(end.isdigit() for end in ends):
            found += [str(n) for n in range(int(ends[0]), int(ends[1]) + 1)]
        else:
            found += ends
    return found


def citations(text: str, *, own: bool = False) -> list[str]:
    """Sections ("5", "5.2") and equations ("(5.1)") of the physics page that a source file cites.

    own: every "section N" counts, also without the word physics.
    """
    flat = re.sub(r"\s*\n\s*(?:#\s)?\s*", " ", text)
    found = [n for listed in _SECTIONS.findall(flat) for n in numbers(listed)]
    if own:
        found += [n for listed in _OWN_SECTIONS.findall(flat) for n in numbers(listed)]
    for listed in _EQUATIONS.findall(flat):
        found += re.findall(r"\(\d+\.\d+\w?\)", listed)
    return found


def labels(page: str) -> set[str]:
    """What can be cited: numbers of headings, and labels of equations in brackets."""
    headings = re.findall(rf"^#+\s({_NUMBER})\.?\s", page, re.MULTILINE)
    return {*headings, *re.findall(r"\([1-9]\d*\.\d+\w?\)", page)}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("T_rec; physics section 4.", ["4"]),
        ("(physics sections 2, 3, 5 and 9)", ["2", "3", "5", "9"]),
        ("physics sections 1-3, 5)", ["1", "2", "3", "5"]),
        ("of the physics page, sections 4 to 6.", ["4", "5", "6"]),
        ("physics sections 4 (loads),\n    5 (atmosphere) and 7 (ref.)", ["4", "5", "7"]),
        ("# as in physics\n# section 8.", ["8"]),
        ("see physics 5.2 and equation (5.3)", ["5.2", "(5.3)"]),
        ("equations (4.1), (4.2) and\n    (4.5)", ["(4.1)", "(4.2)", "(4.5)"]),
        ("FITS standard 4.0, section 7.3; the equation of Kramer (1997)", []),
        ("gpucal.physics.atm, 3 times; Methods of Experimental Physics 12C, 277", []),
    ],
)
def test_citations_are_recognised(text: str, found: list[str]) -> None:
    assert citations(text) == found


def test_a_citation_of_nothing_is_noticed() -> None:
    page = "# Physics\n\n## 5 Sky model\n\n    S = J    (5.1)\n\n### 5.2 Airmass\n"
    assert labels(page) == {"5", "5.2", "(5.1)"}
    good = '"""Emission of the sky, physics section 5, equation (5.1)."""'
    bad = '"""Emission of the sky, physics sections 5 and 12, equation (5.9)."""'
    assert set(citations(good)) <= labels(page)
    assert set(citations(bad)) - labels(page) == {"12", "(5.9)"}
    assert set(citations("Section 13: by hand.", own=True)) - labels(page) == {"13"}


def test_every_citation_of_the_physics_page_resolves() -> None:
    known = labels(PHYSICS.read_text("utf-8"))
    problems, count = [], 0
    for path in (p for room in ROOMS for p in sorted((ROOT / room).rglob("*"))):
        if (
            path.suffix not in (".py", ".md", ".cu", "")
            or not path.is_file()
            or path == Path(__file__)
        ):
            continue
        name = name_of(path)
        cited = citations(path.read_text("utf-8"), own=name.startswith(PHYSICS_ROOMS))
        count += len(cited)
        problems += [f"{name}: physics {n}" for n in cited if n not in known]
    assert problems == []
    assert count > 60


def unanchored(page: str) -> set[str]:
    """Labels of equations without an anchor "eq-5-1", and anchors without a label."""
    shown = {n.strip("()").replace(".", "-") for n in labels(page) if n.startswith("(")}
    return shown ^ set(re.findall(r'<a id="eq-([\d-]+)"></a>', page))


def test_every_equation_has_an_anchor() -> None:
    assert unanchored(
        '## 5 Sky<a id="eq-5-1"></a><a id="eq-5-3"></a>\n\n    S = J  (5.1)\n    t  (5.2)\n'
    ) == {
        *("5-2", "5-3"),
    }
    assert unanchored(PHYSICS.read_text("utf-8")) == set()


# --- links and pictures ----------------------------------------------------------------------------


def prose(text: str) -> str:
    """A page without code: fences, indented blocks after an empty line, and code spans."""
    text = re.sub(r"^( *)(```|~~~).*?^\1\2\s*$", "", text, flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"(?<=\n)\n(?: {4}.*\n|\n)+", "\n\n", text)
    return re.sub(r"`[^`\n]+`", "`code`", text)


def links(text: str) -> list[str]:
    """Targets of the links and pictures of a page that lead to files or headings."""
    found = re.findall(r"\]\(\s*<?([^)\s>]+)", prose(text))
    found += re.findall(r"<(?:img|a)\s[^>]*?(?:src|href)=\"([^\"]+)\"", prose(text))
    return [target for target in found if not re.match(r"(https?|mailto):", target)]


def slug(heading: str) -> str:
    """The anchor of a heading, as Python-Markdown makes it (plain titles: as GitHub does)."""
    plain = re.sub(r"[`*]|\\", "", re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading))
    plain = unicodedata.normalize("NFKD", plain).encode("ascii", "ignore").decode()
    return re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", plain).strip().lower())


def anchors(text: str) -> set[str]:
    """All anchors of a page; an object of an API page has its dotted name."""
    bare = re.sub(r"^(```|~~~).*?^\1\s*$", "", text, flags=re.MULTILINE | re.DOTALL)
    found: set[str] = set(re.findall(r"<a\s+(?:id|name)=\"([^\"]+)\"", bare))
    found |= set(re.findall(r"\{[^}\n]*#([\w.-]+)[^}\n]*\}", bare))
    found |= set(re.findall(r"^::: ([\w.]+)", bare, re.MULTILINE))
    for heading in re.findall(r"^#+ +(.+?)(?: *\{[^}]*\})? *#*$", bare, re.MULTILINE):
        own, n = slug(heading), 0
        while (own if not n else f"{own}_{n}") in found:
            n += 1
        found.add(own if not n else f"{own}_{n}")
    return found


def broken(page: Path, text: str) -> Iterator[str]:
    """Links of a page that lead nowhere."""
    for target in links(text):
        path, _, anchor = target.partition("#")
        place = (page.parent / path).resolve() if path else page
        if path and not place.exists():
            yield target
        elif DOCS in page.parents and DOCS not in place.parents:
            yield f"{target} (not in the site)"
        elif anchor and place.suffix == ".md":
            found = anchors(place.read_text("utf-8") if path else text)
            if anchor not in found:
                yield target


def test_broken_links_are_noticed() -> None:
    page = DOCS / "reference" / "made_up.md"
    text = (
        "# Title\n\n## What is `gpucal atm`?\n\n[a](cli.md) [b](#what-is-gpucal-atm) [c](l0.md#arrays)\n"
        "[d](gone.md) ![e](../pictures/gone.png) [f](#nowhere) [g](cli.md#nowhere) [h](../../README.md)\n"
        "\n    [code](gone.md)\n\n`[code](gone.md)` [out](https://example.org/x)\n"
    )
    assert list(broken(page, text)) == [
        *("gone.md", "../pictures/gone.png", "#nowhere", "cli.md#nowhere"),
        "../../README.md (not in the site)",
    ]


@pytest.mark.parametrize("page", [*TOP, *PAGES], ids=name_of)
def test_links_and_pictures_resolve(page: Path) -> None:
    assert list(broken(page, page.read_text("utf-8"))) == []


def test_the_navigation_lists_every_page_once() -> None:
    nav = (ROOT / "mkdocs.yml").read_text("utf-8").partition("\nnav:\n")[2]
    listed = re.findall(r"(?:^|\s)([\w/.-]+\.md)\s*$", nav, re.MULTILINE)
    assert sorted(listed) == sorted(p.relative_to(DOCS).as_posix() for p in PAGES)


# --- names of the code -----------------------------------------------------------------------------

_PATH = re.compile(
    rf"(?<![\w./-])(?:{'|'.join((*ROOMS, 'docs'))})/(?:[\w-]+/)*[\w-]*"
    r"(?:\.(?:py|md|npz|toml|cuh?|jsonl?|service|sh|png|svg|h))?(?![\w*-])"
)
_DOTTED = re.compile(r"(?<![\w./-])gpucal(?:\.[A-Za-z_]\w*)+")
NOT_NAMES = re.compile(r"gpucal\.(db|zarr|toml|json)$")


def names(text: str) -> set[str]:
    """Paths of the repository and dotted names of the package that a document mentions."""
    paths = {m.rstrip("/") for m in _PATH.findall(text) if not re.search(r"/NAME\b", m)}
    return paths | {m for m in _DOTTED.findall(text) if not NOT_NAMES.match(m)}


def exists(name: str) -> bool:
    """Whether a path, a module, or something in a module is there."""
    if "/" in name:
        return (ROOT / name).exists()
    parts = name.split(".")
    size = len(parts)
    while size > 1 and not (
        (ROOT / "/".join(parts[:size])).is_dir()
        or (ROOT / ("/".join(parts[:size]) + ".py")).is_file()
    ):
        size -= 1
    if size == len(parts):
        return True
    thing: Any = importlib.import_module(".".join(parts[:size]))
    for part in parts[size:]:
        if part not in getattr(thing, "model_fields", {}) and not hasattr(thing, part):
            return False
        thing = getattr(thing, part, None)
    return True


def test_names_that_are_gone_are_noticed() -> None:
    text = "`gpucal/io/l0/write.py`, gpucal.open_l0(x), gpucal.io.l0.gone, `gpucal/gone.py` in gpucal/io/NAME/"
    assert names(text) == {
        *("gpucal/io/l0/write.py", "gpucal.open_l0", "gpucal.io.l0.gone", "gpucal/gone.py"),
    }
    assert {n for n in names(text) if not exists(n)} == {"gpucal.io.l0.gone", "gpucal/gone.py"}


@pytest.mark.parametrize("page", [*TOP, *PAGES], ids=name_of)
def test_what_a_document_names_exists(page: Path) -> None:
    assert [n for n in sorted(names(page.read_text("utf-8"))) if not exists(n)] == []


# --- what is generated, and what can be run --------------------------------------------------------


def test_the_page_of_options_is_that_of_the_program() -> None:
    page = (DOCS / "reference" / "options.md").read_text("utf-8")
    assert page == script("build_options").build(), "run: python docs/build_options.py"
    for field in CalibrationConfig.model_fields:
        assert page.count(f"| `{field.replace('_', '-')}` |") == 1


@pytest.mark.parametrize("name", ["add_a_raw_format", "add_an_export"])
def test_the_examples_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = (DOCS / "how-to" / f"{name}.md").read_text("utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 2
    exec(compile("\n".join(blocks), f"{name}.md", "exec"), {"__name__": name})


def test_the_example_of_the_l0_page_calibrates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Pasted from the page as it stands, block after block, then the commands below it."""
    monkeypatch.chdir(tmp_path)
    text = (DOCS / "reference" / "l0.md").read_text("utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    exec(compile("\n".join(blocks), "l0.md", "exec"), {"__name__": "pasted"})
    lines = re.findall(r"^    gpucal (.*)$", text, re.MULTILINE)
    assert lines == ["inspect night.zarr", "calibrate night.zarr l1.zarr"]
    for line in lines:
        assert main(line.split()) == 0
    said = capsys.readouterr().out
    assert "problem" not in said
    assert "2 calibrated, 0 skipped, 0 failed" in said
    scan = open_l1("l1.zarr")[25650]
    assert 100 < float(scan.attrs["qa"]["t_rec_median"]) < 200
    assert float(scan.attrs["qa"]["flagged_fraction"]) == 0


# --- pages that follow the code --------------------------------------------------------------------


def script(name: str) -> Any:
    """A script of docs/ as a module."""
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_picture_of_the_rooms_is_that_of_the_packages() -> None:
    drawn = script("draw_rooms")
    assert drawn.PICTURE.read_text("utf-8") == drawn.picture()


def defined_names() -> set[str]:
    """Names of all functions and classes of the package."""
    return {
        node.name
        for room in ("gpucal", "cpu_fallback")
        for path in (ROOT / room).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    }


def test_the_code_that_the_physics_page_names_exists() -> None:
    page = PHYSICS.read_text("utf-8")
    parts = re.findall(r"^Code: (.*?)\.\sTests:", page, re.MULTILINE | re.DOTALL)
    assert len(parts) == len(re.findall(r"^## \d+ ", page, re.MULTILINE))
    named = {name for part in parts for name in re.findall(r"`(\w+)`", part)}
    kernels = {"calibrate", "reference", "fold", "chi2", "dump_mean"}
    assert len(named) > 40
    assert named - defined_names() - kernels == set()


def named_tests(page: str) -> set[str]:
    """Names of tests that a page mentions."""
    return set(re.findall(r"`(test_\w+)`", page))


def test_every_promise_names_its_tests_and_they_exist() -> None:
    page = (DOCS / "reference" / "guarantees.md").read_text("utf-8")
    there = {
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"^def (test_\w+)", path.read_text("utf-8"), re.MULTILINE)
    }
    assert named_tests(page) - there == set()
    promised = page.partition("## What is not")[0]
    points = re.split(r"\n(?=- |\| (?!-))", promised.partition("\n- ")[2])
    without = [p for p in points if not named_tests(p) and "| how it ends |" not in p]
    assert without == []
    assert len(points) > 15
