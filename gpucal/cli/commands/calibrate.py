"""``gpucal calibrate``: every field of ``CalibrationConfig`` is an option."""

from __future__ import annotations

import contextlib
import inspect
import logging
import sys
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from gpucal.cli.show.progress import make_observer
from gpucal.cli.show.summary import print_summary
from gpucal.config import CalibrationConfig, load_config
from gpucal.errors import ConfigError

_WHAT, _LOADS, _ATM = "What", "Loads", "Atmosphere"
_REF, _OUT, _ALARM = "Reference and diagnostics", "Output and execution", "Alarms"

OPTIONS: dict[str, tuple[str, str, str]] = {
    # field: (panel of --help, metavar, help)
    "scans": (_WHAT, "LIST", "Scan numbers such as 1,5-9; all by default."),
    "mode": (_WHAT, "", "Observing mode; auto reads it from sobsmode."),
    "partial": (_WHAT, "", "Also calibrate scans that are not complete yet, as far as they go."),
    "overwrite": (_WHAT, "", "Replace scans that are already in OUT."),
    "cal_scheme": (_LOADS, "", "Which loads calibrate: hot and cold, or a vane and the sky."),
    "t_hot": (_LOADS, "K", "Temperature of the hot load, instead of the recorded one."),
    "t_cold": (_LOADS, "K", "Temperature of the cold load, instead of the recorded one."),
    "f_eff": (_LOADS, "X", "Forward efficiency, instead of the recorded one."),
    "gain_image": (_LOADS, "X", "Gain of the image over that of the signal sideband; 1 = DSB."),
    "gain_interpolate": (_LOADS, "0|2|3", "Gain drift between loads: off, in ON, in ON and OFF."),
    "vane_sky": (_LOADS, "", "Sky of the vane schemes: own OFF, or the SKY of the load scan."),
    "vane_average": (_LOADS, "", "Vane T_sys*: mean of the inner 80 % of channels, or median."),
    "vane_airmass": (_LOADS, "", "Vane T_sys*: each airmass its own, or all that of the sky."),
    "pixel_t_rec": (_LOADS, "X", "Leave out a pixel whose T_rec is this factor off; 0: none."),
    "pixel_sky": (_LOADS, "X", "Leave out a pixel whose sky is off by X of HOT - COLD; 0: none."),
    "max_cal_age": (_LOADS, "S", "Seconds; an older load scan sets the flag CAL_STALE."),
    "clip_counts": (_LOADS, "X", "Bad channel below this fraction of the largest HOT - COLD."),
    "clip_trec": (_LOADS, "K", "Bad channel above this T_rec."),
    "clip_tsys": (_LOADS, "X", "Bad channel above this multiple of the median T_rec."),
    "line_scale": (_LOADS, "", "T_A* of the signal sideband (ssb) or of both (dsb)."),
    "physics": (_LOADS, "", "Exact h/k, or the constant of the kalibrate program."),
    "atmosphere": (_ATM, "TABLE", "Table file, site name, auto, or none (then give --tau)."),
    "pwv": (_ATM, "fit|MM", "Fit the water vapour, or use this value in mm."),
    "pwv_scope": (_ATM, "", "One PWV per scan, per pixel, or per ON-OFF pair."),
    "airmass": (
        _ATM,
        "",
        "Plane-parallel or spherical atmosphere, or the formula of the GBT's programs.",
    ),
    "ozone_scale": (_ATM, "X", "Factor on the ozone column of the table."),
    "opacity_trust": (_ATM, "X", "Fractional error of the opacity model in the fit weights."),
    "t_atm": (_ATM, "K", "Temperature of the atmosphere, instead of factor * ambient + offset."),
    "t_atm_factor": (_ATM, "X", "Factor from ambient to atmospheric temperature."),
    "t_atm_offset": (_ATM, "K", "Offset from ambient to atmospheric temperature."),
    "tau": (_ATM, "NP", "Zenith opacity, with --atmosphere none."),
    "reference": (_REF, "", "How the OFFs around an ON become its reference."),
    "dbs_coupling": (_REF, "", "Merge the two beams of chopped scans."),
    "fold": (_REF, "", "Fold frequency-switched spectra."),
    "elevation_low": (_REF, "DEG", "ON below this elevation sets the flag ELEVATION_LOW."),
    "spike_sigma": (_REF, "X", "Flag samples and dumps that stand alone by X sigma; 0: none."),
    "skydiff": (_REF, "N", "Also write sky differences against the N previous OFFs; 0 = none."),
    "skychopdiff": (_REF, "", "Also write the difference of the two chop phases of the OFF."),
    "dtype": (_OUT, "", "Type of the spectra in L1."),
    "codec": (_OUT, "NAME", "zstd:LEVEL, blosc-lz4, blosc-zstd or none."),
    "backend": (_OUT, "", "Where to compute."),
    "workers": (_OUT, "N", "Threads; 0 = one per core."),
    "scheduler": (_OUT, "ADDRESS", "Address of a dask scheduler, to work on a cluster."),
    "devices": (_OUT, "LIST", "One process per device, e.g. 0,1 or all; none: this process alone."),
    "io": (_OUT, "", "Where chunks are decoded and encoded; auto: on the device where it can."),
    "ring": (_OUT, "MIB", "Memory for the tiles in flight, in MiB, of each process."),
    "alarm_rms_low": (_ALARM, "X", "Alarm below this ratio of measured to expected rms."),
    "alarm_rms_high": (_ALARM, "X", "Alarm above this ratio of measured to expected rms."),
    "alarm_t_hot_low": (_ALARM, "K", "Alarm for a hot load that is colder."),
    "alarm_t_hot_high": (_ALARM, "K", "Alarm for a hot load that is warmer."),
    "alarm_t_cold_high": (_ALARM, "K", "Alarm for a cold load that is warmer."),
    "alarm_t_rec": (_ALARM, "K", "Alarm above this T_rec of a pixel."),
    "alarm_t_sys": (_ALARM, "K", "Alarm above this T_sys."),
    "alarm_chi2": (_ALARM, "X", "Alarm above this chi2 per degree of freedom of the PWV fit."),
    "alarm_altitude": (
        _ALARM,
        "M",
        "Alarm when the site, or its recorded pressure, is further from the altitude of the table.",
    ),
    "alarm_flagged": (_ALARM, "X", "Alarm above this fraction of flagged samples."),
    "strict": (_ALARM, "", "Exit code 2 when there is an alarm."),
}


