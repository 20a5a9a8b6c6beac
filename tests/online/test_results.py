"""Results are there once however often a job is done, on both kinds of database."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from gpucal import OnlineError
from gpucal.online.site.results import Results, append_once
from gpucal.online.site.tables import METADATA, TABLES


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'deep' / 'gpucal.db'}"
        return
    address = request.getfixturevalue("postgres")
    engine = sa.create_engine(address)
    METADATA.drop_all(engine)
    engine.dispose()
    yield address


@pytest.fixture
def results(url: str) -> Iterator[Results]:
    opened = Results(url)
    yield opened
    opened.close()


def pointing(**changes: Any) -> dict[str, Any]:
    row = {
        "project": "p1", "scan": 7, "band": "", "receiver": 0, "pixel": 4, "direction": "az",
        "offset": 1.25, "offset_error": 0.5, "valid": True,
    }  # fmt: skip
    return {**row, **changes}


def test_the_same_row_again_is_an_update(results: Results) -> None:
    results.save("pointings", [pointing(), pointing(direction="el", offset=float("nan"))])
    results.save("pointings", [pointing(offset=1.5)])
    az, el = results.rows("pointings", project="p1", scan=7)
    assert (az["direction"], az["offset"], az["offset_error"], az["valid"]) == (
        "az",
        1.5,
        0.5,
        True,
    )
    assert el["offset"] is None
    assert results.count("pointings") == 2
    assert results.rows("pointings", scan=8) == []


def test_tables_of_an_earlier_release_get_their_new_columns(url: str) -> None:
    first = Results(url)
    first.save("spectra", [pixel(4, t_sys=200.0)])
    with first.engine.begin() as connection:
        for table, name in (("spectra", "tau"), ("calibrations", "t_sys_star"), ("plots", "mjd")):
            connection.execute(sa.text(f"ALTER TABLE {table} DROP COLUMN {name}"))
    first.close()
    again = Results(url)
    (row,) = again.rows("spectra")
    assert (row["t_sys"], row["tau"]) == (200.0, None)
    again.save("spectra", [pixel(4, tau=0.2)])
    (row,) = again.rows("spectra")
    assert (row["t_sys"], row["tau"]) == (200.0, 0.2)
    assert again.rows("plots") == again.rows("calibrations") == []
    again.close()


def pixel(number: int, **values: float) -> dict[str, Any]:
    place = {"project": "p", "scan": 1, "band": "", "receiver": 0, "pixel": number}
    return {**place, **values}


def test_a_partial_row_keeps_the_rest(results: Results) -> None:
    results.save("scans", [{"project": "p", "scan": 1, "source": "Orion", "state": "open"}])
    results.save("scans", [{"project": "p", "scan": 1, "state": "calibrated"}])
    (row,) = results.rows("scans")
    assert (row["source"], row["state"]) == ("Orion", "calibrated")


def test_all_rows_or_none(results: Results) -> None:
    with pytest.raises(sa.exc.SQLAlchemyError):
        results.save("scans", [{"project": "p", "scan": 1}, {"project": "p", "scan": None}])
    assert results.count("scans") == 0


def test_messages_are_said_once(results: Results) -> None:
    for _ in range(3):
        results.message("scan 7 has no REF", project="p1", scan=7, level="warning")
    results.message("scan 7 has no REF", project="p2", scan=7, level="warning")
    for n in range(5):
        results.message("worker restarted", once=f"restart {n}")
    everything = results.rows("messages")
    assert len(everything) == 7
    last = results.rows("messages", newest=2)
    assert [m["id"] for m in last] == [m["id"] for m in everything[-2:]]
    assert results.rows("messages", after=everything[4]["id"]) == everything[5:]


def test_many_writers(url: str) -> None:
    """Each opens the database itself, as processes do: tables are made once, nothing is lost."""
    failures: list[BaseException] = []

    def work(slot: int) -> None:
        try:
            mine = Results(url)
            for n in range(20):
                mine.save("jobs", [{"task": "plot", "name": f"{slot}.{n}", "worker": str(slot)}])
                mine.save("jobs", [{"task": "plot", "name": "shared", "worker": str(slot)}])
            mine.close()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    after = Results(url)
    assert after.count("jobs") == 6 * 20 + 1
    after.close()


def test_every_table_has_a_key() -> None:
    for name, table in TABLES.items():
        assert list(table.primary_key), name
    assert set(TABLES) >= {
        "scans", "jobs", "calibrations", "pointings", "foci", "skydips", "plots", "messages",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("no address", "not a database address"),
        ("mysql://u@h/d", "expected sqlite or postgresql"),
        ("postgresql+psycopg://u:secret@127.0.0.1:1/d", "cannot be opened"),
        ("sqlite:////proc/nowhere/x.db", "cannot be opened"),
    ],
)
def test_wrong_addresses(url: str, said: str) -> None:
    with pytest.raises(OnlineError, match=said) as caught:
        Results(url)
    assert "secret" not in str(caught.value)


def test_log_lines_are_there_once(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "pointing.log"
    assert append_once(log, "scan 1 az 1.0")
    assert not append_once(log, "scan 1 az 1.0")
    assert append_once(log, "scan 1 az")
    with open(log, "ab") as file:
        file.write(b"scan 2 a")  # a crash
    assert append_once(log, "scan 2 az 3.0")
    assert log.read_text().splitlines() == [
        "scan 1 az 1.0",
        "scan 1 az",
        "scan 2 a",
        "scan 2 az 3.0",
    ]
    lines = [f"line {n}" for n in range(40)]
    threads = [
        threading.Thread(target=lambda: [append_once(log, line) for line in lines])
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(log.read_text().splitlines()[4:]) == sorted(lines)
