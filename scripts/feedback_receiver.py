"""A small receiver of results: feedback_receiver.py --out results.jsonl [--host H] [--port N].

What a control system has to do, in the standard library alone: take the POST of ``gpucal online``, look
whether it is a result, keep it safely, and only then answer 200. Set ``feedback_url`` to its address.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

FORMAT, VERSION = "gpucal-feedback", 1
KEYS: dict[str, tuple[type, ...]] = {
    "project": (str,),
    "scan": (int,),
    "procedure": (str,),
    "source": (str,),
    "azimuth_deg": (int, float, type(None)),
    "elevation_deg": (int, float, type(None)),
    "cancelled": (bool,),
    "valid": (bool,),
    "reason": (str,),
    "results": (list,),
}
LARGEST = 1 << 20
"""Bytes of a message; a real one has some hundred."""

Message = dict[str, Any]


def check(text: bytes) -> Message:
    """Read a message; raises ValueError saying what is wrong with it."""
    message = json.loads(text)
    if not isinstance(message, dict):
        raise ValueError("the message is not a JSON object")
    if message.get("format") != FORMAT or message.get("version") != VERSION:
        found = f"{message.get('format')!r} version {message.get('version')!r}"
        raise ValueError(f"the message is {found}, expected {FORMAT!r} version {VERSION}")
    for key, kinds in KEYS.items():
        if key not in message:
            raise ValueError(f"the message has no {key!r}")
        if not isinstance(message[key], kinds) or (
            isinstance(message[key], bool) and bool not in kinds
        ):
            raise ValueError(f"{key!r} of the message is {message[key]!r}")
    if not all(isinstance(row, dict) for row in message["results"]):
        raise ValueError("'results' of the message holds something else than objects")
    return message


class Ledger:
    """The file of messages: one per line; the last one of a project, scan and procedure counts."""

    def __init__(self, path: Path) -> None:
        """Open the file; an incomplete last line was never acknowledged, so it is removed and will be sent again."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = open(path, "a+b", buffering=0)  # noqa: SIM115 - open as long as the receiver lives
        self._lock = threading.Lock()
        self._file.seek(0)
        data = self._file.read()
        whole = data.rfind(b"\n") + 1
        self._file.truncate(whole)
        self._known: dict[tuple[str, int, str], Message] = {}
        for line in data[:whole].splitlines():
            message = check(line)
            self._known[self._key(message)] = message

    def add(self, message: Message) -> bool:
        """Keep a message; False when it is there already. It is on the disk when this returns."""
        with self._lock:
            if self._known.get(self._key(message)) == message:
                return False
            line = json.dumps(message).encode() + b"\n"
            size = self._file.seek(0, os.SEEK_END)
            try:
                if self._file.write(line) != len(line):
                    raise OSError("the disk is full")
                os.fsync(self._file.fileno())
            except OSError:
                self._file.truncate(size)  # half a line would spoil the next one
                raise
            self._known[self._key(message)] = message
            return True

    @staticmethod
    def _key(message: Message) -> tuple[str, int, str]:
        """What a message is about; a later message with the same key replaces it."""
        return message["project"], message["scan"], message["procedure"]


class Handler(BaseHTTPRequestHandler):
    """One request. 200: it is kept; 400: it is no result; 411, 413: no or too great a length."""

    ledger: Ledger
    timeout = 10.0

    def do_POST(self) -> None:
        """Take a result."""
        length = self.headers.get("Content-Length", "")
        if not length.isdigit():
            self._answer(411, "the length is missing")
        elif int(length) > LARGEST:
            self._answer(413, f"the message is longer than {LARGEST} bytes")
        else:
            try:
                message = check(self.rfile.read(int(length)))
            except ValueError as error:
                self._answer(400, str(error))
                return
            new = self.ledger.add(message)
            place = f"{message['project']} scan {message['scan']} {message['procedure']}"
            print(f"{place}: {'received' if new else 'received again'}", flush=True)
            self._answer(200, "received" if new else "known")

    def _answer(self, code: int, text: str) -> None:
        body = (text + "\n").encode()
        self.send_response(code)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing here: every result has its line already."""


def main(argv: list[str] | None = None) -> None:
    """Receive until interrupted."""
    parser = argparse.ArgumentParser(description="Receive the results of gpucal online.")
    parser.add_argument("--out", type=Path, required=True, help="JSON lines, appended")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8001, help="0: any that is free")
    given = parser.parse_args(argv)
    try:
        ledger = Ledger(given.out)
    except (OSError, ValueError) as error:
        parser.exit(1, f"{given.out} cannot be used: {error}\n")
    handler = type("BoundHandler", (Handler,), {"ledger": ledger})
    with ThreadingHTTPServer((given.host, given.port), handler) as server:
        print(f"listening on http://{given.host}:{server.server_port}", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            sys.exit(130)


if __name__ == "__main__":
    main()
