"""One test for each requirement of 2001, called by its name, and the table that lists them.

A night of every procedure with known truth is replayed through all tasks once; the tests look at what came out.
"""

from __future__ import annotations

import importlib
import inspect
import json
import math
import re
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import test_layering
from astropy.io import fits
from builders import procedure_scans as scans
from builders.groups import source_of
from builders.night_stores import small_setup
from builders.small_site import assert_same_arrays, drain, site

from gpucal import (
    CalibrationConfig,
    GroupArrays,
    calibrate_store,
    import_raw_fits,
    open_class,
    open_l0,
    open_l1,
    simulate_night,
    write_l0_scan,
)
from gpucal.online.looks.look import Look, load_look
from gpucal.online.queue.announcing import job_of
from gpucal.online.queue.events import END, Job
from gpucal.online.queue.pipe import TASKS, Pipe
from gpucal.online.queue.scan_ends import OpenScan, missing_ends
from gpucal.online.replay.replay import Replay
from gpucal.online.site.config import OnlineConfig
from gpucal.online.site.context import Context
from gpucal.online.site.feedback import deliver_waiting
from gpucal.online.site.results import Results
from gpucal.online.tasks.outcome import Outcome, load_product, outcome_path
from gpucal.online.tasks.plot import plot
from gpucal.online.tasks.table import TASK_FUNCTIONS
from gpucal.online.workers.control import request
from gpucal.online.workers.supervise import Supervisor
from gpucal.plot import fits as fits_pictures
from gpucal.procedures.results import PointingResult
from gpucal.simulate.compare import compare_to_truth
from gpucal.simulate.counts import Recording

ROOT = Path(__file__).resolve().parents[2]
TABLE = ROOT / "docs" / "reference" / "requirements.md"
PROJECT = "p1"
CAL, POINT, FOCUS, SKYDIP, ON_OFF, OTF, CANCELLED, BOLOMETER = range(1, 9)
LON, LAT, STRENGTH, BEST_MM = 6.5, -4.0, 8.0, 0.4
FOCUS_MM = (-2.0, -1.0, 0.0, 1.0, 2.0)
OFF = scans.Sub("OFF", np.full(scans.DUMPS, 600.0))
REF = scans.Sub("OTF-OFF", np.full(scans.DUMPS, 600.0))
SETTINGS = CalibrationConfig(atmosphere="none", tau=scans.TAU, t_atm_factor=0.94, workers=1)


def write_night(path: Path) -> None:
    """A scan of every procedure, one after the other in time."""
    scene = scans.Scene(lon=LON, lat=LAT, noise=1.0, seed=2)
    here = replace(scene, lon=0.0, lat=0.0)
    stares = [scans.Sub("ON", strength=6.0 - 0.8 * (z - BEST_MM) ** 2) for z in FOCUS_MM]
    on = scans.Sub("ON", strength=STRENGTH)
    row = [scans.drift("az", 1, strength=STRENGTH, cross=c) for c in (-8.0, 0.0, 8.0)]
    dip = scans.skydip_loads([20.0, 27.0, 40.0, 75.0])
    positions = [FOCUS_MM[0], *FOCUS_MM, FOCUS_MM[-1]]
    night: list[tuple[int, list[scans.Sub], scans.Scene, dict[str, Any]]] = [
        (CAL, [], here, {"obs_procedure": "calibration", "loads": scans.skydip_loads([55.0])}),
        (POINT, scans.pointing(STRENGTH), scene, {"obs_procedure": "pointing", "loads": ()}),
        (
            FOCUS,
            [OFF, *stares, OFF],
            here,
            {"obs_procedure": "focus", "focus_mm": positions, "loads": ()},
        ),
        (SKYDIP, [], here, {"obs_procedure": "skydip", "loads": dip}),
        (ON_OFF, [OFF, on, OFF], here, {"obs_procedure": "onoff"}),
        (OTF, [REF, *row[:2], REF, row[2]], here, {"obs_procedure": "otf", "loads": ()}),
        (
            CANCELLED,
            scans.pointing(STRENGTH)[:3],
            scene,
            {
                "obs_procedure": "pointing",
                "complete": False,
                "n_subscans_planned": 6,
                "loads": (),
            },
        ),
    ]
    with pytest.MonkeyPatch.context() as patch:
        for number, source, scene_of, attrs in night:
            patch.setattr(scans, "MJD", 61000.2 + 0.005 * number)
            scans.write(path, number, source, scene_of, **{"project": "given", **attrs})


