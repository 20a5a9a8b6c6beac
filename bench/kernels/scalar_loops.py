"""The scalar loops that the tests hold as oracle, from ``tests/oracle/kernels.py``."""

from __future__ import annotations

import importlib.util
from pathlib import Path

_path = Path(__file__).parents[2] / "tests" / "oracle" / "kernels.py"
_spec = importlib.util.spec_from_file_location("oracle_kernels", _path)
if _spec is None or _spec.loader is None:
    raise ImportError(f"no scalar loops at {_path}; run the benches in a source checkout.")
oracle = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(oracle)
