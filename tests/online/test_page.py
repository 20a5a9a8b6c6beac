"""The page's endpoints over real HTTP: what they show, what they refuse, and what never leaves the house."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from builders import page_data as data
from builders.synthetic_l1 import hexagon

from gpucal.errors import OnlineError
from gpucal.online.page import live
from gpucal.online.page.guard import POLICY
from gpucal.online.page.live import Site, news
from gpucal.online.page.pictures import picture_address, picture_file
from gpucal.online.page.serve import serve
from gpucal.online.queue.pipe import TASKS, Pipe
from gpucal.online.site.config import OnlineConfig
from gpucal.online.site.results import Results
from gpucal.online.workers.control import done, pending_requests, request

TOKEN = "night-and-day"
JSON = {"Content-Type": "application/json"}
RIGHT = {**JSON, "Authorization": f"Bearer {TOKEN}"}


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> OnlineConfig:
    made = data.make_config(tmp_path_factory.mktemp("night"))
    data.fill_night(made)
    results = Results(made.database_url)
    data.add_plot(made, results, 4, "pointing.png", kind="pointing", title=data.SCRIPT)
    data.add_plot(made, results, 91, "s00001_look.png", kind="look")
    data.add_plot(made, results, 91, "map.svg", kind="map", data=b"<svg/>")
    results.close()
    return made


@pytest.fixture(scope="module")
def port(config: OnlineConfig) -> Iterator[int]:
    with data.served(config, TOKEN) as number:
        yield number


def get(port: int, path: str, expected: int = 200) -> Any:
    status, _, body = data.call(port, path)
    assert status == expected, body
    return json.loads(body)


def test_status(port: int) -> None:
    found = get(port, "/api/status")
    tasks = {t["task"]: t for t in found["tasks"]}
    assert list(tasks) == list(TASKS)
    calibration = tasks["calibration"]
    assert (calibration["pending"], calibration["active"], calibration["done"]) == (2, 1, 42)
    assert calibration["rate"] == pytest.approx(4.2)
    assert calibration["message"] == "scan 91 has begun"
    assert tasks["plot"]["failed"] == 1
    assert found["failed"][0]["error"] == "the store has no scan 8."
    assert found["scans"] == {"calibrated": 14, "open": 1}
    assert found["controls"] is True
    text = "Pictures: 1 job was given up. When the cause is gone: gpucal online retry plot --all"
    assert {"level": "error", "task": "plot", "text": text} in found["problems"]
    assert tasks["fits_heterodyne"]["name"] == "Raw FITS, spectra"


def test_overview_is_what_was_measured(port: int) -> None:
    found = get(port, "/api/overview")
    az = next(
        line
        for line in found["results"]["pointings"]
        if line["scan"] == 4 and line["place"] == "az mean"
    )
    assert az["source"] == "Uranus"
    assert az["values"][0] == {"name": "offset", "unit": "arcsec", "value": 2.4, "error": 0.21}
    weak = next(line for line in found["results"]["pointings"] if line["scan"] == 84)
    assert (weak["valid"], weak["reason"]) == (False, "the source is weaker than 3 sigma")
    loads = found["results"]["calibrations"]
    assert [line["scan"] for line in loads[:2]] == [81, 81]
    assert loads[0]["reason"] == "1 of 37 pixels: every channel is bad"
    assert loads[0]["values"][0]["value"] == pytest.approx(70, abs=3)
    points = [p for p in found["trends"] if p["receiver"] == 0]
    assert [p["scan"] for p in points] == [1 + 10 * i for i in range(9)]
    assert points[0]["pwv"] == pytest.approx(0.9)
    assert points[8]["t_rec"] == loads[0]["values"][0]["value"]


def shown(line: dict[str, Any]) -> dict[str, Any]:
    return {v["name"]: v["value"] for v in line["values"]}


def calibrated(results: Results, scan: int, mjd: float, **values: float | None) -> None:
    """A calibrated scan of three pixels, the last of them dead."""
    rows = [
        {"project": "p", "scan": scan, "band": "", "receiver": 0, "pixel": a, "mjd": mjd,
         "valid": a < 2, "reason": "" if a < 2 else "no good channel",
         **{k: v if v is None else v + a for k, v in values.items()}}
        for a in range(3)
    ]  # fmt: skip
    results.save("spectra", rows)


def test_loads_without_a_sky_and_the_scan_they_serve_are_shown_together(tmp_path: Path) -> None:
    """HOT and COLD tell T_rec, the OFF of the scan the rest; a scan with the loads of another has a line too."""
    config = data.make_config(tmp_path)
    results = Results(config.database_url)
    place = {"project": "p", "band": "", "receiver": 0}
    results.save("calibrations", [
        {**place, "scan": 1, "pixel": a, "t_rec": 100.0 + a, "mjd": 61000.1, "valid": True}
        for a in range(3)
    ])  # fmt: skip
    site = Site(config)
    (line,) = site.overview()["results"]["calibrations"]
    assert shown(line) == {
        "t_rec": 101,
        "t_sys": None,
        "t_sys_star": None,
        "pwv": None,
        "tau": None,
    }
    calibrated(results, 1, 61000.11, t_rec=100.0, t_sys=200.0, t_sys_star=300.0, pwv=2.0, tau=0.1)
    calibrated(results, 2, 61000.12, t_rec=100.0, t_sys=None, t_sys_star=320.0, pwv=None, tau=0.2)
    found = site.overview()
    second, first = found["results"]["calibrations"]
    expected = {"t_rec": 100.5, "t_sys": 200.5, "t_sys_star": 300.5, "pwv": 2.5, "tau": 0.6}
    assert shown(first) == pytest.approx(expected)
    assert shown(second)["t_sys"] is None  # a vane gives T_sys* alone
    assert shown(second)["t_sys_star"] == 320.5
    assert [(p["scan"], p["t_sys_star"]) for p in found["trends"]] == [(1, 300.5), (2, 320.5)]
    (array,) = found["footprints"]
    assert array["scans"] == {"t_rec": 2, "t_sys_star": 2}
    calibrated(results, 2, 61000.12, t_rec=100.0, t_sys=None, t_sys_star=330.0, pwv=None, tau=0.2)
    assert site.overview()["trends"][-1]["t_sys_star"] == 330.5
    results.close()


def test_footprint_has_the_places_of_the_look(port: int) -> None:
    first, second = get(port, "/api/overview")["footprints"]
    assert (first["receiver"], second["receiver"]) == (0, 1)
    assert first["placed"] is True
    assert first["look"] == "scan 91"
    assert first["scans"] == {"t_rec": 81, "t_sys": 81, "rms": 9, "rms_expected": 9}
    places = 3600.0 * hexagon(data.PIXELS)
    for pixel in first["pixels"]:
        assert (pixel["x"], pixel["y"]) == pytest.approx(tuple(places[pixel["pixel"]]), abs=1e-6)
    dead = first["pixels"][11]
    assert (dead["t_rec"], dead["valid"], dead["reason"]) == (None, False, "every channel is bad")
    assert first["pixels"][0]["rms"] == pytest.approx(0.021, rel=0.5)


def test_footprint_without_a_look_is_a_square(tmp_path: Path) -> None:
    config = data.make_config(tmp_path)
    results = Results(config.database_url)
    data.add_calibration(results, 1, data.START, 1.0)
    results.close()
    folder = config.work_of("calibration", data.PROJECT)
    folder.mkdir(parents=True)
    (folder / "broken.npz").write_bytes(b"PK\x03\x04 not a look")
    with data.served(config) as number:
        entry = get(number, "/api/overview")["footprints"][0]
    assert entry["placed"] is False
    assert [(p["x"], p["y"]) for p in entry["pixels"][6:8]] == [(6, 0), (0, -1)]


def test_results_are_rows_newest_first(port: int) -> None:
    found = get(port, f"/api/results/calibrations?project={data.PROJECT}&limit=5")
    assert found["table"] == "calibrations"
    assert [row["scan"] for row in found["rows"]] == [81] * 5
    (one,) = get(port, "/api/results/skydips?scan=7")["rows"]
    assert one["tau"] == 0.201
    assert "no table" in get(port, "/api/results/messages", 404)["error"]
    assert "whole number" in get(port, "/api/results/skydips?scan=-1", 400)["error"]
    assert "whole number" in get(port, f"/api/results/skydips?scan={'9' * 5000}", 400)["error"]


def test_plots_by_project_scan_and_kind(port: int) -> None:
    found = get(port, "/api/plots")
    assert found["total"] == 3
    assert found["projects"] == [data.PROJECT]
    assert found["scans"] == [91, 4]
    some = get(port, f"/api/plots?project={data.PROJECT}&scan=91")
    assert some["kinds"] == ["look", "map"]
    (one,) = get(port, "/api/plots?scan=91&kind=look")["plots"]
    status, headers, body = data.call(port, one["url"])
    assert (status, body) == (200, data.PNG)
    assert headers["content-type"] == "image/png"
    assert get(port, "/api/plots?limit=1&offset=1")["plots"] == found["plots"][1:2]
    assert get(port, "/api/plots?scan=5")["plots"] == []


def test_messages_after_one(port: int) -> None:
    everything = get(port, "/api/messages")["messages"]
    assert "scan 91 has begun" in [m["text"] for m in everything]
    after = get(port, f"/api/messages?after={everything[1]['id']}")["messages"]
    assert after == everything[2:]


def test_an_svg_opened_alone_may_run_nothing(port: int) -> None:
    _, headers, _ = data.call(port, f"/picture/{data.PROJECT}/000091/map.svg")
    assert headers["content-type"] == "image/svg+xml"
    assert headers["content-security-policy"].startswith("default-src 'none'")
    assert "sandbox" in headers["content-security-policy"]


@pytest.mark.parametrize(
    "path", ["/", "/assets/app.js", "/api/status", "/nothing", "/api/plots?scan=x"]
)
def test_every_answer_has_the_policy(port: int, path: str) -> None:
    _, headers, _ = data.call(port, path)
    assert headers["content-security-policy"] == POLICY
    assert headers["x-content-type-options"] == "nosniff"


def test_the_page_holds_no_inline_code_and_asks_nobody_else(port: int) -> None:
    _, headers, body = data.call(port, "/")
    assert headers["content-type"].startswith("text/html")
    text = body.decode()
    for name in ("app.js", "drawing.js", "theme.js", "style.css"):
        _, kind, more = data.call(port, f"/assets/{name}")
        assert kind["content-type"].startswith(("text/javascript", "text/css"))
        text += more.decode()
    outside = text.replace("http://www.w3.org/2000/svg", "")
    for bad in ("http://", "https://", "innerHTML", "outerHTML", "insertAdjacent", "eval(",
                "document.write", " style=", " onclick=", " onerror=", "<style"):  # fmt: skip
        assert bad not in outside
    assert text.count("<script") == text.count("<script src=") + text.count(
        '<script type="module" src='
    )


SECRET = "secret.png"
TRAVERSALS = [
    "../secret.png",
    "%2e%2e/secret.png",
    "%2e%2e%2fsecret.png",
    "..%2fsecret.png",
    "000004/../../secret.png",
    "000004/%2e%2e/%2e%2e/secret.png",
    "%252e%252e%252fsecret.png",
    "..%5csecret.png",
    "....//secret.png",
    "//etc/passwd",
    "/etc/hostname",
    "%2fetc%2fpasswd",
    "000004/pointing.png%00.png",
    "000004/pointing.png%00",
    "link_out.png",
    "folder_out/secret.png",
    "link_to_text.png",
    "loop.png",
    "000004",
    "000004/",
    "",
    "index.jsonl",
    ".hidden/pointing.png",
    "x" * 5000 + ".png",
    "%ff%fe.png",
]


@pytest.fixture(scope="module")
def traps(config: OnlineConfig) -> Path:
    """Files beside the pictures that must not be served, and links to them."""
    folder = config.project(data.PROJECT)
    plots = folder / "plots"
    for place in (folder, config.data, config.data.parent, config.data / "secrets"):
        place.mkdir(exist_ok=True)
        (place / SECRET).write_bytes(b"secret")
    (plots / ".hidden").mkdir()
    (plots / ".hidden" / "pointing.png").write_bytes(b"secret")
    (plots / "notes.txt").write_bytes(b"secret")
    (plots / "link_out.png").symlink_to(config.data.parent / SECRET)
    (plots / "folder_out").symlink_to(config.data / "secrets")
    (plots / "link_to_text.png").symlink_to(plots / "notes.txt")
    (plots / "loop.png").symlink_to(plots / "loop.png")
    (plots / "inside.png").symlink_to(plots / "000004" / "pointing.png")
    return plots


@pytest.mark.parametrize("path", TRAVERSALS)
def test_no_path_leaves_the_pictures(port: int, traps: Path, path: str) -> None:
    status, _, body = data.call(port, f"/picture/{data.PROJECT}/{path}")
    assert status == 404
    assert b"secret" not in body.lower().replace(b"secret.png", b"")


@pytest.mark.parametrize("project", ["..", "%2e%2e", "%2e%2e%2f..", ".", "%00", "secrets", "%2f"])
def test_no_project_leaves_the_data(port: int, traps: Path, project: str) -> None:
    status, _, body = data.call(port, f"/picture/{project}/{SECRET}")
    assert status == 404
    assert body != b"secret"


def test_a_link_inside_is_a_picture(port: int, traps: Path) -> None:
    assert data.call(port, f"/picture/{data.PROJECT}/inside.png")[::2] == (200, data.PNG)


def test_a_project_that_is_a_link_out_of_the_data_is_none(tmp_path: Path) -> None:
    config = data.make_config(tmp_path / "site")
    outside = tmp_path / "elsewhere" / "plots"
    outside.mkdir(parents=True)
    (outside / SECRET).write_bytes(data.PNG)
    config.data.mkdir(parents=True)
    (config.data / "p").symlink_to(tmp_path / "elsewhere")
    assert picture_file(config, "p", SECRET) is None


def test_addresses_of_pictures_hold_no_markup() -> None:
    row = {"project": data.SCRIPT, "file": "plots/000004/<b>?#%.png", "made": None}
    address = picture_address(row)
    assert not set(address) & set("<>'\"# ")
    assert address.count("?") == 1
    assert picture_address({**row, "file": "../l1.zarr"}) == ""


def first_event(port: int, count: int = 1) -> list[dict[str, Any]]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
    connection.request("GET", "/events")
    answer = connection.getresponse()
    assert answer.getheader("content-type", "").startswith("text/event-stream")
    found: list[dict[str, Any]] = []
    while len(found) < count:
        line = answer.readline()
        assert line
        if line.startswith(b"data: "):
            found.append(json.loads(line[6:]))
    connection.close()
    return found


def test_the_first_event_is_the_state(port: int) -> None:
    (state,) = first_event(port)
    assert [t["task"] for t in state["tasks"]] == list(TASKS)
    assert state["revision"]["messages"] >= 5


def test_an_event_when_something_changed_and_none_when_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "AGAIN_S", 1e9)  # only news make events
    config = data.make_config(tmp_path)
    results = Results(config.database_url)
    with data.served(config) as number:
        connection = http.client.HTTPConnection("127.0.0.1", number, timeout=120)
        connection.request("GET", "/events")
        answer = connection.getresponse()

        def next_state() -> dict[str, Any]:
            while not (line := answer.readline()).startswith(b"data: "):
                assert line
            return dict(json.loads(line[6:]))

        before = next_state()
        assert connection.sock is not None
        data.add_pointing(results, 4, data.START, 2.4)
        after = next_state()
        assert after["revision"]["data"] != before["revision"]["data"]
        results.message("hello")
        assert next_state()["revision"]["messages"] == 1
        quiet, aged = next_state_twice(after)
        assert news(quiet) == news(aged)
        answer.close()
        connection.close()
    results.close()


def next_state_twice(state: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The same state, and as it is some seconds later."""
    later = json.loads(json.dumps(state))
    later["time"] += 5
    for task in later["tasks"]:
        task["oldest"] += 5
    return state, later


