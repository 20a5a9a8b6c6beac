"""zstd of the fake device: queued like any other work, and done as late as the rules allow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numcodecs.zstd import Zstd

from fakes.device import FakeDevice, FakeStream, fake_backend
from gpucal.backend.device_codec import CodecError, DeviceTools
from gpucal.backend.lanes import DeviceStreams, Span

PIECE = 1000
"""Bytes in a frame: chunks of the tests have several, the last one shorter."""


@dataclass
class FakeTools:
    """A device with codec, and files where ``gds``; counts what they did.

    decode_fault, encode_fault: called with what was made; their result is used instead.
    """

    device: FakeDevice = field(default_factory=FakeDevice)
    alignment: int = 1
    gds: bool = False
    missing: str = ""
    no_codec: str = ""
    decoded: int = 0
    encoded: int = 0
    files_read: int = 0
    encode_fault: Callable[[bytes], bytes] | None = None
    decode_fault: Callable[[bytes], bytes] | None = None

    def backend(self, kernels: Any = None) -> Any:
        """A backend on the device with these tools."""
        streams = DeviceStreams(self.device)

        def tools() -> DeviceTools:
            codec = None if self.missing else lambda stream: FakeCodec(self, stream)
            files = FakeFiles(self) if self.gds else None
            return DeviceTools(streams, codec, files, self.missing, "numcodecs")

        return replace(fake_backend(self.device, kernels, streams), device_io=tools)


class FakeCodec:
    """A ``DeviceCodec`` on NumPy memory."""

    def __init__(self, tools: FakeTools, stream: FakeStream) -> None:
        if tools.no_codec:
            raise CodecError(tools.no_codec)
        self.alignment = tools.alignment
        self._tools, self._stream = tools, stream

    def decode(self, source: Any, frames: Any, target: Any, places: Any) -> None:
        self._wait("a decoder does not wait for the steps that read its memory")
        for (start, size), (to, nbytes) in zip(frames, places, strict=True):
            assert start % self.alignment == to % self.alignment == 0
            data = Zstd().decode(source[start : start + size].tobytes())
            fault = self._tools.decode_fault
            data = fault(data) if fault else data
            if len(data) != nbytes:
                raise CodecError(f"{len(data)} bytes")
            target[to : to + nbytes] = np.frombuffer(data, np.uint8)
        with self._tools.device.lock:
            self._tools.decoded += len(frames)

    def encode(self, source: Any, room: Callable[[int], Any]) -> list[Span]:
        self._wait("an encoder does not wait for the kernel that makes its data")
        data = source.tobytes()
        frames = [Zstd(1).encode(data[at : at + PIECE]) for at in range(0, len(data), PIECE)]
        fault = self._tools.encode_fault
        frames = [fault(frame) for frame in frames] if fault else frames
        slot = 2 * PIECE + 64
        memory = room(slot * len(frames))
        for i, frame in enumerate(frames):
            memory[i * slot : i * slot + len(frame)] = np.frombuffer(frame, np.uint8)
        with self._tools.device.lock:
            self._tools.encoded += len(frames)
        return [Span(i * slot, len(frame)) for i, frame in enumerate(frames)]

    def _wait(self, message: str) -> None:
        self._tools.device._require(self._stream, message)
        self._stream.record().synchronize()


@dataclass
class FakeFiles:
    """``DeviceFiles``: writes into memory at once, so everything else must have ended."""

    tools: FakeTools

    def read(self, path: Path, target: Any) -> None:
        last = self.tools.device.last
        message = "a file is read over memory that steps may still read"
        assert getattr(last, "waited", 0) >= getattr(last, "tick", 0), message
        data = path.read_bytes()[: target.nbytes]
        if len(data) != target.nbytes:
            raise ValueError(f"it has {len(data)} bytes, expected {target.nbytes}")
        target[...] = np.frombuffer(data, np.uint8)
        with self.tools.device.lock:
            self.tools.files_read += 1
