"""The server of the page."""

from __future__ import annotations

import contextlib
import signal
import socket
from collections.abc import Callable, Iterator
from typing import Any

import uvicorn
from starlette.applications import Starlette

from gpucal.errors import OnlineError
from gpucal.online.page.app import make_app
from gpucal.online.page.live import Feed
from gpucal.online.site.config import OnlineConfig

LOOPBACK = ("127.0.0.1", "localhost", "::1")


class PageServer(uvicorn.Server):
    """A server that closes the event streams when it ends, since they would never end by themselves."""

    def __init__(self, app: Starlette, **settings: Any) -> None:
        self._feed: Feed = app.state.feed
        settings = {"log_level": "warning", "timeout_graceful_shutdown": 1, **settings}
        super().__init__(uvicorn.Config(app, server_header=False, **settings))

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take over SIGTERM and SIGINT; one that was ignored from the start, as in a background job, stays so."""
        ignored = signal.getsignal(signal.SIGINT) == signal.SIG_IGN
        with super().capture_signals():
            if ignored:
                signal.signal(signal.SIGINT, signal.SIG_IGN)
            yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Called by the server when it was told to end."""
        self._feed.close()
        await super().shutdown(sockets)


def serve(
    config: OnlineConfig,
    host: str = "127.0.0.1",
    port: int = 8080,
    token: str = "",
    say: Callable[[str], object] = print,
) -> None:
    """Serve the page until interrupted. Raises OnlineError when the address cannot be used.

    On a loopback address only requests to this host's loopback names are answered. port 0: any free
    one; ``say`` is told the address.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except (OSError, OverflowError) as error:
            text = getattr(error, "strerror", None) or str(error)
            raise OnlineError(
                f"the page cannot be served at {host} port {port}: {text}.",
                hint="Choose another port.",
            ) from error
        app = make_app(config, token=token, hosts=LOOPBACK if host in LOOPBACK else ())
        name = f"[{host}]" if family == socket.AF_INET6 else host
        say(f"page      http://{name}:{listener.getsockname()[1]}/")
        with contextlib.suppress(KeyboardInterrupt):
            PageServer(app).run(sockets=[listener])