RATE_S, N_BOLO, START = 0.02, 7, 61000.4


def write_bolometer(path: Path) -> None:
    """A scan at 2 deg/s whose track comes from the telescope, every 0.13 s."""
    mjd = START + (np.arange(50)[:, None] * RATE_S + np.arange(2) * 10.0) / 86400
    seconds = np.arange(-0.5, 11.5, 0.13)
    arrays = {
        "mjd": mjd,
        "exptime": np.full(mjd.shape, RATE_S),
        "track_mjd": START + seconds / 86400,
        "track_azimuth": np.deg2rad(100.0 + 2.0 * seconds),
        "track_elevation": np.deg2rad(40.0 + 0.1 * seconds),
        "track_lon": 0.3 * seconds,
        "track_lat": 0.2 * seconds,
    }
    counts = np.random.default_rng(5).normal(size=(1, 50, 1, N_BOLO, 2)).astype("f4")
    group = GroupArrays(counts, ["ON", "ON"], arrays)
    attrs = {"obs_class": "bolometer", "source": "Uranus", "obs_procedure": "map"}
    write_l0_scan(path, BOLOMETER, attrs=attrs, groups={"": {"source": group}})


@dataclass(frozen=True)
class Played:
    """A night that went through all tasks."""

    config: OnlineConfig
    results: Results
    night: Path
    grown: Path

    @property
    def project(self) -> Path:
        return self.config.data / PROJECT

    def rows(self, table: str, **where: Any) -> list[dict[str, Any]]:
        return self.results.rows(table, **where)

    def job(self, scan: int, subscan: int, group: Any = "source") -> Job:
        attrs = dict(open_l0(self.grown).scan_group(scan).attrs)
        return job_of(self.grown, scan, subscan, group, attrs, project=PROJECT)

    def outcome(self, scan: int, subscan: int, group: Any = "source") -> Outcome:
        return Outcome.load(outcome_path(self.config, self.job(scan, subscan, group)))

    def looks(self, scan: int, subscan: int, group: Any = "source") -> list[Look]:
        path = outcome_path(self.config, self.job(scan, subscan, group))
        return [load_look(path.parent / name) for name in Outcome.load(path).looks]

    def feedback(self, scan: int, kind: str) -> Any:
        return json.loads((self.project / "feedback" / f"{scan:06d}.{kind}.json").read_text())

    def log(self, name: str) -> list[str]:
        return (self.project / "logs" / f"{name}.log").read_text("utf-8").splitlines()


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("site")
    night = folder / "night.zarr"
    write_night(night)
    write_bolometer(night)
    config = site(folder, folder, calibration=SETTINGS)
    grown = folder / "grown.zarr"
    Replay(night, grown, Pipe(config.pipe), project=PROJECT).run(speed=math.inf)
    drain(config)
    results = Results(config.database_url)
    yield Played(config, results, night, grown)
    results.close()


