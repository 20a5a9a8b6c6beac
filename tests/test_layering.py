"""The rules of the house, read from the source: layers, lazy packages, sizes, documentation.

Every rule is a function from source text to a list of complaints, tried on bad snippets too.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import gpucal

ROOT = Path(__file__).resolve().parent.parent
MAX_LINES, MAX_FUNCTION, MAX_PARAMETERS, MAX_MODULES = 400, 60, 10, 14

BASE = frozenset(
    {
        "axes",
        "errors",
        "option_model",
        "option_texts",
        "option_values",
        "config",
        "scan",
        "scan_numbers",
        "products",
        "spectrum",
        "version",
        "notebook",
    }
)
"""Modules directly below gpucal/ that hold values only; every room may use them."""

ALLOWED: dict[str, frozenset[str]] = {
    "physics": frozenset(),
    "kernel_contract": frozenset(),
    "kernels": frozenset({"kernel_contract"}),
    "backend": frozenset({"kernels", "kernel_contract"}),
    "modes": frozenset({"physics", "backend", "kernel_contract"}),
    "steps": frozenset({"modes", "physics", "backend", "kernel_contract"}),
    "procedures": frozenset({"physics", "steps", "backend"}),
    "io": frozenset({"physics"}),
    "pipeline": frozenset({"steps", "modes", "procedures", "physics", "backend", "io"}),
    "plot": frozenset({"physics", "io"}),
    "simulate": frozenset({"physics", "io"}),
    "compare": frozenset({"physics", "io", "plot", "export"}),
    "export": frozenset({"physics", "io"}),
    "calibrated_scan": frozenset(
        {"pipeline", "steps", "physics", "backend", "io", "plot", "export"}
    ),
    "online": frozenset({"pipeline", "procedures", "physics", "backend", "io", "plot", "export"}),
}
"""Which rooms a room may import beside itself and BASE. gpucal/__init__ and cli may use all."""

FOR_CPU_FALLBACK = frozenset({"axes", "kernel_contract"})
"""What cpu_fallback may import of gpucal."""

PUBLIC_MODULES = frozenset({"gpucal.errors", "gpucal.plot", "gpucal.simulate"})
"""Modules below gpucal that users may import as such."""

GPU_PACKAGES = frozenset({"cupy", "cupyx", "cupy_backends", "kvikio", "nvidia"})
LAZY = ("cupy", "kvikio", "matplotlib", "astropy", "dask", "distributed", "xarray", "pyrtlib")
FORBIDDEN_NAMES = frozenset({"utils", "util", "common", "helpers", "helper", "manager", "misc"})

EXCEPTIONS: dict[str, str] = {
    "gpucal/cli/commands/flag.py:flag": "each parameter is one option of the command",
    "gpucal/cli/commands/import_/__init__.py:sam45": "each parameter is one option of the command",
    "gpucal/cli/commands/simulate.py:simulate": "each parameter is one option of the command",
    "gpucal/cli/commands/online/submit.py:submit": "each parameter is one option of the command",
}
"""``path:function`` -> the reason why a size rule does not hold there."""


def sources(*rooms: str) -> list[Path]:
    """Python files below the folders ``rooms`` of the repository; of docs/ also the pages."""
    patterns = [(room, "*.py") for room in rooms] + [
        (room, "*.md") for room in rooms if room == "docs"
    ]
    return sorted(p for room, pattern in patterns for p in (ROOT / room).rglob(pattern))


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imported_modules(text: str, path: str) -> Iterator[tuple[int, str]]:
    """(line, absolute dotted name) of every import, also inside functions.

    ``from a import b`` gives "a.b", since b may be a module.
    """
    package = path.removesuffix(".py").split("/")[:-1]
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else []
            stem = ".".join([*start, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{stem}.{alias.name}") for alias in node.names)


def room_of(path: str) -> str:
    """The room of a file of gpucal, or the module's name directly below gpucal/."""
    return path.split("/")[1].removesuffix(".py")


