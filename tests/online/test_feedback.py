"""Results reach the control system: across its restarts, past failing commands, and never in the way."""

from __future__ import annotations

import contextlib
import http.server
import json
import math
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from builders import procedure_scans as scans
from builders.small_site import drain

from gpucal.online.queue.pipe import TASKS, Pipe
from gpucal.online.replay.replay import Replay
from gpucal.online.site import feedback
from gpucal.online.site.config import OnlineConfig
from gpucal.online.site.feedback import Delivery, deliver_waiting, feedback_path, publish
from gpucal.online.site.results import Results
from gpucal.online.workers.supervise import Supervisor

RECEIVER = Path(__file__).resolve().parents[2] / "scripts" / "feedback_receiver.py"


def config_of(folder: Path, **changes: Any) -> OnlineConfig:
    places = {name: folder / name for name in ("data", "work", "pipe")}
    return OnlineConfig(**places, poll=0.05, calibration=scans.CONFIG, **changes)


def payload(scan: int, procedure: str = "pointing", **changes: Any) -> dict[str, Any]:
    message = {
        "format": "gpucal-feedback",
        "version": 1,
        "project": "p1",
        "scan": scan,
        "procedure": procedure,
        "source": "JUPITER",
        "azimuth_deg": 57.3,
        "elevation_deg": 55.0,
        "cancelled": False,
        "valid": True,
        "reason": "",
        "results": [{"direction": "az", "offset": 6.5, "offset_error": 0.1}],
    }
    return {**message, **changes}


def say(config: OnlineConfig, results: Results, scan: int, **changes: Any) -> None:
    place = {"project": "p1", "scan": scan, "kind": "pointing"}
    publish(config, results, place, payload(scan, **changes))


def waiting(results: Results) -> list[int]:
    return [row["scan"] for row in results.rows("feedback", state="waiting")]


def until(happened: Callable[[], bool], seconds: float = 300.0) -> None:
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


@pytest.fixture
def results(tmp_path: Path) -> Iterator[Results]:
    opened = Results(config_of(tmp_path).database_url)
    yield opened
    opened.close()