def option_name(field: str) -> str:
    """Return the name of the option that sets ``field``, e.g. ``"--t-hot"``."""
    return "--" + field.replace("_", "-")


def calibrate(ctx: typer.Context, **given: Any) -> None:
    """Calibrate the scans of the raw store L0 into the store OUT (T_A*).

    A scan that is already in OUT with the same configuration is skipped; with another one the run is
    refused before anything is touched. Exit codes: 0 all scans calibrated, 1 none, 2 some failed (with
    --strict also: an alarm), 64 usage or configuration error, 130 interrupted.
    """
    l0, out = Path(given["l0"]), Path(given["out"])
    quiet, verbose, as_json = given["quiet"], given["verbose"], given["json"]
    if quiet + verbose + as_json > 1:
        raise ConfigError("--quiet, --verbose and --json exclude each other.")
    fields = CalibrationConfig.model_fields
    options = {key: value for key, value in given.items() if key in fields and value is not None}
    config = load_config(given["config"], **_read_pwv(options))
    _check_paths(l0, out)
    # Reading the pipeline is slow: --help and wrong options must not wait for it.
    from gpucal.pipeline.calibrate import calibrate_store

    watching = make_observer(quiet=quiet, verbose=verbose, as_json=as_json)
    with watching as observer, _tracebacks(verbose):
        report = calibrate_store(
            l0, out, config, observer=observer, command_line=list(ctx.obj or sys.argv)
        )
    print_summary(report, out, quiet=quiet, as_json=as_json)
    raise typer.Exit(report.exit_code)


@contextlib.contextmanager
def _tracebacks(shown: bool) -> Iterator[None]:
    """Let stderr show what the pipeline logs about failures."""
    if not shown:
        yield
        return
    logger = logging.getLogger("gpucal")
    handler, level = logging.StreamHandler(), logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)


