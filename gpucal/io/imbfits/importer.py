"""Import IMBFITS files of the IRAM 30m telescope (HERA, EMIR). Source: docs/reference/imbfits.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

from gpucal.errors import ConfigError, ImportFormatError
from gpucal.io.imbfits.axis import REFERENCES, Spectrum
from gpucal.io.imbfits.file import NAME
from gpucal.io.imbfits.night import CAL_RULES, NightScan, calibrations_for, scans_of
from gpucal.io.imbfits.planner import ImbParts, Planner, Serving
from gpucal.io.incoming.glimpse import Glimpse
from gpucal.io.incoming.landing import digest_of
from gpucal.io.incoming.profile import ANTENNA_SHIFT, COMMON, PIXEL_OFFSETS, ProfileKey
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
        wanted = chosen_scans(night, request.scans, lost)
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
        if scan in self._loads:
            self._usable[scan.number] = {b.band: b for b in parts.bands()}
        if not parts.groups:
            return None
        paths = [f.path for f in scan.files.values()]
        pairing = sorted((*key, number) for key, number in chosen.items())
        identity = digest_of(paths, self._request, scan.number, pairing)
        read = partial(self._read, scan, serving)
        return planned_scan(scan.number, str(scan.lead.path), parts, read, assumed, identity)

    def _read(self, scan: NightScan, serving: Serving) -> ImbParts:
        """The parts of a scan; their files are to be closed."""
        return self._planner.parts(scan, serving)[0]

    def _serving(self, scan: NightScan, backend: str, spectrum: Spectrum) -> int:
        """The first calibration scan that may serve a band and can be used."""
        receiver = spectrum.tuning.name
        for load in calibrations_for(scan, backend, receiver, self._loads, self._rule):
            if load.number not in self._usable:
                parts = read_quietly(partial(self._read, load, lambda *_: -1))
                parts.close()
                self._usable[load.number] = {b.band: b for b in parts.bands()}
            band = self._usable[load.number].get(spectrum.name)
            if band is not None and "HOT" in band.loads and band.shape[0] == spectrum.channels:
                return load.number
        return -1
