"""The plan of one scan: what each of its backends holds, what is wrong with it, and how it is read.

What planning learned is forgotten and read again when the scan is written: a folder of a year fits into memory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from gpucal.errors import ImportFormatError
from gpucal.io.imbfits.attributes import band_attributes, scan_attributes
from gpucal.io.imbfits.axis import Spectrum, spectra_of
from gpucal.io.imbfits.chunks import BackendLayout, layout_of
from gpucal.io.imbfits.dumps import DAY_S, dumps_of
from gpucal.io.imbfits.file import ImbFile, read_file
from gpucal.io.imbfits.groups import doppler_of, group_of, weather_of
from gpucal.io.imbfits.modes import LOADS, Observed, Sorted, Subscan, sorted_out
from gpucal.io.imbfits.night import FileFacts, NightScan
from gpucal.io.imbfits.pointing import trace_of
from gpucal.io.imbfits.tuning import tunings_of
from gpucal.io.incoming.assumptions import Assumptions
from gpucal.io.incoming.landing import check_values
from gpucal.io.incoming.protocol import Lost, Request
from gpucal.io.incoming.scan_parts import ScanParts
from gpucal.io.l0.write import GroupArrays

DIAMETER_M = 30.0
LIGHT = 299792458.0
Serving = Callable[[NightScan, str, Spectrum], int]
"""(scan, backend, band) -> number of the calibration scan that serves it, -1 for none."""


@dataclass(eq=False)
class ImbParts(ScanParts):
    """The parts of a scan, and the files to close."""

    files: list[ImbFile] = field(default_factory=list)

    def close(self) -> None:
        """Let go of the files."""
        for file in self.files:
            file.fits.close()


class Planner:
    """Makes the parts of scans."""

    def __init__(self, request: Request) -> None:
        self._request = request

    def parts(self, scan: NightScan, serving: Serving) -> tuple[ImbParts, Assumptions]:
        """Read the headers, traces and times of a scan; the parts have no groups where nothing can be used."""
        assumed = Assumptions(self._request.profile)
        parts = ImbParts()
        for facts in scan.files.values():
            try:
                self._add(scan, facts, parts, serving, assumed)
            except ImportFormatError as error:
                parts.lost.append(Lost(scan.number, "", _placed(error, scan.number)))
        return parts, assumed

    def _add(
        self,
        scan: NightScan,
        facts: FileFacts,
        parts: ImbParts,
        serving: Serving,
        assumed: Assumptions,
    ) -> None:
        """Add the bands of one file."""
        file = read_file(facts.path)
        parts.files.append(file)
        layout = layout_of(file, assumed)
        tunings = tunings_of(file, assumed)
        spectra, broken = spectra_of(layout, tunings, file.backend, assumed)
        for name, error in broken:
            parts.lost.append(Lost(scan.number, name, _placed(error, scan.number, name)))
        if not spectra:
            return
        subscans = self._subscans(file, layout, scan.number, parts, assumed)
        beam = np.rad2deg(1.166 * LIGHT / spectra[0].tuning.rest / DIAMETER_M)
        kinds = sorted_out(file, subscans, float(beam), assumed)
        parts.problems += [r for r in kinds.remarks if r not in parts.problems]
        found = scan_attributes(file, kinds)
        parts.attrs = parts.attrs or found
        parts.kind = parts.kind or file.obstype
        for spectrum in spectra:
            try:
                self._band(scan, file, layout, spectrum, kinds, parts, serving, assumed)
            except ImportFormatError as error:
                name = spectrum.name
                parts.lost.append(Lost(scan.number, name, _placed(error, scan.number, name)))

    def _subscans(
        self,
        file: ImbFile,
        layout: BackendLayout,
        number: int,
        parts: ImbParts,
        assumed: Assumptions,
    ) -> list[Subscan]:
        """The subscans that can be used; of the others each is lost with its sentence.

        Raises the first of these when none can.
        """
        found: list[Subscan] = []
        errors: list[ImportFormatError] = []
        for tables in file.subscans.values():
            try:
                if tables.data is None:
                    raise ImportFormatError(
                        f"{file.path} has no counts of subscan {tables.number} (IMBF-backend...).",
                        subscan=tables.number,
                    )
                trace = trace_of(file, tables, self._shift(assumed), assumed)
                trace = replace(trace, doppler=doppler_of(trace, tables.number, assumed))
                made = Subscan(tables, trace, dumps_of(tables, layout, assumed))
                found.append(self._covered(made, parts))
            except ImportFormatError as error:
                errors.append(_placed(error, number))
        if not found:
            raise errors[0]
        parts.lost += [Lost(number, "", error) for error in errors]
        return sorted(found, key=lambda s: float(s.dumps.mjd.mean()))

    def _shift(self, assumed: Assumptions) -> float:
        given = self._request.options.get("antenna_shift")
        if given is not None:
            return float(given)
        why = "whether the clocks of antenna and backend agree is not told"
        return float(assumed.take("antenna_shift_s", 0.0, why))

    def _covered(self, s: Subscan, parts: ImbParts) -> Subscan:
        """The subscan without dumps of which the trace does not tell where the telescope was."""
        trace, dumps = s.trace, s.dumps
        known = trace.near(dumps.mjd) if s.kind in LOADS else trace.covers(dumps.mjd)
        bad, outside = dumps.left_out
        if not known.any():
            raise ImportFormatError(
                f"the trace of the antenna (IMBF-antenna) in subscan {s.number} covers none of its {dumps.n} dumps: it "
                f"lies {(trace.mjd.mean() - dumps.mjd.mean()) * DAY_S:+.1f} s from them.",
                hint="Shift it: --antenna-shift SECONDS.",
                subscan=s.number,
            )
        gone = int((~known).sum())
        for n, why in ((bad, "bad (ISWITCH 0)"), (outside, "outside the subscan")):
            if n:
                parts.problems.append(f"{n} dumps of subscan {s.number} are {why}")
        if gone:
            parts.problems.append(
                f"{gone} dumps of subscan {s.number} are outside the trace of the antenna (--antenna-shift)"
            )
        return Subscan(s.tables, trace, dumps.only(known))

    def _band(
        self,
        scan: NightScan,
        file: ImbFile,
        layout: BackendLayout,
        spectrum: Spectrum,
        kinds: Sorted,
        parts: ImbParts,
        serving: Serving,
        assumed: Assumptions,
    ) -> None:
        members: dict[str, GroupArrays] = {}
        weather = weather_of(file, assumed)
        hot_given = True
        for name, observed in (("source", kinds.source), ("calibration", kinds.loads)):
            if not observed:
                continue
            if name == "calibration" and not any(o.mode == "HOT" for o in observed):
                if kinds.source:
                    continue
                raise ImportFormatError(
                    f"{file.path} has no calAmbient among its {len(observed)} subscans of loads "
                    f"({', '.join(sorted({o.subscan.trace.kind for o in observed}))}), without which nothing can be "
                    "calibrated.",
                )
            group = group_of(file, layout, spectrum, observed, weather, assumed)
            if name == "source":
                self._check_science(spectrum, kinds)
                own = any(o.mode == "HOT" for o in kinds.loads)
                number = scan.number if own else serving(scan, file.backend, spectrum)
                group.arrays["lloadsn"] = np.full(group.shape[4], number, np.int32)  # type: ignore[index]
                if number < 0:
                    parts.problems.append(f"no calibration scan for {spectrum.name}")
            if not (name == "source" and kinds.procedure in ("pointing", "focus")):
                check_values(group, loads=name == "calibration", t_hot_given=hot_given)
            members[name] = group
        if not members:
            raise ImportFormatError(f"{file.path} holds no subscan on the sky and no loads.")
        self._problems(spectrum, kinds, parts)
        parts.groups[spectrum.name] = members
        parts.backends[spectrum.name] = f"{spectrum.tuning.name} {spectrum.band}".strip()
        lead: Observed = (kinds.source or kinds.loads)[0]
        parts.band_attrs[spectrum.name] = band_attributes(file, spectrum, lead)

    def _check_science(self, spectrum: Spectrum, kinds: Sorted) -> None:
        if kinds.switch == "frequency" and spectrum.tuning.throws == (0.0, 0.0):
            raise ImportFormatError(
                f"it was observed with frequency switching, but FRQOFF1 and FRQOFF2 of {spectrum.tuning.name} are 0 or "
                "missing (IMBF-frontend).",
            )

    def _problems(self, spectrum: Spectrum, kinds: Sorted, parts: ImbParts) -> None:
        tuning = spectrum.tuning
        said = []
        for value, what, option in (
            (tuning.f_eff, "forward efficiency", "--f-eff"),
            (tuning.gain_image, "gain of the image sideband", "--gain-image"),
        ):
            if value is None:
                said.append(f"{what} of {tuning.name} not known: {option}")
        modes = {o.mode for o in kinds.loads}
        if "HOT" in modes and not np.isfinite(tuning.t_hot):
            said.append(f"temperature of the hot load of {tuning.name} not known: --t-hot")
        if "COLD" in modes and not np.isfinite(tuning.t_cold):
            said.append(f"temperature of the cold load of {tuning.name} not known: --t-cold")
        parts.problems += [s for s in said if s not in parts.problems]


def _placed(error: ImportFormatError, number: int, band: str = "") -> ImportFormatError:
    error.locate(scan=number, band=band)
    return error