@contextlib.contextmanager
def receiver(out: Path, port: int = 0) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The reference receiver as a process of its own, killed at the end."""
    command = [sys.executable, str(RECEIVER), "--out", str(out), "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        first = process.stdout.readline()
        assert first.startswith("listening on "), first
        yield process, first.removeprefix("listening on ").strip()
    finally:
        process.kill()
        process.communicate()


def received(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.read_text("utf-8").splitlines()]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_nothing_is_lost_across_restarts_of_the_receiver(
    tmp_path: Path, results: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feedback, "LONGEST_WAIT_S", 0.2)
    out = tmp_path / "received.jsonl"
    port = free_port()
    config = config_of(tmp_path, feedback_url=f"http://127.0.0.1:{port}/")
    delivery = Delivery(config, results)
    delivery.start()
    say(config, results, 1)  # nobody listens yet
    until(lambda: bool(results.rows("feedback", scan=1)[0]["attempts"]))
    scan = 1
    for _ in range(3):
        with receiver(out, port) as (process, _):
            for _ in range(3):
                scan += 1
                say(config, results, scan)
            until(lambda: not waiting(results))
            scan += 1
            process.kill()
            say(config, results, scan)
    # a crash in the middle of a line: never acknowledged, hence not a message
    with open(out, "ab") as file:
        file.write(b'{"format": "gpucal-fee')
    with receiver(out, port):
        until(lambda: not waiting(results))
    delivery.stop()
    found = received(out)
    assert sorted(m["scan"] for m in found) == list(range(1, scan + 1))
    assert {m["scan"]: m for m in found} == {n: payload(n) for n in range(1, scan + 1)}
    assert all(row["state"] == "delivered" for row in results.rows("feedback"))
    said = [m["text"] for m in results.rows("messages")]
    assert any("pointing of scan 1 could not be delivered, it is tried again" in t for t in said)


def test_the_receiver_keeps_a_message_once_and_refuses_what_is_none(tmp_path: Path) -> None:
    out = tmp_path / "received.jsonl"
    with receiver(out) as (_, url):

        def post(data: bytes) -> tuple[int, str]:
            request = urllib.request.Request(url, data=data, method="POST")
            try:
                with urllib.request.urlopen(request, timeout=300) as answer:
                    return answer.status, answer.read().decode().strip()
            except urllib.error.HTTPError as error:
                with error:
                    return error.code, error.read().decode().strip()

        good = json.dumps(payload(7)).encode()
        assert post(good) == (200, "received")
        assert post(good) == (200, "known")
        changed = json.dumps(payload(7, valid=False, reason="no source seen")).encode()
        assert post(changed) == (200, "received")  # the scan was reduced again
        assert post(b"{")[0] == 400
        assert post(b"[]") == (400, "the message is not a JSON object")
        assert "expected 'gpucal-feedback' version 1" in post(json.dumps({"a": 1}).encode())[1]
        assert "version 2" in post(json.dumps(payload(7, version=2)).encode())[1]
        assert (
            post(json.dumps(payload(7) | {"scan": "8"}).encode())[1]
            == "'scan' of the message is '8'"
        )
        assert post(json.dumps(payload(7) | {"scan": True}).encode())[0] == 400
        less = {k: v for k, v in payload(7).items() if k != "results"}
        assert post(json.dumps(less).encode())[1] == "the message has no 'results'"
        host, _, port = url.removeprefix("http://").partition(":")
        with socket.create_connection((host, int(port)), timeout=300) as line:
            line.sendall(b"POST / HTTP/1.0\r\nContent-Length: 2000000\r\n\r\n")
            assert b" 413 " in line.recv(100)
    assert [m["valid"] for m in received(out)] == [True, False]
    with receiver(out) as (_, url):  # what it knew it still knows
        assert post(changed) == (200, "known")
    assert len(received(out)) == 2


def test_the_file_is_there_whoever_listens(tmp_path: Path, results: Results) -> None:
    config = config_of(tmp_path, feedback_url="http://127.0.0.1:9/")
    say(config, results, 3)
    path = feedback_path(config, {"project": "p1", "scan": 3, "kind": "pointing"})
    assert path == tmp_path / "data" / "p1" / "feedback" / "000003.pointing.json"
    assert json.loads(path.read_text()) == payload(3)
    path.unlink()
    assert deliver_waiting(config, results) == 0
    assert json.loads(path.read_text()) == payload(3)
    assert not [p for p in path.parent.iterdir() if p != path]


def test_the_same_result_is_delivered_once_and_another_one_again(
    tmp_path: Path, results: Results
) -> None:
    log = tmp_path / "log"
    config = config_of(tmp_path, feedback_command=["sh", "-c", f"cat >> {log}; echo >> {log}"])
    say(config, results, 3)
    assert deliver_waiting(config, results) == 1
    say(config, results, 3)
    assert deliver_waiting(config, results) == 0
    say(config, results, 3, valid=False)
    assert deliver_waiting(config, results) == 1
    assert [json.loads(x)["valid"] for x in log.read_text().splitlines()] == [True, False]


def test_the_same_on_postgresql(tmp_path: Path, postgres: str) -> None:
    log = tmp_path / "log"
    command = ["sh", "-c", f"cat >> {log}; echo >> {log}"]
    config = config_of(tmp_path, feedback_command=command, database=postgres)
    opened = Results(config.database_url)
    for valid in (True, True, False):
        say(config, opened, 3, valid=valid)
        deliver_waiting(config, opened)
    assert [row["state"] for row in opened.rows("feedback")] == ["delivered"]
    opened.close()
    assert [json.loads(x)["valid"] for x in log.read_text().splitlines()] == [True, False]


def test_trouble_with_the_database_is_said_once_and_passes(
    tmp_path: Path, results: Results, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    away = threading.Event()
    away.set()
    asked: list[int] = []
    real = results.rows

    def rows(*given: Any, **where: Any) -> Any:
        asked.append(1)
        if away.is_set():
            raise OSError("the database is away")
        return real(*given, **where)

    config = config_of(tmp_path, feedback_command=["true"])
    say(config, results, 3)
    monkeypatch.setattr(results, "rows", rows)
    delivery = Delivery(config, results)
    delivery.start()
    until(lambda: len(asked) > 3)
    away.clear()
    until(lambda: not waiting(results))
    delivery.stop()
    assert [r.getMessage() for r in caplog.records] == ["feedback: the database is away"]


def test_a_result_that_changes_while_it_is_sent_is_sent_again(
    tmp_path: Path, results: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of(tmp_path, feedback_command=["true"])
    sent: list[str] = []

    def send_and_change(_command: list[str], text: str) -> None:
        sent.append(text)
        if len(sent) == 1:
            say(config, results, 3, valid=False)

    monkeypatch.setattr(feedback, "_run", send_and_change)
    say(config, results, 3)
    deliver_waiting(config, results)
    assert waiting(results) == [3]
    assert deliver_waiting(config, results) == 1
    assert [json.loads(text)["valid"] for text in sent] == [True, False]
    assert not waiting(results)


def test_a_failing_command_is_named_and_tried_again(tmp_path: Path, results: Results) -> None:
    flag = tmp_path / "ready"
    script = f"cat > /dev/null; test -e {flag} || {{ echo no antenna >&2; exit 3; }}"
    config = config_of(tmp_path, feedback_command=["sh", "-c", script])
    say(config, results, 5)
    assert deliver_waiting(config, results) == 0
    (row,) = results.rows("feedback")
    assert (row["state"], row["attempts"]) == ("waiting", 1)
    assert row["message"] == "sh ended with code 3: no antenna"
    flag.touch()
    assert deliver_waiting(config, results) == 1
    (row,) = results.rows("feedback")
    assert (row["state"], row["message"]) == ("delivered", "")


def test_a_command_that_is_not_there_is_named(tmp_path: Path, results: Results) -> None:
    config = config_of(tmp_path, feedback_command=["/nowhere/command"])
    say(config, results, 5)
    assert deliver_waiting(config, results) == 0
    assert "/nowhere/command" in results.rows("feedback")[0]["message"]


def test_a_command_that_hangs_is_ended_with_all_it_started(
    tmp_path: Path, results: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feedback, "TIMEOUT_S", 3.0)
    mark = tmp_path / "pid"
    script = f"sleep 600 & echo $! > {mark}; wait"
    config = config_of(tmp_path, feedback_command=["sh", "-c", script])
    say(config, results, 5)
    begin = time.monotonic()
    assert deliver_waiting(config, results) == 0
    assert time.monotonic() - begin < 300
    assert results.rows("feedback")[0]["message"] == "sh took longer than 3 s"
    child = Path("/proc") / mark.read_text().strip() / "stat"

    def dead() -> bool:
        try:
            return child.read_text().rpartition(")")[2].split()[0] in "ZX"
        except OSError:
            return True

    until(dead, 5)


def test_a_command_that_has_succeeded_is_not_repeated_for_the_post(
    tmp_path: Path, results: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feedback, "LONGEST_WAIT_S", 0.0)
    count = tmp_path / "count"
    out, port = tmp_path / "received.jsonl", free_port()
    config = config_of(
        tmp_path,
        feedback_command=["sh", "-c", f"echo x >> {count}"],
        feedback_url=f"http://127.0.0.1:{port}/",
    )
    say(config, results, 5)
    delivery = Delivery(config, results)
    assert [delivery.one() for _ in range(3)] == [False] * 3
    with receiver(out, port):
        assert delivery.one()
    assert count.read_text() == "x\n"
    assert [m["scan"] for m in received(out)] == [5]


class Answers(http.server.BaseHTTPRequestHandler):
    """A control system with a will of its own: answers by the scan of the message."""

    seen: list[tuple[str, int]]

    def do_POST(self) -> None:
        text = self.rfile.read(int(self.headers["Content-Length"]))
        scan = json.loads(text)["scan"]
        self.seen.append(("POST", scan))
        if scan == 1:
            self.send_response(500)
        elif scan == 2:
            self.send_response(302)
            self.send_header("Location", "/elsewhere")
        elif scan == 3:
            self.wfile.write(b"this is not HTTP\r\n\r\n")
            return
        else:
            self.send_response(204)
        self.end_headers()

    def do_GET(self) -> None:
        self.seen.append(("GET", -1))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def test_only_a_good_answer_is_a_delivery(tmp_path: Path, results: Results) -> None:
    """An error, a redirect (which would lose the message) and nonsense do not hold up the others."""
    seen: list[tuple[str, int]] = []
    handler = type("Bound", (Answers,), {"seen": seen})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        config = config_of(tmp_path, feedback_url=f"http://127.0.0.1:{server.server_port}/")
        for scan in (1, 2, 3, 4):
            say(config, results, scan)
        try:
            assert deliver_waiting(config, results) == 1
        finally:
            server.shutdown()
            thread.join()
    assert waiting(results) == [1, 2, 3]
    assert seen == [("POST", n) for n in (1, 2, 3, 4)]
    texts = {row["scan"]: row["message"] for row in results.rows("feedback")}
    assert "500" in texts[1]
    assert "302" in texts[2]
    assert "not HTTP" in texts[3]


def test_an_address_that_is_none_is_named(tmp_path: Path, results: Results) -> None:
    config = config_of(tmp_path, feedback_url="file:///etc/hostname")
    say(config, results, 1)
    assert deliver_waiting(config, results) == 0
    assert "expected http" in results.rows("feedback")[0]["message"]


def test_a_receiver_that_never_answers_does_not_stop_the_supervisor(tmp_path: Path) -> None:
    """Rounds go on while a delivery hangs, and a new message does not wait for the old ones."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        config = config_of(tmp_path, feedback_url=url, workers=dict.fromkeys(TASKS, 0))
        supervisor = Supervisor(config)
        for scan in range(5):
            say(config, supervisor.results, scan)
        begin = time.monotonic()
        for _ in range(20):
            supervisor.tick()
        # rounds that wait would take the timeout of 5 s for each message
        assert time.monotonic() - begin < 20.0
        silent.settimeout(120)
        connection, _ = silent.accept()  # it was asked meanwhile
        connection.close()
        assert len(waiting(supervisor.results)) == 5
        supervisor._delivery._stop.set()
    supervisor.stop()
    supervisor.run()


