"""Draw ``docs/pictures/rooms.svg``: the rooms of gpucal, their sub-rooms, and the way of a sample.

Which rooms and sub-rooms there are is read from the packages; where they stand is said here. Run it from
the repository after a room has come or gone: ``python docs/draw_rooms.py``.
"""

from __future__ import annotations

import ast
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PICTURE = ROOT / "docs" / "pictures" / "rooms.svg"

STOREYS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("who asks", ("cli", "online")),
    ("how steps are put together", ("pipeline",)),
    ("for other programs, and the eye", ("export", "plot", "compare", "simulate")),
    ("bytes on disk", ("io",)),
    ("what is done to a scan", ("steps", "modes", "procedures")),
    ("equations", ("physics",)),
    ("where it is computed", ("backend", "kernels", "kernel_contract", "cpu_fallback")),
)
"""Storeys from top to bottom; a room imports from its own storey and from lower ones."""

WIDTH, LEFT, GAP, SUB = 1180, 200, 14, 26
WAY = (
    ("io", "1 chunks of counts are decoded"),
    ("pipeline", "2 a unit of tiles goes to a worker"),
    ("steps", "3 reference, scale, T_A*"),
    ("backend", "4 one fused kernel per tile"),
    ("pipeline", "5 the tile goes to the sink"),
    ("io", "6 encoded, staged, committed"),
)
INK, PAPER, LINE, FILL, TINT = "#1f2933", "#ffffff", "#9aa5b1", "#f5f7fa", "#d9e8f6"


def package(room: str) -> Path:
    """The folder of a room."""
    return ROOT / room if room == "cpu_fallback" else ROOT / "gpucal" / room


def rooms() -> set[str]:
    """All rooms there are: packages below gpucal with modules in them, and cpu_fallback."""
    inside = {p.parent.name for p in (ROOT / "gpucal").glob("*/__init__.py")}
    return {*inside, "cpu_fallback"}


def first_line(room: str) -> str:
    """The first sentence of a package's docstring."""
    text = (package(room) / "__init__.py").read_text(encoding="utf-8")
    line = (ast.get_docstring(ast.parse(text)) or "").split("\n")[0]
    return line.split(". ")[0].rstrip(".").replace("`", "")


def sub_rooms(room: str) -> list[str]:
    """Names of the packages inside a room."""
    return sorted(p.parent.name for p in package(room).glob("*/__init__.py"))


def text(x: float, y: float, words: str, size: int = 13, **style: str) -> str:
    """One line of text; ``style``: attributes of SVG."""
    extra = "".join(f' {k.replace("_", "-")}="{v}"' for k, v in style.items())
    return f'<text x="{x:g}" y="{y:g}" font-size="{size}"{extra}>{escape(words)}</text>'


def box(x: float, y: float, w: float, h: float, fill: str) -> str:
    """A box with round corners."""
    return (
        f'<rect x="{x:g}" y="{y:g}" width="{w:g}" height="{h:g}" rx="6" fill="{fill}" '
        f'stroke="{LINE}"/>'
    )


def wrapped(words: str, width: float, size: float = 6.3) -> list[str]:
    """Words in lines that fit ``width``, by the usual width of a letter."""
    lines: list[str] = [""]
    for word in words.split():
        if lines[-1] and (len(lines[-1]) + 1 + len(word)) * size > width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines


def draw_room(room: str, x: float, y: float, w: float, h: float) -> list[str]:
    """A room: its name, what it is for, and its sub-rooms."""
    found = [box(x, y, w, h, FILL), text(x + 12, y + 22, room, 15, font_weight="bold")]
    lines = wrapped(first_line(room), w - 24)
    found += [text(x + 12, y + 40 + 15 * i, line, 12) for i, line in enumerate(lines)]
    at, row = x + 12, y + 34 + 15 * len(lines)
    for name in sub_rooms(room):
        wide = 7.8 * len(name) + 14
        if at + wide > x + w - 8:
            at, row = x + 12, row + SUB
        found += [box(at, row, wide, 20, TINT), text(at + 7, row + 14, name, 12)]
        at += wide + 6
    return found


def height(room: str, w: float) -> float:
    """Height of the box of a room."""
    lines = len(wrapped(first_line(room), w - 24))
    rows, at = (1 if sub_rooms(room) else 0), 12.0
    for name in sub_rooms(room):
        wide = 7.8 * len(name) + 14
        if at + wide > w - 8:
            at, rows = 12.0, rows + 1
        at += wide + 6
    return 40 + 15 * lines + SUB * rows


def picture() -> str:
    """The whole drawing as SVG text. Raises ValueError when a room has no place here."""
    placed = {room for _, names in STOREYS for room in names}
    if placed != rooms():
        raise ValueError(f"give these rooms a storey, or take them out: {sorted(placed ^ rooms())}")
    body, y = [], 20.0
    for title, names in STOREYS:
        w = (WIDTH - LEFT - 20 - GAP * (len(names) - 1)) / len(names)
        h = max(height(name, w) for name in names)
        body += [
            text(20, y + 22 + 16 * i, line, 13, font_style="italic")
            for i, line in enumerate(wrapped(title, LEFT - 40))
        ]
        for i, name in enumerate(names):
            body += draw_room(name, LEFT + i * (w + GAP), y, w, h)
        y += h + GAP
    body.append(text(20, y + 20, "The way of a sample", 14, font_weight="bold"))
    step = (WIDTH - 40) / len(WAY)
    for i, (room, words) in enumerate(WAY):
        x = 20 + i * step
        body.append(box(x, y + 32, step - 12, 66, TINT))
        body.append(text(x + 10, y + 50, room, 12, font_weight="bold"))
        lines = wrapped(words, step - 30, 6.0)
        body += [text(x + 10, y + 66 + 14 * k, line, 12) for k, line in enumerate(lines)]
    total = y + 116
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {total:g}" width="{WIDTH}" '
        f'height="{total:g}" font-family="Helvetica, Arial, sans-serif" fill="{INK}" role="img" '
        'aria-label="The rooms of gpucal">'
    )
    paper = f'<rect width="{WIDTH}" height="{total:g}" fill="{PAPER}"/>'
    return "\n".join([head, paper, *body, "</svg>"]) + "\n"


if __name__ == "__main__":
    PICTURE.write_text(picture(), encoding="utf-8")
    print(PICTURE.relative_to(ROOT))
