"""Files decoded and encoded on the device: the same arrays, and the host for all that it cannot."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from builders.night_stores import fast_folder, make_night, small_setup
from builders.recoded import LAYOUTS, counts_of, recode
from fakes.clock import set_clock
from fakes.codec import FakeTools
from fakes.device import FakeStream
from numcodecs.zstd import Zstd
from zarr.codecs import BloscCodec

from gpucal import CalibrationConfig, StoreReport, calibrate_store
from gpucal.backend.coders import Coder
from gpucal.backend.device_io import with_device_io
from gpucal.errors import DeviceMemoryError
from gpucal.pipeline.scan import work_units
from gpucal.pipeline.store.report import SilentObserver
from gpucal.simulate.setup import Kind

KINDS: tuple[Kind, ...] = ("tp", "otf", "fsw")


class Heard(SilentObserver):
    """Keeps the messages."""

    def __init__(self) -> None:
        self.messages: list[tuple[str, str]] = []

    def message(self, level: Any, text: str) -> None:
        self.messages.append((level, text))

    def about_the_host(self) -> list[tuple[str, str]]:
        return [(level, text) for level, text in self.messages if "by the host" in text]


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with fast_folder(tmp_path_factory.mktemp("night")) as folder:
        make_night(folder, small_setup(kinds=KINDS, channels=72))
        report, _ = run(folder / "l0.zarr", folder / "host.zarr", folder / "table.npz")
        assert not report.failures
        yield folder


@pytest.fixture(autouse=True)
def device_is_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    """In every trial of ``auto``; tests/backend/test_io_choice.py has the others."""
    set_clock(monkeypatch, host=1.0, device=0.01)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several blocks of channels per scan; the last one is smaller than its chunk."""
    monkeypatch.setattr(work_units, "L1_CHUNK_BYTES", 1 << 12)


def run(
    l0: Path, out: Path, table: Path, tools: FakeTools | None = None, **options: Any
) -> tuple[StoreReport, Heard]:
    heard = Heard()
    config = CalibrationConfig(
        **{"atmosphere": str(table), "workers": 2, "backend": "cpu", **options}
    )
    backend = None if tools is None else tools.backend()
    return calibrate_store(l0, out, config, backend=backend, observer=heard), heard


def arrays(store: Path) -> dict[str, Any]:
    """Everything in a store, as Zarr reads it."""
    found = {}
    for document in store.rglob("zarr.json"):
        if '"node_type": "array"' in document.read_text("utf-8"):
            name = str(document.parent.relative_to(store))
            found[name] = zarr.open_array(document.parent, mode="r")[...]
    return found


def assert_same_arrays(store: Path, other: Path) -> None:
    one, two = arrays(store), arrays(other)
    assert one.keys() == two.keys()
    assert any(name.endswith("spectra") for name in one)
    for name, values in one.items():
        assert values.dtype == two[name].dtype
        assert values.tobytes() == two[name].tobytes(), name


@pytest.mark.parametrize(
    ("layout", "gds", "alignment"),
    [
        *((layout, False, 4) for layout in LAYOUTS),
        *((layout, True, 1) for layout in ("zstd", "plain", "frames", "frames, crc32c")),
        *(("frames", gds, alignment) for gds, alignment in ((True, 4), (False, 8))),
    ],
)
def test_the_same_arrays_as_the_host(
    night: Path, tmp_path: Path, layout: str, gds: bool, alignment: int
) -> None:
    table = night / "table.npz"
    l0 = recode(night / "l0.zarr", tmp_path / "l0.zarr", **LAYOUTS[layout])
    # one chunk of an ON and one of a load are not there: fill values
    removed = [next(p for p in sorted(f.rglob("c/1/**/1")) if p.is_file()) for f in counts_of(l0)]
    for path in removed[:3]:
        path.unlink()
    tools = FakeTools(gds=gds, alignment=alignment)
    ours, _ = run(l0, tmp_path / "host.zarr", table)
    theirs, heard = run(l0, tmp_path / "device.zarr", table, tools)
    assert [f.as_dict() for f in theirs.failures] == [f.as_dict() for f in ours.failures]
    assert sum(s.status == "calibrated" for s in theirs.summaries) >= 2
    assert_same_arrays(tmp_path / "host.zarr", tmp_path / "device.zarr")
    assert tools.encoded > 0
    four_bytes = "frames" in layout and alignment == 8
    if four_bytes:  # the last frame of each chunk begins at 4 modulo 8
        assert [level for level, _ in heard.about_the_host()] == ["info"]
        assert "multiple of 8" in heard.about_the_host()[0][1]
        return
    assert not heard.about_the_host()
    told = [text for _, text in heard.messages if "by the device" in text]
    assert bool([text for text in told if "decoded" in text]) == ("plain" not in layout)
    assert [text for text in told if "encoded" in text]
    assert (tools.decoded > 0) == ("plain" not in layout)
    moved = "frames" in layout and alignment > 1
    assert (tools.files_read > 0) == (gds and "crc32c" not in layout and not moved)


