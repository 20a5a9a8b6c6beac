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


def _numpy() -> str:
    """The form of the kernels without a device."""
    return "numpy"


def _nothing() -> None:
    """What a thread has to do first where there is one device."""


@dataclass(frozen=True)
class Backend:
    """An array namespace, its kernels, the two transfers and the lanes that tiles run in.

    in_thread: to be called first in every new thread that uses the backend, as CUDA gives each thread
    the first device; never raises. io: who reads and writes chunk files, and what was measured for that,
    for the provenance; empty where only the host can. kernel_form: "fused", "plain", or which is plain
    and why.
    """

    name: str
    xp: Any
    kernels: KernelSet
    asarray: Callable[[Any], Array]
    to_host: Callable[[Array], Any]
    lanes: Callable[[int], LanePool] = host_lanes
    device: str = "cpu"
    reason: str = ""
    health: Health = field(default_factory=Health)
    in_thread: Callable[[], None] = _nothing
    kernel_form: Callable[[], str] = _numpy
    io: Callable[[], dict[str, Any]] = dict
    device_io: Callable[[], DeviceTools] | None = None
