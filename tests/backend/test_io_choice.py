"""``--io auto``: few large frames are for the host, and of the rest the faster one is found by trial."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from builders.night_stores import make_night, small_setup
from fakes.clock import set_clock
from fakes.codec import FakeTools

from gpucal import CalibrationConfig, calibrate_store
from gpucal.backend import io_choice
from gpucal.backend.io_choice import IoChoice, size_text, too_few_frames
from gpucal.pipeline.store.report import SilentObserver
from gpucal.scan import Frame

MIB = 1 << 20


class Heard(SilentObserver):
    """Keeps the messages."""

    def __init__(self) -> None:
        self.messages: list[tuple[str, str]] = []

    def message(self, level: Any, text: str) -> None:
        self.messages.append((level, text))


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("night")
    make_night(folder, small_setup(kinds=("tp",), channels=24), 1)
    run(folder, folder / "host.zarr", None)
    return folder


def run(night: Path, out: Path, tools: FakeTools | None, **options: Any) -> list[tuple[str, str]]:
    heard = Heard()
    given = {"atmosphere": str(night / "table.npz"), "workers": 2, "backend": "cpu", **options}
    backend = None if tools is None else tools.backend()
    report = calibrate_store(
        night / "l0.zarr", out, CalibrationConfig(**given), backend=backend, observer=heard
    )
    assert not report.failures
    return [
        (level, text) for level, text in heard.messages if text.startswith(("counts", "spectra"))
    ]


def io_of(out: Path) -> dict[str, Any]:
    """What the provenance says."""
    group: Any = zarr.open_group(next(out.rglob("scan_*")), mode="r")
    documents = [group.attrs, *(g.attrs for _, g in group.members() if hasattr(g, "members"))]
    found: dict[str, Any] = next(d["provenance"] for d in documents if "provenance" in d)["io"]
    return found


def same_spectra(one: Path, other: Path) -> None:
    stores = [sorted(store.rglob("spectra/zarr.json")) for store in (one, other)]
    assert len(stores[0]) == len(stores[1]) > 0
    for a, b in zip(*stores, strict=True):
        first, second = (np.asarray(zarr.open_array(p.parent, mode="r")[...]) for p in (a, b))
        assert np.array_equal(first, second, equal_nan=True)


@pytest.mark.parametrize(("host", "device"), [(1.0, 0.01), (0.01, 1.0)])
def test_the_faster_one_works(
    night: Path, tmp_path: Path, host: float, device: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_clock(monkeypatch, host=host, device=device)
    tools = FakeTools()
    told = run(night, tmp_path / "out.zarr", tools)
    same_spectra(night / "host.zarr", tmp_path / "out.zarr")
    winner = "device" if device < host else "host"
    assert told
    assert {level for level, _ in told} == {"info"}
    for duty, words in (("reads", "counts are decoded"), ("writes", "spectra are encoded")):
        texts = [text for _, text in told if text.startswith(words)]
        found = io_of(tmp_path / "out.zarr")[duty]
        assert found["by"] == winner
        assert len(texts) == len(found["trials"])
        for text, trial in zip(texts, found["trials"], strict=True):
            assert text.startswith(f"{words} by the {winner}: device ")
            nbytes = trial["frames"] * trial["frame_bytes"] / 1e6
            assert trial["device_mb_per_s"] == pytest.approx(nbytes / device, abs=0.1)
            assert trial["host_mb_per_s"] == pytest.approx(2 * nbytes / host, abs=0.1)
            assert f"device {nbytes / device:.0f} MB/s, host {2 * nbytes / host:.0f} MB/s" in text
            assert "with 2 threads" in text
    # the host's share: only the trials were decoded and encoded by the device
    busy = FakeTools()
    set_clock(monkeypatch, host=1.0, device=0.01)
    run(night, tmp_path / "busy.zarr", busy)
    if winner == "host":
        assert 0 < tools.decoded < busy.decoded
        assert 0 < tools.encoded < busy.encoded


def test_few_large_frames_are_not_even_tried(
    night: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(io_choice, "LARGEST_FRAME", 16)
    set_clock(monkeypatch, host=1.0, device=0.01)
    tools = FakeTools()
    told = run(night, tmp_path / "out.zarr", tools)
    same_spectra(night / "host.zarr", tmp_path / "out.zarr")
    assert tools.decoded == 0
    texts = [
        text for _, text in told if text.startswith("counts are read by the host: a read has ")
    ]
    assert len(texts) == 1
    assert "a device wants 64 or more, or frames of at most" in texts[0]
    found = io_of(tmp_path / "out.zarr")["reads"]
    assert found["by"] == "host"
    assert "a device wants 64" in found["host_because"]
    # asked for, the device does it all the same, without a trial
    asked = FakeTools()
    assert not run(night, tmp_path / "asked.zarr", asked, io="device")
    assert asked.decoded > 0
    assert io_of(tmp_path / "asked.zarr") == {"reads": {"by": "device"}, "writes": {"by": "device"}}


def test_the_cpu_has_nothing_to_choose(night: Path) -> None:
    assert io_of(night / "host.zarr") == {}


def test_without_nvcomp_the_provenance_says_why(night: Path, tmp_path: Path) -> None:
    run(night, tmp_path / "out.zarr", FakeTools(missing="nvCOMP is not installed"))
    found = io_of(tmp_path / "out.zarr")
    assert found["reads"] == {"by": "host", "host_because": "nvCOMP is not installed"}
    assert found["writes"] == found["reads"]


@pytest.mark.parametrize(
    ("sizes", "files", "words"),
    [
        ([16 * MIB], 1, "1 zstd frame of up to 16 MiB"),
        ([16 * MIB], 63, "63 zstd frames"),
        ([16 * MIB], 64, ""),
        ([2 * MIB] * 64, 1, ""),
        ([MIB], 1, ""),
        ([MIB, MIB + 1], 2, "4 zstd frames of up to 1 MiB"),
        ([64 << 10] * 3, 1, ""),
    ],
)
def test_the_rule(sizes: list[int], files: int, words: str) -> None:
    found = too_few_frames([Frame(0, 1, n) for n in sizes], files)
    assert words in found
    assert bool(found) == bool(words)


def test_a_layout_is_tried_once_and_by_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    choice = IoChoice(4, told.append)
    busy, calls = threading.Lock(), {"host": 0, "device": 0}

    def side(name: str) -> Any:
        def work() -> None:
            assert busy.acquire(blocking=False)
            calls[name] += 1
            busy.release()

        return work

    def try_it() -> None:
        choice.device_wins("reads", (128, 64 << 10), side("host"), side("device"))

    threads = [threading.Thread(target=try_it) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert calls == {"host": 1, "device": 2}
    assert len(told) == 1
    assert "reads of 128 frames of 64 KiB." in told[0]


def test_a_trial_that_fails_says_so_and_decides_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    set_clock(monkeypatch, host=0.01, device=1.0)
    told: list[str] = []
    choice = IoChoice(1, told.append)

    def broken() -> None:
        raise ValueError("a file is cut off")

    with pytest.raises(ValueError, match="cut off"):
        choice.device_wins("reads", (1, 5), broken, str)
    assert choice.trials("reads") == []
    assert choice.device_wins("reads", (1, 5), str, str) is False
    for n in range(2, 9):  # the number of trials of a run is limited
        assert choice.device_wins("reads", (n, 5), str, str) is False
    assert len(told) == io_choice.MOST_TRIALS


def test_sizes_as_text() -> None:
    assert (size_text(16 * MIB), size_text(64 << 10)) == ("16 MiB", "64 KiB")
