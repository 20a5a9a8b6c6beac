"""Answers of the page, and the parsing of requests."""

from __future__ import annotations

from typing import Any
from urllib.parse import SplitResult, urlsplit

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from gpucal.io.files.json_text import dumps

MAX_ID = 2**62


def page_json(value: Any) -> str:
    """``value`` as JSON in ASCII: names may hold what UTF-8 cannot encode."""
    return dumps(value, ensure_ascii=True)


def json_answer(value: Any, status: int = 200) -> Response:
    """``value`` as a JSON answer that is not cached."""
    headers = {"Cache-Control": "no-store"}
    return Response(page_json(value), status, headers=headers, media_type="application/json")


def sentence(status: int, text: str) -> Response:
    """An error answer of one sentence."""
    return json_answer({"error": text}, status)


def address_parts(address: str) -> SplitResult:
    """The parts of an address; empty parts for text that is not an address."""
    try:
        return urlsplit(address)
    except ValueError:
        return urlsplit("")


def number_of(request: Request, name: str) -> int | None:
    """A whole number of the query, None where it is not given. Raises HTTPException for other text."""
    text = request.query_params.get(name, "")
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and int(text[:20]) < MAX_ID and len(text) < 20):
        raise HTTPException(400, f"{name} must be a whole number.")
    return int(text)
