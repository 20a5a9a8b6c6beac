"""gpucal: raw counts of heterodyne arrays to calibrated T_A*.

The public names load on first use, so that ``import gpucal`` stays light.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0.dev0"

_WHERE = {
    "CalibrationConfig": "gpucal.config",
    "load_config": "gpucal.config",
    "calibrate_scan": "gpucal.pipeline.scan.in_memory",
    "calibrate_store": "gpucal.pipeline.calibrate",
    "open_l0": "gpucal.io.l0.store",
    "open_l1": "gpucal.io.l1.reader",
    "to_spectrum1d": "gpucal.export.spectrum1d",
}
__all__ = [
    "CalibrationConfig",
    "calibrate_scan",
    "calibrate_store",
    "load_config",
    "open_l0",
    "open_l1",
    "to_spectrum1d",
]

if TYPE_CHECKING:
    from gpucal.config import CalibrationConfig, load_config
    from gpucal.export.spectrum1d import to_spectrum1d
    from gpucal.io.l0.store import open_l0
    from gpucal.io.l1.reader import open_l1
    from gpucal.pipeline.calibrate import calibrate_store
    from gpucal.pipeline.scan.in_memory import calibrate_scan


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'gpucal' has no attribute {name!r}")
    return getattr(import_module(_WHERE[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_WHERE])
