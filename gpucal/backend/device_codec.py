"""Protocols of a zstd codec and of file reading on a device; ``cuda_io`` implements them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from gpucal.backend.lanes import Array, DeviceStreams, Span, Stream


class CodecError(ValueError):
    """The codec of the device failed, or a frame did not decode to the size that it declares."""


class DeviceCodec(Protocol):
    """zstd on the device, for one thread at a time; frames are standard ones (RFC 8878)."""

    alignment: int
    """Frames and decoded pieces start at multiples of this many bytes."""

    def decode(
        self,
        source: Array,
        frames: Sequence[Span],
        target: Array,
        places: Sequence[Span],
    ) -> None:
        """Decode frames in u8 memory to places in other u8 memory.

        Runs on the codec's stream; has finished on return. Raises CodecError.
        """

    def encode(self, source: Array, room: Callable[[int], Array]) -> list[Span]:
        """Encode u8 memory to frames in ``room(nbytes)``; return where they lie, in order.

        Runs on the codec's stream; has finished on return. Raises CodecError.
        """


class DeviceFiles(Protocol):
    """Reader of files straight into device memory."""

    def read(self, path: Path, target: Array) -> None:
        """Fill u8 memory from the start of a file; has finished on return.

        Raises ValueError when the file is shorter, OSError when it cannot be read.
        """


@dataclass(frozen=True)
class DeviceTools:
    """Codec and file reading of a device.

    codec makes a codec for a stream; None: there is none, ``missing`` says why. files: None where
    the host reads files. described: one clause that names what is used.
    """

    streams: DeviceStreams
    codec: Callable[[Stream], DeviceCodec] | None
    files: DeviceFiles | None = None
    missing: str = ""
    described: str = ""
