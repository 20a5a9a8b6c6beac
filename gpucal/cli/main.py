"""The command ``gpucal``: commands, exit codes, and errors as one sentence."""

from __future__ import annotations

import importlib
import sys
import traceback
import warnings
from collections.abc import Sequence
from typing import Annotated, Any, TextIO

import typer

from gpucal.cli import interrupts, streams
from gpucal.cli.interrupts import EXIT_INTERRUPTED, INTERRUPTED
from gpucal.cli.lazy import Entry, LazyGroup
from gpucal.errors import GpucalError, GpucalWarning, check_interpreter, no_threads, words_of
from gpucal.version import __version__

EXIT_FAILED = 1
EXIT_USAGE = 64

_USAGE: Any = importlib.import_module(typer.BadParameter.__module__)
"""The errors of click, which typer imports or, in later versions, brings along."""
_HELP_WANTED: Any = getattr(_USAGE, "NoArgsIsHelpError", ())
"""Raised by a command without arguments; versions that have no such error show the help by themselves."""

_COMMANDS = "gpucal.cli.commands"


class Commands(LazyGroup):
    """All commands; the line of each is the first sentence of its own help."""

    ENTRIES = {
        "calibrate": Entry(
            f"{_COMMANDS}.calibrate",
            "calibrate",
            "Calibrate the scans of the raw store L0 into the store OUT (T_A*).",
        ),
        "simulate": Entry(
            f"{_COMMANDS}.simulate",
            "simulate",
            "Write a synthetic night: raw counts made from the equations that calibrate them.",
        ),
        "import": Entry(
            f"{_COMMANDS}.import_", "app", "Turn the raw data of a telescope into an L0 store."
        ),
        "inspect": Entry(
            f"{_COMMANDS}.inspect",
            "inspect_store",
            "Show the scans of a store: modes, shapes, sizes, which load scan serves which, problems.",
        ),
        "verify": Entry(
            f"{_COMMANDS}.verify",
            "verify",
            "Read all chunk files of a store, and check every checksum there is.",
        ),
        "compare": Entry(
            f"{_COMMANDS}.compare",
            "compare",
            "Compare two calibrations of the same scans: T_A*, temperatures, water, flags, axes, settings.",
        ),
        "flag": Entry(
            f"{_COMMANDS}.flag",
            "flag",
            "Flag samples of a calibrated store as unusable (bit MANUAL), with a reason.",
        ),
        "plot": Entry(
            f"{_COMMANDS}.plot",
            "plot",
            "Draw spectra, T_rec and T_sys on the array footprint, waterfall, OTF map, and the night.",
        ),
        "reduce": Entry(
            f"{_COMMANDS}.reduce",
            "reduce",
            "Reduce a scan, or several: offsets, best focus, opacity or average, with errors and what is "
            "wrong.",
        ),
        "export": Entry(f"{_COMMANDS}.export", "app", "Write spectra for other programs."),
        "online": Entry(f"{_COMMANDS}.online.app", "app", "Process a night while it is observed."),
        "atm": Entry(
            f"{_COMMANDS}.atm",
            "app",
            "Atmosphere tables: from pyrtlib, from am output; range and provenance.",
        ),
        "info": Entry(
            f"{_COMMANDS}.info",
            "info",
            "Show versions, backends, the device, and what is missing and how to install it.",
        ),
    }


app = typer.Typer(
    name="gpucal",
    cls=Commands,
    help="Calibrate large heterodyne arrays: raw counts to T_A*.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"gpucal {__version__}")
        raise typer.Exit(0)


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", help="Show the traceback of an error.")
    ] = False,
) -> None:
    """Calibrate large heterodyne arrays: raw counts to T_A*."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    0 done; 1 nothing could be done; 2 some scans failed; 64 usage or configuration error; 130
    interrupted. Errors become one sentence on stderr; ``--verbose`` adds the traceback.
    """
    streams.prepare()
    args = list(sys.argv[1:] if argv is None else argv)
    shown = args[: args.index("--")] if "--" in args else args
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        try:
            check_interpreter()
            with interrupts.between_imports():
                result = typer.main.get_command(app).main(
                    args=args, prog_name="gpucal", standalone_mode=False, obj=["gpucal", *args]
                )
        except (Exception, KeyboardInterrupt) as error:
            return _report(error, verbose="--verbose" in shown)
        if (unsaid := streams.flush()) is not None:
            if not isinstance(unsaid, BrokenPipeError):
                _say(f"error: the output cannot be written: {unsaid.strerror}.")
            return EXIT_FAILED
    code = result if isinstance(result, int) else 0
    if code == EXIT_INTERRUPTED:
        _say(INTERRUPTED)
    return code


def _report(error: BaseException, *, verbose: bool) -> int:
    """Print ``error`` as one sentence on stderr and return the exit code."""
    if isinstance(error, BrokenPipeError):
        # The reader of the output went away (``| head``): nothing can be said to it any more.
        streams.drop_stdout()
        return EXIT_FAILED
    streams.flush()
    if isinstance(error, (KeyboardInterrupt, typer.Abort)):
        _say(INTERRUPTED)
        return EXIT_INTERRUPTED
    error = no_threads(error) or error
    if verbose:
        traceback.print_exception(error)
    if isinstance(error, GpucalError):
        _say(f"error: {error}")
        return error.exit_code
    if isinstance(error, _USAGE.ClickException):
        return _report_usage(error)
    again = "" if verbose else " Run again with gpucal --verbose for the traceback."
    if isinstance(error, OSError) and error.strerror:
        place = "" if error.filename else "the output or a file cannot be used: "
        _say(f"error: {place}{words_of(error)}. Is there room, and do you have the right?{again}")
        return EXIT_FAILED
    text = " ".join(str(error).split()) or "no message"
    _say(f"error: {type(error).__name__}: {text.rstrip('.')}.{again}")
    return EXIT_FAILED


def _report_usage(error: Any) -> int:
    """Print a usage error of typer as one sentence, or the help where a command was called bare."""
    if isinstance(error, _HELP_WANTED):
        error.show()
        return EXIT_USAGE
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "gpucal"
    text = " ".join(str(error.format_message()).split()).rstrip(".")
    _say(f"error: {text}. See {command} --help.")
    return EXIT_USAGE


def _say(text: str) -> None:
    print(f"gpucal: {text}", file=sys.stderr)


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Print our own warnings as a sentence, others as Python does."""
    if issubclass(category, GpucalWarning):
        _say(f"warning: {message}")
    else:
        text = warnings.formatwarning(message, category, filename, lineno, line)
        print(text, end="", file=file or sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