def test_one_host_at_a_time_delivers(tmp_path: Path, results: Results) -> None:
    log = tmp_path / "log"
    config = config_of(tmp_path, feedback_command=["sh", "-c", f"sleep 0.02; cat >> {log}"])
    for scan in range(10):
        say(config, results, scan)
    both = [Delivery(config, results), Delivery(config, results)]
    for delivery in both:
        delivery.start()
    until(lambda: not waiting(results))
    for delivery in both:
        delivery.stop()
    assert log.read_text().count("gpucal-feedback") == 10


def test_an_invalid_result_is_delivered_with_null_and_reason(tmp_path: Path) -> None:
    """A pointing of an empty sky, from raw counts to the file."""
    noise = scans.Scene(noise=1.0, seed=4)
    night = scans.write(
        tmp_path / "night.zarr", 1, scans.pointing(0.0), noise, obs_procedure="pointing"
    )
    config = config_of(tmp_path)
    Pipe(config.pipe).create()
    Replay(night, tmp_path / "l0.zarr", Pipe(config.pipe), project="p1").run(speed=math.inf)
    drain(config, ("calibration", "obs_procedure"))
    results = Results(config.database_url)
    assert deliver_waiting(config, results) == 1
    results.close()
    path = feedback_path(config, {"project": "p1", "scan": 1, "kind": "pointing"})
    message = json.loads(path.read_text())
    assert (message["procedure"], message["valid"]) == ("pointing", False)
    assert "no source seen" in message["reason"]
    assert {row["direction"] for row in message["results"]} == {"az", "el"}
    for row in message["results"]:
        assert row["offset"] is None
        assert not row["valid"]
        assert row["reason"]