def check_layers(text: str, path: str) -> list[str]:
    """Imports of the package's own modules point one way."""
    problems = []
    for line, name in imported_modules(text, path):
        parts = name.split(".")
        if path.startswith("cpu_fallback/"):
            if parts[0] == "gpucal" and not set(parts[1:2]) & FOR_CPU_FALLBACK:
                allowed = ", ".join(sorted(FOR_CPU_FALLBACK))
                problems.append(
                    f"{path}:{line} imports {name}, of gpucal only {allowed} are allowed"
                )
            continue
        room = room_of(path)
        if parts[0] == "cpu_fallback" and room != "backend":
            problems.append(f"{path}:{line} imports {name}, only backend may")
        if parts[0] != "gpucal" or len(parts) == 1 or room in ("__init__", "cli"):
            continue
        target = parts[1]
        if not target.startswith("_"):
            room_rule = ALLOWED.get(room, frozenset()) | BASE | {room}
            if target not in room_rule:
                problems.append(f"{path}:{line} imports {name}, not allowed in {room}")
    return problems


def check_gpu_imports(text: str, path: str) -> list[str]:
    """CuPy, KvikIO and nvCOMP appear only where the GPU lives."""
    name = path.rsplit("/", 1)[-1]
    if path.startswith(("gpucal/backend/cuda", "gpucal/kernels/")) or re.search("gds|nvcomp", name):
        return []
    return [
        f"{path}:{line} imports {module}"
        for line, module in imported_modules(text, path)
        if module.split(".")[0] in GPU_PACKAGES
    ]


def check_public_imports(text: str, path: str) -> list[str]:
    """A public name is imported as users do, ``from gpucal import name``.

    Read from the text, so that pages and scripts inside of strings count too.
    """
    pattern = re.compile(r"(?:^[ \t]*|`)from (gpucal\.[\w.]+) import (\([^)]*\)|[^\n`;#]+)", re.M)
    return [
        f"{path} imports {name} from {match[1]}, take it from gpucal"
        for match in pattern.finditer(text)
        if match[1] not in PUBLIC_MODULES
        for name in re.findall(r"(?:^|[,(])\s*(\w+)", match[2])
        if name in gpucal.__all__
    ]


def functions(text: str) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """All functions and methods."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def body_length(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines from ``def`` to the end, without the docstring."""
    length = (node.end_lineno or node.lineno) - node.lineno + 1
    if ast.get_docstring(node, clean=False) is not None:
        first = node.body[0]
        length -= (first.end_lineno or first.lineno) - first.lineno + 1
    return length


def check_sizes(text: str, path: str) -> list[str]:
    """Modules, functions and signatures stay small."""
    problems = []
    lines = len(text.splitlines())
    if lines >= MAX_LINES and path not in EXCEPTIONS:
        problems.append(f"{path} has {lines} lines, fewer than {MAX_LINES} are allowed")
    for node in functions(text):
        if f"{path}:{node.name}" in EXCEPTIONS:
            continue
        place = f"{path}:{node.lineno} {node.name}"
        if body_length(node) >= MAX_FUNCTION:
            problems.append(f"{place} has {body_length(node)} lines, limit {MAX_FUNCTION}")
        a = node.args
        names = [x.arg for x in (*a.posonlyargs, *a.args, *a.kwonlyargs)]
        count = len([n for n in names if n not in ("self", "cls")])
        if count >= MAX_PARAMETERS:
            problems.append(f"{place} has {count} parameters, limit {MAX_PARAMETERS}")
    return problems


def check_documented(text: str, path: str) -> list[str]:
    """Modules, public classes and public functions say what they are."""
    tree = ast.parse(text)
    public = [
        node
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        and not node.name.startswith("_")
    ]
    missing = [] if ast.get_docstring(tree) else [f"{path} has no docstring"]
    return missing + [
        f"{path}:{node.lineno} {node.name} has no docstring"
        for node in public
        if not ast.get_docstring(node)
    ]


def check_finished(text: str, path: str) -> list[str]:
    """Nothing is left for later."""
    words = ("TO" + "DO", "FIX" + "ME", "X" * 3, "NotImplemented" + "Error")
    pattern = re.compile(r"\b(" + "|".join(words) + r")\b")
    return [
        f"{path}:{number} holds {match.group()}"
        for number, line in enumerate(text.splitlines(), 1)
        if (match := pattern.search(line))
    ]


def check_names(text: str, path: str) -> list[str]:
    """A module is called after the thing it decides."""
    stems = [part.removesuffix(".py") for part in path.split("/")]
    words = {word for stem in stems for word in stem.split("_")}
    return [f"{path}: {word!r} says nothing" for word in sorted(words & FORBIDDEN_NAMES)]


