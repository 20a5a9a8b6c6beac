"""A real PostgreSQL server for the tests of the results, started from the system's package."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


def _server() -> Path | None:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if found:
        return found[-1].parent
    beside = shutil.which("initdb")
    return Path(beside).parent if beside else None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """Address of an empty database; the server refuses to run as root, so it runs as ``postgres``."""
    tools = _server()
    if tools is None:
        if os.environ.get("GPUCAL_REQUIRE_POSTGRES"):
            pytest.fail("GPUCAL_REQUIRE_POSTGRES is set, but there is no initdb")
        pytest.skip("no PostgreSQL server is installed")
    become: list[str] = []
    folder = Path(tempfile.mkdtemp(prefix="gpucal-pg-"))
    if os.geteuid() == 0:
        user = pwd.getpwnam("postgres")
        os.chown(folder, user.pw_uid, user.pw_gid)
        become = ["runuser", "-u", "postgres", "--"]
    port = _free_port()

    def call(*command: str) -> None:
        subprocess.run([*become, *command], check=True, cwd=folder, capture_output=True)

    data = folder / "data"
    call(str(tools / "initdb"), "-D", str(data), "-A", "trust", "-U", "gpucal", "--no-sync")
    options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"
    log = str(folder / "log")
    call(str(tools / "pg_ctl"), "-D", str(data), "-w", "-l", log, "-o", options, "start")
    try:
        yield f"postgresql+psycopg://gpucal@127.0.0.1:{port}/postgres"
    finally:
        call(str(tools / "pg_ctl"), "-D", str(data), "-m", "immediate", "stop")
        shutil.rmtree(folder, ignore_errors=True)
