"""The planned scans of one SAM45 log: what each holds, what is wrong with it, and how it is read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gpucal.errors import ImportFormatError
from gpucal.io.incoming.assumptions import Assumptions
from gpucal.io.incoming.landing import check_values, digest_of, is_same, writer_of
from gpucal.io.incoming.protocol import (
    Lost,
    PlannedBand,
    PlannedScan,
    Request,
    ScanContent,
    nbytes_of,
    planned_band,
)
from gpucal.io.l0.write import GroupArrays
from gpucal.io.sam45.arrays import LogParts, group_of
from gpucal.io.sam45.attributes import band_attributes, scan_attributes
from gpucal.io.sam45.bands import Band, sky_axis
from gpucal.io.sam45.counts import lost_dumps
from gpucal.io.sam45.segments import Segment

Groups = dict[str, dict[str, GroupArrays]]
FASTEST = 1e8
"""A third of the speed of light: more is no velocity of an antenna towards a source."""
KINDS = {"otf": "OTF", "position": "PSW", "frequency": "FSW"}


class Planner:
    """Makes the scans of one log."""

    def __init__(
        self,
        parts: LogParts,
        bands: Sequence[Band],
        request: Request,
        assumed: Assumptions,
        used: Sequence[Path],
    ) -> None:
        """used: the files beside the log that matter."""
        self._parts, self._bands, self._assumed = parts, bands, assumed
        self._files = [parts.log.path, *used]
        self._request = request
        why = "whether dant_vel counts away from the source is not said"
        self._velocity_sign = int(assumed.take("velocity_sign", 1, why))
        self._switch_sign = 1
        if parts.how == "frequency":
            why = "the sign of dsw_freq in the second phase is not said"
            self._switch_sign = int(assumed.take("switch_sign", 1, why))
        double = {band.lead.sideband for band in bands} == {"DSB"}
        image = 1.0 if double else 0.0
        self._attrs = {
            "f_eff": assumed.take("f_eff", 1.0, "the log has no forward efficiency"),
            "gain_image": assumed.take("gain_image", image, "the log has no sideband ratio"),
        }

    def scan(self, segment: Segment, lost: list[Lost]) -> PlannedScan | None:
        """One scan; bands that cannot be used are added to ``lost``, None when all of them are."""
        name = "calibration" if segment.loads else "source"
        groups: Groups = {}
        velocity = self._velocity(segment)
        for band in self._bands:
            try:
                self._check_band(segment, band)
                axis = sky_axis(band.lead, velocity, self._switch_sign)
                group = group_of(self._parts, segment, band, axis)
                check_values(group, loads=segment.loads)
                groups[band.name] = {name: group}
            except ImportFormatError as error:
                lost.append(Lost(segment.number, band.name, error.locate(scan=segment.number)))
        return self._planned(segment, groups, velocity) if groups else None

    def _velocity(self, segment: Segment) -> float:
        """Mean of dant_vel over a scan, m/s, with its sign."""
        rows = np.concatenate([self._parts.moments.rows[r.moments] for r in segment.runs])
        values = self._parts.log.heads["dant_vel"][rows[rows >= 0]]
        known = values[np.isfinite(values) & (values != 0.0)]
        return self._velocity_sign * (float(np.mean(known)) if known.size else 0.0)

    def _check_band(self, segment: Segment, band: Band) -> None:
        """Raise ImportFormatError for what makes the counts of a band useless."""
        parts, lead = self._parts, band.lead
        path, number = parts.log.path, segment.number
        ons = [run for run in segment.runs if run.kind == "ON"]
        dumps = sum(run.n for run in ons)
        if ons and lost_dumps(parts.pointing, ons) == dumps:
            raise ImportFormatError(
                f"the {parts.pointing.origin} covers none of the {dumps} dumps on the source.",
                hint="Give the antenna log of the whole observation, or --elevation in deg.",
                scan=number,
            )
        if abs(self._velocity(segment)) > FASTEST:
            raise ImportFormatError(
                f"{path}: dant_vel is {abs(self._velocity(segment)):g} m/s, expected at most {FASTEST:g} m/s.",
                scan=number,
            )
        bare = parts.counts.without_zero(band)
        if len(bare) == len(band.members):
            raise ImportFormatError(
                f"{path} holds no ZERO of {', '.join(a.name for a in bare)}, without which the counts have "
                "an unknown offset.",
                hint='Set zero = "none" in a --profile if it was subtracted before.',
                scan=number,
            )
        if lead.sideband == "DSB" and not lead.intermediate > 0:
            raise ImportFormatError(
                f"{path}: dflif of the DSB array {lead.name} is {lead.intermediate:g} Hz, expected the first IF, "
                "without which the image is not known.",
                scan=number,
            )
        if parts.how == "frequency" and not segment.loads and lead.throw == 0.0:
            raise ImportFormatError(
                f"{path} was observed with frequency switching, but dsw_freq of {lead.name} is 0 Hz.",
                scan=number,
            )

    def _planned(self, segment: Segment, groups: Groups, velocity: float) -> PlannedScan:
        parts, bands = self._parts, [b for b in self._bands if b.name in groups]
        identity = digest_of(self._files, self._request, segment.number)
        attrs = scan_attributes(parts, segment, velocity) | self._attrs
        band_attrs = {b.name: band_attributes(b) for b in bands}

        def read() -> ScanContent:
            return ScanContent(attrs | band_attrs[bands[0].name], groups, band_attrs)

        write = writer_of(
            segment.number,
            read,
            identity=identity,
            assumptions=self._assumed,
            done=parts.log.close,
        )
        return PlannedScan(
            segment.number,
            write,
            tuple(_shown(band, groups[band.name]) for band in bands),
            kind="LOAD" if segment.loads else KINDS[parts.how],
            source=str(attrs["source"]),
            origin=str(parts.log.path),
            nbytes=sum(nbytes_of(g) for members in groups.values() for g in members.values()),
            problems=self._problems(segment, bands, groups),
            same_as=is_same(identity),
        )

    def _problems(self, segment: Segment, bands: Sequence[Band], groups: Groups) -> tuple[str, ...]:
        parts, said = self._parts, list[str]()
        hot = [m["calibration"].arrays["thot"] for m in groups.values() if segment.loads]
        if not all(np.isfinite(t).all() for t in hot):
            said.append("the temperature of R is not known: --t-hot")
        gone = lost_dumps(parts.pointing, segment.runs)
        if gone:
            said.append(f"{gone} dumps outside the {parts.pointing.origin} are blank")
        bare = [a.name for band in bands for a in parts.counts.without_zero(band)]
        if bare:
            said.append(f"no ZERO of {', '.join(bare)}: blank")
        if not segment.loads and segment.load_scan < 0:
            said.append("no R in the log")
        if self._velocity_sign and self._velocity(segment) == 0.0:
            said.append("dant_vel is not recorded: the sky axis is that at rest")
        if not parts.log.layout.closed:
            said.append("the log is cut short")
        return tuple(said)


def _shown(band: Band, members: dict[str, GroupArrays]) -> PlannedBand:
    names = [a.name for a in band.members]
    which = " ".join(names) if len(names) <= 2 else f"{len(names)} arrays"
    return planned_band(
        band.name, members, backend=f"{band.lead.frontend} {band.lead.sideband}, {which}"
    )
