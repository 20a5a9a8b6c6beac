"""Import SAM45 logs of the Nobeyama 45 m telescope. Source: docs/reference/sam45.md."""

from __future__ import annotations

import math
import warnings
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gpucal.errors import ConfigError, GpucalWarning, ImportFormatError
from gpucal.io.incoming.assumptions import Assumptions
from gpucal.io.incoming.glimpse import Glimpse
from gpucal.io.incoming.profile import ANTENNA_SHIFT, COMMON, PIXEL_OFFSETS, ProfileKey
from gpucal.io.incoming.protocol import (
    ImportPlan,
    Lost,
    PlannedScan,
    RawFormat,
    Request,
    root_attrs,
)
from gpucal.io.sam45.antenna import SITE_LAT_DEG, SITE_LON_DEG, AntennaLogs
from gpucal.io.sam45.arrays import LogParts
from gpucal.io.sam45.bands import ArraySetup, Band, arrays_in_use, bands_of
from gpucal.io.sam45.counts import LogCounts
from gpucal.io.sam45.log import Sam45Log
from gpucal.io.sam45.moments import Moments, moments_of, runs_of
from gpucal.io.sam45.planner import Planner
from gpucal.io.sam45.pointing import Pointing, from_antenna_log, from_records
from gpucal.io.sam45.records import ARRAYS
from gpucal.io.sam45.segments import cut
from gpucal.io.sam45.times import JST_H

TELESCOPE, INSTRUMENT = "NRO45M", "SAM45"
SITE = {"lat_deg": SITE_LAT_DEG, "lon_deg": SITE_LON_DEG, "alt_m": 1350.0}
POSITION_SWITCH, FREQUENCY_SWITCH = (1,), (5, 6)
"""Values of isw_mod."""


class Sam45Format(RawFormat):
    """Logs of the spectrometer SAM45: each is cut into load scans and the science scans between them."""

    name = "sam45"
    title = "SAM45 logs of the Nobeyama 45 m telescope"
    profile_keys = {
        **{key: value for key, value in COMMON.items() if key != "t_cold"},
        "channel_base": ProfileKey("number of the first channel", choices=(1, 0)),
        "flip_channels": ProfileKey(
            "arrays whose channels are stored backwards", choices=("none", "LSB", "USB", "all")
        ),
        "velocity_sign": ProfileKey("sign of dant_vel", choices=(1, -1, 0)),
        "windows": ProfileKey("what inumber_channels counts", choices=("check", "ignore")),
        "zero": ProfileKey("which ZERO is subtracted", choices=("nearest", "none")),
        "switch_sign": ProfileKey("sign of dsw_freq in OFF", choices=(1, -1)),
        "pixel_offsets": PIXEL_OFFSETS,
        "antenna_shift_s": ANTENNA_SHIFT,
    }

    options = ("antenna_log", "antenna_shift", "elevation", "partial")

    def probe(self, glimpse: Glimpse) -> bool:
        """By the first record; a log that is empty or damaged at its beginning is known by its name."""
        head = glimpse.head
        if head[:2] == b"L0" and head[80:85] == b"SAM45":
            return True
        text = glimpse.size > 0 and b"\0" not in head
        return "sam45" in glimpse.path.name.lower() and not text and not glimpse.units

    def plan(self, request: Request) -> ImportPlan:
        """Options: ``antenna_log`` (files or folders), ``antenna_shift`` (s), ``elevation`` (deg), ``partial``."""
        _check_options(request)
        files = self.files(request)
        named = [Path(p) for p in request.options.get("antenna_log") or ()]
        antennas = AntennaLogs(named, request.index)
        scans: list[PlannedScan] = []
        lost: list[Lost] = []
        for path in files:
            try:
                scans += _plan_log(path, request, antennas, lost)
            except ImportFormatError as error:
                lost.append(Lost(error.scan, error.band, error))
        scans = _each_number_once(scans, lost)
        if request.scans is not None:
            scans = _chosen(scans, request.scans)
        if not scans and not lost:
            raise ImportFormatError("no log was given, expected at least one.")
        root = root_attrs(telescope=TELESCOPE, instrument=INSTRUMENT, site=SITE)
        return ImportPlan(root, sorted(scans, key=lambda s: s.number), lost, files)


