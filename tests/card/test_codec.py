"""The codec of the card against numcodecs, both ways."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numcodecs.zstd import Zstd

from gpucal.backend.device_codec import CodecError
from gpucal.backend.lanes import Span

SIZES = [64, (64 << 10) - 8, 64 << 10, (64 << 10) + 8, (1 << 20) + 24]
KINDS = ("counts", "noise", "zeros")


def sample(kind: str, nbytes: int) -> Any:
    """u8 [nbytes]: counts as they are recorded, noise that does not compress, or zeros."""
    rng = np.random.default_rng(nbytes)
    if kind == "counts":
        return (
            rng.normal(3e4, 50.0, nbytes // 4 + 1).astype(np.int32).view(np.uint8)[:nbytes].copy()
        )
    if kind == "noise":
        return rng.integers(0, 256, nbytes).astype(np.uint8)
    return np.zeros(nbytes, np.uint8)


class OnCard:
    """One codec with its stream, and copies both ways."""

    def __init__(self, tools: Any) -> None:
        self._tools = tools
        self.device = tools.streams.device
        self.stream = self.device.stream()
        self.codec = tools.codec(self.stream)

    def up(self, data: Any) -> Any:
        """A copy on the card."""
        host = self.device.pinned(data.size)[: data.size]
        host[...] = data
        memory = self.device.memory(data.size)
        self.stream.wait_event(self._tools.streams.compute.record())
        self.device.copy_in(memory, host, self.stream)
        self.stream.record().synchronize()
        return memory

    def down(self, memory: Any, spans: list[Span]) -> Any:
        """Pieces of u8 memory, one after another, on the host."""
        total = sum(span.size for span in spans)
        host = self.device.pinned(max(1, total))[:total]
        self.device.gather_out(host, memory, spans, self.stream)
        self.stream.record().synchronize()
        return np.array(host)


@pytest.fixture
def on_card(tools: Any) -> OnCard:
    return OnCard(tools)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("nbytes", SIZES)
def test_what_the_card_encodes_numcodecs_decodes(on_card: OnCard, nbytes: int, kind: str) -> None:
    data = sample(kind, nbytes)
    memories: list[Any] = []

    def room(size: int) -> Any:
        memories.append(on_card.device.memory(size))
        return memories[-1]

    frames = on_card.codec.encode(on_card.up(data), room)
    joined = on_card.down(memories[0], frames)
    parts, at = [], 0
    for _, size in frames:
        parts.append(Zstd().decode(joined[at : at + size].tobytes()))
        at += size
    assert b"".join(parts) == data.tobytes()


@pytest.mark.parametrize("pieces", [1, 2, 64, 200])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("checksum", [False, True])
def test_what_numcodecs_encodes_the_card_decodes(
    on_card: OnCard, pieces: int, kind: str, checksum: bool
) -> None:
    step = on_card.codec.alignment
    parts = [sample(kind, 4096 + 64 * i) for i in range(pieces)]
    encoded = [np.frombuffer(Zstd(1, checksum).encode(p.tobytes()), np.uint8) for p in parts]
    frames, places, memory = [], [], []
    at = to = 0
    for part, frame in zip(parts, encoded, strict=True):
        padded = -(-frame.size // step) * step
        memory.append(np.pad(frame, (0, padded - frame.size)))
        frames.append(Span(at, frame.size))
        places.append(Span(to, part.size))
        at, to = at + padded, to + part.size
    target = on_card.device.memory(to)
    on_card.codec.decode(on_card.up(np.concatenate(memory)), frames, target, places)
    assert np.array_equal(on_card.down(target, [Span(0, to)]), np.concatenate(parts))


def test_a_damaged_frame_is_an_error_and_the_codec_goes_on(on_card: OnCard) -> None:
    data = sample("counts", 8192)
    good = np.frombuffer(Zstd(1).encode(data.tobytes()), np.uint8)
    bad = good.copy()
    bad[:4] = 0  # no frame of zstd begins so
    target = on_card.device.memory(8192)
    with pytest.raises((CodecError, RuntimeError)):
        on_card.codec.decode(on_card.up(bad), [Span(0, bad.size)], target, [Span(0, 8192)])
    on_card.codec.decode(on_card.up(good), [Span(0, good.size)], target, [Span(0, 8192)])
    assert np.array_equal(on_card.down(target, [Span(0, 8192)]), data)
