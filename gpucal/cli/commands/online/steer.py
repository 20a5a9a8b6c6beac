"""``gpucal online retry``, ``restart`` and ``stop``: what the operator asks of the pipeline."""

from __future__ import annotations

from typing import Annotated

import typer

from gpucal.cli.commands.online.site_options import pipe_of
from gpucal.errors import ConfigError, GpucalError
from gpucal.online.site.config import OnlineConfig
from gpucal.online.workers.control import Action, request

EXIT_SOME = 2


def retry(
    settings: OnlineConfig,
    task: Annotated[str, typer.Argument(metavar="TASK", help="As in gpucal online status.")],
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME..", help="Failed jobs.", show_default=False)
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="All failed jobs of the task.")] = False,
) -> None:
    """Put failed jobs back, with a clean record."""
    if bool(names) == everything:
        raise ConfigError("expected the names of failed jobs, or --all.")
    directory = pipe_of(settings).task(task)
    wanted = [name for name, _ in directory.failed()] if everything else list(names or [])
    bad = 0
    for name in wanted:
        try:
            directory.retry(name)
        except GpucalError as error:
            bad += 1
            if not everything:
                raise
            print(error)
        else:
            print(f"{name}: is tried again")
    if not wanted:
        print(f"{task} has no failed job")
    if bad:
        raise typer.Exit(EXIT_SOME)


def restart(
    settings: OnlineConfig,
    task: Annotated[
        str, typer.Argument(metavar="[TASK]", help="All of them when none is named.")
    ] = "",
) -> None:
    """Restart the workers of a task, when the job in hand is finished."""
    _ask(settings, "restart", task)
    print(f"{task or 'all tasks'}: asked to restart when the job in hand is finished")


def stop(settings: OnlineConfig) -> None:
    """Ask gpucal online run to finish the jobs in hand and end."""
    _ask(settings, "stop", "")
    print("asked to stop when the jobs in hand are finished")


def _ask(settings: OnlineConfig, action: Action, task: str) -> None:
    """Leave a request for the supervisor, and say when nobody seems to be there to see it."""
    from gpucal.online.workers.status import snapshot

    pipe_of(settings)
    request(settings.pipe, action, task)
    if all(worker.state == "gone" for worker in snapshot(settings).workers):
        print("no worker lives at this moment: is gpucal online run running?")
