"""Arrays of every backend find their namespace: CuPy's have no ``__array_namespace__``."""

from __future__ import annotations

from pathlib import Path

import gpucal


def test_nobody_asks_an_array_for_its_namespace() -> None:
    root = Path(gpucal.__file__).parent
    asking = [
        str(path.relative_to(root))
        for path in sorted(root.rglob("*.py"))
        if "__array_namespace__" in path.read_text(encoding="utf-8")
    ]
    assert asking == [], "use array_api_compat.array_namespace(array)"
