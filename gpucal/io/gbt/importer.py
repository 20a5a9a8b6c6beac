"""Import GBT spectra (SDFITS) into an L0 store.

Source: the section on SDFITS import of the formats page; GBT Memo 302 for vane and W-band loads.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gpucal.errors import GpucalWarning, ImportFormatError
from gpucal.io.fits.sdfits_read import SdfitsRows
from gpucal.io.gbt.arrays import I64, Layout, PlannedSubscan, build_group
from gpucal.io.gbt.plan import GbtScan, Plan, check_load_spectra, plan_scans
from gpucal.io.gbt.session import session_rows
from gpucal.io.incoming.glimpse import Glimpse
from gpucal.io.incoming.landing import Silent, check_target, check_values, land, writer_of
from gpucal.io.incoming.listing import fits_files
from gpucal.io.incoming.protocol import (
    ImportPlan,
    ImportReport,
    Lost,
    PlannedScan,
    RawFormat,
    Request,
    ScanContent,
    nbytes_of,
    planned_band,
    root_attrs,
)
from gpucal.io.l0.write import GroupArrays

TELESCOPE = "GBT"
LOAD_MISMATCH_K = 25.0
"""A load at room temperature further than this from the air temperature is suspicious."""

_REPORTED = (
    *("OBSMODE", "PROCSEQN", "PROCSIZE", "PROCSCAN", "PROCTYPE", "CALPOSITION", "TWARM", "TCOLD"),
    *("TAMBIENT", "PRESSURE", "HUMIDITY", "OBSERVER", "BACKEND", "FRONTEND", "SAMPLER"),
    *("SIDEBAND", "BANDWID", "CTYPE2", "CTYPE3", "RADESYS"),
    *("VSPDELT", "VSPRVAL", "VSPRPIX"),
)


class GbtFormat(RawFormat):
    """GBT SDFITS: the files of a session make one store, which appears whole or not at all."""

    name = "sdfits"
    title = "SDFITS files of the GBT"
    whole_store = True
    options = ("flags",)

    def probe(self, glimpse: Glimpse) -> bool:
        """An SDFITS table, or a primary header of the GBT, that nobody else claims."""
        if glimpse.extension.get("EXTNAME", "").upper() == "SINGLE DISH":
            return True
        telescope = glimpse.cards.get("TELESCOP", "") + glimpse.cards.get("ORIGIN", "")
        return "GBT" in telescope.upper() or "NRAO" in telescope.upper()

    def plan(self, request: Request) -> ImportPlan:
        """Options: ``flags``, whether the flag files beside the SDFITS files count."""
        return plan_session(request)


GBT = GbtFormat()


def import_sdfits(
    files: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    overwrite: bool = False,
    flags: bool = True,
    scans: Collection[int] | None = None,
    bands: Collection[int] | None = None,
) -> ImportReport:
    """Import the scans of some GBT SDFITS files (one per bank, together one night) as an L0 store.

    ``files`` may be folders (of SDFITS files) and gzipped files. The store appears whole or not at
    all; an import that was interrupted is continued by the same call. With ``overwrite`` an L0 store
    already there is replaced. ``flags``: what the flag files beside the SDFITS files name becomes NaN.
    ``scans``, ``bands``: only these scan numbers of the telescope, these IFNUM. Counts stay as in the
    files (f4 -> f32, [C,D,R,A,S]), spectra of zeros become NaN; the rules are those of ``plan_scans``
    and ``build_group``. A scan or band that does not follow them is lost: it is in the report, the
    others are imported. Raises ImportFormatError when nothing is left, L0Error when ``out`` is in the
    way; warns (GpucalWarning) about scans left out, loads without numbers and load temperatures that
    cannot be right.
    """
    target = Path(out)
    given = [files] if isinstance(files, str | os.PathLike) else files
    check_target(target, whole_store=True, overwrite=overwrite)
    paths = tuple(Path(f) for f in given)
    plan = plan_session(Request(paths, scans, bands, options={"flags": flags}))
    return land(plan, target, whole_store=True, overwrite=overwrite, progress=Silent())


def plan_session(request: Request) -> ImportPlan:
    """All that can be wrong with a session is found here, before anything is written."""
    flags = bool(request.options.get("flags", True))
    paths = fits_files(request.paths)
    rows, used = session_rows(paths, flags=flags, scans=request.scans, bands=request.bands)
    plan, groups = _checked(rows, plan_scans(rows))
    _link_loads(plan.scans, groups)
    rows.forget()
    keys = {"lat_deg": "SITELAT", "lon_deg": "SITELONG", "alt_m": "SITEELEV"}
    site = {name: float(rows[key][0]) for name, key in keys.items() if np.isfinite(rows[key][0])}
    layouts = _layouts(rows)
    chosen = [None if n is None else sorted(n) for n in (request.scans, request.bands)]
    return ImportPlan(
        root=root_attrs(telescope=TELESCOPE, site=site, instrument="+".join(sorted(layouts))),
        scans=[_planned(rows, scan, groups[scan.number], layouts) for scan in plan.scans],
        lost=tuple(plan.lost),
        inputs=(*paths, *used),
        options=repr((flags, chosen)),
    )


Groups = dict[int, dict[str, dict[str, GroupArrays]]]


def _checked(rows: SdfitsRows, plan: Plan) -> tuple[Plan, Groups]:
    """The scans that can be written, with their groups: all that can be wrong is found before."""
    layouts = _layouts(rows)
    groups: Groups = {}
    lost = list(plan.lost)
    kept = []
    for scan in plan.scans:
        try:
            check_load_spectra(rows, scan)
            found, troubles = _bands(rows, scan, layouts)
        except ImportFormatError as error:
            lost.append(Lost(scan.scans[0], "", error.locate(scan=scan.scans[0])))
            continue
        lost += troubles
        if found:
            groups[scan.number] = found
            kept.append(scan)
            _warn_about_loads(rows, scan, found)
    if not kept:
        raise lost[0].error
    return Plan(kept, lost), groups


def _layouts(rows: SdfitsRows) -> dict[str, Layout]:
    """Feeds and polarisations of each receiver over the night, so that all scans match."""
    layouts = {}
    for frontend in np.unique(rows["FRONTEND"]):
        mine = rows["FRONTEND"] == frontend
        feeds, receivers = (np.unique(rows[k][mine]).tolist() for k in ("FDNUM", "PLNUM"))
        layouts[str(frontend)] = Layout(tuple(feeds), tuple(receivers))
    return layouts


def _name(kind: str) -> str:
    """The L0 group of a scan of this kind."""
    return "calibration" if kind == "LOAD" else "source"


def _bands(
    rows: SdfitsRows, scan: GbtScan, layouts: Mapping[str, Layout]
) -> tuple[dict[str, dict[str, GroupArrays]], list[Lost]]:
    """The groups of one scan: "" when the night has one IFNUM, else band_1 for IFNUM 0 etc.; bands lost."""
    several = np.unique(rows["IFNUM"]).size > 1
    groups: dict[str, dict[str, GroupArrays]] = {}
    lost: list[Lost] = []
    for ifnum in np.unique(rows["IFNUM"][scan.rows]).tolist():
        band = f"band_{ifnum + 1}" if several else ""
        try:
            groups[band] = {_name(scan.kind): _band(rows, scan, ifnum, layouts)}
        except ImportFormatError as error:
            lost.append(Lost(scan.scans[0], band, error.locate(scan=scan.scans[0])))
    return groups, lost


def _band(
    rows: SdfitsRows, scan: GbtScan, ifnum: int, layouts: Mapping[str, Layout]
) -> GroupArrays:
    """One band of a scan; ImportFormatError when a part of it is missing or does not fit."""
    parts = [PlannedSubscan(s.mode, s.rows[rows["IFNUM"][s.rows] == ifnum]) for s in scan.subscans]
    # a load scan serves without its SKY: the OFF of the source is then the sky
    parts = [s for s in parts if s.rows.size or s.mode != "SKY"]
    empty = next((s.mode for s in parts if not s.rows.size), None)
    if empty is not None:
        raise ImportFormatError(
            f"IFNUM {ifnum} has no rows for {empty}, expected every band in every part."
        )
    layout = layouts[str(rows["FRONTEND"][parts[0].rows[0]])]
    loads = scan.kind == "LOAD"
    group = build_group(rows, parts, layout, loads=loads)
    check_values(group, loads=loads)
    return group


def _warn_about_loads(
    rows: SdfitsRows, scan: GbtScan, bands: Mapping[str, Mapping[str, GroupArrays]]
) -> None:
    if scan.kind != "LOAD":
        return
    group = next(iter(bands.values()))["calibration"]
    at = list(group.sobsmode).index("HOT")
    hot = float(np.mean(group.arrays["thot"][:, at]))
    air = float(group.arrays["tamb"][at])
    if not np.isfinite(hot):
        text = f"the temperature of the warm load is not recorded (TWARM, {_frontend(rows, scan)})"
    elif abs(hot - air) > LOAD_MISMATCH_K:
        text = f"the warm load is recorded at {hot:.2f} K, the air at {air:.2f} K"
    else:
        return
    warnings.warn(
        f"scan {scan.number}: {text}: give its temperature with --t-hot when calibrating.",
        GpucalWarning,
        stacklevel=3,
    )


def _frontend(rows: SdfitsRows, scan: GbtScan) -> str:
    """The receiver of a scan."""
    return str(rows["FRONTEND"][scan.rows[0]])


def _link_loads(
    planned: Sequence[GbtScan], groups: Mapping[int, dict[str, dict[str, GroupArrays]]]
) -> None:
    """Point lloadsn of each science subscan at the nearest earlier load scan, else the next one."""
    begin = {p.number: p.begin for p in planned}
    loads = sorted((p.number for p in planned if p.kind == "LOAD"), key=begin.__getitem__)
    for scan in planned:
        if scan.kind == "LOAD":
            continue
        for band, members in groups[scan.number].items():
            group = members["source"]
            fits = [
                n
                for n in loads
                if band in groups[n] and _same_setup(group, groups[n][band]["calibration"])
            ]
            earlier = [n for n in fits if begin[n] < scan.begin]
            chosen = earlier[-1] if earlier else (fits[0] if fits else -1)
            arrays = dict(group.arrays)
            arrays["lloadsn"] = np.full(group.shape[4], chosen, dtype=np.int32)
            members["source"] = GroupArrays(group.data_5d, group.sobsmode, arrays)


def _same_setup(science: GroupArrays, load: GroupArrays) -> bool:
    """Same shape and channel width, and tuned within one bandwidth (throws are smaller)."""
    same = [science.shape[i] == load.shape[i] for i in (0, 2, 3)]
    width = float(science.arrays["freq_res"][0, 0])
    apart = abs(science.arrays["signal_freq"][0, 0] - load.arrays["signal_freq"][0, 0])
    return (
        all(same)
        and bool(np.isclose(load.arrays["freq_res"][0, 0], width, rtol=1e-6))
        and bool(apart < abs(width) * science.shape[0])
    )


def _planned(
    rows: SdfitsRows,
    scan: GbtScan,
    bands: Mapping[str, Mapping[str, GroupArrays]],
    layouts: Mapping[str, Layout],
) -> PlannedScan:
    """One scan of the session, with what the table of the plan tells of it."""

    def read() -> ScanContent:
        band_attrs = {band: _line_attrs(rows, _band_rows(rows, scan, band)) for band in bands}
        attrs = _attrs(rows, scan, layouts[_frontend(rows, scan)])
        return ScanContent(attrs | next(iter(band_attrs.values())), bands, band_attrs)

    frontend = _frontend(rows, scan)
    shown = [planned_band(band, members, backend=frontend) for band, members in bands.items()]
    groups = [group for members in bands.values() for group in members.values()]
    return PlannedScan(
        scan.number,
        writer_of(scan.number, read, done=rows.forget),
        tuple(shown),
        kind=f"{scan.kind} {' '.join(map(str, scan.scans))}",
        source=str(rows["OBJECT"][scan.subscans[0].rows[0]]),
        origin=str(rows.files[int(rows.table[scan.rows[0]])]),
        nbytes=sum(nbytes_of(group) for group in groups),
    )


def _band_rows(rows: SdfitsRows, scan: GbtScan, band: str) -> I64:
    """Rows of one band of a scan; all of them when there is one band only."""
    every = scan.rows
    if not band:
        return every
    wanted = int(band.removeprefix("band_")) - 1
    return np.asarray(every[rows["IFNUM"][every] == wanted])


def _line_attrs(rows: SdfitsRows, index: I64) -> dict[str, Any]:
    """Attributes that differ between bands: rest frequency and line."""
    first = index[0]
    attrs: dict[str, Any] = {"ifnum": int(rows["IFNUM"][first])}
    if rows["RESTFREQ"][first] > 0:
        attrs["rest_freq_hz"] = float(rows["RESTFREQ"][first])
    if rows["MOLECULE"][first]:
        attrs["line"] = str(rows["MOLECULE"][first])
    return attrs


def _attrs(rows: SdfitsRows, scan: GbtScan, layout: Layout) -> dict[str, Any]:
    index = scan.rows
    science = scan.subscans[0].rows
    first = int(science[0])
    attrs: dict[str, Any] = {
        "instmode": scan.kind,
        "source": str(rows["OBJECT"][first]),
        "date_obs": min(rows["DATE-OBS"][index].tolist()),
        "obs_procedure": str(rows["OBSMODE"][first]).partition(":")[0],
        "n_subscans_planned": len(scan.subscans),
        "gain_image": 0.0,
        "f_eff": 1.0,
        "ref_channel_base": 0,
        "feeds": list(layout.feeds),
        "polarisations": list(layout.receivers),
        "gbt_scans": list(scan.scans),
        "scan_metadata": _metadata(rows, index),
        "raw_headers": json.dumps(_headers(rows, index)),
    }
    bad = [int(i) for i in index if int(i) in rows.flagged]
    if bad:
        attrs["flagged_spectra"] = len(bad)
    if rows["PROJID"][first]:
        attrs["project"] = str(rows["PROJID"][first])
    known = [bool(np.isfinite(rows[k][science]).all()) for k in ("VELOCITY", "VFRAME")]
    if known[0]:
        attrs["velocity_source_kms"] = float(rows["VELOCITY"][first]) / 1e3
    if known[1]:
        attrs["velocity_frame_mps"] = float(rows["VFRAME"][science].mean())
    if any(known):
        # without it nobody may take the two for radio velocities in the LSR
        attrs["velocity_definition"] = str(rows["VELDEF"][first]) or "not recorded"
    if scan.kind == "NOD":
        attrs |= _nod_beams(rows, scan, layout)
    return attrs


def _nod_beams(rows: SdfitsRows, scan: GbtScan, layout: Layout) -> dict[str, Any]:
    """The pixel on the source in each position: its feed has no offset from the tracked point."""
    beams = []
    for subscan in scan.subscans:
        i = subscan.rows
        on_source = np.hypot(rows["FEEDXOFF"][i], rows["FEEDEOFF"][i]) < 1e-6
        feeds = np.unique(rows["FDNUM"][i][on_source]).tolist()
        if len(feeds) != 1:
            warnings.warn(
                f"scan {scan.number}: {len(feeds)} feeds have no offset in {subscan.mode}, "
                "expected one: the beams of the nod are not known. Import the files of all banks "
                "together.",
                GpucalWarning,
                stacklevel=2,
            )
            return {}
        beams.append([0, layout.feeds.index(feeds[0])])
    return {"nod_beams": beams}


def _metadata(rows: SdfitsRows, index: I64) -> dict[str, Any]:
    """Columns worth keeping: the value, distinct texts, or {min, max}; absent ones left out."""
    found: dict[str, Any] = {}
    for name in _REPORTED:
        values = rows[name][index]
        if values.dtype.kind == "f":
            values = values[np.isfinite(values)]
        distinct = [v for v in np.unique(values).tolist() if v != ""]
        if distinct:
            several: Any = {"min": distinct[0], "max": distinct[-1]}
            if values.dtype.kind == "U":
                several = distinct
            found[name] = distinct[0] if len(distinct) == 1 else several
    return found


def _headers(rows: SdfitsRows, index: I64) -> dict[str, Any]:
    """Header cards of the files, and all columns read of the scan's first row."""
    first = {name: values[index[0]].item() for name, values in rows.columns.items()}
    plain = {
        k: None if isinstance(v, float) and not np.isfinite(v) else v for k, v in first.items()
    }
    return {"cards": dict(rows.cards), "first_row": plain}