def test_the_server_ends_while_somebody_listens(tmp_path: Path) -> None:
    config = data.make_config(tmp_path)
    with data.served(config) as number:
        connection = http.client.HTTPConnection("127.0.0.1", number, timeout=120)
        connection.request("GET", "/events")
        answer = connection.getresponse()
        answer.readline()
    connection.close()  # and the server has ended, as ``served`` demands


def post(port: int, path: str, body: Any, headers: dict[str, str]) -> tuple[int, str]:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    status, _, answer = data.call(port, path, raw, headers)
    return status, str(json.loads(answer).get("error", ""))


REFUSED = [
    ({}, 415, "application/json"),
    (JSON, 401, "token"),
    ({**JSON, "Authorization": "Bearer wrong"}, 401, "token"),
    ({**JSON, "Authorization": "Bearer "}, 401, "token"),
    ({**JSON, "Authorization": f"Basic {TOKEN}"}, 401, "token"),
    ({**JSON, "Authorization": "Bearer \xe9\xff"}, 401, "token"),
    ({**RIGHT, "Origin": "http://elsewhere.example"}, 403, "another page"),
    ({**RIGHT, "Origin": "null"}, 403, "another page"),
    ({**RIGHT, "Origin": "http://["}, 403, "another page"),
    ({**RIGHT, "Content-Type": "text/plain"}, 415, "application/json"),
    ({**RIGHT, "Content-Type": "application/x-www-form-urlencoded"}, 415, "application/json"),
]


