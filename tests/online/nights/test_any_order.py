"""Subscans, bands and jobs in any order, some twice: in the end L1 is that of ``gpucal calibrate``."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import zarr
from builders.night_stores import make_night, small_setup
from builders.small_site import arrays_of, drain, site
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpucal import CalibrationConfig, calibrate_store, create_l0, open_l0, open_l1
from gpucal.io.raw_fits.reader import RawFits
from gpucal.online.looks.look import load_look
from gpucal.online.queue.announcing import job_of
from gpucal.online.queue.arrival import BAND_WAIT_S, NotThereYetError
from gpucal.online.queue.events import END, Group, Job
from gpucal.online.queue.pipe import Pipe
from gpucal.online.replay.growing import GrowingScan
from gpucal.online.site.config import OnlineConfig
from gpucal.online.site.context import Context
from gpucal.online.site.results import Results
from gpucal.online.tasks.calibration import calibration
from gpucal.online.tasks.made_from import later_inputs
from gpucal.online.tasks.outcome import Outcome, outcome_path

ENTRY = ("calibration",)
ORDERS = int(os.environ.get("GPUCAL_ONLINE_ORDERS", "3"))
"""More for a search, as 300."""


@dataclass(frozen=True)
class Written:
    """A subscan of one band has been written."""

    scan: int
    band: str
    group: Group
    subscan: int


@dataclass(frozen=True)
class Announced:
    """A job has been submitted; END: the end of the scan."""

    scan: int
    group: Group
    subscan: int


Event = Written | Announced | Literal["work"]


class Telescope:
    """Writes a night into a store of a site and announces it, in any order."""

    def __init__(self, night: Path, config: OnlineConfig, scans: Sequence[int] = ()) -> None:
        """``scans``: those that it observes, () = all."""
        self.config = config
        self.night = open_l0(night)
        self.scans = tuple(scans) or tuple(self.night.numbers())
        self.path = config.data.parent / "l0.zarr"
        self.left = {n: sum(w.scan == n for w in self.writes()) for n in self.scans}
        self._growing = {n: GrowingScan(self.night.scan_group(n), self.path) for n in self.scans}
        create_l0(self.path, telescope="TEST", instrument="X", site={})
        root: Any = zarr.open_group(self.path, mode="r+")
        root.attrs.update(dict(self.night.attrs))

    def writes(self) -> list[Written]:
        groups: tuple[Group, ...] = ("calibration", "source")
        return [
            Written(n, scan.band, group, s)
            for n in self.scans
            for scan in self.night.load(n)
            for group in groups
            if (found := getattr(scan, group)) is not None
            for s in range(found.shape[4])
        ]

    def jobs(self) -> list[Announced]:
        """One for every subscan, and one for the end of every scan."""
        subscans = dict.fromkeys(Announced(w.scan, w.group, w.subscan) for w in self.writes())
        return [*subscans, *(Announced(n, "source", END) for n in self.scans)]

    def job(self, event: Announced) -> Job:
        attrs = dict(self.night.scan_group(event.scan).attrs)
        return job_of(self.path, event.scan, event.subscan, event.group, attrs, project="p1")

    def do(self, events: Iterable[Event]) -> None:
        for event in events:
            if event == "work":
                drain(self.config, ENTRY)
            elif isinstance(event, Written):
                self._growing[event.scan].add(event.group, event.subscan, [event.band])
                self.left[event.scan] -= 1
                if not self.left[event.scan]:
                    self._growing[event.scan].end()
            elif isinstance(event, Announced):
                Pipe(self.config.pipe).submit(self.job(event))

    def finish(self) -> None:
        """Do what is left, and look once whether more has come than was announced."""
        drain(self.config, ENTRY)
        results = Results(self.config.database_url)
        later_inputs(Context(self.config, results, "calibration"), since=0.0)
        results.close()
        drain(self.config, ENTRY)

    def states(self) -> dict[int, str]:
        results = Results(self.config.database_url)
        found = {row["scan"]: row["state"] for row in results.rows("scans")}
        results.close()
        return found

    def texts(self) -> list[str]:
        results = Results(self.config.database_url)
        found = [row["text"] for row in results.rows("messages")]
        results.close()
        return found


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Loads, ON-OFF, loads, a map, loads; two bands."""
    folder = tmp_path_factory.mktemp("night")
    setup = small_setup(
        "chai", ("tp", "otf"), channels=32, dumps=2, n_on=1, pixels=2, separate=True
    )
    path = make_night(folder, replace(setup, loads=replace(setup.loads, every=1)), scans=2)
    assert [open_l0(path).kind(n) for n in open_l0(path)] == ["load", "science"] * 2 + ["load"]
    assert len(open_l0(path).load(2)) == 2
    return path