@pytest.fixture(scope="module")
def switched(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Frequency and wobbler switching without noise, against the truth of the simulator."""
    folder = tmp_path_factory.mktemp("switched")
    setup = small_setup(kinds=("fsw", "wsw-chopped"), pixels=2, separate=True, fill=0.0)
    recording = Recording(dtype="f64", noise=False)
    table, truth, night = (folder / name for name in ("table.npz", "truth.npz", "night.zarr"))
    simulate_night(night, setup, 2, recording=recording, truth=truth, table_out=table)
    config = site(folder, table)
    grown = folder / "grown.zarr"
    Replay(night, grown, Pipe(config.pipe), project=PROJECT).run(speed=math.inf)
    drain(config, tuple(task for task in TASKS if not task.startswith("plot")))
    results = Results(config.database_url)
    yield Played(config, results, night, grown)
    results.close()


def mean_of(rows: list[dict[str, Any]], **where: Any) -> dict[str, Any]:
    (row,) = [r for r in rows if r["pixel"] == -1 and all(r[k] == v for k, v in where.items())]
    return row


# --- requirements --------------------------------------------------------------------------------


def test_dataOnlineProcessing(played: Played, switched: Played, tmp_path: Path) -> None:
    """All that was announced is processed by procedure and class, to what offline gives."""
    for status in Pipe(played.config.pipe).status():
        assert (status.pending, status.active, status.failed) == (0, 0, 0)
    states = {row["scan"]: row["state"] for row in played.rows("scans")}
    without_l1 = {CAL, SKYDIP, BOLOMETER}
    assert states == {
        n: "ended" if n in without_l1 else "calibrated" for n in range(CAL, BOLOMETER + 1)
    }
    calibrate_store(switched.night, tmp_path / "l1.zarr", switched.config.calibration)
    assert_same_arrays(switched.project / "l1.zarr", tmp_path / "l1.zarr")


def test_dataTransferIramEA(played: Played, tmp_path: Path) -> None:
    """The transfer is the producer's; what counts here: announced is what is there, each once."""
    original = open_l0(played.night)
    announced: list[tuple[int, str, int]] = []

    class Looking(Pipe):
        def submit(self, job: Job) -> None:
            (scan,) = open_l0(job.store).load(job.scan, partial=True)
            group = getattr(scan, job.group)
            whole = getattr(original.load(job.scan, partial=True)[0], job.group)
            s = job.subscan
            np.testing.assert_array_equal(
                group.counts.read(0, group.shape[0], s), whole.counts.read(0, whole.shape[0], s)
            )
            announced.append((job.scan, job.group, s))

    pipe = Looking(tmp_path / "pipe")
    Replay(played.night, tmp_path / "l0.zarr", pipe).run(
        speed=math.inf, scans=frozenset({CAL, ON_OFF})
    )
    expected = {(CAL, "calibration", s) for s in range(3)}
    expected |= {(ON_OFF, "calibration", s) for s in range(2)}
    expected |= {(ON_OFF, "source", s) for s in range(3)}
    assert set(announced) == expected
    assert len(announced) == len(expected)


def test_dataTransferOthers(played: Played) -> None:
    """Data of a backend and the telescope's track are merged by their times."""
    with fits.open(played.project / "fits" / f"scan_{BOLOMETER:06d}.fits") as file:
        for s in (1, 2):
            table = file["SOURCE", s].data
            seconds = (table["MJD"] - START) * 86400
            np.testing.assert_allclose(
                np.rad2deg(table["ELEVATION"]), 40.0 + 0.1 * seconds, atol=1e-5
            )
            np.testing.assert_allclose(table["LON"], 0.3 * seconds, atol=1e-5)


def test_processCalibration(played: Played) -> None:
    """T_rec of the loads serves the scans after it; T_A* is right and lies in a CLASS file."""
    rows = played.rows("calibrations", scan=CAL)
    assert len(rows) == scans.PIXELS
    for row in rows:
        assert row["valid"]
        assert row["t_rec"] == pytest.approx(scans.T_REC, rel=0.01)
        assert row["t_sys"] > row["t_rec"]
    otf: Any = open_l1(played.project / "l1.zarr").scan(OTF)  # has no loads of its own
    expected = STRENGTH * scans.footprint(
        scans.drift("az", 1, cross=0.0), scans.Scene(fwhm=scans.Scene().fwhm)
    )
    found = np.nanmean(otf["spectra"][..., 1], axis=0)[:, 0, :]
    np.testing.assert_allclose(found, expected, atol=0.2)
    (path,) = (played.project / "class").glob(f"*{ON_OFF:06d}.30m")
    spectra = list(open_class(path))
    assert len(spectra) == scans.PIXELS
    middle = sorted(float(np.median(s.values)) for s in spectra)[-1]
    assert middle == pytest.approx(STRENGTH, abs=0.1)


def test_processSubscans(played: Played) -> None:
    """Every subscan of a pointing or focus that moves or stares at the source is shown when it ends."""
    for scan, subscans in ((POINT, (1, 2, 3, 4)), (FOCUS, (1, 2, 3, 4, 5))):
        for s in subscans:
            (look,) = played.looks(scan, s)
            assert (look.kind, look.subscans) == ("calibrated", (s,))
            assert played.rows("plots", scan=scan, subscan=s)
    for s in (0, 1, 2):
        (look,) = played.looks(CAL, s, "calibration")
        assert look.kind == "counts"


def test_processScan(played: Played) -> None:
    """At the end of a scan, and only then, there are a final result and T_A* in the store."""
    for scan in (POINT, ON_OFF):
        last = source_of(open_l0(played.grown).load(scan)[0]).shape[4] - 1
        for s in range(last):
            outcome = played.outcome(scan, s)
            assert (outcome.end, outcome.l1) == ("", False)
            product = load_product(played.config, played.job(scan, s))
            assert not product.final
        assert played.outcome(scan, last).l1
        product = load_product(played.config, played.job(scan, last))
        assert product.final
        assert product.reduced is not None


def test_processCancelledScans(played: Played) -> None:
    """A pointing cancelled after subscan 2 gives the azimuth offset, and says that elevation lacks."""
    rows = played.rows("pointings", scan=CANCELLED)
    assert {row["direction"] for row in rows} == {"az"}
    azimuth = mean_of(rows, direction="az")
    assert azimuth["valid"]
    assert azimuth["offset"] == pytest.approx(LON, abs=5 * azimuth["offset_error"])
    assert azimuth["offset_error"] < 0.5
    told = played.feedback(CANCELLED, "pointing")
    assert (told["cancelled"], told["valid"], told["reason"]) == (True, True, "el: no drifts")
    assert [row["direction"] for row in told["results"]] == ["az"]


def test_feedbackObs(played: Played, tmp_path: Path) -> None:
    """The offsets reach the control system, as a file and through the operator's command."""
    told = tmp_path / "told"
    config = played.config.model_copy(
        update={"feedback_command": ["sh", "-c", f"cat >> {told}; echo >> {told}"]}
    )
    assert deliver_waiting(config, played.results) == 4
    assert deliver_waiting(config, played.results) == 0
    messages = [json.loads(line) for line in told.read_text().splitlines()]
    found = {(m["scan"], m["procedure"]) for m in messages}
    assert found == {
        (POINT, "pointing"),
        (FOCUS, "focus"),
        (SKYDIP, "skydip"),
        (CANCELLED, "pointing"),
    }
    (pointing,) = [m for m in messages if m["scan"] == POINT]
    assert pointing == played.feedback(POINT, "pointing")
    offsets = {row["direction"]: row["offset"] for row in pointing["results"]}
    assert offsets == pytest.approx({"az": LON, "el": LAT}, abs=0.5)


def test_logging(played: Played) -> None:
    """One line per result in the general logs, and messages for the observer's window."""
    assert len(played.log("pointing")) == 3  # azimuth and elevation, azimuth of the cancelled one
    assert len(played.log("focus")) == len(played.log("skydip")) == 1
    lines = played.log("calibration")
    loads = [line for line in lines if "  loads  " in line]
    assert len(loads) == len(played.rows("calibrations"))
    # what a scan that uses loads of another one adds: its own T_sys, a line per pixel
    assert len(loads) < len(lines)
    assert all("t_rec " in line and "t_sys_star " in line for line in set(lines) - set(loads))
    assert re.search(
        r"scan 2  JUPITER  az  mean  offset 6\.\d+ \+- .* arcsec", "\n".join(played.log("pointing"))
    )
    assert sum("cancelled" in line for line in played.log("pointing")) == 1
    texts = [row["text"] for row in played.rows("messages", task="calibration", scan=FOCUS)]
    assert len(texts) == len(set(texts))


def test_plots(played: Played) -> None:
    """Pictures are kept by project, and listed in a table and a file to browse them by."""
    rows = played.rows("plots", project=PROJECT)
    index = [
        json.loads(x) for x in (played.project / "plots" / "index.jsonl").read_text().splitlines()
    ]
    assert {row["file"] for row in rows} == {row["file"] for row in index}
    assert {row["scan"] for row in rows} == set(range(CAL, BOLOMETER + 1))
    for row in rows:
        data = (played.project / row["file"]).read_bytes()
        assert data.startswith(b"\x89PNG")
        assert data.endswith(b"IEND\xaeB`\x82")
    kinds = {
        scan: {r["kind"] for r in rows if r["scan"] == scan} for scan in (POINT, FOCUS, SKYDIP)
    }
    assert kinds[POINT] >= {"look", "pointing"}
    assert "focus" in kinds[FOCUS]
    assert "skydip" in kinds[SKYDIP]


def test_fits_of_a_large_array_fill_several_pictures(
    played: Played, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fits_pictures, "MAX_FITS", 2)
    for subscan in (1, 5):  # a drift, and the end of the scan
        assert (
            plot(played.job(POINT, subscan), Context(played.config, played.results, "plot")) == []
        )
    rows = played.rows("plots", scan=POINT, kind="pointing")
    names = {row["file"].rpartition("/")[2] for row in rows}
    assert names >= {"pointing_1.png", "pointing_2.png", "s00001_pointing_1.png"}
    for row in rows:
        assert (played.project / row["file"]).is_file()


def test_processPointing(played: Played) -> None:
    """Drifts with their fit, corrections in both directions, in K, for all receivers."""
    for s in (1, 2, 3, 4):
        product = load_product(played.config, played.job(POINT, s))
        assert product.reduced is not None
        axis = "az" if s < 3 else "el"
        assert isinstance(product.reduced.result, PointingResult)
        assert product.reduced.result.mean(axis, "offset").valid
    rows = played.rows("pointings", scan=POINT)
    for axis, truth in (("az", LON), ("el", LAT)):
        mean = mean_of(rows, direction=axis)
        assert mean["valid"]
        assert mean["offset"] == pytest.approx(truth, abs=5 * mean["offset_error"])
        assert mean["offset_error"] < 0.5
        pixels = [r for r in rows if r["direction"] == axis and r["pixel"] >= 0]
        assert {r["pixel"] for r in pixels} == set(range(scans.PIXELS))
        (middle,) = [r for r in pixels if r["pixel"] == 1]
        assert middle["amplitude"] == pytest.approx(STRENGTH, rel=0.05)  # K: calibrated


def test_processFocus(played: Played) -> None:
    mean = mean_of(played.rows("foci", scan=FOCUS), axis="z")
    assert mean["valid"]
    assert mean["position"] == pytest.approx(BEST_MM, abs=5 * mean["position_error"])
    assert mean["position_error"] < 0.1
    assert played.feedback(FOCUS, "focus")["results"][0]["position"] == mean["position"]


def test_processSkidip(played: Played) -> None:
    mean = mean_of(played.rows("skydips", scan=SKYDIP))
    assert mean["valid"]
    assert mean["tau"] == pytest.approx(scans.TAU, rel=0.05)
    assert mean["f_eff"] == pytest.approx(scans.F_EFF, abs=0.02)
    assert not played.rows("messages", scan=SKYDIP)


def test_processPositionSW(played: Played) -> None:
    """ON-OFF so far after each subscan; the average with its noise at the end."""
    assert not played.looks(ON_OFF, 0)
    (look,) = played.looks(ON_OFF, 1)
    assert np.nanmean(look.bands[0].spectrum[:, 0, 1]) == pytest.approx(STRENGTH, abs=0.1)
    rows = played.rows("spectra", scan=ON_OFF)
    assert len(rows) == scans.PIXELS
    for row in rows:
        assert row["valid"]
        assert 0.5 < row["rms"] / row["rms_expected"] < 2.0
    spectra: Any = open_l1(played.project / "l1.zarr").scan(ON_OFF)["spectra"][...]
    assert np.nanmean(spectra[:, :, 0, 1, 0]) == pytest.approx(STRENGTH, abs=0.05)


def deviations(switched: Played, scan: int) -> dict[str, Any]:
    found = compare_to_truth(switched.project / "l1.zarr", switched.night.parent / "truth.npz")
    return {row.quantity: row for row in found if row.scan == scan}


def scan_of(switched: Played, procedure: str) -> int:
    (row,) = switched.rows("scans", procedure=procedure)
    assert row["state"] == "calibrated"
    return int(row["scan"])


def test_processFrequencySW(switched: Played) -> None:
    """The phase difference while it goes on, the folded average at the end."""
    scan = scan_of(switched, "frequency-switch")
    assert not switched.looks(scan, 0)
    assert switched.looks(scan, 1)
    l1 = open_l1(switched.project / "l1.zarr").scan(scan)
    assert l1.attrs["folded"]
    # the line in the reference moves the fitted PWV a little, hence the spectra
    peak = float(np.nanmax(np.abs(l1["spectra"][...])))
    assert deviations(switched, scan)["spectra"].rms < 0.01 * peak
    assert switched.rows("spectra", scan=scan)


def test_processWobblerSW(switched: Played) -> None:
    scan = scan_of(switched, "on-off")
    assert switched.looks(scan, 0)  # both phases of the wobbler are in one subscan
    found = deviations(switched, scan)
    assert found["spectra"].rms < 2e-3
    assert found["t_sys"].rms < 0.1
    assert switched.rows("spectra", scan=scan)


def test_processOTF(played: Played) -> None:
    """The e-mail of 2001: with both REF after the second one, with the last one alone at the end."""
    for s in (0, 1, 2):
        assert not played.looks(OTF, s)
    (between,) = played.looks(OTF, 3)
    assert (between.kind, between.subscans) == ("calibrated", (1, 2))
    (after,) = played.looks(OTF, 4)
    assert (after.kind, after.subscans) == ("calibrated", (4,))
    spectra: Any = open_l1(played.project / "l1.zarr").scan(OTF)["spectra"]
    assert spectra.shape[4] == 3  # every OTF subscan, no REF
    scene = scans.Scene()
    for i, cross in enumerate((-8.0, 0.0, 8.0)):
        expected = STRENGTH * scans.footprint(scans.drift("az", 1, cross=cross), scene)
        np.testing.assert_allclose(np.nanmean(spectra[..., i], axis=0)[:, 0], expected, atol=0.2)
    kinds = {row["kind"] for row in played.rows("plots", scan=OTF)}
    assert kinds >= {"look", "map", "waterfall", "spectra"}
    # in CLASS every dump is a spectrum with a position of its own, so that a map can be made
    found = list(open_class(played.project / "class" / f"scan_{OTF:06d}.30m"))
    assert len(found) == 3 * scans.DUMPS * scans.PIXELS
    places = {(round(s.offset_lon * 3600, 2), round(s.offset_lat * 3600, 2)) for s in found}
    assert places == {
        (round(lon + pixel, 2), cross)
        for lon in np.linspace(-60.0, 60.0, scans.DUMPS)
        for pixel in scans.pixel_offsets()
        for cross in (-8.0, 0.0, 8.0)
    }


def test_abbaToFits(played: Played) -> None:
    """Bolometer scans, and only those, go their own way to FITS when they end."""
    with fits.open(played.project / "fits" / f"scan_{BOLOMETER:06d}.fits", checksum=True) as file:
        assert file[0].header["OBSCLASS"] == "bolometer"
        counts = open_l0(played.night).scan_group(BOLOMETER)["source/data_5d"][...]
        np.testing.assert_array_equal(
            file["SOURCE", 2].data["COUNTS"][:, 0, 0], counts[0, :, 0, :, 1]
        )
    done = {(row["task"], row["scan"]) for row in played.rows("jobs")}
    assert {scan for task, scan in done if task == "fits_bolometer"} == {BOLOMETER}
    assert {task for task, scan in done if scan == BOLOMETER} == {
        "fits_bolometer",
        "plot_bolometer",
    }


def test_heraToFits(switched: Played, tmp_path: Path) -> None:
    """Raw scans of an array receiver as FITS, that can be read back bit for bit."""
    files = sorted((switched.project / "fits").glob("*.fits"))
    numbers = open_l0(switched.night).numbers()
    assert len(files) == len(numbers)
    report = import_raw_fits(files, tmp_path / "back.zarr")
    assert list(report.scans) == numbers
    for number in numbers:
        theirs = open_l0(switched.night).scan_group(number)
        ours = open_l0(tmp_path / "back.zarr").scan_group(number)
        for group in ("source", "calibration"):
            if group in theirs:
                name = f"{group}/data_5d"
                np.testing.assert_array_equal(ours[name][...], theirs[name][...])


def test_processWhatElse(tmp_path: Path) -> None:
    """A procedure nobody has heard of is processed as what was observed."""
    night = tmp_path / "night.zarr"
    subs = [OFF, scans.Sub("ON", strength=STRENGTH), OFF]
    scans.write(night, 1, subs, scans.Scene(), obs_procedure="mosaic")
    config = site(tmp_path, tmp_path, calibration=SETTINGS)
    replay = Replay(night, tmp_path / "l0.zarr", Pipe(config.pipe), project=PROJECT)
    replay.run(speed=math.inf)
    drain(config, ("calibration", "obs_procedure"))
    results = Results(config.database_url)
    (row,) = results.rows("scans")
    assert (row["procedure"], row["state"]) == ("on-off", "calibrated")
    assert len(results.rows("spectra")) == scans.PIXELS
    results.close()
    spectra: Any = open_l1(config.data / PROJECT / "l1.zarr").scan(1)["spectra"][...]
    np.testing.assert_allclose(np.nanmean(spectra[:, :, 0, 1, 0]), STRENGTH, rtol=1e-6)


# --- specifications ------------------------------------------------------------------------------


def test_obsProcedure(played: Played) -> None:
    """What the telescope recorded with the scan decides, online and later."""
    expected = {POINT: "pointing", FOCUS: "focus", SKYDIP: "skydip", OTF: "otf", ON_OFF: "on-off"}
    found = {row["scan"]: row["procedure"] for row in played.rows("scans")}
    assert {scan: found[scan] for scan in expected} == expected
    for scan in expected:
        recorded = open_l0(played.grown).scan_group(scan).attrs["obs_procedure"]
        assert played.job(scan, 0).procedure == recorded


def test_endOfScan(played: Played, tmp_path: Path) -> None:
    """Planned number reached; a mark of the producer; a later scan begun; nothing for long."""
    night = tmp_path / "l0.zarr"
    subs = [OFF, scans.Sub("ON", strength=STRENGTH), OFF]
    planned: dict[int, dict[str, Any]] = {1: {"n_subscans_planned": 3}, 2: {}, 3: {}, 4: {}}
    for number, attrs in planned.items():
        scans.write(night, number, subs, scans.Scene(), obs_procedure="onoff", **attrs)
    config = site(tmp_path, tmp_path, calibration=SETTINGS)
    pipe = Pipe(config.pipe)
    results = Results(config.database_url)
    attrs = {"obs_procedure": "onoff"}

    def announce(scan: int, *subscans: int) -> Job:
        jobs = [job_of(night, scan, s, "source", attrs, project=PROJECT) for s in subscans]
        for job in jobs:
            pipe.submit(job)
        drain(config, ("calibration",))
        return jobs[-1]

    def state(scan: int) -> str:
        return str(results.rows("scans", scan=scan)[0]["state"])

    announce(1, 0, 1)
    assert state(1) == "open"
    announce(1, 2)
    assert state(1) == "calibrated"
    announce(2, 0, 1, 2)
    assert state(2) == "open"
    announce(2, END)
    assert state(2) == "calibrated"
    last = {scan: announce(scan, 0, 1, 2) for scan in (3, 4)}
    idle = {3: 1.0, 4: 1.0}
    for expected in (3, 4):
        opened = [OpenScan(last[n], idle[n]) for n in last if state(n) == "open"]
        (end,) = missing_ends(opened, timeout=60.0)
        assert end.scan == expected
        pipe.submit(end)
        drain(config, ("calibration",))
        assert state(expected) == "calibrated"
        idle[4] = 61.0
    results.close()


def test_workingDirectory(played: Played) -> None:
    """<work>/<task>/<project>; in the project's folder lie results alone."""
    work = played.config.work
    assert {p.name for p in work.iterdir()} <= set(TASKS)
    for task in ("calibration", "obs_procedure"):
        assert [p.name for p in (work / task).iterdir()] == [PROJECT]
    folders = {p.name for p in played.project.iterdir()}
    assert folders == {"l1.zarr", "fits", "class", "plots", "logs", "feedback"}


def test_scriptCoding() -> None:
    """Tasks are functions of one form, under the rules of the house."""
    assert set(TASK_FUNCTIONS) == set(TASKS)
    for function in TASK_FUNCTIONS.values():
        assert function.__doc__
        assert list(inspect.signature(function).parameters) == ["job", "context"]
        assert function.__annotations__["return"] == "list[str]"
    files = sorted((ROOT / "gpucal" / "online").rglob("*.py"))
    assert {Path(inspect.getfile(function)) for function in TASK_FUNCTIONS.values()} <= set(files)
    for path in files:
        for rule, rooms in test_layering.RULES:
            if "gpucal" in rooms:
                assert rule(path.read_text("utf-8"), path.relative_to(ROOT).as_posix()) == []


@pytest.fixture(scope="module")
def supervised(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A supervisor of one real worker process, and a way to go on until something happens."""
    folder = tmp_path_factory.mktemp("supervised")
    workers = dict.fromkeys(TASKS, 0) | {"fits_heterodyne": 1}
    config = site(folder, folder, calibration=SETTINGS, workers=workers)
    supervisor = Supervisor(config)
    (slot,) = supervisor._slots

    def until(happened: Any) -> None:
        end = time.monotonic() + 300.0
        while not happened():
            assert time.monotonic() < end, "it did not happen in time"
            supervisor.tick()
            time.sleep(0.05)

    def lives() -> bool:
        active = supervisor.pipe.task("fits_heterodyne").path / ".active"
        return slot.process is not None and any(
            f"~{slot.process.pid}~" in worker.name for worker in active.iterdir()
        )

    until(lives)
    yield supervisor, slot, until, lives
    supervisor._end()


def test_taskControl(supervised: Any) -> None:
    """The operator restarts a task."""
    supervisor, slot, until, lives = supervised
    before = slot.process.pid
    request(supervisor.config.pipe, "restart", "fits_heterodyne")
    until(lambda: slot.process is not None and slot.process.pid != before and lives())
    texts = [row["text"] for row in supervisor.results.rows("messages")]
    assert "fits_heterodyne: restarted by the operator" in texts


def test_taskCrashes(supervised: Any) -> None:
    """A task that is killed starts again by itself, and the operator is told."""
    supervisor, slot, until, lives = supervised
    before = slot.process.pid
    slot.process.kill()
    until(lambda: slot.process is not None and slot.process.pid != before and lives())
    errors = [row for row in supervisor.results.rows("messages") if row["level"] == "error"]
    assert any(
        "a worker of fits_heterodyne was killed by signal 9" in row["text"]
        and row["task"] == "fits_heterodyne"
        for row in errors
    )


# --- the table -----------------------------------------------------------------------------------

NAMES = (
    "dataOnlineProcessing",
    "dataTransferIramEA",
    "dataTransferOthers",
    "processCalibration",
    "processSubscans",
    "processScan",
    "processCancelledScans",
    "feedbackObs",
    "logging",
    "plots",
    "processPointing",
    "processFocus",
    "processSkidip",
    "processPositionSW",
    "processFrequencySW",
    "processWobblerSW",
    "processOTF",
    "abbaToFits",
    "heraToFits",
    "processWhatElse",
    "obsProcedure",
    "endOfScan",
    "workingDirectory",
    "scriptCoding",
    "taskControl",
    "taskCrashes",
)
"""The list at the end of the document of 2001, in its order."""


def table_rows() -> list[list[str]]:
    text = TABLE.read_text("utf-8").partition("## Nights that go otherwise")[0]
    lines = [x for x in text.splitlines() if x.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[1:]]


def test_every_requirement_has_a_row() -> None:
    assert len(NAMES) == 26
    assert tuple(row[0] for row in table_rows()) == NAMES


def test_sequences_of_other_nights_are_tests() -> None:
    text = TABLE.read_text("utf-8").partition("## Nights that go otherwise")[2]
    named = re.findall(r"`(test_\w+\.py):(test_\w+)`", text)
    assert len(named) > 10
    for file, test in named:
        (path,) = (ROOT / "tests" / "online").rglob(file)
        assert f"def {test}(" in path.read_text("utf-8"), (file, test)
    rows = [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("| ")][1:]
    assert set(rows) <= set(NAMES)


def test_what_the_table_names_is_there() -> None:
    here = (ROOT / "tests" / "online" / "test_requirements.py").read_text("utf-8")
    for name, became, code, test in table_rows():
        assert len(became) > 20, name
        assert test == f"test_{name}"
        assert f"def {test}(" in here, test
        places = re.findall(r"`([^`]+)`", code)
        assert places, name
        for place in places:
            path, _, thing = place.partition(":")
            assert (ROOT / path).is_file(), place
            if thing:
                module = importlib.import_module(path.removesuffix(".py").replace("/", "."))
                assert hasattr(module, thing), place
