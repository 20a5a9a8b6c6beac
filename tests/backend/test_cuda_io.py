"""The adapters to nvCOMP and KvikIO, against modules that check how they are called.

The stand-ins take the arguments of nvCOMP 6.0 and KvikIO 26.10 by their names and refuse all else.
"""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numcodecs.zstd import Zstd

from gpucal import DeviceMemoryError
from gpucal.backend import cuda_io
from gpucal.backend.cuda import CupyCopies
from gpucal.backend.cuda_io import GdsFiles, NvcompZstd, cuda_tools, describe_io
from gpucal.backend.device_codec import CodecError
from gpucal.backend.lanes import Span

STREAM = 0x5EED


class CupyStream:
    """What the adapter uses of a CuPy stream."""

    ptr = STREAM
    current = False
    waits = 0

    def __enter__(self) -> CupyStream:
        self.current = True
        return self

    def __exit__(self, *error: Any) -> None:
        self.current = False

    def record(self) -> Any:
        def synchronize() -> None:
            self.waits += 1

        return SimpleNamespace(synchronize=synchronize)


class Batch:
    """nvcomp.BatchArray: buffers of fixed capacity, with the sizes in use."""

    def __init__(self, parts: list[Any]) -> None:
        self.parts = parts
        self.sizes = [part.size for part in parts]

    def __len__(self) -> int:
        return len(self.parts)

    @property
    def buffer_sizes(self) -> list[int]:
        return list(self.sizes)