REASONS: dict[str, tuple[dict[str, Any], str]] = {
    "blosc": ({"codecs": (BloscCodec(cname="lz4"),)}, "compressed with blosc"),
    "subscans": ({"subscans": 2}, "holds 2 subscans"),
    "dumps": ({"dumps": 2}, "the device needs all in one"),
    "big endian": ({"big": True}, "big endian"),
}


@pytest.mark.parametrize("choice", ["auto", "device"])
@pytest.mark.parametrize("layout", REASONS)
def test_what_the_device_cannot_read_the_host_reads(
    night: Path, tmp_path: Path, layout: str, choice: str
) -> None:
    options, words = REASONS[layout]
    l0 = recode(night / "l0.zarr", tmp_path / "l0.zarr", **options)
    tools = FakeTools()
    report, heard = run(l0, tmp_path / "device.zarr", night / "table.npz", tools, io=choice)
    assert not report.failures
    assert_same_arrays(night / "host.zarr", tmp_path / "device.zarr")
    ((level, text),) = heard.about_the_host()
    assert level == ("warning" if choice == "device" else "info")
    assert words in text
    assert (tools.decoded, tools.encoded > 0) == (0, True)


DAMAGES = {
    "byte": lambda data: (
        data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 1]) + data[len(data) // 2 + 1 :]
    ),
    "cut": lambda data: data[:-5],
    "longer": lambda data: data + b"12345678",
    "other size": lambda data: Zstd(1).encode(b"1234"),
}


@pytest.mark.parametrize(
    ("layout", "damage"),
    [
        ("zstd, zstd checksum, crc32c", "byte"),
        ("zstd, zstd checksum, crc32c", "cut"),
        ("plain, crc32c", "byte"),
        ("frames", "cut"),
        ("frames", "other size"),
        ("frames", "longer"),
        ("plain", "longer"),
    ],
)
def test_a_damaged_file_says_the_same(
    night: Path, tmp_path: Path, layout: str, damage: str
) -> None:
    l0 = recode(night / "l0.zarr", tmp_path / "l0.zarr", **LAYOUTS[layout])
    path = next(p for p in sorted(counts_of(l0)[1].rglob("c/**/0")) if p.is_file())
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    texts: list[list[dict[str, Any]]] = []
    for tools in (None, FakeTools(), FakeTools(gds=True)):
        out = tmp_path / f"{len(texts)}.zarr"
        report, heard = run(l0, out, night / "table.npz", tools, scans="1")
        texts.append([f.as_dict() for f in report.failures])
        assert not heard.about_the_host()
    assert texts[0]
    assert "cannot be decoded" in texts[0][0]["message"]
    assert texts[0] == texts[1] == texts[2]


def test_nothing_is_allocated_per_tile(tmp_path: Path) -> None:
    found = {}
    for n_on in (4, 16):
        (tmp_path / str(n_on)).mkdir()
        l0 = make_night(tmp_path / str(n_on), small_setup(kinds=("tp",), n_on=n_on, fill=0.0), 1)
        tools = FakeTools()
        report, _ = run(
            l0, tmp_path / f"{n_on}.zarr", tmp_path / str(n_on) / "table.npz", tools, workers=1
        )
        assert not report.failures
        found[n_on] = (tools.device.allocations, tools.encoded)
    assert found[4][0] == found[16][0]
    assert found[16][1] > 2 * found[4][1]


