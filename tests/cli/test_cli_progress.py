"""Observers: bars on a terminal, from several threads, and lines elsewhere."""

from __future__ import annotations

import io
import json
import sys
import threading
from typing import Any, Literal

import pytest
from rich.console import Console

from gpucal.cli.show.progress import JsonObserver, PlainObserver, RichObserver, make_observer
from gpucal.io.files.json_text import dumps
from gpucal.pipeline.store.report import ScanSummary
from gpucal.scan_numbers import scan_ranges

THREADS, TILES = 4, 25


def run_night(observer: Any, total: int = THREADS * TILES * 10) -> None:
    """Four scans at once, from four threads, one of them failing half way."""
    observer.night_started(range(THREADS), total)

    def work(scan: int) -> None:
        observer.scan_started(scan, "band_1", TILES * 10)
        tiles = TILES if scan else TILES // 2
        for _ in range(tiles):
            observer.tile_done(scan, "band_1", 10)
        status: Literal["calibrated", "failed"] = "calibrated" if scan else "failed"
        observer.scan_finished(ScanSummary(scan, "band_1", "otf", status, error="lost [disk]."))

    threads = [threading.Thread(target=work, args=(scan,)) for scan in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@pytest.mark.parametrize("total", [THREADS * TILES * 10, 0])  # 0: not known beforehand
def test_rich_bars_end_full_and_scans_leave(total: int) -> None:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=100)
    observer = RichObserver(verbose=True, console=console)
    with observer:
        run_night(observer, total)
        tasks = observer._progress.tasks
    assert [task.description for task in tasks] == ["night"]
    assert tasks[0].fields["count"] == "4/4 scans"
    assert tasks[0].completed == tasks[0].total == (THREADS - 1) * TILES * 10 + TILES // 2 * 10
    text = stream.getvalue()
    assert "\x1b" in text
    assert "scan 0 band_1 failed: lost [disk]." in text
    assert "scan timing breakdown scan=1 band=band_1" in text


def test_rich_shows_tiles_and_rate_of_the_scan_in_work() -> None:
    stream = io.StringIO()
    observer = RichObserver(console=Console(file=stream, force_terminal=True, width=120))
    with observer:
        observer.night_started([5], 10**9)
        observer.scan_started(5, "", 10**9)
        observer.tile_done(5, "", 5 * 10**8)
        observer.tile_done(5, "", 10**8)
        observer._progress.refresh()
    text = stream.getvalue()
    assert "scan 5" in text
    assert "2 tiles" in text
    assert "60%" in text
    assert "ETA" in text


def test_plain_lines_are_whole_with_threads() -> None:
    stream = io.StringIO()
    with PlainObserver(stream) as observer:
        run_night(observer)
    lines = stream.getvalue().splitlines()
    assert len(lines) == 1 + THREADS + (THREADS - 1)  # night, one per scan, timing of the good ones
    assert all(line.split()[1] in ("INFO", "ERROR") for line in lines)
    assert sum("ERROR" in line for line in lines) == 1


def test_json_lines_are_whole_with_threads() -> None:
    stream = io.StringIO()
    with JsonObserver(stream) as observer:
        run_night(observer)
    events = [json.loads(line) for line in stream.getvalue().splitlines()]
    tiles = [event for event in events if event["event"] == "tile_done"]
    assert len(tiles) == (THREADS - 1) * TILES + TILES // 2


@pytest.mark.parametrize(
    ("terminal", "options", "kind"),
    [
        (True, {}, RichObserver),
        (False, {}, PlainObserver),
        (True, {"quiet": True}, PlainObserver),
        (True, {"as_json": True}, JsonObserver),
    ],
)
def test_the_observer_suits_the_output(
    monkeypatch: pytest.MonkeyPatch, terminal: bool, options: dict[str, Any], kind: type
) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: terminal, raising=False)
    monkeypatch.setattr(sys, "stderr", stream)
    assert type(make_observer(**options)) is kind


def test_messages_by_level() -> None:
    stream = io.StringIO()
    quiet = PlainObserver(stream, quiet=True)
    quiet.message("warning", "unheard")
    quiet.message("error", "two\nlines")
    assert stream.getvalue().endswith("ERROR   two lines\n")
    assert stream.getvalue().count("\n") == 1


def test_scan_ranges() -> None:
    assert scan_ranges([4]) == "scan 4"
    assert scan_ranges([3, 1, 2, 9, 9]) == "scans 1-3, 9"


def test_json_text_knows_numpy_and_nan() -> None:
    np = pytest.importorskip("numpy")
    value = {"a": np.float64("nan"), "b": np.arange(2), "c": (np.int32(3), float("inf"))}
    assert json.loads(dumps(value)) == {"a": None, "b": [0, 1], "c": [3, None]}