SAM45 = Sam45Format()


def _check_options(request: Request) -> None:
    elevation = request.options.get("elevation")
    if elevation is None:
        return
    if not 0.0 < float(elevation) <= 90.0:
        raise ConfigError(f"--elevation is {elevation}, expected more than 0 and up to 90 deg.")
    if request.options.get("antenna_log"):
        raise ConfigError("--elevation and --antenna-log exclude each other.")


def _each_number_once(scans: Sequence[PlannedScan], lost: list[Lost]) -> list[PlannedScan]:
    """Scans of two logs that began in the same second cannot both have its number: the second is lost."""
    kept: dict[int, PlannedScan] = {}
    for scan in scans:
        first = kept.setdefault(scan.number, scan)
        if first is not scan:
            error = ImportFormatError(
                f"{scan.origin} holds a scan that began in the same second as one of {first.origin}.",
                hint="Is a log there twice? Import one of them, or each into a store of its own.",
                scan=scan.number,
            )
            lost.append(Lost(scan.number, "", error))
    return list(kept.values())


def _chosen(scans: Sequence[PlannedScan], wanted: Collection[int]) -> list[PlannedScan]:
    chosen = [scan for scan in scans if scan.number in wanted]
    if not chosen:
        there = ", ".join(str(scan.number) for scan in scans[:8])
        raise ImportFormatError(f"none of the scans asked for is in the logs, which hold {there}.")
    return chosen


def _plan_log(
    path: Path, request: Request, antennas: AntennaLogs, lost: list[Lost]
) -> list[PlannedScan]:
    """The scans of one log; raises ImportFormatError when it cannot be used as a whole."""
    log = Sam45Log(path, partial=bool(request.options.get("partial")))
    try:
        assumed = Assumptions(request.profile)
        how = _how_observed(log, assumed)
        moments = moments_of(log, int(log.obs["iotf_mode"]) == 1)
        present = np.flatnonzero((moments.rows >= 0).any(axis=0)).tolist()
        setups = arrays_in_use(log, present, assumed)
        _tell_left_out(log, present)
        if (
            assumed.take("windows", "check", "how windows of channels are stored is not said")
            != "ignore"
        ):
            _check_windows(log, moments, setups)
        bands = bands_of(setups)
        pointing, used = _pointing(log, moments, request, antennas, assumed)
        parts = _parts(log, moments, pointing, how, bands, assumed)
        divided = cut(moments, parts.runs, interpolated=how != "frequency")
        if not divided.segments:
            kinds = ", ".join(sorted({run.kind for run in parts.runs}))
            raise ImportFormatError(f"{path} holds neither an ON nor an R, but {kinds}.")
        for remark in divided.remarks:
            _warn(f"{path}: {remark}.")
        planner = Planner(parts, bands, request, assumed, used)
        planned = [p for s in divided.segments if (p := planner.scan(s, lost)) is not None]
        if not any(s.loads for s in divided.segments):
            _warn(f"{path} holds no R: its scans need the loads of another log.")
        return planned
    finally:
        log.forget()


def _how_observed(log: Sam45Log, assumed: Assumptions) -> str:
    """ "otf", "position" or "frequency"."""
    switch = int(log.obs["isw_mod"])
    if switch in FREQUENCY_SWITCH:
        assumed.note("OFF", "the second phase", "how the phases are marked was inferred")
        return "frequency"
    if switch not in POSITION_SWITCH:
        raise ImportFormatError(
            f"{log.path} was observed with the switching mode isw_mod = {switch}, expected 1 (position) or 5, 6 "
            "(frequency)."
        )
    if int(log.obs["iotf_mode"]) != 1:
        return "position"
    dump = float(log.obs["diptim"])
    if not dump > 0:
        raise ImportFormatError(
            f"{log.path} is an OTF observation whose dumps last diptim = {dump:g} s, expected more than 0."
        )
    return "otf"


