"""The page of the online pipeline: JSON, pictures, live events, and the few things that change state."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import math
import mimetypes
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gpucal.errors import GpucalError, OnlineError
from gpucal.online.page.live import Feed, Site
from gpucal.online.page.pages import picture_file, plot_list, table_rows
from gpucal.online.queue.pipe import Pipe
from gpucal.online.site.config import OnlineConfig
from gpucal.online.workers import control

HEARTBEAT_S = 10.0
MAX_BODY = 1 << 16
MAX_MESSAGES = 500
LOOPBACK = ("127.0.0.1", "localhost", "::1")
MAX_ID = 2**62

POLICY = (
    "default-src 'self'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
PICTURE_POLICY = "default-src 'none'; style-src 'unsafe-inline'; sandbox"
"""A picture opened by itself may run nothing, whoever drew it."""


class Guard:
    """Security headers on every answer, and names of this host that are answered at all."""

    def __init__(self, app: ASGIApp, hosts: Sequence[str] = ()) -> None:
        self.app = app
        self.hosts = frozenset(hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                known = {name.lower() for name, _ in message["headers"]}
                for name, value in HEADERS.items():
                    if name.lower().encode() not in known:
                        message["headers"].append((name.lower().encode(), value.encode()))
            await send(message)

        host = Request(scope).headers.get("host", "")
        # A foreign name that points here is another page trying to read this one.
        if self.hosts and _split(f"//{host}").hostname not in self.hosts:
            await _sentence(421, f"this page does not answer to {host!r}.")(scope, receive, guarded)
            return
        await self.app(scope, receive, guarded)


class Page:
    """The endpoints. token: what a request that changes state must know, "" = nothing can be changed."""

    def __init__(self, config: OnlineConfig, token: str) -> None:
        self.config = config
        self.token = token
        self.site = Site(config)
        self.feed = Feed(self.site)

    def status(self, _request: Request) -> Response:
        """The state of the pipeline."""
        return _json({**self.site.state(), "controls": bool(self.token)})

    def overview(self, _request: Request) -> Response:
        """Last results, footprints, PWV."""
        return _json(self.site.overview())

    def results(self, request: Request) -> Response:
        """Rows of one table, newest first."""
        scan = _number(request, "scan")
        limit = _number(request, "limit")
        try:
            rows = table_rows(
                self.site.results(),
                request.path_params["table"],
                request.query_params.get("project"),
                scan,
                200 if limit is None else limit,
            )
        except OnlineError as error:
            return _sentence(404, str(error))
        return _json({"table": request.path_params["table"], "rows": rows})

    def plots(self, request: Request) -> Response:
        """Pictures by project, scan and kind."""
        chosen: dict[str, Any] = {
            name: request.query_params.get(name) or None for name in ("project", "kind")
        }
        chosen["scan"] = _number(request, "scan")
        limit, offset = _number(request, "limit"), _number(request, "offset")
        found = plot_list(
            self.site.results(),
            chosen,
            24 if limit is None else limit,
            0 if offset is None else offset,
        )
        return _json(found)

    def messages(self, request: Request) -> Response:
        """What was said after a message, or lately."""
        after = _number(request, "after")
        rows = self.site.results().rows("messages", newest=MAX_MESSAGES, after=after)
        return _json({"messages": [{k: v for k, v in row.items() if k != "mark"} for row in rows]})

    def picture(self, request: Request) -> Response:
        """One picture of a project."""
        params = request.path_params
        path = picture_file(self.config, params["project"], params["path"])
        try:
            data = path.read_bytes() if path is not None else None
        except OSError:
            data = None
        if path is None or data is None:
            return _sentence(404, "there is no such picture.")
        # The address holds the time when it was drawn: it never changes.
        cache = "private, max-age=604800" if "v" in request.query_params else "no-cache"
        kind = "image/svg+xml" if path.suffix.lower() == ".svg" else "image/png"
        headers = {"Cache-Control": cache, "Content-Security-Policy": PICTURE_POLICY}
        return Response(data, media_type=kind, headers=headers)

    async def events(self, _request: Request) -> Response:
        """Server-sent events: the state whenever it has changed, and signs of life."""
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(self._stream(), media_type="text/event-stream", headers=headers)

    async def _stream(self) -> AsyncIterator[str]:
        yield "retry: 2000\n\n"
        async with self.feed.listen() as queue:
            while True:
                try:
                    state = await asyncio.wait_for(queue.get(), HEARTBEAT_S)
                except TimeoutError:
                    yield ": alive\n\n"
                    continue
                if state is None:
                    return
                yield f"event: state\ndata: {_text({**state, 'controls': bool(self.token)})}\n\n"

    async def retry(self, request: Request) -> Response:
        """Put a failed job back."""
        wanted = await self._wanted(request, ("task", "name"))
        if isinstance(wanted, Response):
            return wanted
        task, name = wanted["task"], wanted["name"]

        def put_back() -> None:
            Pipe(self.config.pipe).task(task).retry(name)
            self.site.tell(f"{name} was put back by the operator", task)

        return await _carried_out(put_back)

    async def restart(self, request: Request) -> Response:
        """Ask the supervisor to restart the workers of a task ("" = of all)."""
        wanted = await self._wanted(request, ("task",))
        if isinstance(wanted, Response):
            return wanted
        task = wanted["task"]

        def ask() -> None:
            control.request(self.config.pipe, "restart", task)
            self.site.tell(f"restart of {task or 'all tasks'} asked for by the operator", task)

        return await _carried_out(ask)

    async def _wanted(self, request: Request, keys: Sequence[str]) -> dict[str, str] | Response:
        """The fields of a request that may change state; else the answer that says why it may not."""
        refusal = self._refusal(request)
        if refusal is not None:
            return refusal
        body = b""
        async for block in request.stream():
            body += block
            if len(body) > MAX_BODY:
                return _sentence(413, "the request is too long.")
        try:
            found = json.loads(body)
        except (ValueError, RecursionError):
            return _sentence(400, "the request is not JSON.")
        if not isinstance(found, dict) or sorted(found) != sorted(keys):
            return _sentence(400, f"expected an object with {' and '.join(keys)}.")
        if not all(isinstance(value, str) for value in found.values()):
            return _sentence(400, f"{' and '.join(keys)} must be text.")
        return found

    def _refusal(self, request: Request) -> Response | None:
        if not self.token:
            text = "this page was started without a token: nothing can be changed from here."
            return _sentence(403, text)
        origin = request.headers.get("origin")
        if origin is not None and _split(origin).netloc != request.headers.get("host"):
            return _sentence(403, "the request comes from another page.")
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            return _sentence(415, "expected application/json.")
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        right = hmac.compare_digest(given.strip().encode("latin-1"), self.token.encode())
        if scheme.lower() != "bearer" or not right:
            answer = _sentence(401, "the token is missing or wrong.")
            answer.headers["WWW-Authenticate"] = "Bearer"
            return answer
        return None


def make_app(config: OnlineConfig, *, token: str = "", hosts: Sequence[str] = ()) -> Starlette:
    """The page as an ASGI application.

    token: what retry and restart ask for, "" = they are refused. hosts: names in the Host header that
    are answered, () = any. The database is opened when it is first needed, and again when it was lost.
    """
    page = Page(config, token)
    routes = [
        Route("/", _asset("index.html")),
        *(Route(f"/assets/{name}", _asset(name)) for name in _asset_names()),
        Route("/api/status", page.status),
        Route("/api/overview", page.overview),
        Route("/api/results/{table}", page.results),
        Route("/api/plots", page.plots),
        Route("/api/messages", page.messages),
        Route("/api/retry", page.retry, methods=["POST"]),
        Route("/api/restart", page.restart, methods=["POST"]),
        Route("/events", page.events),
        Route("/picture/{project}/{path:path}", page.picture),
    ]
    app = Starlette(
        routes=routes,
        middleware=[Middleware(Guard, hosts=tuple(hosts))],
        exception_handlers={GpucalError: _unavailable, HTTPException: _refused},
    )
    app.state.feed = page.feed
    return app


class PageServer(uvicorn.Server):
    """A server that lets go of those who listen when it ends: their answers have no end of their own."""

    def __init__(self, app: Starlette, **settings: Any) -> None:
        self._feed: Feed = app.state.feed
        settings = {"log_level": "warning", "timeout_graceful_shutdown": 1, **settings}
        super().__init__(uvicorn.Config(app, server_header=False, **settings))

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


def _asset_names() -> list[str]:
    folder = resources.files("gpucal.online.page").joinpath("assets")
    return sorted(item.name for item in folder.iterdir() if item.name != "index.html")


def _asset(name: str) -> Any:
    """An endpoint for a file of the package."""
    data = resources.files("gpucal.online.page").joinpath("assets", name).read_bytes()
    kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
    kind = "text/javascript" if Path(name).suffix == ".js" else kind

    def answer(_request: Request) -> Response:
        return Response(data, media_type=kind, headers={"Cache-Control": "no-cache"})

    return answer


def _plain(value: Any) -> Any:
    """JSON knows neither NaN nor infinity."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _text(value: Any) -> str:
    return json.dumps(_plain(value), allow_nan=False)


def _json(value: Any, status: int = 200) -> Response:
    headers = {"Cache-Control": "no-store"}
    return Response(_text(value), status, headers=headers, media_type="application/json")


def _sentence(status: int, text: str) -> Response:
    return _json({"error": text}, status)


def _split(address: str) -> SplitResult:
    """The parts of an address; empty ones of what is none."""
    try:
        return urlsplit(address)
    except ValueError:
        return urlsplit("")


def _number(request: Request, name: str) -> int | None:
    """A whole number of the query, None where it is not given."""
    text = request.query_params.get(name, "")
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and int(text[:20]) < MAX_ID and len(text) < 20):
        raise HTTPException(400, f"{name} must be a whole number.")
    return int(text)


async def _carried_out(action: Any) -> Response:
    try:
        await run_in_threadpool(action)
    except OnlineError as error:
        return _sentence(404, str(error))
    return _json({"done": True})


def _unavailable(_request: Request, error: Exception) -> Response:
    return _sentence(503, str(error))


def _refused(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _json({"error": error.detail}, error.status_code)
