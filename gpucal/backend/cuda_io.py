"""zstd by nvCOMP and file reading by KvikIO on a CUDA device, behind ``device_codec``'s protocols.

Both are imported only when asked for.

nvCOMP 6 (``nvidia.nvcomp``): with ``BitstreamKind.RAW`` every entry of a batch is one standard zstd
frame, so frames of other programs are decoded, and the frames written here can be put one after
another into a chunk that any reader opens. Its zstd has no levels. KvikIO is used where GPUDirect
Storage (GDS) works; without it KvikIO would go through host memory as the lanes do themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from gpucal.backend.device_codec import CodecError, DeviceTools
from gpucal.backend.health import CUDA_ERRORS
from gpucal.backend.lanes import Array, DeviceStreams, Span

PIECE = 64 << 10
"""Bytes in a frame that is written: the size for which nvCOMP's zstd is built, and many of them in a batch."""

LEAST_NVCOMP = 6
"""Batches as one buffer with offsets, and ``out=`` of a batch, came with nvCOMP 6."""

INSTALL = "pip install 'gpucal[cuda13]' (cuda12 for CUDA 12)"

NOT_THERE = f"nvCOMP is not installed; {INSTALL}"


class NvcompZstd:
    """zstd of one stream by nvCOMP; a ``device_codec.DeviceCodec``. One thread at a time."""

    def __init__(self, nvcomp: Any, stream: Any, device_id: int) -> None:
        """Make a codec on ``stream``, a CuPy stream. Raises CodecError when nvCOMP refuses."""
        self._nvcomp, self._stream = nvcomp, stream
        try:
            self._codec = nvcomp.Codec(
                algorithm="Zstd",
                device_id=device_id,
                cuda_stream=stream.ptr,
                bitstream_kind=nvcomp.BitstreamKind.RAW,
            )
            self.alignment = max(
                1,
                int(self._codec.get_required_decompression_alignment()),
                int(self._codec.get_required_compression_alignment()),
            )
        except (RuntimeError, ValueError) as error:
            raise _refused(error) from error
        self._stride: dict[int, int] = {}

    def decode(
        self,
        source: Array,
        frames: Sequence[Span],
        target: Array,
        places: Sequence[Span],
    ) -> None:
        """See ``DeviceCodec.decode``."""
        # nvCOMP reads the headers back and waits for that: wait here, where others can run.
        self._wait()
        try:
            with self._stream:  # CuPy names its current stream to whoever is given an array
                batch, out = self._batch(source, frames), self._batch(target, places)
                decoded = self._codec.decode(batch, out=out)
        except (RuntimeError, ValueError) as error:
            raise _refused(error) from error
        self._wait()
        found = _sizes(decoded)
        for i, (place, got) in enumerate(zip(places, found, strict=True)):
            if got != place.size:
                raise CodecError(
                    f"zstd frame {i} decodes to {got} bytes on the device, not {place.size}"
                )

    def encode(self, source: Array, room: Callable[[int], Array]) -> list[Span]:
        """See ``DeviceCodec.encode``; frames of PIECE bytes."""
        nbytes = int(source.nbytes)
        pieces = [Span(at, min(PIECE, nbytes - at)) for at in range(0, nbytes, PIECE)]
        try:
            with self._stream:
                stride = self._room_per_piece(source)
        except (RuntimeError, ValueError) as error:
            raise _refused(error) from error
        target = room(stride * len(pieces))
        slots = [Span(i * stride, stride) for i in range(len(pieces))]
        try:
            with self._stream:
                batch, out = self._batch(source, pieces), self._batch(target, slots)
                encoded = self._codec.encode(batch, out=out)
        except (RuntimeError, ValueError) as error:
            raise _refused(error) from error
        self._wait()
        sizes = _sizes(encoded)
        if len(sizes) != len(pieces) or not all(0 < size <= stride for size in sizes):
            raise CodecError(f"nvCOMP gave {len(sizes)} frames for {len(pieces)} pieces")
        return [Span(slot.start, size) for slot, size in zip(slots, sizes, strict=True)]

    def _batch(self, memory: Array, spans: Sequence[Span]) -> Any:
        """The spans of u8 memory as arrays of nvCOMP, without a copy."""
        return self._nvcomp.as_arrays(
            memory,
            [span.start for span in spans],
            [span.size for span in spans],
            cuda_stream=self._stream.ptr,
        )

    def _room_per_piece(self, source: Array) -> int:
        """Bytes that the largest piece may take when it is encoded, rounded up to the alignment."""
        nbytes = min(PIECE, int(source.nbytes))
        if nbytes not in self._stride:
            piece = self._nvcomp.as_array(source[:nbytes], cuda_stream=self._stream.ptr)
            most = int(self._codec.get_max_comp_buffer_size(piece))
            step = max(16, self.alignment)
            self._stride[nbytes] = -(-most // step) * step
        return self._stride[nbytes]

    def _wait(self) -> None:
        """Wait for all work that is queued on the stream so far."""
        self._stream.record().synchronize()


def _sizes(batch: Any) -> list[int]:
    """Sizes of the results in a batch, bytes; an error of nvCOMP becomes a CodecError."""
    try:
        return [int(size) for size in batch.buffer_sizes]
    except (RuntimeError, ValueError) as error:
        raise _refused(error) from error


def _refused(error: Exception) -> Exception:
    """An error of nvCOMP as CodecError; one of CuPy unchanged, as the device may be lost."""
    if type(error).__name__ in CUDA_ERRORS:
        return error
    return CodecError(f"nvCOMP: {' '.join(str(error).split()).rstrip('.')}")


class GdsFiles:
    """Files into device memory by KvikIO; a ``device_codec.DeviceFiles``."""

    def __init__(self, kvikio: Any) -> None:
        self._kvikio = kvikio

    def read(self, path: Path, target: Array) -> None:
        """See ``DeviceFiles.read``."""
        wanted = int(target.nbytes)
        try:
            with self._kvikio.CuFile(str(path), "r") as file:
                got = int(file.read(target, wanted))
        except RuntimeError as error:
            raise ValueError(f"KvikIO: {' '.join(str(error).split()).rstrip('.')}") from error
        if got != wanted:
            raise ValueError(f"it has {got} bytes, expected {wanted}")


def cuda_tools(streams: DeviceStreams, device_id: int) -> DeviceTools:
    """The codec and file reading of a CUDA device; does not raise where a library is not installed."""
    nvcomp, reason = _nvcomp()
    if nvcomp is None:
        return DeviceTools(streams, None, missing=reason)
    files, how = _gds()
    return DeviceTools(
        streams,
        lambda stream: NvcompZstd(nvcomp, stream, device_id),
        files,
        described=f"nvCOMP {nvcomp.__version__}, {how}",
    )


def _nvcomp() -> tuple[Any, str]:
    """The nvCOMP module, or None and why it cannot be used."""
    try:
        import nvidia.nvcomp as nvcomp
    except ModuleNotFoundError:
        return None, NOT_THERE
    except Exception as error:  # its library may refuse the driver in ways of its own
        return None, f"nvCOMP cannot be loaded: {error}"
    version = str(getattr(nvcomp, "__version__", "0"))
    if int(version.partition(".")[0]) < LEAST_NVCOMP:
        return None, f"nvCOMP is {version}, at least {LEAST_NVCOMP} is needed; {INSTALL}"
    return nvcomp, ""


def _gds() -> tuple[GdsFiles | None, str]:
    """KvikIO's files where GDS works; and how files are read, as a clause."""
    through = "files through page-locked memory"
    try:
        import kvikio
        import kvikio.cufile_driver
        import kvikio.defaults

        if not kvikio.cufile_driver.get("is_gds_available"):
            return None, f"{through} (GPUDirect Storage is not available)"
        if kvikio.defaults.get("num_threads") == 1:
            kvikio.defaults.set({"num_threads": 8})
    except ModuleNotFoundError:
        return None, f"{through} (KvikIO is not installed)"
    except Exception as error:  # without libcufile KvikIO raises errors of its own
        return None, f"{through} (KvikIO cannot be used: {' '.join(str(error).split())})"
    return GdsFiles(kvikio), "files without crc32c by GPUDirect Storage, others page-locked"


def describe_io() -> dict[str, str]:
    """Description of input and output of the device for ``gpucal info``: nvcomp, kvikio, gds."""
    nvcomp, reason = _nvcomp()
    _, how = _gds()
    return {
        "nvcomp": str(nvcomp.__version__) if nvcomp is not None else f"not used: {reason}",
        "kvikio": _installed("kvikio") or f"not installed; {INSTALL}",
        "gds": how,
    }


def _installed(stem: str) -> str:
    """Version of the package for CUDA 13 or 12; "" where neither is installed."""
    for name in (f"{stem}-cu13", f"{stem}-cu12"):
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return ""
