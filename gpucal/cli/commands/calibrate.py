"""``gpucal calibrate``: every field of ``CalibrationConfig`` is an option."""

from __future__ import annotations

import contextlib
import inspect
import logging
import sys
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from gpucal.cli.options.complete import complete_scans, complete_tables, complete_words
from gpucal.config import GROUPS, CalibrationConfig, load_config
from gpucal.errors import ConfigError
from gpucal.option_model import unit_of

WIDEST = 17
"""Letters of a switch beside whose name the help has room for its negative."""


def option_name(field: str) -> str:
    """Return the name of the option that sets ``field``, e.g. ``"--t-hot"``."""
    return "--" + field.replace("_", "-")


def calibrate(ctx: typer.Context, **given: Any) -> None:
    """Calibrate the scans of the raw store L0 into the store OUT (T_A*).

    A scan that is already in OUT with the same configuration is skipped; with another one the run is
    refused before anything is touched. Exit codes: 0 all scans calibrated, 1 none, 2 some failed (with
    --strict also: an alarm), 64 usage or configuration error, 130 interrupted.
    """
    l0, out = Path(given["l0"]), Path(given["out"])
    quiet, verbose, as_json = given["quiet"], given["verbose"], given["json"]
    if quiet + verbose + as_json > 1:
        raise ConfigError("--quiet, --verbose and --json exclude each other.")
    fields = CalibrationConfig.model_fields
    options = {key: value for key, value in given.items() if key in fields and value is not None}
    options |= {key[3:]: False for key, off in given.items() if off and key[3:] in fields}
    config = load_config(given["config"], **{k: _number(k, v) for k, v in options.items()})
    _check_paths(l0, out)
    # Reading the pipeline is slow: --help and wrong options must not wait for it.
    from gpucal.cli.show.progress import make_observer
    from gpucal.cli.show.summary import print_summary
    from gpucal.pipeline.calibrate import calibrate_store

    watching = make_observer(quiet=quiet, verbose=verbose, as_json=as_json)
    with watching as observer, _tracebacks(verbose):
        report = calibrate_store(
            l0, out, config, observer=observer, command_line=list(ctx.obj or sys.argv)
        )
    print_summary(report, out, quiet=quiet, as_json=as_json)
    raise typer.Exit(report.exit_code)


@contextlib.contextmanager
def _tracebacks(shown: bool) -> Iterator[None]:
    """Let stderr show what the pipeline logs about failures."""
    if not shown:
        yield
        return
    logger = logging.getLogger("gpucal")
    handler, level = logging.StreamHandler(), logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)


def _number(field: str, value: Any) -> Any:
    """The number that was typed for a field of numbers; other text stays, the configuration refuses it."""
    kind = _plain_type(CalibrationConfig.model_fields[field].annotation)
    if isinstance(value, str) and kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(value)
    return value


def _check_paths(l0: Path, out: Path) -> None:
    """Refuse an OUT inside L0: the raw data are never written to."""
    raw, target = l0.resolve(), out.resolve()
    if target == raw or raw in target.parents:
        raise ConfigError(
            f"OUT is {out}, which is the raw store or lies inside it.",
            hint="Choose another place for the calibrated store.",
        )


def _choices(annotation: Any) -> tuple[Any, ...]:
    """The values that a Literal allows, also inside a union."""
    if typing.get_origin(annotation) is Literal:
        return typing.get_args(annotation)
    found: list[Any] = []
    for part in typing.get_args(annotation):
        found.extend(_choices(part))
    return tuple(found)


def _plain_type(annotation: Any) -> type:
    """What the text of an option stands for; the configuration checks the value."""
    parts = [annotation, *typing.get_args(annotation)]
    for kind in (bool, int, float):
        if any(part is kind or kind in typing.get_args(part) for part in parts):
            return kind
    return type(choices[0]) if (choices := _choices(annotation)) else str


def _group(field: str) -> str:
    """The heading of the help below which an option stands."""
    order = list(CalibrationConfig.model_fields)
    above = [name for name, first in GROUPS.items() if order.index(first) <= order.index(field)]
    return above[-1]