def _tell_left_out(log: Sam45Log, present: Sequence[int]) -> None:
    """Warn about arrays with records that are not in use, and about those in use that have none."""
    used = {n for n in range(ARRAYS) if int(log.obs["iary_usefg"][n]) == 1}
    for indices, text in (
        (set(present) - used, "has records of {}, which it does not mark as used: left out"),
        (used - set(present), "marks {} as used, but has no record of it"),
    ):
        if indices:
            names = ", ".join(f"A{n + 1}" for n in sorted(indices))
            _warn(f"{log.path} {text.format(names)}.")


def _check_windows(log: Sam45Log, moments: Moments, setups: Sequence[ArraySetup]) -> None:
    """Raise ImportFormatError for records that hold a part of the channels: which, nobody has said."""
    for setup in setups:
        rows = moments.rows[:, setup.index]
        told = log.heads["inumber_channels"][rows[rows >= 0]]
        other = told[(told != 0) & (told != setup.channels)]
        if other.size:
            raise ImportFormatError(
                f"{log.path}: {other.size} records of array {setup.name} say that they hold {int(other[0])} channels "
                f"(inumber_channels), expected the {setup.channels} of the array.",
                hint='Windows of channels cannot be read; set windows = "ignore" in a --profile if there are none.',
            )


def _pointing(
    log: Sam45Log,
    moments: Moments,
    request: Request,
    antennas: AntennaLogs,
    assumed: Assumptions,
) -> tuple[Pointing, list[Path]]:
    """The pointing of all moments, and the files it came from."""
    elevation = request.options.get("elevation")
    if elevation is not None:
        return from_records(log, moments, float(elevation)), []
    science = np.isin(np.array(moments.kind), ("ON", "OFF"))
    times = (moments.mjd[science] if science.any() else moments.mjd) + JST_H / 24.0
    chosen = antennas.covering(log.path.parent, times)
    if chosen is None:
        return from_records(log, moments, None), []
    antenna, zone = chosen
    name = "UTC" if zone else "JST"
    assumed.note(
        "times of the antenna log", name, "its elevations and the times of the spectra fit to it"
    )
    assumed.note("positions", "as programmed", "the tracking error is not applied")
    shift = request.options.get("antenna_shift")
    if shift is None:
        why = "whether both clocks agree is not said"
        shift = assumed.take("antenna_shift_s", 0.0, why)
    return from_antenna_log(log, moments, antenna, float(shift), zone), [antenna.path]


def _parts(
    log: Sam45Log,
    moments: Moments,
    pointing: Pointing,
    how: str,
    bands: Sequence[Band],
    assumed: Assumptions,
) -> LogParts:
    runs = runs_of(moments)
    zero = assumed.take("zero", "nearest", "which of several ZEROs is meant is not said")
    counts = LogCounts(log, moments, runs, pointing.lost, subtract=zero != "none")
    if any(a.attenuation_db for band in bands for a in band.members):
        assumed.note("attenuator", "in R alone", "iary_ifatt is taken to be put in for R")
    why = "what iipint means was inferred"
    t_hot = assumed.set_or_noted("t_hot", "iipint if 200..350 K, else the air", why)
    hot = math.nan if t_hot is None else float(t_hot)
    return LogParts(
        log, moments, runs, pointing, counts, how, hot, _pixel_offsets(log, bands, assumed)
    )


def _pixel_offsets(
    log: Sam45Log, bands: Sequence[Band], assumed: Assumptions
) -> npt.NDArray[np.float64] | None:
    """Offsets of the beams [A, 2], arcsec; None for one beam."""
    beams = bands[0].beams
    if len(beams) == 1:
        return None
    why = "the log has no offsets of the beams"
    given = assumed.set_or_noted("pixel_offsets", "0 for all", why)
    if given is None:
        _warn(
            f"{log.path}: the offsets of its {len(beams)} beams are not in the log: all have the position of "
            "the tracked one. Set pixel_offsets in a --profile."
        )
        return np.zeros((len(beams), 2))
    if len(given) != len(beams):
        raise ImportFormatError(
            f"the profile gives pixel_offsets of {len(given)} pixels, {log.path} has {len(beams)} beams "
            f"({', '.join(map(str, beams))})."
        )
    return np.array(given, dtype=np.float64)


def _warn(text: str) -> None:
    warnings.warn(text, GpucalWarning, stacklevel=4)
