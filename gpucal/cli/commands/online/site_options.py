"""The options of every online command: where the site is."""

from __future__ import annotations

import functools
import importlib.util
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from gpucal.errors import OnlineError
from gpucal.online.queue.pipe import Pipe
from gpucal.online.site.config import OnlineConfig, load_online_config

INSTALL = "Install it with: pip install 'gpucal[online]'."

SITE: dict[str, Any] = {
    "config": Annotated[
        Path | None,
        typer.Option(
            "--config",
            metavar="FILE",
            envvar="GPUCAL_ONLINE_CONFIG",
            show_default=False,
            help="TOML file of the site.",
        ),
    ],
    "data": Annotated[
        Path | None, typer.Option("--data", metavar="DIR", help="Results; wins over the file.")
    ],
    "work": Annotated[
        Path | None, typer.Option("--work", metavar="DIR", help="What tasks leave for each other.")
    ],
    "pipe": Annotated[Path | None, typer.Option("--pipe", metavar="DIR", help="The jobs.")],
}
"""Name -> what typer is to know of it."""


def on_site(function: Callable[..., None], *packages: str) -> Callable[..., None]:
    """A command with the options of the site, from a function of an OnlineConfig and options of its own.

    packages: what it needs that may not be installed. The command raises OnlineError where one is missing, and
    ConfigError for a configuration that is wrong.
    """

    @functools.wraps(function)
    def command(**given: Any) -> None:
        places = {place: given.pop(place) for place in SITE}
        settings = load_online_config(places.pop("config"), **places)
        need(packages)
        function(settings, **given)

    hints = get_type_hints(function, include_extras=True)
    own = list(inspect.signature(function).parameters.values())[1:]
    keyword = inspect.Parameter.KEYWORD_ONLY
    shared = [inspect.Parameter(n, keyword, default=None, annotation=SITE[n]) for n in SITE]
    mine = [p.replace(kind=keyword, annotation=hints[p.name]) for p in own]
    signature = inspect.Signature([*mine, *shared], return_annotation=None)
    command.__signature__ = signature  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in signature.parameters.values()}
    return command


def need(packages: tuple[str, ...]) -> None:
    """Raise OnlineError for the first package that is not installed."""
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise OnlineError(
                f"this command needs the package {package}, which is not installed.", hint=INSTALL
            )


def pipe_of(settings: OnlineConfig) -> Pipe:
    """The pipe; raises OnlineError where there is none, since the path is then most likely wrong."""
    if not settings.pipe.is_dir():
        raise OnlineError(
            f"there is no pipe at {settings.pipe.absolute()}.",
            hint="Give --config or --pipe; gpucal online run makes it.",
        )
    return Pipe(settings.pipe)
