"""The page of the online pipeline as an ASGI application: its routes and endpoints."""

from __future__ import annotations

import mimetypes
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gpucal.errors import GpucalError
from gpucal.online.page.answers import json_answer, sentence
from gpucal.online.page.controls import Controls
from gpucal.online.page.guard import Guard
from gpucal.online.page.live import Feed, Site
from gpucal.online.page.views import Views
from gpucal.online.site.config import OnlineConfig


def make_app(config: OnlineConfig, *, token: str = "", hosts: Sequence[str] = ()) -> Starlette:
    """The page as an ASGI application.

    token: what retry and restart ask for, "" = they are refused. hosts: names in the Host header that
    are answered, () = any. The database is opened when it is first needed, and again when it was lost.
    """
    site = Site(config)
    feed = Feed(site)
    views, controls = Views(site, feed, bool(token)), Controls(site, token)
    routes = [
        Route("/", _asset("index.html")),
        *(Route(f"/assets/{name}", _asset(name)) for name in _asset_names()),
        Route("/api/status", views.status),
        Route("/api/overview", views.overview),
        Route("/api/results/{table}", views.results),
        Route("/api/plots", views.plots),
        Route("/api/messages", views.messages),
        Route("/api/retry", controls.retry, methods=["POST"]),
        Route("/api/restart", controls.restart, methods=["POST"]),
        Route("/events", views.events),
        Route("/picture/{project}/{path:path}", views.picture),
    ]
    app = Starlette(
        routes=routes,
        middleware=[Middleware(Guard, hosts=tuple(hosts))],
        exception_handlers={GpucalError: _unavailable, HTTPException: _refused},
    )
    app.state.feed = feed
    return app


def _asset_names() -> list[str]:
    """Files that the page loads: scripts, styles, symbols."""
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


def _unavailable(_request: Request, error: Exception) -> Response:
    """The answer while the database or the pipe is not available."""
    return sentence(503, str(error))


def _refused(_request: Request, error: Exception) -> Response:
    """The answer to a request that is not valid."""
    assert isinstance(error, HTTPException)
    return json_answer({"error": error.detail}, error.status_code)
