"""What a notebook shows: small tables as HTML, pictures, and lists of scans in few words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

MAX_ROWS = 30
_CELL = "text-align:left;padding:0 0.8em 0 0;vertical-align:top"


def html_of(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[object]], note: str = ""
) -> str:
    """A heading, a table of at most ``MAX_ROWS`` rows, and a note; all of it escaped."""

    def cells(kind: str, row: Sequence[object]) -> str:
        return "".join(f'<{kind} style="{_CELL}">{escape(str(cell))}</{kind}>' for cell in row)

    lines = [f"<div><strong>{escape(title)}</strong>", '<table style="border-collapse:collapse">']
    if any(columns):
        lines.append(f"<tr>{cells('th', columns)}</tr>")
    shown = rows if len(rows) <= MAX_ROWS else [*rows[: MAX_ROWS - 5], *rows[-5:]]
    left = len(rows) - len(shown)
    for number, row in enumerate(shown):
        if left and number == MAX_ROWS - 5:
            lines.append(f'<tr><td colspan="{len(row)}">... {left} more ...</td></tr>')
        lines.append(f"<tr>{cells('td', row)}</tr>")
    lines.append("</table>")
    if note:
        lines.append(f"<small>{escape(note)}</small>")
    return "".join([*lines, "</div>"])


@dataclass(frozen=True)
class Picture:
    """A picture in memory, PNG; a notebook shows it."""

    png: bytes

    def _repr_png_(self) -> bytes:
        return self.png

    def __repr__(self) -> str:
        return f"<Picture: PNG, {len(self.png)} bytes; .save(path) writes it>"

    def save(self, path: str | Path) -> Path:
        """Write the picture as a PNG file; returns its path."""
        target = Path(path)
        target.write_bytes(self.png)
        return target
