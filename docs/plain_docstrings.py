"""Show docstrings as they are written: plain text with ``code``, and columns of names and units.

A griffe extension, named in mkdocs.yml. Docstrings here are no Markdown: ``T_A*`` is not the beginning of
an emphasis, ``[R][A]`` is no link, and lines set in columns belong one below the other.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

_CODE = re.compile(r"(`+[^`]*`+)")
_COLUMNS = re.compile(r"^\s*\S.*?\S {2,}\S", re.MULTILINE)


def plain(text: str) -> str:
    """Markdown that looks like the text."""
    return "\n\n".join(_paragraph(part) for part in re.split(r"\n\s*\n", text))


def _paragraph(text: str) -> str:
    """One paragraph; with columns in it, or indented as a whole, it is shown as it stands."""
    lines = text.split("\n")
    if _COLUMNS.search(text) or all(line.startswith("    ") for line in lines):
        return "\n".join(f"    {line}" for line in lines).replace("``", "")
    parts = _CODE.split(text)  # odd ones are code
    parts[::2] = [
        re.sub(r"([\\*\[\]_#|])", r"\\\1", part).replace("<", "&lt;") for part in parts[::2]
    ]
    return "".join(parts)


class PlainDocstrings(griffe.Extension):
    """Escapes every docstring when it is read."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Called once for each module, class, function and attribute."""
        if obj.docstring is not None:
            obj.docstring.value = plain(obj.docstring.value)
