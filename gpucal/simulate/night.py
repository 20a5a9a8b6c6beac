"""Simulated scans in memory, and whole nights on disk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gpucal.errors import ConfigError
from gpucal.io.atmosphere.tables import save_table
from gpucal.io.l0.schema import GroupName
from gpucal.io.l0.write import CountsMaker, GroupArrays, create_l0, write_l0_scan
from gpucal.physics.atm import AtmosphereTable
from gpucal.scan import ArrayCounts, Scan, SubscanGroup
from gpucal.simulate.air.sky import LayeredSky, layered_sky
from gpucal.simulate.counts import Recording, ScanCounts
from gpucal.simulate.presets import preset
from gpucal.simulate.procedures import ProcedureTruth, procedure_truth
from gpucal.simulate.receiver import build_band
from gpucal.simulate.schedule import ScanPlan, plan_night, plan_scan
from gpucal.simulate.setup import BandSetup, InstrumentSetup, Kind
from gpucal.simulate.sky import synthetic_table
from gpucal.simulate.truth import Truth, TruthWriter, make_truth

MJD0 = 61000.125
"""Start of a simulated night unless another is given: 2025-11-21 03:00 UTC."""

EPOCH = datetime(1858, 11, 17)


@dataclass(frozen=True, eq=False)
class SimulatedScan:
    """A scan in memory: one Scan and one Truth per band (no truth for a load scan); ``procedures``: what a
    pointing, focus or skydip must find, per band."""

    plan: ScanPlan
    scans: tuple[Scan, ...]
    truths: tuple[Truth, ...]
    table: AtmosphereTable
    procedures: tuple[ProcedureTruth, ...] = ()

    @property
    def scan(self) -> Scan:
        """The first band."""
        return self.scans[0]

    @property
    def truth(self) -> Truth:
        """Truth of the first band."""
        return self.truths[0]


def simulate_scan(
    setup: InstrumentSetup,
    kind: Kind,
    number: int = 1,
    *,
    start: float = MJD0,
    mjd0: float | None = None,
    lloadsn: int = -1,
    recording: Recording | None = None,
    table: AtmosphereTable | None = None,
) -> SimulatedScan:
    """Simulate one scan in memory, by default noise-free f64 counts: the exact mode.

    start: MJD of its beginning; mjd0: start of the night, where gain = 1 (default: ``start``).
    lloadsn >= 0: the loads are in that scan. table: opacities, by default those of ``setup.sky``.
    """
    plan = plan_scan(setup, kind, number, start, mjd0=mjd0, lloadsn=lloadsn)
    recording = recording or Recording(dtype="f64", noise=False)
    table, air = sky_over(setup, table)
    makers = [
        ScanCounts(build_band(setup, i, table, recording.seed, air), i, plan, recording)
        for i in range(len(setup.bands))
    ]
    scans = tuple(_scan_value(maker) for maker in makers)
    truths = tuple(make_truth(maker) for maker in makers) if plan.source else ()
    found = [truth for maker in makers if (truth := procedure_truth(maker)) is not None]
    return SimulatedScan(plan, scans, truths, table, tuple(found))


def simulate_night(
    path: str | Path,
    setup: InstrumentSetup | str = "hera",
    scans: int = 8,
    *,
    recording: Recording | None = None,
    truth: str | Path | None = None,
    table: AtmosphereTable | None = None,
    table_out: str | Path | None = None,
    codec: str = "zstd:1",
    on_scan: Callable[[ScanPlan], None] | None = None,
) -> list[int]:
    """Write an L0 store with ``scans`` science scans and the load scans they need.

    Counts are made and written one subscan at a time. truth: file for what must come back;
        table_out: .npz file for the opacities used (by default those of ``setup.sky``); on_scan is
        called after each scan. Returns the numbers of all scans. Raises L0Error when ``path`` holds
        other data, ConfigError for an unknown preset, or a table for a sky that is layered.
    """
    setup = preset(setup) if isinstance(setup, str) else setup
    recording = recording or Recording()
    table, air = sky_over(setup, table)
    models = [build_band(setup, i, table, recording.seed, air) for i in range(len(setup.bands))]
    create_l0(
        path,
        telescope=setup.telescope,
        site=dict(setup.site.__dict__),
        instrument=setup.name,
        simulated=True,
        noise_free=not recording.noise,
    )
    if table_out is not None:
        save_table(table_out, table)
    numbers = []
    with ExitStack() as stack:
        writer = stack.enter_context(TruthWriter(truth)) if truth is not None else None
        for plan in plan_night(setup, scans, mjd0=MJD0):
            makers = [ScanCounts(model, i, plan, recording) for i, model in enumerate(models)]
            write_scan(path, makers, codec=codec)
            for maker in makers if writer is not None else ():
                assert writer is not None
                if plan.source:
                    writer.add(make_truth(maker))
                writer.add_procedure(procedure_truth(maker))
            numbers.append(plan.number)
            if on_scan is not None:
                on_scan(plan)
    return numbers


def sky_over(
    setup: InstrumentSetup, table: AtmosphereTable | None = None
) -> tuple[AtmosphereTable, LayeredSky | None]:
    """The table of a simulated sky, and its layers; None where all air has one temperature.

    ``table``: opacities of one's own for an isothermal sky, whatever emission it knows. Raises ConfigError
    where the sky is layered: a table holds no layers.
    """
    if setup.sky == "isothermal":
        return (table or synthetic_table(setup)).isothermal(), None
    if table is not None:
        raise ConfigError(
            f"{setup.name}: a table was given for a layered sky, which makes its own.",
            hint='Leave the table out, or set sky to "isothermal".',
        )
    air = layered_sky(setup)
    return air.table, air


def write_scan(path: str | Path, makers: Sequence[ScanCounts], *, codec: str = "zstd:1") -> None:
    """Write one scan (all its bands) into an existing L0 store, subscan by subscan."""
    plan = makers[0].plan
    groups: dict[str, dict[str, GroupArrays]] = {}
    for maker in makers:
        groups[maker.model.band.name] = {
            name: GroupArrays(
                CountsMaker(maker.shape(name), maker.dtype, partial(maker.subscan, name)),
                [sub.mode for sub in plan.group(name)],
                small_arrays(maker, name),
            )
            for name in _groups(plan)
        }
    setup = makers[0].model.setup
    first = setup.bands[0]
    write_l0_scan(
        path,
        plan.number,
        attrs=scan_attrs(setup, first, plan),
        groups=groups,
        band_attrs={b.name: scan_attrs(setup, b, plan) for b in setup.bands if b.name},
        codec=codec,
    )


def scan_attrs(setup: InstrumentSetup, band: BandSetup, plan: ScanPlan) -> dict[str, Any]:
    """Scan attributes of L0."""
    attrs: dict[str, Any] = {
        "instmode": plan.kind,
        "obs_procedure": "calibration" if plan.kind == "load" else plan.kind,
        "source": "SIMULATED",
        "line": setup.line,
        "rest_freq_hz": band.signal_freq[0],
        "velocity_source_kms": 0.0,
        "date_obs": (EPOCH + timedelta(days=plan.start)).isoformat(timespec="milliseconds"),
        "n_subscans_planned": len(plan.source or plan.calibration),
        "project": "simulated",
        "gain_image": np.asarray(band.receiver.gain_image).tolist(),
        "f_eff": setup.f_eff,
        "complete": True,
    }
    if plan.kind == "nod":
        attrs["nod_beams"] = setup.nod_beams
    if plan.kind == "focus":
        attrs["focus_mm"] = [sub.focus_mm for sub in plan.source]
        attrs["focus_axis"] = "z"
    return attrs


def small_arrays(counts: ScanCounts, group: GroupName) -> dict[str, npt.NDArray[Any]]:
    """The small arrays of a group as L0 stores them."""
    setup, band, plan = counts.model.setup, counts.model.band, counts.plan
    subs = plan.group(group)
    n = len(subs)
    by_dump = setup.sky_drift == "free"
    elevation = np.stack([counts.elevation(s) for s in subs], axis=1)
    azimuth = np.stack([counts.conditions.azimuth(s.dump_mjd()) for s in subs], axis=1)
    differ = len(set(zip(band.signal_freq, band.image_freq, strict=True))) > 1

    def per_subscan(value: float) -> npt.NDArray[Any]:
        return np.full(n, value, dtype=np.float32)

    def per_receiver(values: Sequence[float]) -> npt.NDArray[Any]:
        column = np.asarray(values, dtype=np.float64)
        return np.repeat(column[:, None], n, axis=1) if differ else np.full(n, column[0])

    lon, lat = setup.pixel_offsets()
    arrays: dict[str, npt.NDArray[Any]] = {
        "mjd": np.array([s.mjd for s in subs]),
        "exptime": np.array([s.exptime for s in subs], dtype=np.float32),
        "elevation": (elevation if by_dump else elevation[0]).astype(np.float32),
        "azimuth": (azimuth if by_dump else azimuth[0]).astype(np.float32),
        "pamb": per_subscan(setup.weather.p_amb),
        "tamb": per_subscan(setup.weather.t_amb),
        "signal_freq": per_receiver(band.signal_freq),
        "image_freq": per_receiver(band.image_freq),
        "freq_res": per_receiver([band.freq_res] * setup.receivers),
        "ref_channel": per_receiver([band.ref_channel] * setup.receivers).astype(np.float32),
        "lloadsn": np.full(n, plan.lloadsn, dtype=np.int32),
        "pixel_offset_lon": lon,
        "pixel_offset_lat": lat,
    }
    if group == "calibration":
        arrays["thot"] = per_subscan(setup.loads.t_hot)
        if not setup.loads.vane:
            arrays["tcold"] = per_subscan(setup.loads.t_cold)
        return arrays
    if plan.kind.startswith("otf") or plan.kind == "pointing":
        arrays["otf_lon"] = np.stack([s.lon for s in subs], axis=1)
        arrays["otf_lat"] = np.stack([s.lat for s in subs], axis=1)
    if plan.kind == "wsw-chopped":
        arrays["chop_phase"] = np.stack([s.chop for s in subs if s.chop is not None], axis=1)
    if plan.kind == "fsw":
        arrays["freq_throw"] = np.array([counts.throw(s) for s in subs])
    return arrays


def _groups(plan: ScanPlan) -> list[GroupName]:
    names: list[GroupName] = ["source", "calibration"]
    return [name for name in names if plan.group(name)]


def _scan_value(counts: ScanCounts) -> Scan:
    """The scan as the reader of a store would give it, with its counts in memory."""
    plan, setup = counts.plan, counts.model.setup
    made = {name: _group_value(counts, name) for name in _groups(plan)}
    return Scan(
        number=plan.number,
        band=counts.model.band.name,
        attrs={**scan_attrs(setup, counts.model.band, plan), "scan_number": plan.number},
        store_attrs={
            "telescope": setup.telescope,
            "site": dict(setup.site.__dict__),
            "instrument": setup.name,
            **({} if counts.recording.noise else {"noise_free": True}),
        },
        source=made.get("source"),
        calibration=made.get("calibration"),
    )


def _group_value(counts: ScanCounts, group: GroupName) -> SubscanGroup:
    """One group as the reader of a store would give it, with its counts in memory."""
    subs = counts.plan.group(group)
    shape = counts.shape(group)
    _, d, r, _, s = shape
    data = np.empty(shape, dtype=counts.dtype)
    for i in range(s):
        data[..., i] = counts.subscan(group, i)
    stored = small_arrays(counts, group)
    throw = stored.get("freq_throw")

    def spread(name: str, *sizes: int) -> npt.NDArray[np.float64]:
        """Stored array as f64 with a leading axis added where the store leaves it out."""
        value = np.asarray(stored.get(name, np.full(s, np.nan)), dtype=np.float64)
        return np.array(np.broadcast_to(value, sizes))

    return SubscanGroup(
        counts=ArrayCounts(data),
        sobsmode=tuple(sub.mode for sub in subs),
        mjd=np.stack([sub.dump_mjd() for sub in subs], axis=1),
        exptime=spread("exptime", d, s),
        elevation=spread("elevation", d, s),
        azimuth=spread("azimuth", d, s),
        pamb=spread("pamb", s),
        tamb=spread("tamb", s),
        signal_freq=spread("signal_freq", r, s),
        image_freq=spread("image_freq", r, s),
        freq_res=spread("freq_res", r, s),
        ref_channel=spread("ref_channel", r, s),
        lloadsn=stored["lloadsn"],
        otf_lon=spread("otf_lon", d, s),
        otf_lat=spread("otf_lat", d, s),
        pixel_offset_lon=np.repeat(stored["pixel_offset_lon"][..., None], s, axis=2),
        pixel_offset_lat=np.repeat(stored["pixel_offset_lat"][..., None], s, axis=2),
        chop_phase=stored.get("chop_phase"),
        freq_throw=None if throw is None else spread("freq_throw", r, s),
        thot=spread("thot", r, s) if group == "calibration" else None,
        tcold=spread("tcold", r, s) if group == "calibration" else None,
    )
