"""What the input and output of a device need of its libraries; ``cuda_io`` has it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from gpucal.backend.lanes import Array, DeviceStreams, Stream


class CodecError(ValueError):
    """The codec of the device refused, or did not give what a frame declares."""


class DeviceCodec(Protocol):
    """zstd on the device, for one thread at a time; frames are standard ones (RFC 8878)."""

    alignment: int
    """Frames and decoded pieces start at multiples of this many bytes."""

    def decode(
        self,
        source: Array,
        frames: Sequence[tuple[int, int]],
        target: Array,
        places: Sequence[tuple[int, int]],
    ) -> None:
        """Decode frames (start, size) of u8 memory to places (start, size) of other u8 memory.

        Runs on the codec's stream; has finished on return. Raises CodecError.
        """

    def encode(self, source: Array, room: Callable[[int], Array]) -> list[tuple[int, int]]:
        """Encode u8 memory to frames in ``room(nbytes)``; their (start, size) in order.

        Runs on the codec's stream; has finished on return. Raises CodecError.
        """


class DeviceFiles(Protocol):
    """Files read straight into device memory."""

    def read(self, path: Path, target: Array) -> None:
        """Fill u8 memory from the start of a file; has finished on return.

        Raises ValueError when the file is shorter, OSError when it cannot be read.
        """


@dataclass(frozen=True)
class DeviceTools:
    """What a device brings for its own input and output.

    codec makes a codec for a stream; None: there is none, ``missing`` says why. files: None where
    the host reads files. described: one clause that names what is used.
    """

    streams: DeviceStreams
    codec: Callable[[Stream], DeviceCodec] | None
    files: DeviceFiles | None = None
    missing: str = ""
    described: str = ""
