"""``gpucal online``: process a night while it is observed, watch it, and step in."""

from __future__ import annotations

import functools
import importlib.util
import inspect
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

import typer

from gpucal.config import parse_scans
from gpucal.errors import ConfigError, GpucalError, OnlineError
from gpucal.online.site.config import OnlineConfig, load_online_config

EXIT_SOME = 2
INSTALL = "Install it with: pip install 'gpucal[online]'."
DEFAULT_PORT = 8080

app = typer.Typer(
    help="Process a night while it is observed.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)

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
"""Options of every command: where the site is."""


def _command(name: str, *packages: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make a command of a function of an OnlineConfig and options; ``packages``: what it needs."""

    def register(function: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(function)
        def on_site(**given: Any) -> None:
            places = {place: given.pop(place) for place in SITE}
            settings = load_online_config(places.pop("config"), **places)
            _need(packages)
            function(settings, **given)

        hints = get_type_hints(function, include_extras=True)
        own = list(inspect.signature(function).parameters.values())[1:]
        keyword = inspect.Parameter.KEYWORD_ONLY
        shared = [inspect.Parameter(n, keyword, default=None, annotation=SITE[n]) for n in SITE]
        mine = [p.replace(kind=keyword, annotation=hints[p.name]) for p in own]
        signature = inspect.Signature([*mine, *shared], return_annotation=None)
        on_site.__signature__ = signature  # type: ignore[attr-defined]
        on_site.__annotations__ = {p.name: p.annotation for p in signature.parameters.values()}
        app.command(name)(on_site)
        return function

    return register


def _need(packages: tuple[str, ...]) -> None:
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise OnlineError(
                f"this command needs the package {package}, which is not installed.", hint=INSTALL
            )


@app.callback()
def group() -> None:
    """Process a night while it is observed."""


@_command("run", "sqlalchemy", "watchfiles", "matplotlib", "astropy")
def run(settings: OnlineConfig) -> None:
    """Process what comes, until SIGTERM, Ctrl-C or gpucal online stop; the jobs in hand are finished.

    A second Ctrl-C ends at once; those jobs are then done again by the next run.
    """
    import logging

    import sqlalchemy as sa

    from gpucal.online.workers.control import done, pending_requests
    from gpucal.online.workers.supervise import Supervisor

    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s")
    supervisor = Supervisor(settings)
    for old in pending_requests(settings.pipe):
        done(old)  # it was meant for a run before this one
    address = sa.make_url(settings.database_url).render_as_string(hide_password=True)
    print(f"pipe      {settings.pipe.absolute()}")
    print(f"data      {settings.data.absolute()}/PROJECT")
    print(f"database  {address}")
    print("page      gpucal online serve, with the same configuration")
    print("stop      Ctrl-C, or gpucal online stop", flush=True)

    def stop(*_: Any) -> None:
        if supervisor.stopping:
            _kill_children()
            raise KeyboardInterrupt
        supervisor.stop()
        os.write(1, b"stopping; the jobs in hand are finished first\n")  # print is not reentrant

    before = [(number, signal.signal(number, stop)) for number in (signal.SIGTERM, signal.SIGINT)]
    try:
        supervisor.run()
    finally:
        for number, handler in before:
            signal.signal(number, handler)
    print("stopped")


def _kill_children() -> None:
    import multiprocessing

    for child in multiprocessing.active_children():
        child.kill()


@_command("status", "sqlalchemy")
def status(
    settings: OnlineConfig,
    watch: Annotated[bool, typer.Option("--watch", help="Stay, and show what changes.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show per task what waits, for how long, what failed, and what was said last."""
    _pipe_of(settings)
    from gpucal.cli.show import online_status

    online_status.status(settings, watch, json)


@_command("submit")
def submit(
    settings: OnlineConfig,
    store: Annotated[
        Path | None, typer.Option(metavar="L0", help="Store that holds the subscan.")
    ] = None,
    scan: Annotated[int | None, typer.Option(metavar="N", help="Scan number.")] = None,
    subscan: Annotated[
        int | None, typer.Option(metavar="S", help="Counted from 0; the one that is there now.")
    ] = None,
    group: Annotated[
        str | None, typer.Option(help="Where it lies: source (default) or calibration.")
    ] = None,
    end: Annotated[
        bool, typer.Option("--end", help="It is the last one; without --subscan: the scan is over.")
    ] = False,
    cancelled: Annotated[
        bool, typer.Option("--cancelled", help="The observer stopped the scan here.")
    ] = False,
    project: Annotated[
        str, typer.Option(metavar="P", help="Instead of the scan's attribute project.")
    ] = "",
    replay: Annotated[
        Path | None, typer.Option(metavar="NIGHT", help="Feed this stored night, as if observed.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="GROWING", help="Store that --replay lets grow.")
    ] = None,
    speed: Annotated[
        float | None, typer.Option(metavar="X", help="Times faster than it was; inf: no waiting.")
    ] = None,
    scans: Annotated[
        str | None, typer.Option(metavar="LIST", help="Only these of --replay, e.g. 1,5-9.")
    ] = None,
) -> None:
    """Announce a subscan, or replay a stored night: the way to try it without a telescope."""
    announced = {"store": store, "scan": scan, "subscan": subscan, "group": group}
    flags = {"end": end or None, "cancelled": cancelled or None}
    replayed = {"replay": replay, "out": out, "speed": speed, "scans": scans}
    if replay is not None:
        _only(announced | flags, "--store")
        if out is None:
            raise ConfigError("--replay needs --out, the store that grows.")
        _replay(settings, (replay, out), 1.0 if speed is None else speed, scans, project)
        return
    _only(replayed, "--replay")
    if store is None or scan is None or (subscan is None and not (end or cancelled)):
        raise ConfigError(
            "expected --store, --scan and --subscan (or --end, when the scan is over), or --replay."
        )
    _announce(settings, store, scan, subscan, group or "source", (end, cancelled), project)


def _only(options: dict[str, Any], owner: str) -> None:
    for name, value in options.items():
        if value is not None:
            raise ConfigError(f"--{name} belongs to {owner}.")


def _announce(
    settings: OnlineConfig,
    store: Path,
    scan: int,
    subscan: int | None,
    group: str,
    ending: tuple[bool, bool],
    project: str,
) -> None:
    from gpucal.io.l0.store import open_l0
    from gpucal.online.queue.events import END
    from gpucal.online.queue.pipe import ENTRY_TASKS, Pipe
    from gpucal.online.replay.replay import job_of

    if group not in ("source", "calibration"):
        raise ConfigError(f"--group is {group!r}, expected source or calibration.")
    if subscan is not None and subscan < 0:
        raise ConfigError(f"--subscan is {subscan}, expected 0 or more.")
    where: Literal["source", "calibration"] = "source" if group == "source" else "calibration"
    opened = open_l0(store)
    if scan not in opened.numbers():
        raise OnlineError(f"{store} holds no scan {scan}.", hint="See gpucal inspect.")
    job = job_of(
        store,
        scan,
        END if subscan is None else subscan,
        where,
        dict(opened.scan_group(scan).attrs),
        project=project,
        end_of_scan=ending[0],
        cancelled=ending[1],
    )
    pipe = Pipe(settings.pipe)
    pipe.create()
    pipe.submit(job)
    print(f"{job.name}: submitted to {', '.join(ENTRY_TASKS[job.obs_class])}")


def _replay(
    settings: OnlineConfig, places: tuple[Path, Path], speed: float, scans: str | None, project: str
) -> None:
    from gpucal.online.queue.pipe import Pipe
    from gpucal.online.replay.replay import Replay

    if not speed > 0:
        raise ConfigError(f"--speed is {speed:g}, expected more than 0, or inf.")
    try:
        chosen = parse_scans(scans) if scans is not None else None
    except ValueError as error:
        raise ConfigError(f"{error}.") from error
    pipe = Pipe(settings.pipe)
    pipe.create()
    lines = 0

    def said(text: str) -> None:
        nonlocal lines
        lines += 1
        print(text, flush=True)

    night, out = places
    count = Replay(night, out, pipe, project=project).run(speed=speed, scans=chosen, said=said)
    if not lines:
        raise OnlineError(f"{night} holds none of these scans.", hint="See gpucal inspect.")
    print(f"{count} subscan{'' if count == 1 else 's'} submitted")
    if lines > count:  # a line that is no subscan is a scan that was left out
        raise typer.Exit(EXIT_SOME)


@_command("retry")
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
    directory = _pipe_of(settings).task(task)
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


@_command("restart", "sqlalchemy")
def restart(
    settings: OnlineConfig,
    task: Annotated[
        str, typer.Argument(metavar="[TASK]", help="All of them when none is named.")
    ] = "",
) -> None:
    """Restart the workers of a task, when the job in hand is finished."""
    _ask(settings, "restart", task)
    print(f"{task or 'all tasks'}: asked to restart when the job in hand is finished")


@_command("stop", "sqlalchemy")
def stop(settings: OnlineConfig) -> None:
    """Ask gpucal online run to finish the jobs in hand and end."""
    _ask(settings, "stop", "")
    print("asked to stop when the jobs in hand are finished")


def _ask(settings: OnlineConfig, action: Literal["restart", "stop"], task: str) -> None:
    from gpucal.online.workers.control import request
    from gpucal.online.workers.status import snapshot

    _pipe_of(settings)
    request(settings.pipe, action, task)
    if all(worker.state == "gone" for worker in snapshot(settings).workers):
        print("no worker lives at this moment: is gpucal online run running?")


def _pipe_of(settings: OnlineConfig) -> Any:
    """The pipe; raises OnlineError where there is none: most likely the wrong place was given."""
    from gpucal.online.queue.pipe import Pipe

    if not settings.pipe.is_dir():
        raise OnlineError(
            f"there is no pipe at {settings.pipe.absolute()}.",
            hint="Give --config or --pipe; gpucal online run makes it.",
        )
    return Pipe(settings.pipe)


@_command("serve", "sqlalchemy", "starlette", "uvicorn")
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
    """What the page asks for before it changes anything; "" when nothing was given."""
    if path is None:
        return os.environ.get("GPUCAL_TOKEN", "").strip()
    try:
        text = path.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the token file {path} cannot be read: {error}.") from error
    if not text:
        raise ConfigError(f"the token file {path} is empty.")
    return text
