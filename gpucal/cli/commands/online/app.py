"""``gpucal online``: process a night while it is observed, watch it, and step in."""

from __future__ import annotations

import typer

from gpucal.cli.commands.online.rehearse import rehearse
from gpucal.cli.commands.online.run import run
from gpucal.cli.commands.online.serve import serve
from gpucal.cli.commands.online.site_options import on_site
from gpucal.cli.commands.online.status import status
from gpucal.cli.commands.online.steer import restart, retry, stop
from gpucal.cli.commands.online.submit import submit

app = typer.Typer(
    help="Process a night while it is observed.",
    no_args_is_help=True,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def group() -> None:
    """Process a night while it is observed."""


app.command("run")(on_site(run, "sqlalchemy", "watchfiles", "matplotlib", "astropy"))
app.command("status")(on_site(status, "sqlalchemy"))
app.command("submit")(on_site(submit))
app.command("retry")(on_site(retry))
app.command("restart")(on_site(restart, "sqlalchemy"))
app.command("stop")(on_site(stop, "sqlalchemy"))
app.command("rehearse")(rehearse)
app.command("serve")(on_site(serve, "sqlalchemy", "starlette", "uvicorn"))