def _read_pwv(options: dict[str, Any]) -> dict[str, Any]:
    """``pwv`` as "fit" or a number in mm; on the command line it is a text."""
    text = options.get("pwv")
    if text in (None, "fit"):
        return options
    try:
        return {**options, "pwv": float(text)}
    except ValueError:
        raise ConfigError(
            f"pwv is {text!r}, expected fit or a number in mm.", hint="See gpucal calibrate --help."
        ) from None


def _check_paths(l0: Path, out: Path) -> None:
    """Refuse an OUT inside L0: the raw data are never written to."""
    raw, target = l0.resolve(), out.resolve()
    if target == raw or raw in target.parents:
        raise ConfigError(
            f"OUT is {out}, which is the raw store or lies inside it.",
            hint="Choose another place for the calibrated store.",
        )


def _choices(annotation: Any) -> tuple[Any, ...]:
    """The values that a Literal allows, also inside a union."""
    if typing.get_origin(annotation) is Literal:
        return typing.get_args(annotation)
    found: list[Any] = []
    for part in typing.get_args(annotation):
        found.extend(_choices(part))
    return tuple(found)


def _plain_type(field: str, annotation: Any) -> type:
    """The type of an option on the command line; the configuration checks the value."""
    if field == "pwv":
        return str
    if choices := _choices(annotation):
        return type(choices[0])
    parts = [annotation, *typing.get_args(annotation)]
    for kind in (bool, int, float):
        if any(part is kind or kind in typing.get_args(part) for part in parts):
            return kind
    return str


def _option(field: str) -> inspect.Parameter:
    """The command-line option of a field of the configuration."""
    info = CalibrationConfig.model_fields[field]
    panel, metavar, text = OPTIONS.get(field, (_OUT, "", info.description or field))
    kind = _plain_type(field, info.annotation)
    name = option_name(field)
    if kind is bool:
        name = f"{name}/--no-{name[2:]}"
    elif not metavar:
        metavar = "|".join(str(choice) for choice in _choices(info.annotation)) or "VALUE"
    if info.default is not None and info.default != "":
        default = f"{info.default:g}" if kind is float else str(info.default)
        text = f"{text} Default: {_yes_no(info.default) if kind is bool else default}."
    option = typer.Option(
        name, metavar=metavar or None, help=text, rich_help_panel=panel, show_default=False
    )
    return _keyword(field, Annotated[kind | None, option], None)


def _yes_no(value: bool) -> str:
    return "yes" if value else "no"


def _keyword(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    """A keyword-only parameter for the signature that typer reads."""
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default
    )


def _signature() -> inspect.Signature:
    """The signature that typer reads; made from the configuration, so that no option can be forgotten."""
    l0 = typer.Argument(metavar="L0", help="Raw store (Zarr).", show_default=False)
    out = typer.Argument(metavar="OUT", help="Calibrated store to write (Zarr).")
    config = typer.Option("--config", metavar="F", help="TOML file; options given here win.")
    quiet = typer.Option("--quiet", help="Say only what went wrong: failures and alarms.")
    verbose = typer.Option("--verbose", help="Show timings, messages and tracebacks.")
    as_json = typer.Option("--json", help="One JSON object per event on stdout.")
    parameters = [
        inspect.Parameter("ctx", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context),
        _keyword("l0", Annotated[Path, l0], inspect.Parameter.empty),
        _keyword("out", Annotated[Path, out], inspect.Parameter.empty),
        _keyword("config", Annotated[Path | None, config], None),
        _keyword("quiet", Annotated[bool, quiet], False),
        _keyword("verbose", Annotated[bool, verbose], False),
        _keyword("json", Annotated[bool, as_json], False),
        *(_option(field) for field in CalibrationConfig.model_fields),
    ]
    return inspect.Signature(parameters)


_SIGNATURE = _signature()
calibrate.__signature__ = _SIGNATURE  # type: ignore[attr-defined]
calibrate.__annotations__ = {p.name: p.annotation for p in _SIGNATURE.parameters.values()}
