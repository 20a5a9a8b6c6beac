"""Write docs/reference/options.md: every option of ``gpucal calibrate`` in one table.

    python docs/build_options.py             writes the page

Names, meanings, defaults, units and limits come from ``CalibrationConfig``, as the help of the command
does, so that neither can say what the program does not do.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from gpucal import CalibrationConfig
from gpucal.cli.main import app

PAGE = Path(__file__).resolve().parent / "reference" / "options.md"

HEAD = """\
<!-- made by docs/build_options.py: change gpucal/config.py instead -->

# All options of `gpucal calibrate`

    gpucal calibrate L0 OUT [OPTIONS]
    gpucal calibrate night.zarr l1.zarr --config night.toml --pwv fit

Every option but those of the last group is also a key of the TOML file that `--config` names and, with `_` for `-`, a
field of `gpucal.CalibrationConfig`. An option given on the command line wins over the file. A wrong key or
value is named, and the exit code is 64.

*L1*: whether the option can change a number in L1. A finished scan is skipped when it was made from the same raw
data with the same values of these options; the others say which scans are calibrated, how fast and where.

| option | TOML key | default | values | L1 | meaning |
|---|---|---|---|---|---|
"""

TAIL = """
## What excludes what

- `tau` goes with `atmosphere` `none` (or `auto`), not with a table.
- `t-hot` must be above `t-cold`.
- `skydiff` needs the scans in order: not with `devices`, not with `scheduler`.
- `precision` `noise` keeps spectra as f32, whatever `dtype` says, and has the codec `blosc-lz4` where none is given.
- `devices` and `scheduler` exclude each other; so do `--quiet`, `--verbose` and `--json`.
"""


def options() -> Iterator[Any]:
    """The options of the command, in the order of its help."""
    command: Any = typer.main.get_command(app)
    for parameter in command.commands["calibrate"].params:
        if parameter.param_type_name == "option" and not parameter.hidden:
            yield parameter


def limits(schema: dict[str, Any]) -> Iterator[str]:
    """What a value may be, from the JSON schema of a field; nothing for free text."""
    if "enum" in schema:
        yield ", ".join(f"`{value}`" for value in schema["enum"])
    elif "const" in schema:
        yield f"`{schema['const']}`"
    elif "anyOf" in schema:
        for part in schema["anyOf"]:
            yield from limits(part)
    elif schema.get("type") in ("number", "integer"):
        kind = "whole number" if schema["type"] == "integer" else "number"
        signs = (
            ("exclusiveMinimum", ">"),
            ("minimum", "≥"),
            ("exclusiveMaximum", "<"),
            ("maximum", "≤"),
        )
        bounds = [f"{sign} {schema[key]:g}" for key, sign in signs if key in schema]
        yield " ".join([kind, ", ".join(bounds)]).strip()
    elif schema.get("type") == "boolean":
        yield "`true`, `false`"


def default_of(schema: dict[str, Any]) -> str:
    """The default as it stands in a TOML file; empty where there is none."""
    value = schema.get("default")
    if value in (None, ""):
        return ""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def row(parameter: Any, fields: dict[str, Any], numbers: frozenset[str]) -> str:
    """One row of the table."""
    name = " ".join(f"`{flag}`" for flag in (*parameter.opts, *parameter.secondary_opts))
    meaning = (parameter.help or "").partition(" Default: ")[0]
    meaning = meaning.replace("|", "\\|").replace("*", "\\*")
    placeholder = (parameter.metavar or "").replace("|", "\\|")
    schema = fields.get(parameter.name)
    if schema is None:
        return cells(name, "", "", "" if parameter.is_flag else "path", "", meaning)
    return cells(
        name,
        f"`{parameter.name.replace('_', '-')}`",
        default_of(schema),
        " ".join([" or ".join(limits(schema)) or placeholder, schema.get("unit", "")]).strip(),
        "yes" if parameter.name in numbers else "",
        meaning,
    )


def cells(*texts: str) -> str:
    """A row of a Markdown table."""
    return "|" + "".join(f" {text} |" if text else " |" for text in texts)


def build() -> str:
    """The page."""
    fields = CalibrationConfig.model_json_schema()["properties"]
    numbers = frozenset(CalibrationConfig().result_keys())
    groups: dict[str, list[str]] = {}
    for parameter in options():
        if parameter.name == "help":
            continue
        listed = parameter.name in fields
        group = (parameter.rich_help_panel or "") if listed else "Command line only"
        groups.setdefault(group, []).append(row(parameter, fields, numbers))
    last = groups.pop("Command line only")
    lines = []
    for group, rows in {**groups, "Command line only": last}.items():
        lines += [cells(f"**{group}**", *[""] * 5), *rows]
    return HEAD + "\n".join(lines) + "\n" + TAIL


if __name__ == "__main__":
    PAGE.write_text(build(), encoding="utf-8")
    print(PAGE)