@pytest.fixture(scope="module")
def offline(night: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("offline") / "l1.zarr"
    assert not calibrate_store(night, out, settings_of(night)).failures
    return out


def settings_of(night: Path, **changes: Any) -> CalibrationConfig:
    return CalibrationConfig(atmosphere=str(night.parent / "table.npz"), workers=1, **changes)


def telescope(night: Path, folder: Path, scans: Sequence[int] = (), **changes: Any) -> Telescope:
    calibration = settings_of(night, **changes)
    config = site(folder, night.parent / "table.npz", calibration=calibration)
    return Telescope(night, config, scans)


def by_kind(night: Path, kind: str) -> list[int]:
    store = open_l0(night)
    return [n for n in store.numbers() if store.kind(n) == kind]


def check(at: Telescope, offline: Path) -> None:
    at.finish()
    (online,) = at.config.data.rglob("l1.zarr")
    ours, theirs = arrays_of(online), arrays_of(offline)
    wanted = tuple(f"/scan_{n:06d}/" for n in at.scans)
    theirs = {name: values for name, values in theirs.items() if name.startswith(wanted)}
    assert ours.keys() == theirs.keys()
    for name, values in theirs.items():
        np.testing.assert_array_equal(ours[name], values, err_msg=name)
    kinds = {n: at.night.kind(n) for n in at.scans}
    assert at.states() == {
        n: "calibrated" if kind == "science" else "ended" for n, kind in kinds.items()
    }
    for n, kind in kinds.items():
        if kind == "science":
            one, two = (open_l1(path).scan(n) for path in (online, offline))
            assert one.attrs.get("warnings") == two.attrs.get("warnings")
    entry = Pipe(at.config.pipe).task("calibration")
    assert (entry.names(), list(entry.failed())) == ([], [])


@settings(max_examples=ORDERS, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_order_comes_to_the_same(
    night: Path, offline: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    at = telescope(night, tmp_path_factory.mktemp("site"), (1, 2, 3, 4))
    twice = st.lists(st.sampled_from(at.jobs()), max_size=4)
    events: list[Event] = [*at.writes(), *at.jobs(), *data.draw(twice), "work", "work"]
    at.do(data.draw(st.permutations(events)))
    check(at, offline)


def test_the_end_comes_first(night: Path, offline: Path, tmp_path: Path) -> None:
    """Subscans after the end of their scan: L1 has them all, and the observer is told."""
    at = telescope(night, tmp_path, (1, 2))
    ends = [job for job in at.jobs() if job.subscan == END]
    first = [w for w in at.writes() if w.subscan < 2]
    later = [w for w in at.writes() if w.subscan >= 2]
    subscans = [job for job in at.jobs() if job.subscan != END]
    at.do([*first, *ends, "work", *later, *subscans, "work"])
    check(at, offline)
    assert any("more of this scan came after its end" in text for text in at.texts())


def test_a_band_that_is_late(night: Path, offline: Path, tmp_path: Path) -> None:
    """It is waited for, then the others go on; when it comes, look and L1 are made with it."""
    at = telescope(night, tmp_path, (1, 2))
    scan = by_kind(night, "science")[0]
    last = max(w.subscan for w in at.writes() if w.scan == scan)
    late = [w for w in at.writes() if (w.scan, w.subscan) == (scan, last)][-1:]
    assert late[0].band
    at.do([w for w in at.writes() if w not in late])
    at.do(job for job in at.jobs() if job.subscan != END)
    drain(at.config, ENTRY)
    job = at.job(Announced(scan, "source", last))
    entry = Pipe(at.config.pipe).task("calibration")
    assert entry.names() == [job.name]
    results = Results(at.config.database_url)
    patient = Context(at.config, results, "calibration", waited=BAND_WAIT_S)
    calibration(job, patient)
    path = outcome_path(at.config, job)
    assert Outcome.load(path).late == (late[0].band,)
    assert len(load_look(path.parent / Outcome.load(path).looks[0]).bands) == 1
    with pytest.raises(NotThereYetError, match=f"{late[0].band} is late"):
        calibration(job, patient)
    given_up = replace(patient, waited=at.config.end_timeout)
    assert calibration(job, given_up) == []
    results.close()
    at.do([*late, *(job for job in at.jobs() if job.subscan == END), "work"])
    assert len(load_look(path.parent / Outcome.load(path).looks[0]).bands) == 2
    check(at, offline)


def test_a_band_that_nobody_announced(night: Path, offline: Path, tmp_path: Path) -> None:
    at = telescope(night, tmp_path, (1, 2))
    scan = by_kind(night, "science")[0]
    band = max(w.band for w in at.writes())
    unseen = [w for w in at.writes() if (w.scan, w.band) == (scan, band)]
    at.do([*(w for w in at.writes() if w not in unseen), *at.jobs(), "work", *unseen])
    check(at, offline)


def test_a_job_before_its_data(night: Path, tmp_path: Path) -> None:
    """It waits without counting as a failure; after ``end_timeout`` it is given up, with a reason."""
    at = telescope(night, tmp_path)
    scan = by_kind(night, "load")[0]
    at.do([Announced(scan, "calibration", 0), "work", "work", "work", "work"])
    entry = Pipe(at.config.pipe).task("calibration")
    assert len(entry.names()) == 1
    first, second = (w for w in at.writes() if w.scan == scan and w.subscan < 1)
    at.do([first, second, "work"])
    assert entry.names() == []
    hasty = at.config.model_copy(update={"end_timeout": 1e-6})
    at.do([Announced(scan, "calibration", 1)])
    drain(hasty, ENTRY)
    ((name, reason),) = entry.failed()
    assert name.endswith("c00001.json")
    assert "subscan 1 of calibration/ is not in the store, it holds 1." in reason["error"]
    assert "did not come within" in reason["error"]


@pytest.mark.parametrize("task", ["fits_heterodyne"])
def test_raw_fits_grow_with_the_scan(night: Path, tmp_path: Path, task: str) -> None:
    at = telescope(night, tmp_path)
    scan = by_kind(night, "science")[0]
    mine = [w for w in at.writes() if w.scan == scan]
    last = max(w.subscan for w in mine)
    at.do([*(w for w in mine if w.subscan < last), Announced(scan, "source", END)])
    drain(at.config, (task,))
    (path,) = at.config.data.rglob("scan_*.fits")
    before = RawFits(path).digest
    drawn = Pipe(at.config.pipe).task("plot_heterodyne")
    assert len(drawn.names()) == 1
    at.do([Announced(scan, "source", 0)])  # once more: nothing has changed
    drain(at.config, (task,))
    assert len(drawn.names()) == 1
    at.do([Announced(scan, "source", last)])
    drain(at.config, (task,))
    assert RawFits(path).digest == before
    at.do(w for w in mine if w.subscan == last)
    drain(at.config, (task,))
    assert RawFits(path).digest != before


# --- inputs that change later ------------------------------------------------------------------


def in_order(at: Telescope, scans: Sequence[int]) -> None:
    at.do(w for w in at.writes() if w.scan in scans)
    at.do(job for job in at.jobs() if job.scan in scans)
    drain(at.config, ENTRY)


def test_the_second_loads_of_a_gain_drift_come_after_the_scan(night: Path, tmp_path: Path) -> None:
    at = telescope(night, tmp_path, (1, 2, 3), gain_interpolate=3)
    for number in at.scans:
        in_order(at, [number])
    calibrate_store(night, tmp_path / "offline.l1", at.config.calibration)
    check(at, tmp_path / "offline.l1")


def test_loads_that_come_last_or_are_corrected(night: Path, offline: Path, tmp_path: Path) -> None:
    """The nearest loads arrive when the scans are calibrated with others; then their T_hot is corrected."""
    at = telescope(night, tmp_path, (1, 3, 4))
    nearest = 3
    in_order(at, [1, 4])
    assert set(at.states().values()) == {"calibrated", "ended"}
    in_order(at, [nearest])
    check(at, offline)
    assert any("other loads serve this scan now" in text for text in at.texts())
    for band in zarr.open_group(at.path / f"scan_{nearest:06d}", mode="r+").groups():
        hot: Any = band[1]["calibration/thot"]
        hot[...] = hot[...] + 2.0
    at.finish()
    assert any(f"the loads of scan {nearest} have changed" in text for text in at.texts())
    calibrate_store(at.path, tmp_path / "corrected.l1", at.config.calibration)
    check(at, tmp_path / "corrected.l1")
    corrected, before = (arrays_of(path) for path in (tmp_path / "corrected.l1", offline))
    name = "/scan_000004/band_1/spectra"
    assert not np.array_equal(corrected[name], before[name], equal_nan=True)


@pytest.mark.parametrize("bands", [("band_1", "band_2"), ("band_1",)])
def test_bad_loads_online(night: Path, tmp_path: Path, bands: tuple[str, ...]) -> None:
    """A band after bad loads waits; good ones that come later rescue it, and it is what offline makes.

    The bands whose loads are good do not wait for the others.
    """
    bad = tmp_path / "bad.zarr"
    shutil.copytree(night, bad)
    first, second = 1, 3
    for band in bands:
        scan: Any = zarr.open_group(bad / f"scan_{first:06d}", mode="r+")
        counts = scan[f"{band}/calibration/data_5d"]
        counts[..., 0] = counts[..., 1]
    shutil.copy(night.parent / "table.npz", tmp_path / "table.npz")
    at = telescope(bad, tmp_path, (first, 2, second))
    in_order(at, [first, 2])
    assert at.states()[2] == "waiting"
    results = Results(at.config.database_url)
    rows = [row for row in results.rows("calibrations", scan=first) if row["band"] in bands]
    results.close()
    looks = [load_look(path) for path in sorted(at.config.work.rglob("*00000002.s*.npz"))]
    (units,) = {tuple(band.unit for band in look.bands) for look in looks[-1:]}
    assert units == (("counts", "counts") if len(bands) == 2 else ("counts", "K"))
    stores = list(at.config.data.rglob("l1.zarr/scan_*/band_*"))
    assert {path.name for path in stores} == {"band_1", "band_2"} - set(bands)
    assert rows
    assert not any(row["valid"] for row in rows)
    assert all("cannot be told apart" in row["reason"] for row in rows)
    assert all(np.isnan(row["t_rec"] or np.nan) for row in rows)
    in_order(at, [second])
    calibrate_store(bad, tmp_path / "offline.l1", at.config.calibration)
    check(at, tmp_path / "offline.l1")
