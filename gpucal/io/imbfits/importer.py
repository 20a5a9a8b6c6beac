"""Import IMBFITS files of the IRAM 30m telescope (HERA, EMIR). Source: docs/reference/imbfits.md."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from gpucal.errors import ConfigError, ImportFormatError
from gpucal.io.imbfits.axis import REFERENCES, Spectrum
from gpucal.io.imbfits.file import NAME
from gpucal.io.imbfits.night import CAL_RULES, NightScan, calibrations_for, scans_of
from gpucal.io.imbfits.planner import Planner, ScanParts, common_attributes, quiet_parts
from gpucal.io.incoming.assumptions import Assumptions
from gpucal.io.incoming.glimpse import Glimpse
from gpucal.io.incoming.landing import digest_of, is_same, writer_of
from gpucal.io.incoming.profile import ANTENNA_SHIFT, COMMON, PIXEL_OFFSETS, ProfileKey
from gpucal.io.incoming.protocol import (
    ImportPlan,
    Lost,
    PlannedBand,
    PlannedScan,
    RawFormat,
    Request,
    ScanContent,
    nbytes_of,
    planned_band,
    root_attrs,
)

TELESCOPE, INSTRUMENT = "IRAM-30M", "IMBFITS"
SITE = {"lat_deg": 37.0684132670517, "lon_deg": -3.39875641986850, "alt_m": 2851.5}


class ImbfitsFormat(RawFormat):
    """IMBFITS files: one for each scan and backend; the files of a scan become its bands."""

    name = "imbfits"
    title = "IMBFITS files of the IRAM 30m telescope"
    options = ("antenna_shift", "cal")
    profile_keys: Mapping[str, ProfileKey] = {
        **COMMON,
        "antenna_shift_s": ANTENNA_SHIFT,
        "pixel_offsets": PIXEL_OFFSETS,
        "rotation_sign": ProfileKey("sense of the derotator's angle", choices=(1, -1)),
        "if_sign": ProfileKey("sign of the IF of the chunks", choices=(1, -1)),
        "reference_channel": ProfileKey("channel of a chunk that has REFFREQ", choices=REFERENCES),
        "sideband": ProfileKey("sideband of the receiver", choices=("LSB", "USB")),
        "doppler_factor": ProfileKey("sky frequency over rest frequency", limits=(0.99, 1.01)),
        "frqoff_unit": ProfileKey("unit of FRQOFF", choices=("MHz", "GHz")),
        "frqoff_sign": ProfileKey("sign of FRQOFF on the sky", choices=(1, -1)),
        "phase_on_source": ProfileKey("phase of the wobbler on the source", choices=(1, 2)),
        "projection_offset": ProfileKey(
            "the offset in the table of IMBF-scan", choices=("add", "included")
        ),
    }

    def probe(self, glimpse: Glimpse) -> bool:
        """By IMBFTSVE in the primary header; a damaged file by its name."""
        return "IMBFTSVE" in glimpse.cards or NAME.search(glimpse.path.name) is not None

    def plan(self, request: Request) -> ImportPlan:
        """Options: ``antenna_shift`` (s), ``cal`` ("earlier" or "nearest")."""
        rule = str(request.options.get("cal") or CAL_RULES[0])
        if rule not in CAL_RULES:
            raise ConfigError(f"--cal is {rule!r}, expected {' or '.join(CAL_RULES)}.")
        files = self.files(request)
        lost: list[Lost] = []
        night = scans_of(files, request.index, lost)
        wanted = _chosen(night, request.scans, lost)
        if request.scans is not None:
            lost = [one for one in lost if one.scan is None or one.scan in request.scans]
        plan = _Plan(request, night, rule)
        scans = [made for scan in wanted if (made := plan.scan(scan)) is not None]
        lost += plan.lost
        if not scans and not lost:
            raise ImportFormatError("no file was given, expected at least one.")
        root = root_attrs(telescope=TELESCOPE, instrument=INSTRUMENT, site=SITE)
        return ImportPlan(root, sorted(scans, key=lambda s: s.number), lost, files)


IMBFITS = ImbfitsFormat()


def _chosen(
    night: Sequence[NightScan], wanted: Collection[int] | None, lost: Sequence[Lost]
) -> Sequence[NightScan]:
    """The scans asked for, by the telescope's number or by the one in the store."""
    if wanted is None:
        return night
    chosen = [s for s in night if s.scan in wanted or s.number in wanted]
    if not chosen and not any(one.scan in wanted for one in lost):
        there = ", ".join(str(s.number) for s in night[:8]) or "none"
        raise ImportFormatError(f"none of the scans asked for is in the files, which hold {there}.")
    return chosen


