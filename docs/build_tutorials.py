"""Run the tutorials and write them as pages: docs/tutorials/NAME.md with output and pictures.

    python docs/build_tutorials.py [NAME ...]     needs gpucal[fits,plot], xarray, specutils

A tutorial is a script in cells (``# %%`` code, ``# %% [markdown]`` text). Pictures named in its text
(``pictures/X.png``) are copied to docs/pictures/NAME_X.png, smaller, and with fewer colours if need be.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

DOCS = Path(__file__).resolve().parent
LARGEST = 150_000
"""Bytes of a picture."""
COLOURS = (256, 128, 64)
"""Tried in this order when a picture is too large as it is."""
WIDTH = 1000
PICTURE = re.compile(r"\]\(pictures/(\w+)\.png\)")


def cells(text: str) -> Iterator[tuple[str, str]]:
    """Kind ("text" or "code") and content of every cell of a script."""
    for part in re.split(r"^# %%", text, flags=re.MULTILINE)[1:]:
        head, _, body = part.partition("\n")
        if "[markdown]" in head:
            lines = [line.removeprefix("#").removeprefix(" ") for line in body.strip().split("\n")]
            yield "text", "\n".join(lines)
        else:
            yield "code", body.strip("\n")


def build(script: Path, pictures: Path) -> str:
    """Run a tutorial in a folder of its own; returns the page and copies its pictures."""
    page = [f"<!-- made by docs/build_tutorials.py from {script.name} -->"]
    space = {"__name__": script.stem}
    back = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            for kind, content in cells(script.read_text(encoding="utf-8")):
                if kind == "text":
                    for name in PICTURE.findall(content):
                        shrink(
                            Path("pictures") / f"{name}.png", pictures / f"{script.stem}_{name}.png"
                        )
                    page.append(PICTURE.sub(rf"](../pictures/{script.stem}_\1.png)", content))
                    continue
                said = io.StringIO()
                with contextlib.redirect_stdout(said), contextlib.redirect_stderr(io.StringIO()):
                    exec(compile(content, script.name, "exec"), space)
                page.append(f"```python\n{content}\n```")
                output = "\n".join(line.rstrip() for line in said.getvalue().rstrip().split("\n"))
                if output.strip():
                    page.append(f"```text\n{output.strip(chr(10))}\n```")
        finally:
            os.chdir(back)
    return "\n\n".join(page) + "\n"


def shrink(source: Path, target: Path) -> None:
    """Copy a PNG with at most WIDTH pixels and LARGEST bytes; raises ValueError when it stays larger."""
    from PIL import Image

    image = Image.open(source).convert("RGB")
    if image.width > WIDTH:
        image = image.resize((WIDTH, round(image.height * WIDTH / image.width)), Image.LANCZOS)
    target.parent.mkdir(parents=True, exist_ok=True)
    for colours in (None, *COLOURS):
        few = image if colours is None else image.quantize(colours, dither=Image.Dither.NONE)
        few.save(target, optimize=True)
        if target.stat().st_size <= LARGEST:
            return
    raise ValueError(f"{target.name} has {target.stat().st_size} bytes, more than {LARGEST}")


def main(names: list[str]) -> None:
    """Build the tutorials named, or all."""
    for script in sorted((DOCS / "tutorials").glob("*.py")):
        if not names or script.stem in names:
            page = script.with_suffix(".md")
            page.write_text(build(script, DOCS / "pictures"), encoding="utf-8")
            print(page)


if __name__ == "__main__":
    main(sys.argv[1:])