def _placeholder(field: str, kind: type) -> str:
    """What the help shows for the value: its choices, its unit, or what kind it is."""
    info = CalibrationConfig.model_fields[field]
    extra = info.json_schema_extra
    if isinstance(extra, dict) and "placeholder" in extra:
        return str(extra["placeholder"])
    plain = {int: "N", float: "X"}.get(kind, "VALUE")
    unit = unit_of(CalibrationConfig, field).upper()
    parts = [*map(str, _choices(info.annotation)), *([unit] if unit else [])]
    return "|".join(parts) or plain


def _option(field: str) -> inspect.Parameter:
    """The command-line option of a field of the configuration."""
    info = CalibrationConfig.model_fields[field]
    text, kind, name = (
        info.description or field,
        _plain_type(info.annotation),
        option_name(field),
    )
    metavar = None if kind is bool else _placeholder(field, kind)
    if kind is bool and len(name) <= WIDEST:
        name = f"{name}/{_negative(field)}"
    if info.default is not None and info.default != "":
        default = f"{info.default:g}" if isinstance(info.default, float) else str(info.default)
        text = f"{text} Default: {_yes_no(info.default) if kind is bool else default}."
    option = typer.Option(
        name,
        metavar=metavar,
        help=text,
        rich_help_panel=_group(field),
        show_default=False,
        autocompletion=_completion(field),
    )
    # Numbers come as text, so that one sentence, that of the configuration, says what is wrong.
    return _keyword(field, Annotated[(bool if kind is bool else str) | None, option], None)


def _hidden_negatives() -> Iterator[inspect.Parameter]:
    """The ``--no-`` form of switches whose names leave no room for it in the help."""
    for field, info in CalibrationConfig.model_fields.items():
        if _plain_type(info.annotation) is bool and len(option_name(field)) > WIDEST:
            option = typer.Option(_negative(field), hidden=True)
            yield _keyword(f"no_{field}", Annotated[bool, option], False)


def _negative(field: str) -> str:
    """The option that switches ``field`` off."""
    return f"--no-{option_name(field)[2:]}"


def _completion(field: str) -> Callable[..., list[str]] | None:
    """What completes the value of an option: scans of L0, names of tables, or the allowed words."""
    if field == "codec":
        return complete_words("zstd:1", "blosc-lz4", "blosc-zstd", "none")
    if field == "precision":
        return complete_words("exact", "noise", "noise:32")
    special: dict[str, Callable[..., list[str]]] = {
        "scans": complete_scans,
        "atmosphere": complete_tables,
    }
    choices = _choices(CalibrationConfig.model_fields[field].annotation)
    known = complete_words(*(str(choice) for choice in choices)) if choices else None
    return special.get(field, known)


def _yes_no(value: bool) -> str:
    return "yes" if value else "no"


def _keyword(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    """A keyword-only parameter for the signature that typer reads."""
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default
    )


def _signature() -> inspect.Signature:
    """The signature that typer reads; made from the configuration, so that no option can be forgotten."""
    l0 = typer.Argument(metavar="L0", help="Raw store (Zarr).", show_default=False)
    out = typer.Argument(metavar="OUT", help="Calibrated store to write (Zarr).")
    config = typer.Option("--config", metavar="F", help="TOML file; options given here win.")
    quiet = typer.Option("--quiet", help="Say only what went wrong: failures and alarms.")
    verbose = typer.Option("--verbose", help="Show timings, messages and tracebacks.")
    as_json = typer.Option("--json", help="One JSON object per event on stdout.")
    parameters = [
        inspect.Parameter("ctx", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context),
        _keyword("l0", Annotated[Path, l0], inspect.Parameter.empty),
        _keyword("out", Annotated[Path, out], inspect.Parameter.empty),
        _keyword("config", Annotated[Path | None, config], None),
        _keyword("quiet", Annotated[bool, quiet], False),
        _keyword("verbose", Annotated[bool, verbose], False),
        _keyword("json", Annotated[bool, as_json], False),
        *(_option(field) for field in CalibrationConfig.model_fields),
        *_hidden_negatives(),
    ]
    return inspect.Signature(parameters)


_SIGNATURE = _signature()
calibrate.__signature__ = _SIGNATURE  # type: ignore[attr-defined]
calibrate.__annotations__ = {p.name: p.annotation for p in _SIGNATURE.parameters.values()}
