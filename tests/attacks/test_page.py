"""Attacks on the page: it refuses, answers others meanwhile, and shows nothing but its pictures."""

from __future__ import annotations

import concurrent.futures
import http.client
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from builders import page_data as data

from gpucal.online.queue.pipe import Pipe
from gpucal.online.site.config import OnlineConfig
from gpucal.online.site.results import Results

Record = Callable[[str, object], None]
TOKEN = "night-and-day"
RIGHT = {"Content-Type": "application/json", "Authorization": f"Bearer {TOKEN}"}
SECRET = "nobody may read this"
NAMES = ("127.0.0.1", "localhost")


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> OnlineConfig:
    folder = tmp_path_factory.mktemp("attacked")
    made = data.make_config(folder)
    data.fill_night(made)
    results = Results(made.database_url)
    picture = data.add_plot(made, results, 4, "pointing.png", kind="pointing")
    results.close()
    secret = folder / "secret.png"
    secret.write_text(SECRET)
    (picture.parent / "link.png").symlink_to(secret)
    (picture.parent / "folder.png").mkdir()
    (picture.parent / "loop.png").symlink_to("loop.png")
    os.mkfifo(picture.parent / "fifo.png")
    (picture.parent / "zero.png").symlink_to("/dev/zero")
    (picture.parent / "text.txt").write_text(SECRET)
    (picture.parent / ".hidden.png").write_text(SECRET)
    return made


@pytest.fixture(scope="module")
def port(config: OnlineConfig) -> Iterator[int]:
    with data.served(config, TOKEN, hosts=NAMES) as number:
        yield number


@pytest.fixture(autouse=True)
def attack(record_property: Record, request: pytest.FixtureRequest) -> Iterator[None]:
    """Every test is one attack; afterwards the page answers as before."""
    record_property("attack", "refused")
    port = request.getfixturevalue("port")
    yield
    status, _, body = data.call(port, "/api/status")
    assert status == 200
    assert json.loads(body)["controls"] is True


PATHS = [
    "/picture/{p}/../../../secret.png",
    "/picture/{p}/..%2f..%2f..%2fsecret.png",
    "/picture/{p}/%2e%2e/%2e%2e/secret.png",
    "/picture/{p}/..%5c..%5csecret.png",
    "/picture/{p}/%252e%252e/secret.png",
    "/picture/{p}/..%c0%af..%c0%afsecret.png",
    "/picture/{p}//etc/passwd",
    "/picture/{p}/%2fetc%2fpasswd",
    "/picture/{p}/pointing.png%00.txt",
    "/picture/{p}/link.png",
    "/picture/{p}/folder.png",
    "/picture/{p}/loop.png",
    "/picture/{p}/fifo.png",
    "/picture/{p}/zero.png",
    "/picture/{p}/text.txt",
    "/picture/{p}/.hidden.png",
    "/picture/{p}/" + "a/" * 2000 + "x.png",
    "/picture/{p}/" + "a" * 5000 + ".png",
    "/picture/../../etc/passwd",
    "/picture/%2e%2e/secret.png",
    "/picture/.active/x.png",
    "/assets/../app.py",
    "/assets/%2e%2e/app.py",
    "/assets/..%2fapp.py",
    "/api/results/sqlite_master",
    "/api/results/calibrations;drop",
    "/api/results/..%2f..",
    "/" + "x" * 60000,
    "/api/retry",
    "/api/restart",
    "/events/../api/x",
]


@pytest.mark.parametrize("path", PATHS, ids=lambda p: p[:45])
def test_no_way_out_of_the_pictures(path: str, port: int) -> None:
    try:
        status, headers, body = data.call(port, path.format(p=data.PROJECT))
    except (http.client.HTTPException, ConnectionError):
        return  # the server hung up: also a refusal
    assert 400 <= status < 500, body[:200]
    assert SECRET.encode() not in body
    assert b"Traceback" not in body
    if status not in (400, 431):  # below 431 the server itself speaks
        assert headers["x-content-type-options"] == "nosniff"


QUERIES = [
    "limit=-1",
    "limit=1e9",
    "limit=" + "9" * 5000,
    "offset=-5",
    "offset=%00",
    "scan=1;drop%20table",
    "scan=%D9%A3",
    "limit=nan",
]


@pytest.mark.parametrize("query", QUERIES, ids=lambda q: q[:20])
def test_numbers_that_are_none(query: str, port: int) -> None:
    for place in ("/api/results/calibrations", "/api/plots", "/api/messages"):
        status, _, body = data.call(port, f"{place}?{query}")
        assert status in (200, 400), body[:200]
        assert b"Traceback" not in body


@pytest.mark.parametrize(
    "host",
    ["evil.example", "127.0.0.1.evil.example", "", "[", "localhost@evil.example", "a" * 5000],
)
def test_a_foreign_name_is_not_answered(host: str, port: int) -> None:
    status, _, body = data.call(port, "/api/status", headers={"Host": host})
    assert status in (400, 421), body[:200]
    assert b"tasks" not in body


