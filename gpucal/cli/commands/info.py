"""``gpucal info``: versions, backends, device, and what is missing."""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import sys
from importlib import metadata
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.markup import escape
from rich.table import Table

from gpucal.errors import BackendError
from gpucal.version import __version__

LIBRARIES = ("numpy", "scipy", "zarr", "numcodecs", "pydantic", "rich", "typer", "array-api-compat")
EXTRAS = {
    # extra: (module that shows it is there, what it is for)
    "fits": ("astropy", "import sdfits, export sdfits, class-fits and fits1d"),
    "plot": ("matplotlib", "plot"),
    "cuda12": ("cupy", "calibrate --backend cuda (CUDA 12)"),
    "cuda13": ("cupy", "calibrate --backend cuda (CUDA 13)"),
    "cluster": ("distributed", "calibrate --scheduler"),
    "atm-build": ("pyrtlib", "atm build"),
    "online": ("starlette", "online"),
    "test": ("pytest", "the tests"),
    "docs": ("mkdocs", "the site of the documentation"),
    "dev": ("mypy", "the checks of the source"),
}
"""What the extras are for; which there are, and what belongs to them, the metadata of the package say."""
TABLE_ENDINGS = (".npz", ".zarr")


def info(
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show versions, backends, the device, and what is missing and how to install it."""
    from gpucal.cli.show.summary import make_console
    from gpucal.io.files.json_text import dumps

    facts = collect()
    if json:
        print(dumps(facts, indent=2))
        return
    console = make_console()
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column()
    for name, value in _rows(facts):
        table.add_row(escape(name), escape(value))
    console.print(table, highlight=False)


def collect() -> dict[str, Any]:
    """Return what ``gpucal info`` shows, as plain values."""
    from gpucal.backend.cpu import usable_cores

    return {
        "gpucal": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "libraries": {name: _version(name) for name in LIBRARIES},
        "backends": {name: _backend(name) for name in ("cpu", "cuda")},
        "auto": _chosen(),
        "device": {"cpu": cpu_model(), "cores": usable_cores(), "memory_bytes": memory_bytes()},
        "extras": {name: _extra(name, needed) for name, needed in extras().items()},
        "atmosphere_tables": packaged_tables(),
    }


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _backend(name: str) -> dict[str, Any]:
    """Whether a backend can be used here, why not, and the card of cuda."""
    from gpucal.backend.select import select_backend

    try:
        backend = select_backend(name)
        if name == "cuda":  # what the compiler of this machine says shows in a first kernel
            from gpucal.backend.cuda import first_mean

            first_mean(backend)
    except BackendError as error:
        _, _, reason = error.message.partition(", but ")
        return {"available": False, "reason": reason or error.message}
    except Exception as error:  # half an installation may raise anything
        return {"available": False, "reason": " ".join(str(error).split())}
    found: dict[str, Any] = {"available": True, "device": backend.device}
    if name == "cuda":
        from gpucal.backend.cuda import describe_device

        found["card"] = {"kernels": backend.kernel_form(), **describe_device()}
    return found


def _chosen() -> dict[str, str]:
    """The backend that ``--backend auto`` chooses here, and why."""
    from gpucal.backend.select import select_backend

    backend = select_backend("auto")
    return {"backend": backend.name, "reason": backend.reason.removeprefix("auto: ")}


def extras() -> dict[str, list[str]]:
    """Extra -> distributions that it installs, from the metadata of the package; in the order given there."""
    try:
        about = metadata.metadata("gpucal")
    except metadata.PackageNotFoundError:  # run from a folder that was never installed
        return {name: [] for name in EXTRAS}
    stated: dict[str, list[str]] = {name: [] for name in about.get_all("Provides-Extra") or []}
    for requirement in about.get_all("Requires-Dist") or []:
        what, _, marker = requirement.partition(";")
        found = re.search(r"""extra\s*==\s*['"]([\w-]+)['"]""", marker)
        platforms = re.search(r"""sys_platform\s*==\s*['"](\w+)['"]""", marker)
        if found and (not platforms or platforms[1] == sys.platform):
            stated.setdefault(found[1], []).append(what.strip())
    return {name: _distributions(name, stated) for name in dict.fromkeys([*stated, *EXTRAS])}


def _distributions(extra: str, stated: dict[str, list[str]]) -> list[str]:
    """The distributions of an extra, those of extras that it includes too: ``gpucal[fits,plot]``."""
    names: list[str] = []
    for what in stated.get(extra, []):
        match = re.match(r"([\w.-]+)\s*(?:\[([\w,\s-]+)\])?", what)
        assert match is not None
        if match[1] != "gpucal":
            names.append(match[1])
        for inner in (match[2] or "").split(",") if match[1] == "gpucal" else ():
            names += _distributions(inner.strip(), stated)
    return list(dict.fromkeys(names))


def _extra(name: str, distributions: list[str]) -> dict[str, Any]:
    """Whether an extra is there, whole or in part, found without importing anything of it."""
    module, purpose = EXTRAS.get(name, (None, name))
    found = module is None or importlib.util.find_spec(module) is not None
    missing = [each for each in distributions if _version(each) is None]
    return {
        "available": found and not missing,
        "module": module,
        "version": _version(module) if module and found else None,
        "missing": missing if found else distributions,
        "for": purpose,
        "install": f"pip install 'gpucal[{name}]'",
    }


def cpu_model() -> str:
    """Return the name of the processor as the system gives it."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.lower().startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass  # not Linux: platform knows less, but something
    return platform.processor() or platform.machine()


def memory_bytes() -> int | None:
    """Return the physical memory in bytes, None where the system does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None


def packaged_tables() -> list[str]:
    """Return the names of the atmosphere tables that come with the package."""
    found: list[str] = []
    folders = [files("gpucal")]
    while folders:
        for entry in folders.pop().iterdir():
            if entry.name.endswith(TABLE_ENDINGS):
                found.append(entry.name)
            elif entry.is_dir() and entry.name != "__pycache__":
                folders.append(entry)
    return sorted(found)


def _extra_words(extra: dict[str, Any]) -> str:
    """What is said of an extra: its version, what of it is missing, or how to install it."""
    there = f"{extra['module'] or ''} {extra['version'] or ''}".strip()
    if extra["available"]:
        return f"installed: {there}" if there else "installed"
    if extra["version"] and extra["module"]:
        parts = ", ".join(extra["missing"])
        return f"in part: {there} without {parts}, for {extra['for']}: {extra['install']}"
    return f"missing, for {extra['for']}: {extra['install']}"


def _rows(facts: dict[str, Any]) -> list[tuple[str, str]]:
    rows = [(name, str(facts[name])) for name in ("gpucal", "python", "platform")]
    rows += [(name, version or "missing") for name, version in facts["libraries"].items()]
    for name, backend in facts["backends"].items():
        there = f"available ({backend.get('device')})"
        text = there if backend["available"] else f"not available: {backend['reason']}"
        rows.append((f"backend {name}", text))
        rows += [(f"  {key}", str(value)) for key, value in backend.get("card", {}).items()]
    rows.append(("backend auto", "takes {backend}: {reason}".format(**facts["auto"])))
    device = facts["device"]
    memory = device["memory_bytes"]
    rows.append(("processor", f"{device['cpu']}, {device['cores']} cores usable"))
    rows.append(("memory", f"{memory / 2**30:.1f} GiB" if memory else "unknown"))
    rows += [(f"extra {name}", _extra_words(extra)) for name, extra in facts["extras"].items()]
    tables = ", ".join(facts["atmosphere_tables"]) or "none in this installation"
    rows.append(("atmosphere tables", tables))
    return rows
