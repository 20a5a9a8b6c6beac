"""``gpucal online serve``: the page."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from gpucal.errors import ConfigError
from gpucal.online.site.config import OnlineConfig

DEFAULT_PORT = 8080


def serve(
    settings: OnlineConfig,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for all.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535)] = DEFAULT_PORT,
    token_file: Annotated[
        Path | None,
        typer.Option(metavar="F", help="What the page asks for before it retries or restarts."),
    ] = None,
) -> None:
    """Serve the page: state, results, pictures, messages. GPUCAL_TOKEN serves as --token-file does."""
    from gpucal.online.page.serve import serve as serve_page

    serve_page(settings, host, port, _token(token_file))


def _token(path: Path | None) -> str:
    """The token that the page requires for changes; "" when none was given."""
    if path is None:
        return os.environ.get("GPUCAL_TOKEN", "").strip()
    try:
        text = path.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the token file {path} cannot be read: {error}.") from error
    if not text:
        raise ConfigError(f"the token file {path} is empty.")
    return text
