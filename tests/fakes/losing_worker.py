"""A device worker on a fake device that is lost as soon as a tile of certain scans is calibrated."""

from __future__ import annotations

import sys
from typing import Any

from fakes.device import FakeDevice, fake_backend
from gpucal import select_backend
from gpucal.backend import Backend
from gpucal.pipeline.scan.memory_budget import stream_in_ring
from gpucal.pipeline.spread import device_worker
from gpucal.pipeline.store import night as batch


class CUDARuntimeError(RuntimeError):
    """As CuPy's: an error that stays."""

    status = 700


def losing(numbers: set[int]) -> Any:
    def stream(solution: Any, *args: Any, **kwargs: Any) -> Any:
        if solution.scan.number in numbers and solution.backend.name == "fake":
            raise CUDARuntimeError("cudaErrorIllegalAddress: an illegal memory access")
        return stream_in_ring(solution, *args, **kwargs)

    return stream


def select(name: str) -> Backend:
    """The fake device, but for a process that is to go on with the CPU."""
    return select_backend(name) if name == "cpu" else fake_backend(FakeDevice())


if __name__ == "__main__":
    lost_in = {int(n) for n in sys.argv[1].split(",")}
    setattr(batch, "stream_in_ring", losing(lost_in))  # noqa: B010
    setattr(batch, "select_backend", select)  # noqa: B010
    device_worker.main()
