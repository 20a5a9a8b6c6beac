"""The kinds of broken input: how to damage a night, and what a user must be told."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import google_crc32c
import numpy as np

from broken_night import Night

FILL = np.iinfo(np.int32).min
Damage = Callable[[Night], Any]


@dataclass(frozen=True)
class Case:
    """One kind of damage.

    damage   edits the night; may return options to add to the command line
    words    what the message must hold; the hint is checked to be there when ``hint``
    failed   scans that fail; the others must come out as from the undamaged night
    unasked  scans that the options leave out
    """

    name: str
    damage: Damage
    words: tuple[str, ...]
    error: str = "L0Error"
    stage: str = "read"
    night: str = "hera"
    options: tuple[str, ...] = ()
    failed: tuple[int, ...] = (2,)
    unasked: tuple[int, ...] = ()
    hint: str = ""


def _swap_loads(n: Night) -> None:
    n.at(2, "calibration/thot", slice(None), 80.0)
    n.at(2, "calibration/tcold", slice(None), 290.0)


def _same_loads(n: Night, channels: slice = slice(None)) -> None:
    """HOT counts = COLD counts, in some channels."""

    def change(counts: Any) -> None:
        counts[channels, ..., 0] = counts[channels, ..., 1]

    n.edit(2, "calibration/data_5d", change)


def _offs_like(n: Night, load: int, factor: float = 1.0) -> None:
    """Every OFF gets the counts of a load: no water of the trial range makes such a sky."""
    loads = n.read(2, "calibration/data_5d").mean(axis=1, keepdims=True)

    def change(counts: Any) -> None:
        counts[..., [0, 3]] = factor * loads[..., [load, load]]

    n.edit(2, "source/data_5d", change)


def _retune(n: Night, hz: float) -> None:
    for group in ("source", "calibration"):
        n.edit(2, f"{group}/signal_freq", lambda f: f + hz)
        n.edit(2, f"{group}/image_freq", lambda f: f + hz)


def _other_shape(n: Night) -> None:
    n.edit(2, "calibration/data_5d", lambda counts: counts[:32])


def _calibrated_otherwise(n: Night) -> None:
    from gpucal.cli.main import main

    line = ["calibrate", str(n.l0), str(n.out), "--atmosphere", str(n.table), "--quiet"]
    assert main([*line, "--scans", "2", "--dtype", "f32"]) == 0


def _more_of_beam_a(n: Night) -> None:
    n.modes(3, ["OTFSWA-ON", "OTFSWA-OFF"] * 3 + ["OTFSWB-ON", "OTFSWB-OFF"])


def _unread_hots(n: Night) -> None:
    for number in (1, 2, 3):
        n.remove(number, "calibration/thot")


LAYOUT = (
    Case("counts missing", lambda n: n.remove(2, "source/data_5d"), ("data_5d is missing",)),
    Case(
        "counts of rank 4",
        lambda n: n.edit(2, "source/data_5d", lambda x: x[:, 0]),
        ("data_5d has shape (64, 2, 9, 4)", "expected five axes"),
    ),
    Case(
        "counts of a wrong type",
        lambda n: n.edit(2, "source/data_5d", lambda x: x.astype(np.int64)),
        ("data_5d has dtype int64", "expected int32, uint32, float32, float64"),
    ),
    Case(
        "counts without dumps",
        lambda n: n.edit(2, "source/data_5d", lambda x: x[:, :0]),
        ("data_5d has shape (64, 0, 2, 9, 4)", "there is no dump"),
    ),
    Case(
        "array missing",
        lambda n: n.remove(2, "source/elevation"),
        ("array elevation is missing", "(4,) or (3, 4)", "rad"),
    ),
    Case(
        "array too short",
        lambda n: n.edit(2, "source/exptime", lambda x: x[:3]),
        ("array exptime has shape (3,)", "expected (4) = [S] or (3, 4) = [D,S]"),
    ),
    Case(
        "array of integers",
        lambda n: n.edit(2, "source/mjd", lambda x: x.astype(np.int32)),
        ("array mjd has dtype int32", "expected floating point"),
        hint="Write it as float64",
    ),
    Case(
        "image frequency missing",
        lambda n: n.remove(2, "source/image_freq"),
        ("image_freq is missing", "gain_image is not 0"),
        hint="gain_image = 0",
    ),
    Case("modes missing", lambda n: n.modes(2, None), ("sobsmode is missing", "list of strings")),
    Case(
        "modes too few",
        lambda n: n.modes(2, ["OFF", "ON", "OFF"]),
        ("sobsmode has 3 entries", "expected 4"),
    ),
    Case(
        "mode unknown",
        lambda n: n.modes(2, ["OFF", "ON", "OM", "OFF"]),
        ("scan 2, subscan 2", "sobsmode 'OM'", "is unknown", "OTF-ON"),
        hint="Did you mean ON?",
    ),
    Case(
        "load among the sky",
        lambda n: n.modes(2, ["OFF", "ON", "HOT", "OFF"]),
        ("scan 2, subscan 2", "'HOT' stands in source/", "expected it in calibration/"),
    ),
    Case("no ON", lambda n: n.modes(2, ["OFF"] * 4), ("no ON subscan", "only OFF")),
    Case(
        "no OFF",
        lambda n: n.modes(2, ["ON"] * 4),
        ("no OFF subscan for ON", "found ON", "expected OFF or OTF-OFF"),
    ),
    Case(
        "loads of another shape",
        _other_shape,
        ("source/ has", "(64, 2, 9)", "calibration/ has (32, 2, 9)"),
    ),
    Case(
        "scan document broken",
        lambda n: (n.scan(2) / "zarr.json").write_text('{"zarr_format": 3, '),
        ("scan 2", "scan_000002", "zarr.json", "not valid JSON"),
    ),
    Case(
        "scan document missing",
        lambda n: (n.scan(2) / "zarr.json").unlink(),
        ("scan_000002 is not a Zarr group",),
        hint="zarr.json or .zgroup is missing",
    ),
    Case(
        "array document broken",
        lambda n: (n.scan(2, "source/mjd") / "zarr.json").write_text("[]"),
        ("scan 2", "source/mjd", "zarr.json"),
    ),
    Case(
        "group without document",
        lambda n: (n.scan(2, "source") / "zarr.json").unlink(),
        ("scan 2", "source", "not a Zarr group"),
    ),
    Case(
        "bands of an unknown layout",
        lambda n: (n.scan(2, "source").rename(n.scan(2, "raw")), n.remove(2, "calibration")),
        ("neither source/ nor calibration/",),
    ),
    Case(
        "attribute of a wrong type",
        lambda n: n.attrs(2, n_subscans_planned="four"),
        ("attribute n_subscans_planned is 'four'", "expected a valid integer"),
    ),
    Case(
        "scan incomplete",
        lambda n: n.attrs(2, complete=False, n_subscans_planned=6),
        ("the scan is incomplete", "4 subscans", "6 planned"),
        hint="--partial",
    ),
    Case(
        "one band broken",
        lambda n: n.remove(3, "band_2/source/mjd"),
        ("scan 3 band_2", "array mjd is missing"),
        night="chai",
        failed=(3,),
    ),
)

VALUES = (
    Case(
        "elevation in degrees",
        lambda n: n.at(2, "source/elevation", 1, 55.0),
        ("scan 2, subscan 1", "elevation of dump 0 is 55", "radians", "degrees"),
    ),
    Case(
        "elevation below the horizon",
        lambda n: n.at(2, "source/elevation", 0, -0.2),
        ("scan 2, subscan 0", "elevation of dump 0 is -0.2 rad", "more than 0 for OFF"),
    ),
    Case(
        "azimuth in degrees",
        lambda n: n.at(2, "source/azimuth", slice(None), 215.0),
        ("azimuth of dump 0 is 215", "expected radians"),
    ),
    Case(
        "time running backwards",
        lambda n: n.edit(2, "source/mjd", lambda x: x[::-1]),
        ("scan 2, subscan 1", "mjd runs backwards"),
        hint="order of time",
    ),
    Case(
        "time in seconds",
        lambda n: n.edit(2, "source/mjd", lambda x: x * 86400.0),
        ("scan 2, subscan 0", "MJD in seconds, divide by 86400"),
    ),
    Case(
        "Julian date",
        lambda n: n.edit(2, "source/mjd", lambda x: x + 2400000.5),
        ("expected 30000..90000 days", "Julian date, subtract 2400000.5"),
    ),
    Case(
        "integration time 0",
        lambda n: n.at(2, "source/exptime", 2, 0.0),
        ("scan 2, subscan 2", "exptime of dump 0 is 0 s", "more than 0"),
    ),
    Case(
        "channel width 0",
        lambda n: n.at(2, "source/freq_res", slice(None), 0.0),
        ("receiver 0", "freq_res is 0 Hz", "other than 0"),
    ),
    Case(
        "frequency in GHz",
        lambda n: n.edit(2, "source/signal_freq", lambda x: x / 1e9),
        ("receiver 0", "signal_freq is 230.538", "looks like GHz"),
    ),
    Case(
        "reference channel not a number",
        lambda n: n.at(2, "source/ref_channel", slice(None), np.nan),
        ("ref_channel is nan", "expected a channel number"),
    ),
    Case(
        "sideband gain negative",
        lambda n: n.attrs(2, gain_image=-0.1),
        ("gain_image is -0.1", "finite ratio of at least 0"),
    ),
    Case(
        "sideband gain of a wrong shape",
        lambda n: n.attrs(2, gain_image=[0.1, 0.1, 0.1]),
        ("gain_image has shape (3,)", "(2, 9) = [R,A]", "(64, 2, 9) = [C,R,A]"),
    ),
    Case(
        "sideband gain missing",
        lambda n: n.attrs(2, gain_image=None),
        ("no attribute gain_image",),
        error="ConfigError",
        stage="resolve",
        hint="Use --gain-image",
    ),
    Case(
        "forward efficiency 1.5",
        lambda n: n.attrs(2, f_eff=1.5),
        ("attribute f_eff is 1.5", "less than or equal to 1"),
    ),
    Case(
        "forward efficiency missing",
        lambda n: n.attrs(2, f_eff=None),
        ("no attribute f_eff",),
        error="ConfigError",
        stage="resolve",
        hint="Use --f-eff",
    ),
    Case(
        "loads swapped",
        _swap_loads,
        ("scan 2, subscan 0, receiver 0", "thot is 80 K", "200..350 K", "tcold is 290 K"),
        hint="Are the two loads swapped?",
    ),
    Case(
        "loads too close",
        lambda n: n.at(2, "calibration/tcold", slice(None), 291.0),
        ("scan 2, subscan 0, receiver 0", "thot is 290 K, not above tcold, 291 K"),
        hint="swapped",
    ),
    Case(
        "load in deg C",
        lambda n: n.at(2, "calibration/thot", slice(None), 17.0),
        ("thot is 17 K", "deg C, add 273.15"),
    ),
    Case(
        "no HOT among the loads",
        lambda n: n.modes(2, ["COLD", "COLD"], "calibration"),
        ("no HOT subscan in calibration/", "only COLD"),
    ),
    Case(
        "no load temperature anywhere",
        _unread_hots,
        (
            "no valid",
            "oad scan 1 was passed over",
            "thot of the HOT load is not recorded",
            "--t-hot",
        ),
        error="LoadError",
        stage="loads",
        failed=(1, 2, 3),
    ),
    Case(
        "no loads anywhere",
        lambda n: [n.remove(number, "calibration") for number in (1, 2, 3)],
        ("no valid HOT/COLD", "load scan of the same setup"),
        error="LoadError",
        stage="loads",
        failed=(1, 2, 3),
        hint="gpucal inspect",
    ),
    Case(
        "both load scans without HOT",
        lambda n: [n.modes(number, ["COLD", "COLD"], "calibration") for number in (1, 5)],
        ("no valid HOT/COLD", "Load scan 1 was passed over", "no HOT subscan in calibration/"),
        error="LoadError",
        stage="loads",
        night="upgreat",
        failed=(2, 3, 4),
    ),
    Case(
        "loads that do not differ",
        _same_loads,
        ("no channel of any pixel is good in the loads of scan 2", "HOT", "above the COLD"),
        error="LoadError",
        stage="resolve",
        hint="--clip",
    ),
    Case(
        "counts never written",
        lambda n: n.at(2, "source/data_5d", ..., FILL),
        ("PWV cannot be fitted", "no channel is usable in any OFF", "never written"),
        error="AtmosphereError",
        stage="atm",
    ),
    Case(
        "few good channels",
        lambda n: _same_loads(n, slice(0, 52)),
        ("usable channels", "at least 16 are needed"),
        error="AtmosphereError",
        stage="atm",
        hint="Use --pwv MM",
    ),
    Case(
        "sky too warm",
        lambda n: _offs_like(n, 0),
        ("fitted PWV", "edge of the trial range"),
        error="AtmosphereError",
        stage="atm",
        hint="Use --pwv MM",
    ),
    Case(
        "ambient temperature missing",
        lambda n: n.remove(2, "source/tamb"),
        ("ambient temperature (tamb) is not recorded",),
        error="AtmosphereError",
        stage="atm",
        hint="Use --t-atm",
    ),
    Case(
        "frequencies outside the table",
        lambda n: _retune(n, 100e9),
        ("330.0", "GHz were asked for", "atmosphere table", "table.npz holds"),
        error="TableError",
        stage="atm",
        hint="--atmosphere",
    ),
    Case(
        "vane without water",
        lambda n: None,
        ("PWV cannot be fitted without a COLD load",),
        error="AtmosphereError",
        stage="atm",
        night="argus",
        failed=(1, 2, 3),
        hint="--tau NP",
    ),
)


def _frame_of_text(n: Night) -> None:
    """Bytes with a true checksum that are no zstd frame."""
    content = b"this is no frame" * 8
    checksum = google_crc32c.value(content).to_bytes(4, "little")
    n.chunk(2, "source", 0).write_bytes(content + checksum)


CHUNKS = (
    Case(
        "no zstd frame in an OFF",
        _frame_of_text,
        ("scan 2, subscan 0", "data_5d/c/0/0/0/0/0", "does not start with a zstd frame"),
        error="CorruptDataError",
        hint="Restore it from a copy",
    ),
    Case(
        "bit flipped in an ON",
        lambda n: n.spoil(2, "source", 1, "flip"),
        ("scan 2, subscan 1", "data_5d/c/0/0/0/0/1", "crc32c is"),
        error="CorruptDataError",
        hint="Restore it from a copy",
    ),
    Case(
        "foreign bytes in an OFF",
        lambda n: n.spoil(2, "source", 0, "text"),
        ("scan 2, subscan 0", "data_5d/c/0/0/0/0/0", "cannot be decoded"),
        error="CorruptDataError",
        hint="Restore it from a copy",
    ),
    Case(
        "file cut off",
        lambda n: n.spoil(2, "source", 2, "cut"),
        ("scan 2, subscan 2", "data_5d/c/0/0/0/0/2", "cannot be decoded"),
        error="CorruptDataError",
        hint="Restore it from a copy",
    ),
    Case(
        "file empty",
        lambda n: n.chunk(2, "source", 3).write_bytes(b""),
        ("scan 2, subscan 3", "0 bytes"),
        error="CorruptDataError",
        hint="Restore it from a copy",
    ),
    Case(
        "a directory in place of a file",
        lambda n: (n.chunk(2, "source", 2).unlink(), n.chunk(2, "source", 2).mkdir()),
        ("scan 2, subscan 2", "Is a directory"),
        error="CorruptDataError",
    ),
)

MODES = (
    Case(
        "frequency throw missing",
        lambda n: n.remove(2, "source/freq_throw"),
        ("freq_throw", "cannot be folded"),
        error="PairingError",
        stage="prepare",
        night="fsw",
        hint="Use --no-fold",
    ),
    Case(
        "chop phases 0 to 3",
        lambda n: n.at(2, "source/chop_phase", (slice(None), 0), [0, 1, 2, 3]),
        ("scan 2, subscan 0", "values [0, 1, 2, 3]", "expected both 0 and 1"),
        error="PairingError",
        stage="prepare",
        night="wsw",
    ),
    Case(
        "nod beam that is not there",
        lambda n: n.attrs(2, nod_beams=[[0, 0], [0, 12]]),
        ("nod_beams is [[0, 0], [0, 12]]", "2 receivers and 9 pixels"),
        error="PairingError",
        stage="prepare",
        night="nod",
    ),
    Case(
        "beams that do not pair",
        _more_of_beam_a,
        ("as many A as B subscans", "3 of A and 1 of B"),
        error="PairingError",
        stage="prepare",
        night="upgreat",
        options=("--dbs-coupling",),
        failed=(3,),
        hint="Leave out --dbs-coupling",
    ),
    Case(
        "mode that does not fit",
        lambda n: None,
        ("mode fsw needs a signal phase (FSW-SIG)", "OFF, ON"),
        error="PairingError",
        stage="prepare",
        options=("--mode", "fsw", "--scans", "1,2"),
        failed=(1, 2),
        unasked=(3,),
        hint="Use --mode",
    ),
)

OUTPUT = (
    Case(
        "scan there with another configuration",
        _calibrated_otherwise,
        ("scan 2", "already there", "another configuration"),
        error="L1Error",
        stage="write",
        hint="Use --overwrite",
    ),
    Case(
        "scan that is not there",
        lambda n: ("--scans", "1-3,7"),
        ("scan 7: it is not in", "l0.zarr"),
        stage="read",
        failed=(7,),
        hint="gpucal inspect",
    ),
)

FAILURES = LAYOUT + VALUES + CHUNKS + MODES + OUTPUT


@dataclass(frozen=True)
class StoreCase:
    """Damage that leaves nothing to do: one sentence on stderr, ``code``, and no scan in OUT."""

    name: str
    damage: Damage
    words: tuple[str, ...]
    code: int = 1
    hint: str = ""


def _write(path: Any, text: str) -> None:
    path.write_text(text)


def _config(text: str) -> Damage:
    def damage(n: Night) -> tuple[str, str]:
        path = n.folder / "night.toml"
        path.write_text(text)
        return ("--config", str(path))

    return damage


def _table(**changes: Any) -> Damage:
    """Change columns of the table; None removes one."""

    def damage(n: Night) -> None:
        with np.load(n.table) as stored:
            columns = {**dict(stored), **changes}
        np.savez(n.table, **{k: v for k, v in columns.items() if v is not None})

    return damage


def _hole_in_table(n: Night) -> None:
    with np.load(n.table) as stored:
        columns = dict(stored)
    columns["b"][5] = np.nan
    np.savez(n.table, **columns)


def _unknown_site(n: Night) -> tuple[str, str]:
    n.set_attrs(n.l0, telescope="Backyard", site={"lat_deg": 50.0, "lon_deg": 7.0, "alt_m": 60.0})
    return ("--atmosphere", "auto")


STORE = (
    StoreCase("store missing", lambda n: shutil.rmtree(n.l0), ("l0.zarr does not exist",)),
    StoreCase(
        "store is a file",
        lambda n: (shutil.rmtree(n.l0), _write(n.l0, "text")),
        ("l0.zarr is not a Zarr group", "expected an L0 store"),
        hint="An L0 store is a folder",
    ),
    StoreCase(
        "store without document",
        lambda n: (n.l0 / "zarr.json").unlink(),
        ("l0.zarr is not a Zarr group",),
        hint="zarr.json or .zgroup",
    ),
    StoreCase(
        "store document broken",
        lambda n: _write(n.l0 / "zarr.json", '{"zarr_format": 3'),
        ("l0.zarr", "zarr.json", "not valid JSON"),
        hint="Restore it from a copy",
    ),
    StoreCase(
        "store of a newer format",
        lambda n: n.set_attrs(n.l0, format_version=99),
        ("format_version 99", "reads up to 1"),
        hint="Update gpucal",
    ),
    StoreCase(
        "store already calibrated",
        lambda n: n.set_attrs(n.l0, format="gpucal-l1"),
        ("format 'gpucal-l1'", "expected 'gpucal-l0'"),
        hint="raw counts",
    ),
    StoreCase(
        "store without scans",
        lambda n: [n.remove(number, "") for number in (1, 2, 3)],
        ("l0.zarr holds no scan at all", "nothing to calibrate"),
        hint="gpucal inspect",
    ),
    StoreCase(
        "output is a file",
        lambda n: _write(n.out, "text"),
        ("l1.zarr is a file", "expected a directory"),
        hint="Choose another output",
    ),
    StoreCase(
        "output holds other files",
        lambda n: (n.out.mkdir(), _write(n.out / "notes.txt", "text")),
        ("l1.zarr holds other files",),
        hint="Choose another output",
    ),
    StoreCase(
        "output is a raw store",
        lambda n: shutil.copytree(n.l0, n.out),
        ("l1.zarr has the format 'gpucal-l0'", "expected 'gpucal-l1'"),
        hint="Choose another output",
    ),
    StoreCase(
        "output below a file",
        lambda n: _write(n.folder / "l1.zarr.staging", "text"),
        ("l1.zarr cannot be written", "staging"),
    ),
    StoreCase(
        "table missing",
        lambda n: n.table.unlink(),
        ("no atmosphere table", "table.npz"),
        hint="iram_30m",
    ),
    StoreCase(
        "table is text",
        lambda n: _write(n.table, "230 0.1\n231 0.1\n"),
        ("table.npz is not a .npz file",),
        hint="gpucal atm import",
    ),
    StoreCase(
        "table of an unknown kind",
        lambda n: ("--atmosphere", str(n.table.rename(n.folder / "table.dat"))),
        ("table.dat is neither a .npz file nor a .zarr directory",),
    ),
    StoreCase("table with a hole", _hole_in_table, ("table.npz: b[5] is nan", "finite number")),
    StoreCase("table without water", _table(b=None), ("table.npz has no b", "freq_hz, b, c_dry")),
    StoreCase(
        "table of words", _table(b=np.array(["wet"] * 4)), ("table.npz: b does not hold numbers",)
    ),
    StoreCase(
        "site without a table",
        _unknown_site,
        ("no packaged atmosphere table fits", "Backyard", "60 m", "iram_30m is for 2850 m"),
        hint="with --atmosphere",
    ),
    StoreCase(
        "configuration broken",
        _config("t_hot = = 3"),
        ("night.toml is not valid TOML", "line 1"),
        code=64,
    ),
    StoreCase(
        "configuration missing",
        lambda n: ("--config", str(n.folder / "none.toml")),
        ("none.toml cannot be read", "No such file"),
        code=64,
    ),
    StoreCase(
        "option that does not exist",
        _config("t_hott = 290.0"),
        ("'t_hott' does not exist",),
        code=64,
        hint="gpucal calibrate --help",
    ),
    StoreCase(
        "option of a wrong value",
        _config('mode = "raster"'),
        ("mode is 'raster'", "expected 'auto'", "'otf-chopped'"),
        code=64,
        hint="gpucal calibrate --help",
    ),
    StoreCase(
        "option of a wrong type",
        _config('f_eff = "high"'),
        ("f_eff is 'high'", "expected a valid number"),
        code=64,
        hint="gpucal calibrate --help",
    ),
    StoreCase(
        "codec unknown",
        lambda n: ("--codec", "bzip2"),
        ("codec is 'bzip2'", "expected zstd:LEVEL"),
        code=64,
    ),
    StoreCase(
        "list of scans",
        lambda n: ("--scans", "one"),
        ("scans is 'one'", "1,5-9"),
        code=64,
    ),
    StoreCase(
        "load temperatures swapped by options",
        lambda n: ("--t-hot", "80", "--t-cold", "290"),
        ("t_hot is 80.0 K, not above t_cold, 290.0 K",),
        code=64,
    ),
)


@dataclass(frozen=True)
class DoubtfulCase:
    """Damage that a scan survives: exit code 0 and a warning that names the scan.

    same: its result is even that of the undamaged night.
    """

    name: str
    damage: Damage
    words: tuple[str, ...]
    night: str = "hera"
    options: tuple[str, ...] = ()
    scans: tuple[int, ...] = (2,)
    same: bool = False

    @property
    def named(self) -> str:
        """How a line calls the scans: " 2" after "scan", "s 2-4" for several."""
        first, last = self.scans[0], self.scans[-1]
        return f" {first}" if first == last else f"s {first}-{last}"


DOUBTFUL = (
    DoubtfulCase(
        "load of 372 K",
        lambda n: n.at(2, "calibration/thot", slice(None), 372.0),
        ("load temperature 372.0 K cannot be right", "--t-hot"),
    ),
    DoubtfulCase(
        "HOT damaged",
        lambda n: n.spoil(2, "calibration", 0, "flip"),
        ("load scan 2 was passed over", "crc32c"),
    ),
    DoubtfulCase(
        "load temperature missing",
        lambda n: n.remove(2, "calibration/thot"),
        ("load scan 2 was passed over", "thot of the HOT load is not recorded"),
    ),
    DoubtfulCase(
        "load scan without HOT",
        lambda n: n.modes(1, ["COLD", "COLD"], "calibration"),
        ("load scan 1 was passed over", "no HOT subscan"),
        night="upgreat",
        scans=(2, 3, 4),
    ),
    DoubtfulCase(
        "ON never written",
        lambda n: n.at(2, "source/data_5d", (..., slice(1, 3)), FILL),
        ("no sample of any ON is good", "never written"),
    ),
    DoubtfulCase(
        "incomplete, with --partial",
        lambda n: n.attrs(2, complete=False, n_subscans_planned=6),
        (),
        options=("--partial",),
        same=True,
    ),
    DoubtfulCase(
        "position not a number",
        lambda n: n.at(3, "source/otf_lon", (slice(None), 1), np.nan),
        ("otf_lon or otf_lat is not finite", "subscan 1"),
        scans=(3,),
    ),
    DoubtfulCase(
        "scan number of another scan",
        lambda n: n.attrs(2, scan_number=9),
        ("attribute scan_number is 9", "the group is scan 2"),
    ),
)
