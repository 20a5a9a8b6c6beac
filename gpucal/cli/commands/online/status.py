"""``gpucal online status``."""

from __future__ import annotations

from typing import Annotated

import typer

from gpucal.cli.commands.online.site_options import pipe_of
from gpucal.online.site.config import OnlineConfig


def status(
    settings: OnlineConfig,
    watch: Annotated[bool, typer.Option("--watch", help="Stay, and show what changes.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show per task what waits, for how long, what failed, and what was said last."""
    pipe_of(settings)
    from gpucal.cli.show import online_status

    online_status.status(settings, watch, json)
