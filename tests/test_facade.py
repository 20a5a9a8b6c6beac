"""What ``import gpucal`` offers: all of it documented, all that a document uses, and loaded late."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

import gpucal

ROOT = Path(__file__).resolve().parent.parent
SUBMODULES = {"errors", "plot", "procedures", "simulate"}
NAMES = sorted(set(gpucal.__all__) - {"__version__"})
DOCUMENTS = sorted(
    path
    for path in [ROOT / "README.md", *(ROOT / "docs").rglob("*")]
    if (path.suffix == ".md" or path.parent.name == "tutorials")
    and path.suffix in (".md", ".py")
    and "explanation" not in path.parts
    and not path.name.startswith("add_a")
)
"""What users read. Pages for those who change gpucal name its inside, too."""

API = ROOT / "docs" / "reference" / "api.md"


def uses(text: str) -> set[str]:
    """Dotted names ``gpucal.x.y`` of a document."""
    return set(re.findall(r"(?<![\w/.-])gpucal\.([A-Za-z_][\w.]*\w)", text))


def complaints(text: str) -> list[str]:
    """Names that a document uses and that are not public; imports from private places."""
    found = []
    for name in sorted(uses(text)):
        first, _, rest = name.partition(".")
        if first in SUBMODULES and rest:
            public = import_module(f"gpucal.{first}")
            if not hasattr(public, rest.split(".")[0]):
                found.append(f"gpucal.{name} does not exist")
        elif first not in SUBMODULES | set(gpucal.__all__):
            found.append(f"gpucal.{name} is not public")
    for module, names in re.findall(r"from (gpucal[\w.]*) import ([\w, ]+)", text):
        if module not in ("gpucal", *(f"gpucal.{name}" for name in SUBMODULES)):
            found.append(f"import from {module}")
            continue
        place = import_module(module)
        found += [
            f"{module}.{name} does not exist"
            for name in names.replace(" ", "").split(",")
            if not hasattr(place, name)
        ]
    return found


@pytest.mark.parametrize("name", NAMES)
def test_a_public_name_is_documented(name: str) -> None:
    text = inspect.getdoc(getattr(gpucal, name))
    assert text, f"{name} has no docstring"
    first = text.split("\n\n")[0]
    assert first[0].isupper() or first.startswith("``"), first
    assert first.rstrip().endswith((".", ":")), first
    assert len(first) < 200, first


@pytest.mark.parametrize("name", [n for n in NAMES if inspect.isfunction(getattr(gpucal, n))])
def test_a_function_tells_what_its_parameters_are(name: str) -> None:
    """The types are in the signature; what they mean is in the docstring where the name does not say."""
    function = getattr(gpucal, name)
    assert not [
        p for p in inspect.signature(function).parameters.values() if p.annotation is p.empty
    ]
    assert function.__annotations__.get("return"), f"{name} does not say what it returns"


def test_what_dir_shows() -> None:
    assert set(dir(gpucal)) == set(gpucal.__all__) | SUBMODULES
    assert not [n for n in dir(gpucal) if n.startswith("_") and n != "__version__"]


def test_submodules_load_when_asked_for() -> None:
    for name in SUBMODULES:
        assert getattr(gpucal, name) is import_module(f"gpucal.{name}")
    with pytest.raises(AttributeError, match="module 'gpucal' has no attribute 'nothing'"):
        gpucal.nothing  # noqa: B018


def test_type_checkers_see_the_same_names() -> None:
    """The block for type checkers and the table that is used when running agree."""
    tree = ast.parse((ROOT / "gpucal" / "__init__.py").read_text(encoding="utf-8"))
    (block,) = [
        node
        for node in tree.body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    ]
    seen = {}
    for node in block.body:
        assert isinstance(node, ast.ImportFrom)
        for alias in node.names:
            assert alias.asname == alias.name  # "x as x" is what makes it public
            seen[alias.name] = node.module
    (table,) = [
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "_WHERE"
    ]
    assert seen == {name: module for module, names in table.items() for name in names}
    assert sorted(seen) == NAMES


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_documents_use_public_names(path: Path) -> None:
    assert complaints(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "text",
    [
        "from gpucal.io.l0.store import open_l0",
        "`gpucal.io.atmosphere.tables.save_table`",
        "gpucal.open_everything(x)",
        "from gpucal.simulate import nothing_of_that_name",
        "gpucal.plot.nothing_of_that_name()",
    ],
)
def test_private_names_are_found(text: str) -> None:
    assert complaints(text)


def test_the_page_of_public_names_is_complete() -> None:
    listed = re.findall(r"^::: gpucal\.(\w+)$", API.read_text(encoding="utf-8"), flags=re.M)
    assert sorted(listed) == NAMES
    assert len(listed) == len(set(listed))


def test_import_stays_light() -> None:
    """Nothing heavier than the standard library is loaded, and no module of the program itself."""
    code = "import gpucal, sys; dir(gpucal); print(*sys.modules)"
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    loaded = set(run.stdout.split())
    assert not {m for m in loaded if m.split(".")[0] in ("numpy", "zarr", "scipy", "pydantic")}
    assert {m for m in loaded if m.startswith("gpucal")} == {"gpucal", "gpucal.version"}


def test_the_wheel_says_that_it_is_typed() -> None:
    """Hatch packs every file of the listed packages, so py.typed as long as nothing leaves it out."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert (ROOT / "gpucal" / "py.typed").is_file()
    assert "gpucal" in wheel["packages"]
    assert not {"exclude", "include", "only-include"} & set(wheel)
    ignored = ROOT / ".gitignore"
    if ignored.exists():
        assert "py.typed" not in ignored.read_text(encoding="utf-8")
