"""Input and output by the device itself, so that only compressed bytes cross the bus.

Whatever the device cannot do the host does, with one message per run for reading and one for
writing.
"""

from __future__ import annotations

from dataclasses import replace

from gpucal.backend.coders import CoderPool
from gpucal.backend.device_io_lane import DeviceIOLane
from gpucal.backend.duties import DeviceDuties, Message
from gpucal.backend.health import Health
from gpucal.backend.io_choice import IoChoice
from gpucal.backend.lanes import LanePool
from gpucal.backend.protocol import Backend
from gpucal.errors import BackendError

LEVEL = "zstd:1"
"""The codec of spectra that nvCOMP's own level stands for."""


def with_device_io(
    backend: Backend, choice: str, codec: str, message: Message, threads: int = 1
) -> Backend:
    """The backend with lanes that read and write on the device, as far as ``choice`` and it allow.

    choice: auto, host or device; codec: that of the spectra, such as "zstd:1"; threads: of the host, with
    which auto compares the device. ``message`` gets the reasons for what the host does instead: as
    warnings where the device was asked for. nvCOMP has no levels, so auto lets the host encode any other
    zstd level than 1. Never raises for what is missing.
    """
    asked = choice == "device"
    if choice == "host" or (backend.device_io is None and not asked):
        return backend
    level = "warning" if asked else "info"
    if backend.device_io is None:
        message(
            level, f"counts are read and spectra written by the host: {backend.name} has no device."
        )
        return backend
    tools = backend.device_io()
    own_choice = None if asked else IoChoice(threads, lambda text: message("info", text))
    duties = DeviceDuties(level, message, own_choice)
    coders = CoderPool(tools, duties)
    if tools.codec is None:
        duties.to_host("reads", tools.missing)
        duties.to_host("writes", tools.missing)
        return replace(backend, io=duties.as_dict)
    name, _, _ = codec.partition(":")
    if name != "zstd":
        duties.to_host("writes", f"the codec is {codec}, the device encodes zstd")
    elif codec != LEVEL and not asked:
        duties.to_host("writes", f"the device has no zstd levels, {codec} was asked for")
    work = "reads counts and writes spectra" if duties.writes else "reads counts"
    if asked:
        message("info", f"the device {work}: {tools.described}.")
    return replace(
        backend,
        lanes=lambda count: LanePool(count, lambda: DeviceIOLane(tools, coders, duties)),
        io=duties.as_dict,
        health=HealthWithCoders(backend.health, coders),
    )


class HealthWithCoders(Health):
    """The health of the device, which can also free the memory of the coders."""

    def __init__(self, device: Health, coders: CoderPool) -> None:
        self._device, self._coders = device, coders

    def failure(self, error: BaseException) -> BackendError | None:
        """See ``Health.failure``."""
        return self._device.failure(error)

    def free_bytes(self) -> int | None:
        """See ``Health.free_bytes``."""
        return self._device.free_bytes()

    def release(self) -> None:
        """See ``Health.release``."""
        self._coders.forget()
        self._device.release()
