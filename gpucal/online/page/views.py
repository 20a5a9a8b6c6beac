"""The endpoints that read: JSON, pictures, and live events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from gpucal.errors import OnlineError
from gpucal.online.page.answers import json_answer, number_of, page_json, sentence
from gpucal.online.page.guard import PICTURE_POLICY
from gpucal.online.page.live import Feed, Site
from gpucal.online.page.pictures import picture_file, plot_list
from gpucal.online.page.result_queries import table_rows

HEARTBEAT_S = 10.0
MAX_MESSAGES = 500


class Views:
    """The endpoints that change nothing. controls: whether the page may offer those that do."""

    def __init__(self, site: Site, feed: Feed, controls: bool) -> None:
        self.site = site
        self.feed = feed
        self.controls = controls

    def status(self, _request: Request) -> Response:
        """The state of the pipeline."""
        return json_answer({**self.site.state(), "controls": self.controls})

    def overview(self, _request: Request) -> Response:
        """Last results, footprints, trends."""
        return json_answer(self.site.overview())

    def results(self, request: Request) -> Response:
        """Rows of one table, newest first."""
        scan = number_of(request, "scan")
        limit = number_of(request, "limit")
        try:
            rows = table_rows(
                self.site.results(),
                request.path_params["table"],
                request.query_params.get("project"),
                scan,
                200 if limit is None else limit,
            )
        except OnlineError as error:
            return sentence(404, str(error))
        return json_answer({"table": request.path_params["table"], "rows": rows})

    def plots(self, request: Request) -> Response:
        """Pictures by project, scan and kind."""
        chosen: dict[str, Any] = {
            name: request.query_params.get(name) or None for name in ("project", "kind")
        }
        chosen["scan"] = number_of(request, "scan")
        limit, offset = number_of(request, "limit"), number_of(request, "offset")
        found = plot_list(
            self.site.results(),
            chosen,
            24 if limit is None else limit,
            0 if offset is None else offset,
        )
        return json_answer(found)

    def messages(self, request: Request) -> Response:
        """The messages after a given one, or the latest."""
        after = number_of(request, "after")
        rows = self.site.results().rows("messages", newest=MAX_MESSAGES, after=after)
        return json_answer(
            {"messages": [{k: v for k, v in row.items() if k != "mark"} for row in rows]}
        )

    def picture(self, request: Request) -> Response:
        """One picture of a project."""
        params = request.path_params
        path = picture_file(self.site.config, params["project"], params["path"])
        try:
            data = path.read_bytes() if path is not None else None
        except OSError:
            data = None
        if path is None or data is None:
            return sentence(404, "there is no such picture.")
        # The address holds the time when it was drawn: it never changes.
        cache = "private, max-age=604800" if "v" in request.query_params else "no-cache"
        kind = "image/svg+xml" if path.suffix.lower() == ".svg" else "image/png"
        headers = {"Cache-Control": cache, "Content-Security-Policy": PICTURE_POLICY}
        return Response(data, media_type=kind, headers=headers)

    async def events(self, _request: Request) -> Response:
        """Server-sent events: the state whenever it has changed, and heartbeats."""
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(self._stream(), media_type="text/event-stream", headers=headers)

    async def _stream(self) -> AsyncIterator[str]:
        """Server-sent events; a comment every few seconds keeps the connection open."""
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
                yield f"event: state\ndata: {page_json({**state, 'controls': self.controls})}\n\n"