WRONG: dict[str, tuple[dict[str, str], bytes]] = {
    "no token": ({"Content-Type": "application/json"}, b'{"task":""}'),
    "wrong token": ({**RIGHT, "Authorization": "Bearer night"}, b'{"task":""}'),
    "token of other letters": ({**RIGHT, "Authorization": "Bearer \xff\xfe"}, b'{"task":""}'),
    "basic": ({**RIGHT, "Authorization": f"Basic {TOKEN}"}, b'{"task":""}'),
    "form": ({**RIGHT, "Content-Type": "application/x-www-form-urlencoded"}, b"task="),
    "plain text": ({**RIGHT, "Content-Type": "text/plain"}, b'{"task":""}'),
    "other origin": ({**RIGHT, "Origin": "http://evil.example"}, b'{"task":""}'),
    "null origin": ({**RIGHT, "Origin": "null"}, b'{"task":""}'),
    "broken origin": ({**RIGHT, "Origin": "http://["}, b'{"task":""}'),
    "no JSON": (RIGHT, b"{"),
    "deep JSON": (RIGHT, b"[" * 60000),
    "list": (RIGHT, b"[1]"),
    "number": (RIGHT, b'{"task": 5}'),
    "more keys": (RIGHT, b'{"task": "", "x": ""}'),
    "too long": (RIGHT, b'{"task": "' + b"x" * 10**6 + b'"}'),
    "no UTF-8": (RIGHT, b'{"task": "\xff"}'),
    "unknown task": (RIGHT, b'{"task": "nothing"}'),
    "path for a task": (RIGHT, b'{"task": "../../etc"}'),
}


@pytest.mark.parametrize("name", WRONG)
def test_nobody_else_steers(name: str, port: int, config: OnlineConfig) -> None:
    before = sorted(config.pipe.rglob("*"))
    headers, body = WRONG[name]
    try:
        status, _, answer = data.call(port, "/api/restart", body, headers)
    except (http.client.HTTPException, ConnectionError):
        status, answer = 413, b""
    assert 400 <= status < 500, answer[:200]
    assert b"Traceback" not in answer
    assert sorted(config.pipe.rglob("*")) == before


@pytest.mark.parametrize(
    "name", ["../x.json", "/etc/passwd", "x", ".reason", "a\0.json", "x" * 5000]
)
def test_a_job_that_is_none_is_not_tried_again(name: str, port: int, config: OnlineConfig) -> None:
    before = sorted(p.name for p in Pipe(config.pipe).task("plot").path.rglob("*"))
    body = json.dumps({"task": "plot", "name": name}).encode()
    status, _, answer = data.call(port, "/api/retry", body, RIGHT)
    assert 400 <= status < 500, answer[:200]
    assert sorted(p.name for p in Pipe(config.pipe).task("plot").path.rglob("*")) == before


def _raw(port: int, sent: bytes, wait_s: float = 0.2) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=300) as connection:
        connection.sendall(sent)
        time.sleep(wait_s)
        connection.settimeout(0.5)
        try:
            return connection.recv(65536)
        except (TimeoutError, ConnectionError):
            return b""


RAW = {
    "nothing": b"",
    "half a line": b"GET /api/sta",
    "no end of headers": b"GET / HTTP/1.1\r\nHost: localhost\r\n",
    "two lengths": b"POST /api/restart HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n"
    b"Content-Length: 50\r\n\r\nabcde",
    "length and chunks": b"POST /api/restart HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /x HTTP/1.1\r\n\r\n",
    "negative length": b"POST /api/restart HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
    "binary": bytes(range(256)) * 20,
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
    "header with a line break": b"GET / HTTP/1.1\r\nHost: localhost\r\nX: a\nSet-Cookie: b\r\n\r\n",
    "many headers": b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * 20000 + b"\r\n",
    "long header": b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"y" * 10**6 + b"\r\n\r\n",
    "body that does not come": b"POST /api/restart HTTP/1.1\r\nHost: localhost\r\n"
    b"Content-Type: application/json\r\nAuthorization: Bearer night-and-day\r\n"
    b"Content-Length: 50\r\n\r\n{",
}


@pytest.mark.parametrize("name", RAW)
def test_what_is_no_request(name: str, port: int) -> None:
    try:
        answer = _raw(port, RAW[name])
    except ConnectionError:
        answer = b""
    assert b"Traceback" not in answer
    assert b"Set-Cookie" not in answer


def test_two_hundred_listeners_and_slow_ones(port: int) -> None:
    """They all hear of the state; others are answered meanwhile; closing them leaves nothing behind."""
    open_: list[Any] = []
    slow = [socket.create_connection(("127.0.0.1", port), timeout=300) for _ in range(20)]
    try:
        for late in slow:
            late.sendall(b"GET / HTTP/1.1\r\nHost: loc")
        for _ in range(200):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
            connection.request("GET", "/events")
            open_.append(connection)
        with concurrent.futures.ThreadPoolExecutor(4) as threads:
            answers = list(threads.map(lambda _: data.call(port, "/api/overview")[0], range(8)))
        assert answers == [200] * 8
        for connection in open_[::40]:
            assert b"data:" in connection.getresponse().read(200)
    finally:
        for connection in [*open_, *slow]:
            connection.close()


def test_a_listener_that_never_reads(port: int, config: OnlineConfig) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=300) as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.sendall(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        results = Results(config.database_url)
        for n in range(3):
            results.message(f"news {n}")
            assert data.call(port, "/api/messages")[0] == 200
        results.close()


def test_the_secret_is_where_it_was(config: OnlineConfig) -> None:
    assert (config.data.parent / "secret.png").exists() or any(
        Path(folder, "secret.png").exists() for folder in config.pipe.parents
    )
