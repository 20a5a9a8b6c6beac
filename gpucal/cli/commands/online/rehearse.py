"""``gpucal online rehearse``: a simulated night full of trouble, with a site of its own, to learn on."""

from __future__ import annotations

import contextlib
import threading
import time
from pathlib import Path
from typing import Annotated

import typer

from gpucal.cli.commands.online.site_options import need
from gpucal.errors import ConfigError
from gpucal.online.site.config import OnlineConfig, load_online_config

MINUTES = 10.0
SITE = """# A site of its own: nothing here touches the one of the telescope.
data = "data"
work = "work"
pipe = "pipe"
"""


def rehearse(
    out: Annotated[Path, typer.Argument(metavar="DIR", help="New folder for night and site.")],
    speed: Annotated[
        float | None,
        typer.Option(
            metavar="X", help="Times faster than at a telescope; by default 10 minutes in all."
        ),
    ] = None,
    then_stop: Annotated[
        bool, typer.Option("--then-stop", help="End when all is done; else with Ctrl-C.")
    ] = False,
) -> None:
    """Process a simulated night of every procedure on which everything goes wrong: to learn the page.

    Pipeline and site are its own, in DIR. What goes wrong is said when it happens.
    """
    need(("sqlalchemy", "watchfiles", "matplotlib", "astropy"))
    from gpucal.online.queue.pipe import Pipe
    from gpucal.online.replay.rehearsal import Rehearsal
    from gpucal.online.workers.supervise import Supervisor

    if speed is not None and not speed > 0:
        raise ConfigError(f"--speed is {speed:g}, expected more than 0, or inf.")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out} is there already.", hint="Give a new folder.")
    night, growing = make_night(out)
    settings = make_site(out)
    rehearsal = Rehearsal(night, growing, Pipe(settings.pipe))
    faster = rehearsal.seconds / (60.0 * MINUTES) if speed is None else speed
    supervisor = Supervisor(settings)
    thread = threading.Thread(target=supervisor.run, name="supervisor")
    thread.start()
    print(f"page      gpucal online serve --config {out / 'site.toml'}")
    print(f"status    gpucal online status --config {out / 'site.toml'} --watch")
    print(f"night     {rehearsal.seconds / faster:.0f} s; Ctrl-C ends it", flush=True)
    try:
        rehearsal.run(speed=faster, said=lambda text: print(text, flush=True))
        print(
            "the night is over" + ("" if then_stop else "; Ctrl-C stops the pipeline"), flush=True
        )
        while thread.is_alive() and not (then_stop and _idle(settings)):
            time.sleep(settings.poll)
    except KeyboardInterrupt:
        print("stopping; the jobs in hand are finished first", flush=True)
    finally:
        supervisor.stop()
        with contextlib.suppress(KeyboardInterrupt):
            thread.join()
    print("stopped")


def make_night(
    out: Path, *, channels: int = 128, dumps: int = 8, pixels: int = 7
) -> tuple[Path, Path]:
    """Simulate the night of a rehearsal; returns it, and where the store is to grow. Its opacities lie beside both."""
    import shutil
    from dataclasses import replace

    from gpucal.online.replay.rehearsal import LOADS_EVERY, PROCEDURES, SCIENCE
    from gpucal.simulate import presets
    from gpucal.simulate.night import simulate_night
    from gpucal.simulate.procedures import rehearsal

    out.mkdir(parents=True, exist_ok=True)
    setup = presets.preset("chai", channels=channels, dumps=dumps, n_on=3)
    loads = replace(setup.loads, separate=True, every=LOADS_EVERY)
    setup = replace(setup, kinds=SCIENCE, pixels=pixels, loads=loads)
    setup = rehearsal(setup, PROCEDURES, seed=1)
    night, growing = out / "night.zarr", out / "growing.zarr"
    table = out / "night.zarr.atm.npz"
    simulate_night(night, setup, len(SCIENCE), table_out=table)
    shutil.copyfile(table, out / "growing.zarr.atm.npz")
    return night, growing


def make_site(out: Path) -> OnlineConfig:
    """Write the configuration of the rehearsal's site, and read it."""
    path = out / "site.toml"
    path.write_text(SITE, "utf-8")
    return load_online_config(path)


def _idle(settings: OnlineConfig) -> bool:
    """Whether no job waits or is in hand."""
    from gpucal.online.queue.pipe import Pipe

    return all(state.pending == state.active == 0 for state in Pipe(settings.pipe).status())