@pytest.mark.parametrize(("headers", "status", "word"), REFUSED)
@pytest.mark.parametrize("path", ["/api/restart", "/api/retry"])
def test_what_may_not_change_anything(
    port: int, config: OnlineConfig, path: str, headers: dict[str, str], status: int, word: str
) -> None:
    found, sentence = post(port, path, {"task": "plot"}, headers)
    assert (found, word in sentence) == (status, True)
    assert pending_requests(config.pipe) == []


@pytest.mark.parametrize(
    ("path", "body", "status", "word"),
    [
        ("/api/restart", b"{", 400, "not JSON"),
        ("/api/restart", b"[" * 60000, 400, "not JSON"),
        ("/api/restart", b"\xff", 400, "not JSON"),
        ("/api/restart", [], 400, "expected an object"),
        ("/api/restart", {"task": 3}, 400, "must be text"),
        ("/api/restart", {"task": "plot", "more": "x"}, 400, "expected an object"),
        ("/api/restart", b" " * 70000, 413, "too long"),
        ("/api/restart", {"task": "../x"}, 404, "no task"),
        ("/api/retry", {"task": "plot", "name": "../../x.json"}, 404, "no failed job"),
        ("/api/retry", {"task": "plot", "name": "a\0b.json"}, 404, "no failed job"),
        ("/api/retry", {"task": "nothing", "name": "x.json"}, 404, "no task"),
    ],
)
def test_wrong_requests_are_answered_in_words(
    port: int, config: OnlineConfig, path: str, body: Any, status: int, word: str
) -> None:
    found, sentence = post(port, path, body, RIGHT)
    assert (found, word in sentence) == (status, True), sentence
    assert pending_requests(config.pipe) == []


