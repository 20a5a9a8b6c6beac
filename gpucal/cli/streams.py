"""stdout and stderr that can take any text, or none: other alphabets, closed, full, a reader that went away."""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import sys
import unicodedata

_PLAIN = {
    "\N{PLUS-MINUS SIGN}": "+-",
    "\N{MULTIPLICATION SIGN}": "x",
    "\N{MIDDLE DOT}": ".",
    "\N{MINUS SIGN}": "-",
    "\N{EN DASH}": "-",
    "\N{EM DASH}": "-",
    "\N{RIGHTWARDS ARROW}": "->",
    "\N{DEGREE SIGN}": " deg",
    "\N{MICRO SIGN}": "u",
    "\N{GREEK SMALL LETTER MU}": "u",
    "\N{GREEK SMALL LETTER SIGMA}": "sigma",
    "\N{GREEK SMALL LETTER TAU}": "tau",
    "\N{LEFT SINGLE QUOTATION MARK}": "'",
    "\N{RIGHT SINGLE QUOTATION MARK}": "'",
}
_HANDLER = "gpucal-plain"


def plain(error: UnicodeError) -> tuple[str, int]:
    """Error handler of an encoding: the nearest ASCII text for characters that it lacks."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = "".join(map(_ascii, error.object[error.start : error.end]))
    return text, error.end


def _ascii(character: str) -> str:
    known = _PLAIN.get(character)
    if known is not None:
        return known
    parts = unicodedata.normalize("NFKD", character)
    return (
        "".join(_PLAIN.get(part, part) for part in parts).encode("ascii", "ignore").decode() or "?"
    )


def prepare() -> None:
    """Let stdout and stderr take any text, and give a closed one a place where it is dropped.

    A file that is opened later must not get the number of a closed stream, or what is said would be written into it.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            _hold(descriptor)
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - until the end
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - until the end
    codecs.register_error(_HANDLER, plain)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and not stream.encoding.lower().startswith("utf"):
            stream.reconfigure(errors=_HANDLER)


def _hold(descriptor: int) -> None:
    found = os.open(os.devnull, os.O_RDWR)
    if found != descriptor:
        os.dup2(found, descriptor)
        os.close(found)


def flush() -> OSError | None:
    """Write out what stdout still holds; returns the error of a full disk or a reader that went away."""
    try:
        sys.stdout.flush()
    except OSError as error:
        drop_stdout()
        return error
    return None


def drop_stdout() -> None:
    """Send what is still said on stdout nowhere."""
    with contextlib.suppress(OSError, ValueError):
        held = os.open(os.devnull, os.O_WRONLY)
        os.dup2(held, sys.stdout.fileno())
        os.close(held)
