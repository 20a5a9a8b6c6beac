"""``gpucal info``: versions, backends, device, and what is missing."""

from __future__ import annotations

import importlib.util
import os
import platform
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
    "fits": ("astropy", "import sdfits"),
    "plot": ("matplotlib", "plot"),
    "cuda13": ("cupy", "calibrate --backend cuda (CUDA 13; cuda12 for CUDA 12)"),
    "cluster": ("distributed", "calibrate --scheduler"),
    "atm-build": ("pyrtlib", "atm build"),
}
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
        "extras": {name: _extra(name) for name in EXTRAS},
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
    except BackendError as error:
        _, _, reason = error.message.partition(", but ")
        return {"available": False, "reason": reason or error.message}
    except Exception as error:  # half an installation may raise anything
        return {"available": False, "reason": " ".join(str(error).split())}
    found: dict[str, Any] = {"available": True, "device": backend.device}
    if name == "cuda":
        from gpucal.backend.cuda import describe_device

        found["card"] = describe_device()
    return found


def _chosen() -> dict[str, str]:
    """The backend that ``--backend auto`` chooses here, and why."""
    from gpucal.backend.select import select_backend

    backend = select_backend("auto")
    return {"backend": backend.name, "reason": backend.reason.removeprefix("auto: ")}


def _extra(name: str) -> dict[str, Any]:
    """Whether an optional package is there, found without importing it."""
    module, purpose = EXTRAS[name]
    there = importlib.util.find_spec(module) is not None
    return {
        "available": there,
        "module": module,
        "version": _version(module) if there else None,
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
    for name, extra in facts["extras"].items():
        there = f"{extra['module']} {extra['version'] or ''}".strip()
        missing = f"missing, needed for {extra['for']}: {extra['install']}"
        rows.append((f"extra {name}", there if extra["available"] else missing))
    tables = ", ".join(facts["atmosphere_tables"]) or "none in this installation"
    rows.append(("atmosphere tables", tables))
    return rows
