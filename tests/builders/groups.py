"""The groups of a scan, where a test relies on their being there."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from gpucal import Scan, SubscanGroup


def source_of(scan: Scan | None) -> SubscanGroup:
    """The source subscans of ``scan``."""
    assert scan is not None
    assert scan.source is not None
    return scan.source


def loads_of(scan: Scan | None) -> SubscanGroup:
    """The load subscans of ``scan``."""
    assert scan is not None
    assert scan.calibration is not None
    return scan.calibration


def known(values: NDArray[Any] | None) -> NDArray[Any]:
    """An optional array of a group, which a test relies on."""
    assert values is not None
    return values
