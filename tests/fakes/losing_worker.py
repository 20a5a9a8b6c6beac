"""A device worker on a fake device that is lost as soon as a tile of certain scans is calibrated."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

# Run as a script: its own folder is in front of the path, where tests/ should be.
sys.path[0] = str(Path(__file__).resolve().parents[1])

from fakes.device import FakeDevice, fake_backend  # noqa: E402
from gpucal import select_backend  # noqa: E402
from gpucal.backend.protocol import Backend  # noqa: E402
from gpucal.pipeline.scan.stream import stream_within_memory  # noqa: E402
from gpucal.pipeline.spread import device_worker  # noqa: E402
from gpucal.pipeline.store import band_writer, run  # noqa: E402


class CUDARuntimeError(RuntimeError):
    """As CuPy's: an error that stays."""

    status = 700


def losing(numbers: set[int]) -> Any:
    def stream(solution: Any, *args: Any, **kwargs: Any) -> Any:
        if solution.scan.number in numbers and solution.backend.name == "fake":
            raise CUDARuntimeError("cudaErrorIllegalAddress: an illegal memory access")
        return stream_within_memory(solution, *args, **kwargs)

    return stream


def select(name: str, **options: Any) -> Backend:
    """The fake device, but for a process that is to go on with the CPU."""
    return select_backend(name, **options) if name == "cpu" else fake_backend(FakeDevice())


if __name__ == "__main__":
    lost_in = {int(n) for n in sys.argv[1].split(",")}
    setattr(band_writer, "stream_within_memory", losing(lost_in))  # noqa: B010
    setattr(run, "select_backend", select)  # noqa: B010
    device_worker.main()
