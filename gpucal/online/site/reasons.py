"""What an error says, in one line that is never empty."""

from __future__ import annotations

import traceback
from pathlib import Path

from gpucal.errors import GpucalError


def reason_of(error: BaseException) -> str:
    """The text of an error of gpucal, the system or the database; others with their name and place."""
    of_database = getattr(error, "orig", None)
    text = " ".join(str(of_database or error).split())
    if text and (isinstance(error, GpucalError | OSError) or of_database is not None):
        return text
    last = traceback.extract_tb(error.__traceback__)[-1:]
    place = "".join(f" in {Path(frame.filename).name}, line {frame.lineno}" for frame in last)
    return f"unexpected {type(error).__name__}{place}: {text or 'it says nothing more'}"