RECIPES = "Recipe|Difference|Interpolated|DumpPair|ChopCycles|NodBeams|PhaseDifference|BeamMerge"


def check_recipes_unasked(text: str, path: str) -> list[str]:
    """Nobody asks a recipe for its class: what a mode decides is a method of gpucal/modes."""
    if path.startswith("gpucal/modes/"):
        return []
    pattern = re.compile(rf"\b(isinstance\([^()]*\b({RECIPES})\b|case ({RECIPES})\()")
    return [
        f"{path}:{text[: match.start()].count(chr(10)) + 1} asks a recipe for its class"
        for match in pattern.finditer(text)
    ]


def module_name(path: str) -> str:
    """Dotted name of a file: "gpucal/io/__init__.py" is "gpucal.io"."""
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def import_edges(files: dict[str, str]) -> dict[str, set[str]]:
    """Module -> the modules of ``files`` that it imports, also inside functions and for types only.

    Each import counts for the most specific module that its name holds.
    """
    modules = {module_name(path) for path in files}
    edges: dict[str, set[str]] = {}
    for path, text in files.items():
        found = edges[module_name(path)] = set()
        for _, name in imported_modules(text, path):
            parts = name.split(".")
            stems = (".".join(parts[:n]) for n in range(len(parts), 0, -1))
            found |= {next((stem for stem in stems if stem in modules), "")}
        found -= {"", module_name(path)}
    return edges


def check_circles(files: dict[str, str]) -> list[str]:
    """No file imports itself through others."""
    edges = import_edges(files)
    reach: dict[str, set[str]] = {}
    for module in edges:
        seen, todo = set(), set(edges[module])
        while todo:
            target = todo.pop()
            seen.add(target)
            todo |= edges[target] - seen
        reach[module] = seen
    circles = {
        tuple(sorted(other for other in reach[module] if module in reach[other]))
        for module in edges
        if module in reach[module]
    }
    return [f"circle: {', '.join(circle)}" for circle in sorted(circles)]


def check_folders(files: dict[str, str]) -> list[str]:
    """A folder holds what a reader can take in at once."""
    fixed = ("__init__.py", "conftest.py")  # names that nobody chose
    places = (path.rpartition("/") for path in files)
    modules = Counter(folder for folder, _, name in places if name not in fixed)
    return [
        f"{folder} has {n} modules, at most {MAX_MODULES} are allowed"
        for folder, n in modules.items()
        if n > MAX_MODULES
    ]


Rule = Callable[[str, str], list[str]]

RULES: list[tuple[Rule, tuple[str, ...]]] = [
    (check_layers, ("gpucal", "cpu_fallback")),
    (check_gpu_imports, ("gpucal", "cpu_fallback", "bench")),
    (check_public_imports, ("tests", "bench", "docs")),
    (check_sizes, ("gpucal", "cpu_fallback", "bench", "scripts")),
    (check_documented, ("gpucal", "cpu_fallback", "bench", "scripts")),
    (check_recipes_unasked, ("gpucal", "bench", "scripts")),
    (check_finished, ("gpucal", "cpu_fallback", "bench", "scripts", "tests")),
    (check_names, ("gpucal", "cpu_fallback", "bench", "scripts", "tests")),
]


@pytest.mark.parametrize(("rule", "rooms"), RULES, ids=[r[0].__name__ for r in RULES])
def test_house_rule(rule: Rule, rooms: tuple[str, ...]) -> None:
    files = sources(*rooms)
    assert len(files) > 5
    problems = [p for f in files for p in rule(f.read_text(encoding="utf-8"), relative(f))]
    assert not problems, "\n".join(problems)


def texts(*rooms: str) -> dict[str, str]:
    """Path -> text of all files of the rooms."""
    return {relative(p): p.read_text(encoding="utf-8") for p in sources(*rooms)}


def test_no_circle_between_files() -> None:
    problems = check_circles(texts("gpucal", "cpu_fallback", "bench"))
    assert not problems, "\n".join(problems)


def test_no_folder_is_crowded() -> None:
    problems = check_folders(texts("gpucal", "cpu_fallback", "bench", "tests"))
    assert not problems, "\n".join(problems)