def test_without_a_configured_token_nothing_changes(tmp_path: Path) -> None:
    config = data.make_config(tmp_path)
    with data.served(config) as number:
        for given in ({}, {"Authorization": "Bearer "}, {"Authorization": "Bearer x"}):
            status, sentence = post(number, "/api/restart", {"task": "plot"}, {**JSON, **given})
            assert status == 403
            assert "without a token" in sentence
        assert get(number, "/api/status")["controls"] is False
    assert pending_requests(config.pipe) == []


def test_reading_changes_nothing_and_writing_needs_post(port: int) -> None:
    for path in ("/api/restart", "/api/retry"):
        assert data.call(port, path)[0] == 405
    assert data.call(port, "/api/status", b"{}", RIGHT)[0] == 405


def test_restart_and_retry_with_the_token(tmp_path: Path) -> None:
    config = data.make_config(tmp_path)
    job = data.add_failed(config)
    with data.served(config, TOKEN) as number:
        own = {**RIGHT, "Origin": f"http://127.0.0.1:{number}"}
        assert post(number, "/api/restart", {"task": "plot"}, own) == (200, "")
        assert post(number, "/api/retry", {"task": "plot", "name": job.name}, own) == (200, "")
        texts = [m["text"] for m in get(number, "/api/messages")["messages"]]
    (wanted,) = pending_requests(config.pipe)
    assert (wanted.action, wanted.task) == ("restart", "plot")
    assert Pipe(config.pipe).task("plot").names() == [job.name]
    assert texts == [
        "restart of plot asked for by the operator",
        f"{job.name} was put back by the operator",
    ]


