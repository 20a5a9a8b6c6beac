"""Scans that hold values which cannot be right, or can hardly be."""

from __future__ import annotations

from typing import Any

import numpy as np

from builders.broken.cases import FILL, Case, DoubtfulCase, each
from builders.broken.night import Night


def _swap_loads(n: Night) -> None:
    n.at(2, "calibration/thot", slice(None), 80.0)
    n.at(2, "calibration/tcold", slice(None), 290.0)


def _same_loads(n: Night, channels: slice = slice(None), scan: int = 2) -> None:
    """HOT counts = COLD counts, in some channels."""

    def change(counts: Any) -> None:
        counts[channels, ..., 0] = counts[channels, ..., 1]

    n.edit(scan, "calibration/data_5d", change)


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


def _unread_hots(n: Night) -> None:
    for number in (1, 2, 3):
        n.remove(number, "calibration/thot")


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
        "integration time infinite",
        lambda n: n.at(2, "source/exptime", 2, np.inf),
        ("scan 2, subscan 2", "exptime of dump 0 is inf s"),
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
        each(lambda n, number: n.remove(number, "calibration"), 1, 2, 3),
        ("no valid HOT/COLD", "load scan of the same setup"),
        error="LoadError",
        stage="loads",
        failed=(1, 2, 3),
        hint="gpucal inspect",
    ),
    Case(
        "both load scans without HOT",
        each(lambda n, number: n.modes(number, ["COLD", "COLD"], "calibration"), 1, 5),
        ("no valid HOT/COLD", "Load scan 1 was passed over", "no HOT subscan in calibration/"),
        error="LoadError",
        stage="loads",
        night="upgreat",
        failed=(2, 3, 4),
    ),
    Case(
        "loads that do not differ",
        each(lambda n, number: _same_loads(n, scan=number), 1, 2, 3),
        ("no pixel can be calibrated with the loads of scan 2", "HOT and COLD", "--clip-trec"),
        error="LoadError",
        stage="loads",
        failed=(1, 2, 3),
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


DOUBTFUL = (
    DoubtfulCase(
        "load of 372 K",
        lambda n: n.at(2, "calibration/thot", slice(None), 372.0),
        ("load temperature 372.0 K cannot be right", "--t-hot"),
    ),
    DoubtfulCase(
        "load scan that is not there",
        lambda n: n.at(2, "source/lloadsn", slice(None), 77),
        ("load scan 77 was passed over", "not in the store"),
        same=True,
    ),
    DoubtfulCase(
        "loads of other frequencies",
        lambda n: n.edit(2, "calibration/signal_freq", lambda f: f + 5e9),
        ("the loads of scan 2 itself were passed over", "not those of its source"),
    ),
    DoubtfulCase(
        "loads two hours away",
        lambda n: n.edit(2, "calibration/mjd", lambda x: x - 2 / 24),
        ("loads of scan 2", "away, more than the 3600 s of --max-cal-age", "CAL_STALE"),
    ),
    DoubtfulCase(
        "OFF never written",
        lambda n: n.at(2, "source/data_5d", (..., [0, 3]), FILL),
        ("no sample of any ON is good", "the counts of its OFF were never written"),
        options=("--pwv", "3"),
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
        options=(
            "--spike-sigma",
            "0",
        ),  # in 64 channels its lines are narrower than one, and seen in one dump
        scans=(2, 3, 4),
    ),
    DoubtfulCase(
        "ON never written",
        lambda n: n.at(2, "source/data_5d", (..., slice(1, 3)), FILL),
        ("no sample of any ON is good", "its counts were never written"),
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