CIRCLES = [
    {"a/b.py": "from a import c", "a/c.py": "import a.b"},
    {"a/b.py": "from a.c import d", "a/c.py": "def f():\n    from a.b import e"},
    {
        "a/b.py": "from a.c import d",
        "a/c.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from a.d import e",
        "a/d.py": "from . import b",
    },
    {"a/__init__.py": "from a.b import c", "a/b.py": "from a import D"},
]


@pytest.mark.parametrize("files", CIRCLES)
def test_circle_is_found(files: dict[str, str]) -> None:
    (problem,) = check_circles(files)
    assert all(module_name(path) in problem for path in files)


def test_no_circle_where_there_is_none() -> None:
    # A package is not the modules in it, and two ways to the same module are no circle.
    files = {
        "a/__init__.py": "from a.b import x",
        "a/b.py": "from a import c\nfrom a.c import y\nimport os",
        "a/c.py": "import numpy",
    }
    assert check_circles(files) == []
    assert import_edges(files) == {"a": {"a.b"}, "a.b": {"a.c"}, "a.c": set()}


def test_crowded_folder_is_found() -> None:
    files = {f"a/b/m{i}.py": "" for i in range(MAX_MODULES)} | {"a/b/__init__.py": ""}
    assert check_folders(files) == []
    assert len(check_folders(files | {"a/b/one_more.py": ""})) == 1


def test_exceptions_are_still_needed() -> None:
    for place in EXCEPTIONS:
        path, _, name = place.partition(":")
        text = (ROOT / path).read_text(encoding="utf-8")
        assert name in {node.name for node in functions(text)}, f"{place} is gone"


def test_every_room_has_a_rule() -> None:
    rooms = {room_of(relative(p)) for p in sources("gpucal")}
    unknown = rooms - set(ALLOWED) - BASE - {"__init__", "__main__", "cli"}
    assert not unknown, f"say in ALLOWED what {sorted(unknown)} may import"


def test_allowed_imports_form_no_circle() -> None:
    for room in ALLOWED:
        seen, todo = set(), set(ALLOWED[room])
        while todo:
            target = todo.pop()
            seen.add(target)
            todo |= ALLOWED[target] - seen
        assert room not in seen, f"{room} may import itself through other rooms"


BAD: list[tuple[Rule, str, str]] = [
    (check_layers, "from gpucal.io import read", "gpucal/steps/loads.py"),
    (check_layers, "def f():\n    import gpucal.pipeline.plan", "gpucal/physics/atm.py"),
    (check_layers, "from gpucal import cli", "gpucal/pipeline/scan/solve.py"),
    (check_layers, "from gpucal import io", "gpucal/steps/loads.py"),
    (check_layers, "from ..pipeline import chain", "gpucal/steps/loads.py"),
    (check_layers, "from ..io.read import open_l0", "gpucal/steps/loads.py"),
    (check_layers, "import cpu_fallback", "gpucal/steps/loads.py"),
    (check_layers, "from gpucal.steps import loads", "gpucal/scan.py"),
    (check_layers, "from gpucal import errors", "cpu_fallback/chi2.py"),
    (check_layers, "from gpucal.physics import atm", "cpu_fallback/chi2.py"),
    (check_layers, "import gpucal", "cpu_fallback/chi2.py"),
    (check_layers, "from gpucal.backend.protocol import Backend", "cpu_fallback/chi2.py"),
    (check_layers, "from gpucal.kernels import chi2", "gpucal/kernel_contract/chi2.py"),
    (check_layers, "from gpucal.kernels import CudaKernels", "gpucal/steps/means.py"),
    (check_gpu_imports, "import cupy as cp", "gpucal/steps/loads.py"),
    (check_gpu_imports, "def f():\n    from cupyx import jit", "gpucal/backend/cpu.py"),
    (check_gpu_imports, "import kvikio.zarr", "gpucal/io/l0/store.py"),
    (check_public_imports, "from gpucal.config import load_config", "tests/x.py"),
    (check_public_imports, "from gpucal.axes import AXES, Flag", "tests/x.py"),
    (
        check_public_imports,
        "def f():\n    from gpucal.io.l1.reader import (\n    L1,\n    open_l1)",
        "x.py",
    ),
    (
        check_public_imports,
        "import x\n\n    from gpucal.config import load_config as l",
        "docs/x.md",
    ),
    (check_public_imports, "In Python: `" + "from gpucal.axes import Flag`", "docs/x.md"),
    (check_sizes, "x = 1\n" * 400, "gpucal/x.py"),
    (check_sizes, "def f():\n" + "    x = 1\n" * 59, "gpucal/x.py"),
    (check_sizes, "def f(a, b, c, d, e, *, f, g, h, i, j): ...", "gpucal/x.py"),
    (check_documented, "def f(): ...", "gpucal/x.py"),
    (check_documented, '"""M."""\ndef f(): ...', "gpucal/x.py"),
    (check_documented, '"""M."""\nclass F: ...', "gpucal/x.py"),
    (check_recipes_unasked, "isinstance(r.a, NodBeams | DumpPair)", "gpucal/steps/x.py"),
    (check_recipes_unasked, "match r:\n    case NodBeams(on=3): ...", "gpucal/pipeline/x.py"),
    (check_finished, "# TO" + "DO: later", "gpucal/x.py"),
    (check_finished, "raise NotImplemented" + "Error", "gpucal/x.py"),
    (check_names, "", "gpucal/io_utils.py"),
    (check_names, "", "gpucal/helpers/x.py"),
]