def test_a_foreign_name_of_this_host_is_not_answered(tmp_path: Path) -> None:
    config = data.make_config(tmp_path)
    with data.served(config, hosts=("127.0.0.1", "localhost", "::1")) as number:
        for host, status in (
            (f"127.0.0.1:{number}", 200),
            ("localhost:9", 200),
            (f"[::1]:{number}", 200),
            ("rebound.example", 421),
            ("127.0.0.1.rebound.example", 421),
            ("[", 421),
        ):
            assert data.call(number, "/api/status", headers={"Host": host})[0] == status


def test_a_port_in_use_is_said_so(port: int, config: OnlineConfig) -> None:
    with pytest.raises(OnlineError, match=f"port {port}"):
        serve(config, port=port)


def test_a_database_that_cannot_be_read_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "gpucal.db").write_bytes(b"not a database at all" * 100)
    config = data.make_config(tmp_path, database=f"sqlite:///{tmp_path / 'gpucal.db'}")
    with data.served(config) as number:
        problems = get(number, "/api/status")["problems"]
        assert any("database" in p["text"] for p in problems)
        assert "cannot be opened" in get(number, "/api/overview", 503)["error"]
        (state,) = first_event(number)
        assert state["revision"] == {}


def test_requests_are_done_once(tmp_path: Path) -> None:
    request(tmp_path, "restart", "plot")
    request(tmp_path, "restart", "plot")
    request(tmp_path, "restart")
    request(tmp_path, "stop")
    found = pending_requests(tmp_path)
    assert [(r.action, r.task) for r in found] == [
        ("restart", "plot"),
        ("restart", ""),
        ("stop", ""),
    ]
    assert sorted(p.name for p in (tmp_path / "control").iterdir()) == [
        "restart.all.json",
        "restart.plot.json",
        "stop.all.json",
    ]
    for one in found:
        done(one)
        done(one)
    assert pending_requests(tmp_path) == []


def test_requests_that_are_none(tmp_path: Path) -> None:
    for action, task in (("erase", ""), ("restart", "x"), ("stop", "plot")):
        with pytest.raises(OnlineError):
            request(tmp_path, action, task)  # type: ignore[arg-type]
    request(tmp_path, "stop")
    folder = tmp_path / "control"
    good = (folder / "stop.all.json").read_text()
    (folder / "restart.all.json").write_text(good)
    (folder / "broken.json").write_text("{")
    (folder / "list.json").write_text("[]")
    (folder / "restart.plot.json").write_text('{"action": "restart", "task": ["x"], "created": 0}')
    assert [r.action for r in pending_requests(tmp_path)] == ["stop"]
    assert pending_requests(tmp_path / "nowhere") == []
