"""Import MBFITS of APEX, Effelsberg and others. Source: docs/reference/mbfits.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

from gpucal.errors import ConfigError, ImportFormatError
from gpucal.io.incoming.glimpse import Glimpse
from gpucal.io.incoming.landing import digest_of
from gpucal.io.incoming.profile import COMMON, PIXEL_OFFSETS, ProfileKey
from gpucal.io.incoming.protocol import (
    ImportPlan,
    Lost,
    PlannedBand,
    PlannedScan,
    RawFormat,
    Request,
    root_attrs,
)
from gpucal.io.incoming.scan_parts import chosen_scans, planned_scan, read_quietly
from gpucal.io.mbfits.clock import STAMPS
from gpucal.io.mbfits.dataset import Dataset, known
from gpucal.io.mbfits.feeds import ROTATIONS
from gpucal.io.mbfits.groups import Band
from gpucal.io.mbfits.night import CAL_RULES, NightScan, calibrations_for, scans_of
from gpucal.io.mbfits.planner import MbfitsParts, Planner, Serving
from gpucal.io.mbfits.roles import is_mbfits

INSTRUMENT = "MBFITS"


class MbfitsFormat(RawFormat):
    """MBFITS scans, each a file or a folder; each FEBE and baseband becomes a band."""

    name = "mbfits"
    title = "MBFITS files of APEX, Effelsberg and others"
    options = ("cal",)
    profile_keys: Mapping[str, ProfileKey] = {
        **COMMON,
        "pixel_offsets": PIXEL_OFFSETS,
        "rotation": ProfileKey("angles that turn the array", choices=ROTATIONS),
        "rotation_sign": ProfileKey("sense of these angles", choices=(1, -1)),
        "time_system": ProfileKey("time system where TIMESYS is missing", choices=("UTC", "TAI")),
        "time_stamp": ProfileKey("where in a dump its MJD is", choices=tuple(STAMPS)),
        "data_order": ProfileKey("what runs fastest in DATA", choices=("channel", "feed")),
        "counts": ProfileKey("what DATA are over a dump", choices=("mean", "sum")),
        "doppler_factor": ProfileKey("sky frequency over rest frequency", limits=(0.05, 1.2)),
        "rest_axis": ProfileKey("whose frame the axis F is in", choices=("source", "frame")),
        "longoff": ProfileKey("what LONGOFF is", choices=("true", "coordinate")),
        "phase_on_source": ProfileKey("phase of the wobbler on the source", choices=(1, 2)),
        "phase_low": ProfileKey("phase with the throw FRTHRWLO", choices=(1, 2)),
        "throw_sign": ProfileKey("sign of FRTHRWLO, FRTHRWHI on the sky", choices=(1, -1)),
        "phase_taken": ProfileKey("phase that alone is taken", choices=(1, 2, 3, 4)),
        "aborted": ProfileKey("aborted subscans", choices=("leave out", "take")),
    }

    def probe(self, glimpse: Glimpse) -> bool:
        """By MBFTSVER or the names of the tables; a damaged file of a folder by its name."""
        return is_mbfits(glimpse)

    def plan(self, request: Request) -> ImportPlan:
        """Options: ``cal`` ("earlier" or "nearest")."""
        rule = str(request.options.get("cal") or CAL_RULES[0])
        if rule not in CAL_RULES:
            raise ConfigError(f"--cal is {rule!r}, expected {' or '.join(CAL_RULES)}.")
        files = self.files(request)
        lost: list[Lost] = []
        night = _one_telescope(scans_of(files, request.index, lost), lost)
        wanted = chosen_scans(night, request.scans, lost)
        if request.scans is not None:
            lost = [one for one in lost if one.scan is None or one.scan in request.scans]
        plan = _Plan(request, night, rule)
        scans = [made for scan in wanted if (made := plan.scan(scan)) is not None]
        lost += plan.lost
        if not scans and not lost:
            raise ImportFormatError("no scan was given, expected at least one.")
        root = root_attrs(telescope=plan.telescope, instrument=INSTRUMENT, site=plan.site)
        return ImportPlan(root, sorted(scans, key=lambda s: s.number), lost, files)


MBFITS = MbfitsFormat()


def _one_telescope(night: Sequence[NightScan], lost: list[Lost]) -> list[NightScan]:
    """The scans of the telescope that has most of them; those of others are lost."""
    names = [s.telescope for s in night]
    usual = max(names, key=names.count, default="")
    for scan in night:
        if scan.telescope != usual:
            error = ImportFormatError(
                f"{scan.lead} is of the telescope {scan.telescope!r}, the other scans are of {usual!r}.",
                hint="Import it into a store of its own.",
                scan=scan.scan,
            )
            lost.append(Lost(scan.scan, "", error))
    return [s for s in night if s.telescope == usual]


class _Plan:
    """Plans the scans of a night; which calibration scans are usable is found out once."""

    def __init__(self, request: Request, night: Sequence[NightScan], rule: str) -> None:
        # an option that is not given is the same as its default
        self._request = replace(request, options={"cal": rule})
        self._rule = rule
        self._loads = [s for s in night if s.is_load]
        self._usable: dict[int, dict[str, PlannedBand]] = {}
        self._planner = Planner(request)
        self.lost: list[Lost] = []
        self.telescope, self.site = "unknown", dict[str, float]()

    def scan(self, scan: NightScan) -> PlannedScan | None:
        """One scan; what cannot be used is added to ``lost``."""
        chosen: dict[str, int] = {}

        def serving(scan: NightScan, band: Band) -> int:
            if band.name not in chosen:
                chosen[band.name] = self._serving(scan, band)
            return chosen[band.name]

        parts, assumed = self._planner.parts(scan, serving)
        parts.close()
        self.lost += parts.lost
        if scan.is_load:
            self._usable[scan.number] = {b.band: b for b in parts.bands()}
        if not parts.groups or parts.dataset is None:
            return None
        if not self.site:
            self.telescope, self.site = parts.dataset.telescope or "unknown", _site(parts.dataset)
        pairing = sorted(chosen.items())
        identity = digest_of(parts.dataset.files, self._request, scan.number, pairing)
        read = partial(self._read, scan, serving)
        return planned_scan(scan.number, str(scan.lead), parts, read, assumed, identity)

    def _read(self, scan: NightScan, serving: Serving) -> MbfitsParts:
        """The parts of a scan; their files are to be closed."""
        return self._planner.parts(scan, serving)[0]

    def _serving(self, scan: NightScan, band: Band) -> int:
        """The first calibration scan that may serve a band and can be used."""
        sky = next(iter(band.axes.values())).signal
        for load in calibrations_for(scan, band.key, sky, self._loads, self._rule):
            if load.number not in self._usable:
                parts = read_quietly(partial(self._read, load, lambda *_: -1))
                parts.close()
                self._usable[load.number] = {b.band: b for b in parts.bands()}
            mine = self._usable[load.number].get(band.name)
            shape = (band.layout.channels, *band.feeds.places.shape)
            if mine is not None and "HOT" in mine.loads and _same(mine, shape):
                return load.number
        return -1


def _same(band: PlannedBand, shape: tuple[int, ...]) -> bool:
    c, _, r, a = band.shape
    return (c, r, a) == shape


def _site(dataset: Dataset) -> dict[str, float]:
    """Where the telescope stands; ImportFormatError where SCAN-MBFITS does not say it."""
    scan = dataset.scan
    values = {
        "lat_deg": scan.number("SITELAT", float("nan")),
        "lon_deg": scan.number("SITELONG", float("nan")),
        "alt_m": scan.number("SITEELEV", float("nan")),
    }
    if not all(known(v) for v in values.values()):
        raise ImportFormatError(
            f"{scan.place} has no SITELAT, SITELONG, SITEELEV, expected where the telescope stands.",
            scan=dataset.number,
        )
    return values