GOOD: list[tuple[Rule, str, str]] = [
    (check_layers, "from gpucal.steps.loads import solve_loads", "gpucal/pipeline/scan/solve.py"),
    (check_layers, "from gpucal.axes import Flag", "cpu_fallback/chi2.py"),
    (check_layers, "from gpucal import axes", "cpu_fallback/chi2.py"),
    (check_layers, "from gpucal.kernel_contract.chi2 import SkyFits", "cpu_fallback/chi2.py"),
    (check_layers, "import cpu_fallback", "gpucal/backend/cpu.py"),
    (check_layers, "from gpucal import __version__", "gpucal/io/l1/writer.py"),
    (check_gpu_imports, "import cupy as cp", "gpucal/backend/cuda.py"),
    (check_gpu_imports, "import cupy as cp", "gpucal/io/nvcomp_codec.py"),
    (check_public_imports, "from gpucal import Flag, load_config", "tests/x.py"),
    (check_public_imports, "from gpucal.axes import AXES  # Flag", "tests/x.py"),
    (check_public_imports, "from gpucal.axes import AXES as Flag", "tests/x.py"),
    (check_public_imports, "from gpucal.simulate import preset, simulate_scan", "docs/x.md"),
    (check_sizes, "x = 1\n" * 399, "gpucal/x.py"),
    (check_sizes, 'def f():\n    """A.\n\n    B.\n    """\n' + "    x = 1\n" * 58, "gpucal/x.py"),
    (check_sizes, "def f(self, b, c, d, e, *, f, g, h, i, j): ...", "gpucal/x.py"),
    (check_documented, '"""M."""\ndef _f(): ...', "gpucal/x.py"),
    (check_recipes_unasked, "isinstance(recipe, NodBeams)", "gpucal/modes/x.py"),
    (check_recipes_unasked, "NodBeams(3, 4, second)", "gpucal/steps/x.py"),
    (check_finished, "# done", "gpucal/x.py"),
    (check_names, "", "gpucal/steps/loads.py"),
]


@pytest.mark.parametrize(("rule", "text", "path"), BAD)
def test_rule_finds_what_is_wrong(rule: Rule, text: str, path: str) -> None:
    assert rule(text, path)


@pytest.mark.parametrize(("rule", "text", "path"), GOOD)
def test_rule_accepts_what_is_right(rule: Rule, text: str, path: str) -> None:
    assert rule(text, path) == []


def loaded_after(statement: str) -> set[str]:
    """Packages in sys.modules after a statement in a fresh interpreter."""
    code = f"{statement}\nimport sys\nprint(*{{m.split('.')[0] for m in sys.modules}})"
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return set(run.stdout.split())


@pytest.mark.parametrize("module", ["gpucal", "gpucal.cli.main"])
def test_import_stays_light(module: str) -> None:
    assert not loaded_after(f"import {module}") & set(LAZY)


def test_loaded_after_sees_what_is_loaded() -> None:
    assert "astropy" in loaded_after("import astropy")
