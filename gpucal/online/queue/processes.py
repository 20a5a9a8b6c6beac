"""Names of worker processes, and whether such a process is alive.

A name holds host, process number and start time: no later process can be taken for it.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path


def worker_id(slot: str = "") -> str:
    """The name of this process as a worker; ``slot`` tells several of one process apart."""
    pid = os.getpid()
    name = f"{socket.gethostname()}~{pid}~{_start_time(pid)}"
    return f"{name}~{slot}" if slot else name


def process_lives(worker: str) -> bool | None:
    """Whether a worker's process is running; None when it ran on another host, or cannot be known."""
    parts = worker.split("~")
    if len(parts) < 3 or parts[0] != socket.gethostname() or not parts[1].isdigit():
        return None
    started = _start_time(int(parts[1]))
    if started == "0":
        return None if parts[2] == "0" else False
    return started == parts[2]


def _start_time(pid: int) -> str:
    """Start of a process in ticks since boot; "0" when that is not known or it has ended."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
    except OSError:
        return "0"
    fields = text.rpartition(")")[2].split()
    return "0" if fields[0] in ("Z", "X") else fields[19]