class _Plan:
    """Plans the scans of a night; which calibration scans are usable is found out once."""

    def __init__(self, request: Request, night: Sequence[NightScan], rule: str) -> None:
        # an option that is not given is the same as its default
        shift = request.options.get("antenna_shift")
        self._request = replace(request, options={"antenna_shift": shift, "cal": rule})
        self._rule = rule
        self._loads = [s for s in night if any(f.is_load for f in s.files.values())]
        self._usable: dict[int, dict[str, PlannedBand]] = {}
        self._planner = Planner(request)
        self.lost: list[Lost] = []

    def scan(self, scan: NightScan) -> PlannedScan | None:
        """One scan; what cannot be used is added to ``lost``."""
        chosen: dict[tuple[str, str], int] = {}

        def serving(scan: NightScan, backend: str, spectrum: Spectrum) -> int:
            key = (backend, spectrum.name)
            if key not in chosen:
                chosen[key] = self._serving(scan, backend, spectrum)
            return chosen[key]

        parts, assumed = self._planner.parts(scan, serving)
        parts.close()
        self.lost += parts.lost
        bands = _shown(parts)
        if scan in self._loads:
            self._usable[scan.number] = {b.band: b for b in bands}
        if not parts.groups:
            return None
        paths = [f.path for f in scan.files.values()]
        pairing = sorted((*key, number) for key, number in chosen.items())
        identity = digest_of(paths, self._request, scan.number, pairing)
        return PlannedScan(
            scan.number,
            self._writer(scan, parts, serving, assumed, identity),
            bands,
            kind=parts.kind,
            source=str(parts.attrs.get("source", "")),
            origin=str(scan.lead.path),
            nbytes=sum(nbytes_of(g) for m in parts.groups.values() for g in m.values()),
            problems=tuple(parts.problems),
            same_as=is_same(identity),
        )

    def _writer(
        self,
        scan: NightScan,
        planned: ScanParts,
        serving: Any,
        assumed: Assumptions,
        identity: str,
    ) -> Any:
        """The ``write`` of a scan, which reads the headers again."""
        attrs = dict(planned.attrs)
        expected = {name: [g.shape for g in m.values()] for name, m in planned.groups.items()}
        again: list[ScanParts] = []

        def read() -> ScanContent:
            parts, _ = quiet_parts(self._planner, scan, serving)
            again.append(parts)
            shapes = {name: [g.shape for g in m.values()] for name, m in parts.groups.items()}
            if shapes != expected:
                raise ImportFormatError(
                    f"{scan.lead.path} has changed since the import began.", hint="Import again."
                )
            common = common_attributes(parts.band_attrs)
            return ScanContent(attrs | common, parts.groups, parts.band_attrs)

        def done() -> None:
            for parts in again:
                parts.close()
            again.clear()

        return writer_of(scan.number, read, identity=identity, assumptions=assumed, done=done)

    def _serving(self, scan: NightScan, backend: str, spectrum: Spectrum) -> int:
        """The first calibration scan that may serve a band and can be used."""
        receiver = spectrum.tuning.name
        for load in calibrations_for(scan, backend, receiver, self._loads, self._rule):
            if load.number not in self._usable:
                parts, _ = quiet_parts(self._planner, load, lambda *_: -1)
                parts.close()
                self._usable[load.number] = {b.band: b for b in _shown(parts)}
            band = self._usable[load.number].get(spectrum.name)
            if band is not None and "HOT" in band.loads and band.shape[0] == spectrum.channels:
                return load.number
        return -1


def _shown(parts: ScanParts) -> tuple[PlannedBand, ...]:
    return tuple(
        replace(planned_band(name, members), backend=parts.backends[name])
        for name, members in parts.groups.items()
    )