class Codec:
    """nvcomp.Codec; keyword arguments only, as there."""

    ALLOWED = frozenset({"algorithm", "device_id", "cuda_stream", "bitstream_kind"})

    def __init__(self, **kwargs: Any) -> None:
        assert kwargs.keys() == self.ALLOWED
        assert kwargs["algorithm"] == "Zstd"
        assert kwargs["bitstream_kind"] is NVCOMP.BitstreamKind.RAW
        assert kwargs["cuda_stream"] == STREAM
        assert type(kwargs["device_id"]) is int

    def get_required_compression_alignment(self) -> int:
        return 4

    def get_required_decompression_alignment(self) -> int:
        return 8

    def get_max_comp_buffer_size(self, source: Any) -> int:
        assert isinstance(source, Batch)
        return int(source.parts[0].size + source.parts[0].size // 255 + 77)

    def decode(
        self, srcs: Batch, data_type: str = "", out: Any = None, decompression_config: Any = None
    ) -> Batch:
        assert isinstance(out, Batch)
        assert len(out) == len(srcs)
        for i, part in enumerate(srcs.parts):
            data = Zstd().decode(part.tobytes())
            if len(data) > out.parts[i].size:
                raise ValueError("output buffer is too small")
            out.parts[i][: len(data)] = np.frombuffer(data, np.uint8)
            out.sizes[i] = len(data)
        return out

    def encode(self, srcs: Batch, out: Any = None, compression_config: Any = None) -> Batch:
        assert isinstance(out, Batch)
        assert len(out) == len(srcs)
        for i, part in enumerate(srcs.parts):
            data = Zstd(1).encode(part.tobytes())
            out.parts[i][: len(data)] = np.frombuffer(data, np.uint8)
            out.sizes[i] = len(data)
        return out


def as_arrays(buffer: Any, offsets: Any, sizes: Any, cuda_stream: int = 0) -> Batch:
    assert (buffer.dtype, buffer.ndim) == (np.uint8, 1)
    assert cuda_stream == STREAM
    assert all(type(n) is int for n in (*offsets, *sizes))
    assert all(n % 8 == 0 for n in offsets)
    assert all(a + b <= buffer.size for a, b in zip(offsets, sizes, strict=True))
    return Batch([buffer[a : a + b] for a, b in zip(offsets, sizes, strict=True)])


def as_array(source: Any, cuda_stream: int = 0) -> Batch:
    assert cuda_stream == STREAM
    return Batch([source])


NVCOMP: Any = SimpleNamespace(
    Codec=Codec,
    as_array=as_array,
    as_arrays=as_arrays,
    BitstreamKind=SimpleNamespace(RAW=object()),
    __version__="6.0.0",
)


def codec() -> tuple[NvcompZstd, CupyStream]:
    stream = CupyStream()
    return NvcompZstd(NVCOMP, stream, 0), stream


@pytest.mark.parametrize(
    "nbytes", [8, cuda_io.PIECE - 8, cuda_io.PIECE, cuda_io.PIECE + 8, 5 * cuda_io.PIECE + 24]
)
def test_what_is_encoded_decodes_anywhere(nbytes: int) -> None:
    zstd, stream = codec()
    source = np.random.default_rng(0).integers(0, 30, nbytes).astype(np.uint8)
    asked: list[int] = []

    memories: list[Any] = []

    def room(size: int) -> Any:
        asked.append(size)
        memories.append(np.full(size + 100, 0xCD, np.uint8))
        return memories[-1]

    frames = zstd.encode(source, room)
    assert len(asked) == 1
    assert len(frames) == -(-nbytes // cuda_io.PIECE)
    data = b"".join(memories[0][a : a + n].tobytes() for a, n in frames)
    assert len(data) < nbytes + 30
    parts = [Zstd().decode(memories[0][a : a + n].tobytes()) for a, n in frames]
    assert b"".join(parts) == source.tobytes()
    assert max(map(len, parts)) <= cuda_io.PIECE

    target = np.zeros(nbytes, np.uint8)
    places = [Span(i * cuda_io.PIECE, len(part)) for i, part in enumerate(parts)]
    waits = stream.waits
    zstd.decode(memories[0], frames, target, places)
    assert np.array_equal(target, source)
    assert stream.waits == waits + 2
    assert not stream.current


def test_alignment_is_the_stricter_one() -> None:
    assert codec()[0].alignment == 8


def test_a_frame_of_another_size_is_refused() -> None:
    zstd, _ = codec()
    frame = np.frombuffer(Zstd(1).encode(b"12345678" * 4), np.uint8)
    with pytest.raises(CodecError, match=r"decodes to 32 bytes on the device, not 40"):
        zstd.decode(frame, [Span(0, frame.size)], np.zeros(40, np.uint8), [Span(0, 40)])
    with pytest.raises(CodecError, match="nvCOMP: output buffer is too small"):
        zstd.decode(frame, [Span(0, frame.size)], np.zeros(24, np.uint8), [Span(0, 24)])
    with pytest.raises(CodecError, match="nvCOMP: "):
        zstd.decode(frame[8:], [Span(0, 8)], np.zeros(40, np.uint8), [Span(0, 40)])


def test_errors_of_the_device_stay_what_they_are() -> None:
    """Only nvCOMP's own are taken for a frame that cannot be decoded."""
    zstd, _ = codec()
    source = np.zeros(64, np.uint8)

    def full(nbytes: int) -> Any:
        raise DeviceMemoryError("the device has no room.")

    with pytest.raises(DeviceMemoryError):
        zstd.encode(source, full)

    class CUDARuntimeError(RuntimeError):
        status = 700

    def lost(nbytes: int) -> Any:
        raise CUDARuntimeError("illegal access")

    with pytest.raises(CUDARuntimeError):
        zstd.encode(source, lost)


class CuFile:
    """kvikio.CuFile on host memory."""

    def __init__(self, file: Any, flags: str = "r") -> None:
        assert flags == "r"
        self._data = Path(file).read_bytes()

    def __enter__(self) -> CuFile:
        return self

    def __exit__(self, *error: Any) -> None:
        self._data = b""

    def read(
        self, buf: Any, size: int | None = None, file_offset: int = 0, task_size: int | None = None
    ) -> int:
        data = self._data[file_offset:][:size]
        buf[: len(data)] = np.frombuffer(data, np.uint8)
        return len(data)


def fake_modules(monkeypatch: pytest.MonkeyPatch, *, gds: bool, version: str = "6.0.0") -> Any:
    """nvidia.nvcomp and kvikio as modules that can be imported; returns KvikIO's settings."""
    settings = {"num_threads": 1}
    nvidia, nvcomp = ModuleType("nvidia"), ModuleType("nvidia.nvcomp")
    vars(nvcomp).update({**vars(NVCOMP), "__version__": version})
    nvidia.nvcomp = nvcomp  # type: ignore[attr-defined]
    kvikio, driver = ModuleType("kvikio"), ModuleType("kvikio.cufile_driver")
    defaults = ModuleType("kvikio.defaults")
    kvikio.CuFile = CuFile  # type: ignore[attr-defined]
    kvikio.cufile_driver, kvikio.defaults = driver, defaults  # type: ignore[attr-defined]
    driver.get = {"is_gds_available": gds}.__getitem__  # type: ignore[attr-defined]
    defaults.get, defaults.set = settings.__getitem__, settings.update  # type: ignore[attr-defined]
    for module in (nvidia, nvcomp, kvikio, driver, defaults):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return settings


def test_tools_with_everything(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settings = fake_modules(monkeypatch, gds=True)
    tools = cuda_tools(None, 0)  # type: ignore[arg-type]
    assert tools.described == (
        "nvCOMP 6.0.0, files without crc32c by GPUDirect Storage, others page-locked"
    )
    assert settings["num_threads"] == 8
    assert isinstance(tools.files, GdsFiles)
    assert tools.codec is not None
    assert isinstance(tools.codec(CupyStream()), NvcompZstd)  # type: ignore[arg-type]
    (tmp_path / "chunk").write_bytes(b"abcdefgh")
    memory = np.zeros(8, np.uint8)
    tools.files.read(tmp_path / "chunk", memory[:4])
    assert memory.tobytes() == b"abcd\0\0\0\0"
    with pytest.raises(ValueError, match="it has 8 bytes, expected 9"):
        tools.files.read(tmp_path / "chunk", np.zeros(9, np.uint8))
    assert describe_io()["nvcomp"] == "6.0.0"


def test_tools_without_gds(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_modules(monkeypatch, gds=False)
    tools = cuda_tools(None, 0)  # type: ignore[arg-type]
    assert tools.files is None
    assert "page-locked memory (GPUDirect Storage is not available)" in tools.described


def test_an_old_nvcomp(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_modules(monkeypatch, gds=True, version="5.3.0")
    tools = cuda_tools(None, 0)  # type: ignore[arg-type]
    assert tools.codec is None
    assert "nvCOMP is 5.3.0, at least 6 is needed; pip install" in tools.missing


def test_nothing_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nvidia.nvcomp", None)
    monkeypatch.setitem(sys.modules, "kvikio", None)
    tools = cuda_tools(None, 0)  # type: ignore[arg-type]
    assert tools.codec is None
    assert tools.missing.startswith("nvCOMP is not installed; pip install 'gpucal[cuda13]'")
    found = describe_io()
    assert found["nvcomp"].startswith("not used: nvCOMP is not installed")
    assert found["gds"] == "files through page-locked memory (KvikIO is not installed)"


def test_pieces_are_copied_one_after_another() -> None:
    """The pointers that ``memcpyAsync`` is given, moved by the C library instead of CUDA."""
    calls: list[int] = []

    def memcpy_async(dst: int, src: int, size: int, kind: int, stream: int) -> None:
        assert (kind, stream) == (2, STREAM)
        ctypes.memmove(dst, src, size)
        calls.append(size)

    runtime = SimpleNamespace(memcpyAsync=memcpy_async, memcpyDeviceToHost=2)
    copies = CupyCopies(SimpleNamespace(cuda=SimpleNamespace(runtime=runtime)))
    memory = np.arange(100, dtype=np.uint8)
    source = SimpleNamespace(data=SimpleNamespace(ptr=memory.ctypes.data))
    target = np.zeros(12, np.uint8)
    copies.gather_out(target[:9], source, [Span(40, 5), Span(0, 1), Span(97, 3)], CupyStream())
    assert target.tolist() == [40, 41, 42, 43, 44, 0, 97, 98, 99, 0, 0, 0]
    assert calls == [5, 1, 3]


class TestRealModules:
    """The wheels themselves, as far as they go without a card: do the names we use exist?"""

    def test_nvcomp(self) -> None:
        nvcomp = pytest.importorskip("nvidia.nvcomp")
        text = nvcomp.as_arrays.__doc__
        assert "buffer: object, offsets: list[int], sizes: list[int], cuda_stream: int" in text
        for name in ("decode", "encode", "get_max_comp_buffer_size"):
            assert "out" in getattr(nvcomp.Codec, name).__doc__
        assert "cuda_stream" in nvcomp.Codec.__init__.__doc__
        assert nvcomp.BitstreamKind.RAW is not None
        assert hasattr(nvcomp.BatchArray, "buffer_sizes")
        assert hasattr(nvcomp.Codec, "get_required_decompression_alignment")
        assert hasattr(nvcomp.Codec, "get_required_compression_alignment")
