"""Protocol of a backend: arrays, kernels, transfers and lanes. It is an argument, never a global."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from gpucal.backend.device_codec import DeviceTools
from gpucal.backend.health import Health
from gpucal.backend.lanes import LanePool, host_lanes
from gpucal.kernel_contract.argument import Array
from gpucal.kernel_contract.kernel_set import KernelSet


@dataclass(frozen=True)
class Backend:
    """An array namespace, its kernels, the two transfers and the lanes that tiles run in."""

    name: str
    xp: Any
    kernels: KernelSet
    asarray: Callable[[Any], Array]
    to_host: Callable[[Array], Any]
    lanes: Callable[[int], LanePool] = host_lanes
    device: str = "cpu"
    reason: str = ""
    health: Health = field(default_factory=Health)
    device_io: Callable[[], DeviceTools] | None = None
