"""What the program knows becomes strict JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpucal.io.files.json_text import dumps, plain


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (float("nan"), None),
        (-np.inf, None),
        (np.float32(0.5), 0.5),
        (np.int64(3), 3),
        (np.bool_(True), True),
        (np.array([[1.0, np.nan]]), [[1.0, None]]),
        (np.array(np.nan), None),
        ((1, "é", None), [1, "é", None]),
        ({1: Path("/a/b"), "k": {"x": np.arange(2)}}, {"1": "/a/b", "k": {"x": [0, 1]}}),
        (1 + 2j, "(1+2j)"),
    ],
    ids=repr,
)
def test_plain(value: Any, expected: Any) -> None:
    assert plain(value) == expected
    assert json.loads(dumps(value)) == expected


def test_options_are_those_of_json() -> None:
    assert dumps({"b": 1, "a": "é"}) == '{"b": 1, "a": "é"}'
    assert (
        dumps({"b": 1, "a": "é"}, sort_keys=True, ensure_ascii=True) == '{"a": "\\u00e9", "b": 1}'
    )
    assert dumps([float("nan")], indent=1) == "[\n null\n]"