@pytest.mark.parametrize("what", ["read", "write"])
def test_a_missing_wait_is_noticed(
    night: Path, tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check itself can fail: coders whose streams wait for nothing."""
    tools = FakeTools()
    known = 2  # upload and download
    make = tools.device.stream
    made: list[FakeStream] = []

    class Deaf(FakeStream):
        def wait_event(self, event: Any) -> None:
            """Forget the event."""

    def stream_or_deaf() -> FakeStream:
        made.append(make() if len(made) < known else Deaf(tools.device))
        return made[-1]

    monkeypatch.setattr(tools.device, "stream", stream_or_deaf)
    if what == "write":
        layout: dict[str, Any] = {"codecs": (BloscCodec(cname="lz4"),)}
        l0 = recode(night / "l0.zarr", tmp_path / "l0.zarr", **layout)
    else:
        l0 = night / "l0.zarr"
    report, _ = run(l0, tmp_path / "out.zarr", night / "table.npz", tools, workers=1)
    words = {"read": "does not wait for the steps", "write": "does not wait for the kernel"}
    assert any(words[what] in f.message for f in report.failures)


def test_new_memory_of_a_coder_is_not_used_by_other_steps_any_more() -> None:
    """A pool hands out what steps queued on the compute stream, maybe by other threads, may still read."""
    tools = FakeTools()
    coder = Coder(tools.backend().device_io())
    for nbytes, waits in ((100, True), (50, False), (200, True)):
        tools.device.worked()
        coder.memory(nbytes)
        assert (getattr(tools.device.last, "waited", 0) == tools.device.tick) is waits


def test_a_codec_that_cannot_be_made(night: Path, tmp_path: Path) -> None:
    tools = FakeTools(no_codec="nvCOMP: the driver is too old")
    report, heard = run(night / "l0.zarr", tmp_path / "out.zarr", night / "table.npz", tools)
    assert not report.failures
    assert_same_arrays(night / "host.zarr", tmp_path / "out.zarr")
    assert [text for _, text in heard.about_the_host()] == [
        "counts are read by the host: nvCOMP: the driver is too old.",
        "spectra are encoded by the host: nvCOMP: the driver is too old.",
    ]


def test_a_full_device_gets_the_memory_of_the_coders_back() -> None:
    tools = FakeTools()
    known = tools.backend()
    backend = with_device_io(known, "auto", "zstd:1", lambda level, text: None)
    with backend.lanes(1).take() as lane:
        lane.encode(np.zeros((4, 2)), (4, 2), 0, np.copy)
        made = tools.device.allocations
        lane.encode(np.zeros((4, 2)), (4, 2), 0, np.copy)
        assert tools.device.allocations == made
        backend.health.release()
        lane.encode(np.zeros((4, 2)), (4, 2), 0, np.copy)
        assert tools.device.allocations == made + 1
    assert isinstance(backend.health.failure(MemoryError("full")), DeviceMemoryError)
    assert backend.health.free_bytes() == known.health.free_bytes()


FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "not zstd": ({"encode_fault": lambda frame: b"x" + frame[1:]}, "is wrong, it does not start"),
    "cut": ({"encode_fault": lambda frame: frame[:-1]}, "is wrong"),
    "too little": ({"encode_fault": lambda frame: Zstd(1).encode(b"1")}, "expected"),
    "decodes short": ({"decode_fault": lambda data: data[:-1]}, "bytes"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_device_that_is_wrong_is_not_believed(night: Path, tmp_path: Path, fault: str) -> None:
    options, words = FAULTS[fault]
    tools = FakeTools(**options)
    report, heard = run(night / "l0.zarr", tmp_path / "device.zarr", night / "table.npz", tools)
    assert not report.failures
    assert_same_arrays(night / "host.zarr", tmp_path / "device.zarr")
    ((level, text),) = heard.about_the_host()
    assert level == "info"
    assert words in text


@pytest.mark.parametrize(
    ("codec", "choice", "words"),
    [
        ("blosc-lz4", "auto", "the device encodes zstd"),
        ("none", "device", "the device encodes zstd"),
        ("zstd:5", "auto", "zstd:5 was asked for"),
        ("zstd:5", "device", ""),
    ],
)
def test_other_codecs(night: Path, tmp_path: Path, codec: str, choice: str, words: str) -> None:
    tools = FakeTools()
    options: dict[str, Any] = {"codec": codec, "io": choice, "scans": "1"}
    run(night / "l0.zarr", tmp_path / "host.zarr", night / "table.npz", **options)
    _, heard = run(
        night / "l0.zarr", tmp_path / "device.zarr", night / "table.npz", tools, **options
    )
    assert_same_arrays(tmp_path / "host.zarr", tmp_path / "device.zarr")
    told = heard.about_the_host()
    assert (tools.encoded > 0) == (not words)
    assert tools.decoded > 0
    assert len(told) == bool(words)
    assert not words or words in told[0][1]


def test_the_choice(night: Path, tmp_path: Path) -> None:
    """host: nothing at all; a cpu says something only when it was asked for the device."""
    cases: list[tuple[FakeTools | None, str, list[str]]] = [
        (FakeTools(), "host", []),
        (None, "auto", []),
        (None, "device", ["warning"]),
        (FakeTools(missing="nvCOMP is not installed"), "auto", ["info", "info"]),
        (FakeTools(missing="nvCOMP is not installed"), "device", ["warning", "warning"]),
    ]
    for i, (tools, choice, levels) in enumerate(cases):
        options = {"scans": "1", "io": choice}
        out = tmp_path / f"{i}.zarr"
        report, heard = run(night / "l0.zarr", out, night / "table.npz", tools, **options)
        assert not report.failures
        assert [level for level, _ in heard.messages] == levels
        assert tools is None or (tools.decoded, tools.encoded) == (0, 0)
        assert_same_arrays(tmp_path / "0.zarr", out)


def test_the_choice_is_not_part_of_the_result() -> None:
    assert (
        CalibrationConfig(io="device").fingerprint() == CalibrationConfig(io="host").fingerprint()
    )


@pytest.mark.parametrize("pipeline", ["default", "zarrs", "ours"])
def test_everyone_reads_what_the_device_wrote(night: Path, tmp_path: Path, pipeline: str) -> None:
    if pipeline == "zarrs":
        pytest.importorskip("zarrs")
    tools = FakeTools()
    run(night / "l0.zarr", tmp_path / "device.zarr", night / "table.npz", tools)
    assert tools.encoded > 100
    path = "zarrs.ZarrsCodecPipeline" if pipeline == "zarrs" else None
    several = edges = 0
    for document in sorted((tmp_path / "device.zarr").rglob("spectra/zarr.json")):
        expected: Any = zarr.open_array(
            night / "host.zarr" / document.parent.relative_to(tmp_path / "device.zarr"), mode="r"
        )[...]
        several += any(
            len(frame_starts(p)) > 1 for p in document.parent.rglob("c/**/0") if p.is_file()
        )
        array: Any = zarr.open_array(document.parent, mode="r")
        edges += array.shape[0] % array.chunks[0] > 0
        if pipeline == "ours":
            found = our_reader(document.parent)
        else:
            with zarr.config.set({"codec_pipeline.path": path} if path else {}):
                opened: Any = zarr.open_array(document.parent, mode="r")
                found = opened[...]
        assert found.tobytes() == expected.tobytes()
    assert several == len(KINDS)
    assert edges == len(KINDS)  # chunks that are larger than what is left of the channels


def frame_starts(path: Path) -> list[int]:
    data, magic = path.read_bytes(), (0xFD2FB528).to_bytes(4, "little")
    return [i for i in range(len(data)) if data[i : i + 4] == magic]


def our_reader(folder: Path) -> Any:
    from gpucal.io.chunks.counts import ZarrCounts

    counts = ZarrCounts(zarr.open_array(folder, mode="r"))
    assert counts.direct
    c, *_, s = counts.shape
    return np.ascontiguousarray(np.stack([counts.read(0, c, j) for j in range(s)], axis=-1))
