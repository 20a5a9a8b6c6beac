"""The few actions that the page offers, and who may use them."""

from __future__ import annotations

import hmac
import json
from collections.abc import Callable, Sequence

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from gpucal.errors import OnlineError
from gpucal.online.page.answers import address_parts, json_answer, sentence
from gpucal.online.page.live import Site
from gpucal.online.queue.pipe import Pipe
from gpucal.online.workers import control

MAX_BODY = 1 << 16


class Controls:
    """The endpoints that change state. token: what a request must know, "" = nothing can be changed."""

    def __init__(self, site: Site, token: str) -> None:
        self.site = site
        self.token = token

    async def retry(self, request: Request) -> Response:
        """Put a failed job back."""
        wanted = await self._wanted(request, ("task", "name"))
        if isinstance(wanted, Response):
            return wanted
        task, name = wanted["task"], wanted["name"]

        def put_back() -> None:
            Pipe(self.site.config.pipe).task(task).retry(name)
            self.site.tell(f"{name} was put back by the operator", task)

        return await _carried_out(put_back)

    async def restart(self, request: Request) -> Response:
        """Ask the supervisor to restart the workers of a task ("" = of all)."""
        wanted = await self._wanted(request, ("task",))
        if isinstance(wanted, Response):
            return wanted
        task = wanted["task"]

        def ask() -> None:
            control.request(self.site.config.pipe, "restart", task)
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
                return sentence(413, "the request is too long.")
        try:
            found = json.loads(body)
        except (ValueError, RecursionError):
            return sentence(400, "the request is not JSON.")
        if not isinstance(found, dict) or sorted(found) != sorted(keys):
            return sentence(400, f"expected an object with {' and '.join(keys)}.")
        if not all(isinstance(value, str) for value in found.values()):
            return sentence(400, f"{' and '.join(keys)} must be text.")
        return found

    def _refusal(self, request: Request) -> Response | None:
        """The answer to a request that may not change anything; None when it may."""
        if not self.token:
            text = "this page was started without a token: nothing can be changed from here."
            return sentence(403, text)
        origin = request.headers.get("origin")
        if origin is not None and address_parts(origin).netloc != request.headers.get("host"):
            return sentence(403, "the request comes from another page.")
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            return sentence(415, "expected application/json.")
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        right = hmac.compare_digest(given.strip().encode("latin-1"), self.token.encode())
        if scheme.lower() != "bearer" or not right:
            answer = sentence(401, "the token is missing or wrong.")
            answer.headers["WWW-Authenticate"] = "Bearer"
            return answer
        return None


async def _carried_out(action: Callable[[], None]) -> Response:
    """Carry out a request; the answer says what was done, or why not."""
    try:
        await run_in_threadpool(action)
    except OnlineError as error:
        return sentence(404, str(error))
    return json_answer({"done": True})
