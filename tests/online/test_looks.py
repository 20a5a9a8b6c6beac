"""A look comes back as it was saved, and one that is not whole is said to be so."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from gpucal.errors import OnlineError
from gpucal.online.looks.look import BandLook, Look, load_look, save_look


def band(name: str) -> BandLook:
    values: dict[str, object] = {"band": name, "unit": "K", "modes": ("ON", "ON"), "pwv": 1.5}
    shapes = {"frequency": (4,), "spectrum": (4, 2, 3), "continuum": (5, 2, 3, 2)}
    for i, f in enumerate(fields(BandLook)):
        if f.name not in values:
            shape = shapes.get(f.name, (2, 3))
            values[f.name] = np.arange(np.prod(shape), dtype=float).reshape(shape) + i
    return BandLook(**values)  # type: ignore[arg-type]


def test_saved_and_loaded(tmp_path: Path) -> None:
    look = Look(
        7, (1, 2), "calibrated", source="Orion", warnings=("w",), bands=(band("a"), band("b"))
    )
    save_look(look, tmp_path / "deep" / "x.npz")
    found = load_look(tmp_path / "deep" / "x.npz")
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["x.npz"]
    assert (found.scan, found.subscans, found.source, found.warnings) == (
        7,
        (1, 2),
        "Orion",
        ("w",),
    )
    for ours, theirs in zip(found.bands, look.bands, strict=True):
        for f in fields(BandLook):
            np.testing.assert_array_equal(getattr(ours, f.name), getattr(theirs, f.name))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 broken", b"no zip"])
def test_a_broken_look_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.npz"
    path.write_bytes(content)
    with pytest.raises(OnlineError, match=r"x\.npz cannot be read"):
        load_look(path)
