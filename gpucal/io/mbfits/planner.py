"""The plan of one scan: what each of its bands holds, what is wrong with it, and how it is read.

What planning learned is forgotten and read again when the scan is written: a folder of a year fits into memory.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpucal.errors import ImportFormatError
from gpucal.io.fits.units import Unit
from gpucal.io.incoming.assumptions import Assumptions
from gpucal.io.incoming.landing import check_values
from gpucal.io.incoming.protocol import Lost, Request
from gpucal.io.incoming.scan_parts import ScanParts
from gpucal.io.l0.write import GroupArrays
from gpucal.io.mbfits.attributes import band_attributes, is_horizontal, scan_attributes
from gpucal.io.mbfits.axis import axis_of
from gpucal.io.mbfits.clock import Clock
from gpucal.io.mbfits.counts import layout_of
from gpucal.io.mbfits.dataset import Dataset, Key, SubscanTables, known, read_dataset
from gpucal.io.mbfits.dumps import dumps_of
from gpucal.io.mbfits.feeds import feeds_of
from gpucal.io.mbfits.groups import Around, Band, filled, group_of
from gpucal.io.mbfits.modes import KINDS, LOADS, REFERENCES, Observed, Sorted, Subscan, sorted_out
from gpucal.io.mbfits.monitor import air_of, load_temperature, monitored, names_for
from gpucal.io.mbfits.night import NightScan, kind_of
from gpucal.physics.doppler import LIGHT

DIAMETER_M = 12.0
Serving = Callable[[NightScan, Band], int]
"""(scan, band) -> number of the calibration scan that serves it, -1 for none."""


@dataclass(eq=False)
class MbfitsParts(ScanParts):
    """The parts of a scan, and its tables."""

    dataset: Dataset | None = None

    def close(self) -> None:
        """Let go of the files."""
        if self.dataset is not None:
            self.dataset.close()

    def lose(self, number: int, band: str, error: ImportFormatError) -> None:
        """Add an error once, however many bands it concerns."""
        error.locate(scan=number, band=band)
        if all(error.message != x.error.message for x in self.lost):
            self.lost.append(Lost(number, band, error))

    def remark(self, *sentences: str) -> None:
        """Add sentences that are not there yet."""
        self.problems += [s for s in dict.fromkeys(sentences) if s not in self.problems]


def band_name(key: Key) -> str:
    """band_<febe>_<baseband>, in lower case, other characters than letters and digits as one underscore."""
    return f"band_{re.sub(r'[^a-z0-9]+', '_', key[0].lower()).strip('_')}_{key[1]}"


class Planner:
    """Makes the parts of scans."""

    def __init__(self, request: Request) -> None:
        self._request = request

    def parts(self, scan: NightScan, serving: Serving) -> tuple[MbfitsParts, Assumptions]:
        """Read the headers, times and pointing of a scan; the parts have no groups where nothing can be used."""
        assumed = Assumptions(self._request.profile)
        parts = MbfitsParts()
        try:
            parts.dataset = read_dataset(scan.lead)
            _ScanReader(scan, parts.dataset, parts, assumed, serving).read()
        except ImportFormatError as error:
            parts.lose(scan.number, "", error)
        return parts, assumed


class _ScanReader:
    """Reads one scan band by band into its parts."""

    def __init__(
        self,
        scan: NightScan,
        dataset: Dataset,
        parts: MbfitsParts,
        assumed: Assumptions,
        serving: Serving,
    ) -> None:
        self._scan, self._dataset, self._parts = scan, dataset, parts
        self._assumed, self._serving = assumed, serving
        self._clock = Clock(dataset, assumed)
        self._points = dict[int, Any]()

    def read(self) -> None:
        """All bands; those that cannot be used are lost."""
        for error in self._dataset.troubles:
            self._parts.lose(self._scan.number, "", error)
        tables = self._usable()
        if not tables:
            if not self._parts.lost:
                raise ImportFormatError(
                    f"{self._dataset.lead} has no subscan that was not aborted."
                )
            return
        made: list[tuple[Band, Sorted]] = []
        for key in self._spectral(tables):
            name = band_name(key)
            try:
                made.append(self._band(key, tables))
            except ImportFormatError as error:
                self._parts.lose(self._scan.number, name, error)
        if made:
            bands = [band for band, _ in made]
            kinds = made[0][1]
            self._parts.attrs = scan_attributes(self._dataset, kinds, self._clock, bands)
            self._parts.kind = self._dataset.scan.text("SCANTYPE") or kinds.procedure
            self._remark_scan(kinds)

    def _remark_scan(self, kinds: Sorted) -> None:
        """What is doubtful of the scan as a whole."""
        dataset, parts = self._dataset, self._parts
        if parts.attrs.get("complete") is False:
            several = 2 if kinds.switch == "frequency" else 1
            planned = parts.attrs["n_subscans_planned"] // several
            parts.remark(f"{len(dataset.subscans)} of {planned} subscans (NSUBS): --partial")
        pointing = kinds.procedure == "pointing" and kinds.source
        if pointing and not is_horizontal(dataset, kinds.source[0]):
            parts.remark("the offsets of the pointing are not along azimuth and elevation")

    def _usable(self) -> list[SubscanTables]:
        """The subscans of a kind that is known; aborted ones are left out unless the profile takes them."""
        found = []
        for number, tables in self._dataset.subscans.items():
            kind = kind_of(self._dataset, number).upper()
            if not tables.arrays:
                self._lose_subscan(number, f"has no counts (ARRAYDATA-MBFITS) of subscan {number}.")
                continue
            if kind not in (*LOADS, *REFERENCES, "ON"):
                said = repr(kind) if kind else "not told"
                self._lose_subscan(
                    number,
                    f"has a subscan {number} whose kind is {said}, expected {KINDS} (SUBSTYPE, in old files OBSTYPE).",
                )
                continue
            if any(p.text("OBSTATUS").upper() == "ABORT" for p in tables.datapars.values()):
                why = "OBSTATUS is ABORT"
                if self._assumed.take("aborted", "leave out", why) == "leave out":
                    self._parts.remark(f"subscan {number} was aborted and is left out")
                    continue
            found.append(tables)
        return found

    def _spectral(self, tables: Sequence[SubscanTables]) -> list[Key]:
        """FEBE and baseband of all counts but those of continuum backends beside them, which have no frequencies."""
        keys = self._dataset.keys
        plain = []
        for key in keys:
            units = [t.arrays[key] for t in tables if key in t.arrays]
            axes = [u.number(k, 0.0) for u in units for k in ("1CRVL2S", "1CRVL2F")]
            one = all(u.number("CHANNELS", 0.0) == 1 for u in units)
            if one and not any(a != 0.0 and known(a) for a in axes):
                plain.append(key)
        if len(plain) == len(keys):
            return keys
        self._parts.remark(
            *(f"{f}, baseband {n}, has one channel without a frequency: left out" for f, n in plain)
        )
        return [key for key in keys if key not in plain]

    def _lose_subscan(self, number: int, sentence: str) -> None:
        error = ImportFormatError(f"{self._dataset.lead} {sentence}", subscan=number)
        self._parts.lose(self._scan.number, "", error)

    def _band(self, key: Key, tables: Sequence[SubscanTables]) -> tuple[Band, Sorted]:
        """One band; ImportFormatError when nothing of it can be used."""
        dataset, parts, number = self._dataset, self._parts, self._scan.number
        if key[0] not in dataset.febes:
            there = ", ".join(dataset.febes)
            raise ImportFormatError(
                f"{dataset.lead} has counts of {key[0]!r} (FEBE), but FEBEPAR-MBFITS of {there} alone."
            )
        units = {t.number: t.arrays[key] for t in tables if key in t.arrays}
        for t in tables:
            if key not in t.arrays:
                self._lose_subscan(
                    t.number,
                    f"has no counts of {key[0]}, baseband {key[1]}, in subscan {t.number}.",
                )
        layout, errors = layout_of(dataset, units, self._assumed)
        feeds = feeds_of(dataset, key, layout.width, self._assumed)
        subscans, axes = [], {}
        for t in tables:
            if t.number not in units:
                continue
            try:
                if t.number in errors:
                    raise errors[t.number]
                axes[t.number] = axis_of(dataset, units[t.number], self._assumed)
                subscans.append(self._subscan(t, key))
            except ImportFormatError as error:
                errors[t.number] = error
        if not subscans:
            raise next(iter(errors.values()))
        for lost in errors.values():
            parts.lose(number, band_name(key), lost)
        subscans.sort(key=lambda s: float(s.dumps.mjd.mean()))
        axis = axes[subscans[0].number]
        kinds = sorted_out(
            dataset, dataset.febes[key[0]], subscans, self._beam(axis.signal), self._assumed
        )
        parts.remark(*kinds.remarks)
        around = filled({s.number: self._around(s.number, key) for s in subscans})
        band = Band(band_name(key), key, layout, feeds, axes, units, around, self._sums(subscans))
        self._groups(band, kinds)
        return band, kinds

    def _subscan(self, tables: SubscanTables, key: Key) -> Subscan:
        dumps = dumps_of(self._dataset, tables, key, self._clock, self._assumed)
        alone, blank = dumps.left_out
        for n, why in ((alone, "have no row in DATAPAR"), (blank, "have no time")):
            if n:
                self._parts.remark(f"{n} dumps of subscan {tables.number} {why}")
        pars = tables.datapars[key[0]]
        words = {}
        for n in range(1, 9):
            word = pars.text(f"PHASE{n}") or self._dataset.scan.text(f"PHASE{n}")
            if word and word.upper() != "NONE":
                words[n] = word.upper()
        kind = kind_of(self._dataset, tables.number).upper()
        mode = (pars.text("SCANMODE") or self._dataset.scan.text("SCANMODE")).upper()
        return Subscan(tables.number, kind, mode, words, dumps, pars)

    def _beam(self, sky_hz: float) -> float:
        """Width of the beam, deg."""
        diameter = self._dataset.scan.number("DIAMETER", DIAMETER_M)
        diameter = diameter if known(diameter) and diameter > 1.0 else DIAMETER_M
        return float(np.rad2deg(1.166 * LIGHT / sky_hz / diameter))

    def _sums(self, subscans: Sequence[Subscan]) -> bool:
        """Whether DATA are to be divided by the lengths of the dumps."""
        lengths = np.concatenate([s.dumps.length for s in subscans])
        why = "whether DATA are means or sums over a dump is not said"
        if float(lengths.max()) > 1.01 * float(lengths.min()):
            said = f"dumps last {lengths.min():g} to {lengths.max():g} s"
            why += f", and {said}"
            remark = f"{said}: DATA are taken for means over a dump (counts)"
            if self._assumed.set_or_noted("counts", "mean", why) is None:
                self._parts.remark(remark)
        return str(self._assumed.take("counts", "mean", why)) == "sum"

    def _around(self, number: int, key: Key) -> Around:
        """Air and loads of a subscan: its monitor points, with those of the profile in their place."""
        unit: Unit | None = self._dataset.subscans[number].monitor
        if number not in self._points:
            try:
                self._points[number] = monitored(unit)
            finally:
                self._dataset.rest(unit)
        points = self._points[number]
        loads = []
        for which in ("hot", "cold"):
            given = self._assumed.set_or_noted(
                f"t_{which}", "monitor points", "THOTCOLD_...", receiver=key[0]
            )
            told = load_temperature(points, which, names_for(self._dataset, key), self._assumed)
            loads.append(told if given is None else float(given))
        return Around(air_of(points, self._assumed), *loads)

    def _groups(self, band: Band, kinds: Sorted) -> None:
        """Put the groups of a band into the parts; ImportFormatError where they cannot be read again."""
        parts, dataset = self._parts, self._dataset
        members: dict[str, GroupArrays] = {}
        hot = any(o.mode == "HOT" for o in kinds.loads)
        for name, observed in (("source", kinds.source), ("calibration", kinds.loads)):
            if not observed:
                continue
            if name == "calibration" and not hot:
                if kinds.source:
                    continue
                there = ", ".join(sorted({o.mode for o in observed}))
                raise ImportFormatError(
                    f"{dataset.lead} has no HOT among its {len(observed)} subscans of loads ({there}), without which "
                    "nothing can be calibrated.",
                )
            self._check_image(band, observed[0])
            group = group_of(dataset, band, kinds, observed, self._assumed)
            if name == "source":
                served = self._scan.number if hot else self._serving(self._scan, band)
                group.arrays["lloadsn"] = np.full(group.shape[4], served, np.int32)  # type: ignore[index]
                if served < 0:
                    parts.remark(f"no calibration scan for {band.name}")
            if not (name == "source" and kinds.procedure in ("pointing", "focus")):
                check_values(group, loads=name == "calibration", t_hot_given=True)
            members[name] = group
        if not members:
            raise ImportFormatError(f"{dataset.lead} holds no subscan on the sky and no loads.")
        lead: Observed = (kinds.source or kinds.loads)[0]
        self._remark_missing(band, kinds)
        parts.groups[band.name] = members
        parts.backends[band.name] = (
            f"{band.key[0]} {band.axes[lead.subscan.number].sideband}".strip()
        )
        parts.band_attrs[band.name] = band_attributes(dataset, band, lead, self._assumed)

    def _check_image(self, band: Band, observed: Observed) -> None:
        axis = band.axes[observed.subscan.number]
        if axis.image is None and band.feeds.gain_image != 0.0:
            raise ImportFormatError(
                f"{band.units[observed.subscan.number].place} has no axis of the image sideband (1CRVL2J), nor "
                "SIDEBAND and SBSEP, from which it follows.",
                hint="Set gain_image = 0 in a --profile for a receiver without image.",
            )

    def _remark_missing(self, band: Band, kinds: Sorted) -> None:
        febe, said = band.key[0], []
        for value, what, option in (
            (band.feeds.f_eff, "forward efficiency", "--f-eff"),
            (band.feeds.gain_image, "gain of the image sideband", "--gain-image"),
        ):
            if value is None:
                said.append(f"{what} of {febe} not known: {option}")
        for mode, word, option in (("HOT", "hot", "--t-hot"), ("COLD", "cold", "--t-cold")):
            mine = [band.around[o.subscan.number] for o in kinds.loads if o.mode == mode]
            if any(not np.isfinite(getattr(x, word)) for x in mine):
                said.append(f"temperature of the {word} load of {febe} not known: {option}")
        self._parts.remark(*said)
