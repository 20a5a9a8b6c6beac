"""A store written subscan by subscan is the one written at once, and never holds half a scan."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import zarr
from builders import l0 as build
from builders.groups import source_of
from builders.night_stores import fast_folder, small_setup

import gpucal
from gpucal.errors import L0Error
from gpucal.io.files import atomic
from gpucal.simulate import Recording, compare_to_truth
from gpucal.simulate.counts import ScanCounts
from gpucal.simulate.night import MJD0, scan_attrs, small_arrays
from gpucal.simulate.receiver import build_band
from gpucal.simulate.schedule import plan_night
from gpucal.simulate.sky import synthetic_table

C, D, R, A, S = build.SHAPE
SITE = {"lat_deg": -22.98, "lon_deg": -67.74, "alt_m": 5612.0}
NAMES: dict[str, Any] = {"telescope": "FYST", "instrument": "CHAI", "site": SITE}
ATTRS = {"f_eff": 0.95, "gain_image": 1.0}


def subscan(index: int, *, calibration: Any = False, **changes: Any) -> Any:
    """What ``add`` takes for one subscan: counts, mode, values; None takes one away."""
    shape = (C, D, R, A, 2 if calibration else S)
    modes = ("HOT", "COLD") if calibration else build.SOURCE_MODES
    values = {
        k: v[..., index] for k, v in build.small_arrays(shape, calibration=calibration).items()
    }
    given = {**values, **changes}
    counts = given.pop("counts", build.counts(shape)[..., index])
    mode = given.pop("mode", modes[index])
    return counts, mode, {name: value for name, value in given.items() if value is not None}


def add(group: Any, index: int, **options: Any) -> Any:
    counts, mode, values = subscan(index, **options)
    return group.add(counts, mode, **values)


def add_loads(scan: Any, band: str = "") -> None:
    for index in range(2):
        add(scan.group("calibration", band), index, calibration=True)


def add_source(scan: Any, n: Any = S, band: str = "") -> None:
    for index in range(n):
        add(scan.group("source", band), index)


def tree(path: Path) -> Any:
    """Every array and attribute below a Zarr group, by name."""
    found: dict[Any, Any] = {}
    root = zarr.open_group(str(path), mode="r")
    for name, node in [("", root), *root.members(max_depth=None)]:
        found[name, "attributes"] = dict(node.attrs)
        if hasattr(node, "shape"):
            found[name] = node
    return found


def assert_same_tree(one: Any, other: Any) -> None:
    ours, theirs = tree(one), tree(other)
    assert ours.keys() == theirs.keys()
    for key, node in theirs.items():
        if not hasattr(node, "shape"):
            assert ours[key] == node, key
            continue
        assert ours[key].metadata.to_dict() == node.metadata.to_dict(), key
        np.testing.assert_array_equal(ours[key][...], node[...], err_msg=str(key))


@pytest.mark.parametrize("zarr_format", [3, 2])
@pytest.mark.parametrize("bands", [[""], ["band_1", "band_2"]])
def test_equals_the_scan_written_at_once(
    tmp_path: Path, zarr_format: Literal[2, 3], bands: list[str]
) -> None:
    with gpucal.L0Writer(tmp_path / "a.zarr", zarr_format=zarr_format, **NAMES) as night:
        band_attrs = {band: {"rest_freq_hz": 461e9} for band in bands if band}
        scan = night.begin(7, attrs=ATTRS, band_attrs=band_attrs, chunk_channels=5)
        for band in bands:
            add_loads(scan, band)
            add_source(scan, band=band)
        assert gpucal.open_l0(night.path).numbers() == []
        scan.close()
        assert gpucal.open_l0(night.path).numbers() == [7]
    build.new_store(tmp_path / "b.zarr", zarr_format=zarr_format)
    groups = {"source": build.source_group(), "calibration": build.calibration_group()}
    gpucal.write_l0_scan(
        tmp_path / "b.zarr",
        7,
        attrs=ATTRS,
        groups=dict.fromkeys(bands, groups),
        band_attrs=band_attrs,
        chunk_channels=5,
    )
    assert_same_tree(tmp_path / "a.zarr", tmp_path / "b.zarr")
    assert not atomic.staging_dir(tmp_path / "a.zarr").exists()


def instrument_writes(
    path: Path, setup: Any, plan: Any, makers: Any, *, publish: bool = False
) -> None:
    """The simulated scan as its instrument would write it."""
    with gpucal.L0Writer(path) as night:
        scan = night.begin(
            plan.number,
            attrs=scan_attrs(setup, setup.bands[0], plan),
            band_attrs={b.name: scan_attrs(setup, b, plan) for b in setup.bands if b.name},
            publish=publish,
        )
        with scan:
            for name in ("calibration", "source"):
                for maker in makers:
                    small = small_arrays(maker, name) if plan.group(name) else {}
                    fixed = {k: small.pop(k) for k in list(small) if k.startswith("pixel_")}
                    for s, sub in enumerate(plan.group(name)):
                        group = scan.group(name, maker.model.band.name, **(fixed if not s else {}))
                        values = {k: v[..., s] for k, v in small.items()}
                        assert group.add(maker.subscan(name, s), sub.mode, **values) == s


@pytest.fixture(scope="module")
def two_nights(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The same simulated night written scan by scan, and subscan by subscan; with its truth."""
    with fast_folder(tmp_path_factory.mktemp("nights")) as folder:
        setup = small_setup("chai", kinds=("otf", "tp"), separate=True)
        recording = Recording(dtype="f64", noise=False)
        gpucal.simulate_night(
            folder / "whole.zarr",
            setup,
            2,
            recording=recording,
            truth=folder / "truth.npz",
            table_out=folder / "atm.npz",
        )
        table = synthetic_table(setup)
        models = [build_band(setup, i, table, recording.seed) for i in range(len(setup.bands))]
        gpucal.create_l0(
            folder / "grown.zarr",
            telescope=setup.telescope,
            site=dict(setup.site.__dict__),
            instrument=setup.name,
            simulated=True,
            noise_free=True,
        )
        for plan in plan_night(setup, 2, mjd0=MJD0):
            makers = [ScanCounts(model, i, plan, recording) for i, model in enumerate(models)]
            instrument_writes(folder / "grown.zarr", setup, plan, makers)
        yield folder


def test_a_night_equals_one_written_scan_by_scan(two_nights: Any) -> None:
    assert_same_tree(two_nights / "grown.zarr", two_nights / "whole.zarr")


def test_a_night_calibrates_to_the_truth(two_nights: Any) -> None:
    config = gpucal.load_config(atmosphere=str(two_nights / "atm.npz"))
    report = gpucal.calibrate_store(two_nights / "grown.zarr", two_nights / "l1.zarr", config)
    assert not report.failures
    rows = compare_to_truth(two_nights / "l1.zarr", two_nights / "truth.npz")
    largest = {(row.scan, row.band, row.quantity): row.largest for row in rows}
    for scan in (2, 3):
        for band in ("band_1", "band_2"):
            assert largest[scan, band, "spectra"] < 0.05  # K
            assert largest[scan, band, "bad channels"] == largest[scan, band, "fill values"] == 0


@pytest.fixture
def night(tmp_path: Path) -> Any:
    with fast_folder(tmp_path) as folder, gpucal.L0Writer(folder / "night.zarr", **NAMES) as night:
        yield night


def numbers(night: Any) -> Any:
    return gpucal.open_l0(night.path).numbers()


def leftovers(night: Any) -> Any:
    return sorted(p.name for p in night.path.parent.iterdir() if p != night.path)


def test_the_order_of_the_groups_does_not_matter(night: Any) -> None:
    with night.begin(1, attrs=ATTRS) as scan:
        add(scan.group("source"), 0)
        add(scan.group("calibration"), 0, calibration=True)
        add(scan.group("source"), 1)
        add(scan.group("calibration"), 1, calibration=True)
    (scan,) = gpucal.open_l0(night.path).load(1)
    assert source_of(scan).sobsmode == ("OFF", "ON")
    np.testing.assert_array_equal(source_of(scan).counts.read(0, C, 1), subscan(1)[0])


def test_subscans_come_in_the_order_of_time(night: Any) -> None:
    scan = night.begin(1, attrs=ATTRS)
    add(scan.group("source"), 2)
    with pytest.raises(L0Error, match=r"^scan 1, subscan 1: mjd runs backwards: .* in the order"):
        add(scan.group("source"), 1)
    assert add(scan.group("source"), 3) == 1  # the refused subscan left no trace


def test_an_abandoned_scan_leaves_nothing(night: Any) -> None:
    scan = night.begin(1, attrs=ATTRS)
    add_loads(scan)
    scan.abandon()
    scan.abandon()
    assert numbers(night) == []
    assert leftovers(night) == []
    for late in (scan.close, lambda: scan.group("source")):
        with pytest.raises(L0Error, match="scan 1: the scan is already closed or abandoned"):
            late()


def observe_until_it_fails(scan: Any) -> None:
    with scan:
        add_source(scan, n=2)
        raise RuntimeError("the dome closed")


def test_an_exception_abandons_the_scan(night: Any) -> None:
    with pytest.raises(RuntimeError, match="dome"):
        observe_until_it_fails(night.begin(1, attrs=ATTRS))
    assert (numbers(night), leftovers(night)) == ([], [])
    with night.begin(1, attrs=ATTRS) as scan:  # its number is free
        add_source(scan)
    assert numbers(night) == [1]


def test_leaving_the_store_abandons_what_is_open(tmp_path: Path) -> None:
    with gpucal.L0Writer(tmp_path / "night.zarr", **NAMES) as night:
        group = night.begin(1, attrs=ATTRS).group("source")
        add(group, 0)
    with pytest.raises(L0Error, match="scan 1: the scan is closed, no subscan"):
        add(group, 1)
    assert (numbers(night), leftovers(night)) == ([], [])


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "channels": ({"counts": np.ones((11, D, R, A), "i4")}, r"shape \(11, 3, 2, 4\), expected \(12"),
    "axes": ({"counts": np.ones((C, D, R), "i4")}, r"shape \(12, 3, 2\), expected \[C, D, R, A\]"),
    "dtype": ({"counts": np.ones((C, D, R, A), "f4")}, "counts have dtype float32, expected int32"),
    "mode": ({"mode": "OM"}, "sobsmode 'OM' in source/ is unknown, .* Did you mean ON"),
    "mode of a load": ({"mode": "HOT"}, "sobsmode 'HOT' stands in source/, expected it in cal"),
    "missing": ({"mjd": None}, r"array mjd is missing, expected shape \(\) or \(3,\) = \[D\], d"),
    "missing later": ({"tamb": None}, r"tamb is missing, expected shape \(\), K as in subscan 0"),
    "unknown": ({"wind": 3.0}, "array 'wind' is unknown, expected mjd, "),
    "new": ({"thot": 295.0}, "array thot is new, expected it from subscan 0 on"),
    "dumps": ({"mjd": np.full(2, build.MJD0)}, r"mjd has shape \(2,\), expected \(\) or \(3,\)"),
    "other shape": ({"elevation": 0.9}, r"elevation has shape \(\), expected \(3,\) as in subscan"),
    "kind": ({"tamb": "cold"}, "tamb has dtype <U4, expected floating point or"),
    "degrees": ({"elevation": np.full(D, 45.0)}, "elevation of dump 0 is 45, .* like degrees"),
    "GHz": ({"signal_freq": np.full(R, 461.0)}, "receiver 0: signal_freq is 461, .*GHz"),
}


@pytest.mark.parametrize("case", WRONG)
def test_each_subscan_is_checked_as_it_comes(night: Any, case: Any) -> None:
    changes, words = WRONG[case]
    scan = night.begin(9, attrs=ATTRS)
    add(scan.group("source"), 0)
    with pytest.raises(L0Error, match=words) as caught:
        add(scan.group("source"), 1, **changes)
    assert str(caught.value).startswith("scan 9, subscan 1")
    assert add(scan.group("source"), 1) == 1


def test_the_first_subscan_needs_all_that_is_required(night: Any) -> None:
    group = night.begin(9, attrs=ATTRS).group("source", azimuth=1, tamb=268.0)
    counts, mode, values = subscan(0, tamb=None)
    with pytest.raises(L0Error, match="subscan 0: array azimuth was given for all subscans"):
        group.add(counts, mode, **values)
    del values["azimuth"], values["freq_res"]
    with pytest.raises(
        L0Error, match=r"subscan 0: array freq_res is missing, .*\(2,\) = \[R\], Hz"
    ):
        group.add(counts, mode, **values)
    with pytest.raises(L0Error, match="array image_freq is missing, and gain_image is not 0"):
        add(group, 0, tamb=None, azimuth=None, image_freq=None)
    assert add(group, 0, tamb=None, azimuth=None) == 0


def test_a_scan_that_no_reader_would_take_stays_open(night: Any) -> None:
    scan = night.begin(4, attrs=ATTRS)
    add(scan.group("source"), 1)
    with pytest.raises(L0Error, match="scan 4: there is no OFF subscan for ON"):
        scan.close()
    assert numbers(night) == []
    add(scan.group("source"), 2)
    scan.close()
    assert source_of(gpucal.open_l0(night.path).load(4)[0]).sobsmode == ("ON", "OFF")


@pytest.mark.parametrize(
    ("attrs", "words"),
    [
        ({"f_eff": 2.0}, "scan 3: scan attribute f_eff is 2.0"),
        ({"obs_class": "radar"}, "scan 3: scan attribute obs_class is 'radar'"),
        ({"gain_image": float("nan")}, "scan 3.*: attribute gain_image is nan"),
    ],
)
def test_attributes_that_cannot_be_right(night: Any, attrs: Any, words: Any) -> None:
    with pytest.raises(L0Error, match=words), night.begin(3, attrs={**ATTRS, **attrs}) as scan:
        add_source(scan)
    assert (numbers(night), leftovers(night)) == ([], [])


def test_misuse_is_told(night: Any) -> None:
    with night.begin(3, attrs=ATTRS) as scan:
        add_source(scan)
        with pytest.raises(L0Error, match="scan 3: the scan is begun already"):
            night.begin(3, attrs=ATTRS)
        with pytest.raises(L0Error, match="group 'loads' is unknown, expected source or"):
            scan.group("loads")
        with pytest.raises(L0Error, match="cannot be given again"):
            scan.group("source", tamb=270.0)
        with pytest.raises(L0Error, match="array 'wind' is unknown"):
            scan.group("calibration", wind=3.0)
    with pytest.raises(L0Error, match="scan 3: the scan is already in the store"):
        night.begin(3, attrs=ATTRS)
    with pytest.raises(L0Error, match="codec is 'lzma'"):
        night.begin(4, attrs=ATTRS, codec="lzma")
    with pytest.raises(L0Error, match="expected together, or none"):
        gpucal.L0Writer(night.path, telescope="FYST")
    with pytest.raises(L0Error, match="already holds scans of FYST CHAI, expected IRAM HERA"):
        gpucal.L0Writer(night.path, telescope="IRAM", instrument="HERA", site={})


def test_an_empty_group_is_told(night: Any) -> None:
    scan = night.begin(3, attrs=ATTRS)
    with pytest.raises(L0Error, match="scan 3: the scan holds neither"):
        scan.close()
    scan.group("source")
    with pytest.raises(L0Error, match="scan 3: source/ holds no subscan"):
        scan.close()


def test_a_scan_cut_short_is_incomplete(night: Any) -> None:
    with night.begin(5, attrs={**ATTRS, "n_subscans_planned": S}) as scan:
        add_source(scan, n=1)
    store = gpucal.open_l0(night.path)
    with pytest.raises(L0Error, match="incomplete: 1 subscans are there, expected 5 planned"):
        store.load(5)
    assert source_of(store.load(5, partial=True)[0]).shape == (C, D, R, A, 1)


def test_a_bolometer_scan_takes_its_track_at_the_end(night: Any) -> None:
    times = build.MJD0 + np.arange(D) / 86400
    with night.begin(6, attrs={"obs_class": "bolometer"}) as scan:
        group = scan.group("source", exptime=0.02)
        group.add(np.ones((1, D, 1, 7), "f4"), "any word", mjd=times)
        with pytest.raises(L0Error, match="array 'tamb' is not of a track"):
            group.set_track(tamb=np.ones(3))
        track = times[[0, -1]], np.array([1.0, 2.0]), np.array([0.5, 0.7])
        names = ("track_mjd", "track_azimuth", "track_elevation")
        group.set_track(**dict(zip(names, track, strict=True)))
    (scan,) = gpucal.open_l0(night.path).load(6)
    np.testing.assert_allclose(source_of(scan).azimuth[:, 0], [1.0, 1.5, 2.0], rtol=1e-6)


@pytest.mark.parametrize("bands", [[""], ["band_1", "band_2"]])
def test_published_subscans_are_read_while_the_scan_grows(night: Any, bands: list[str]) -> None:
    with night.begin(8, attrs=ATTRS, publish=True) as scan:
        assert numbers(night) == []
        for index in range(S):
            for band in bands:
                add(scan.group("source", band), index)
            with pytest.raises(L0Error, match="incomplete"):
                gpucal.open_l0(night.path).load(8)
            seen = gpucal.open_l0(night.path).load(8, partial=True)
            assert [s.band for s in seen] == bands
            for one in seen:
                counts, _, values = subscan(index)
                assert source_of(one).shape[4] == index + 1
                assert source_of(one).sobsmode == build.SOURCE_MODES[: index + 1]
                np.testing.assert_array_equal(source_of(one).counts.read(0, C, index), counts)
                np.testing.assert_array_equal(source_of(one).mjd[:, index], values["mjd"])
        for band in bands:
            add_loads(scan, band)
    assert leftovers(night) == []
    build.new_store(night.path.parent / "other.zarr")
    groups = {"source": build.source_group(), "calibration": build.calibration_group()}
    gpucal.write_l0_scan(
        night.path.parent / "other.zarr", 8, attrs=ATTRS, groups=dict.fromkeys(bands, groups)
    )
    whole = tree(night.path.parent / "other.zarr")
    for key, node in tree(night.path).items():
        if hasattr(node, "shape"):
            np.testing.assert_array_equal(node[...], whole[key][...], err_msg=str(key))
        else:
            assert node == whole[key], key


def test_a_published_scan_that_is_abandoned_stays_as_far_as_it_came(night: Any) -> None:
    with pytest.raises(RuntimeError, match="dome"):
        observe_until_it_fails(night.begin(8, attrs=ATTRS, publish=True))
    with pytest.raises(L0Error, match="incomplete"):
        gpucal.open_l0(night.path).load(8)
    assert source_of(gpucal.open_l0(night.path).load(8, partial=True)[0]).shape[4] == 2


KILLED = """
import os, signal, sys
sys.path[:0] = {path!r}
import gpucal
from io_l0_writer_tests import ATTRS, add, add_source
night = gpucal.L0Writer({store!r})
with night.begin(1, attrs=ATTRS) as scan:
    add_source(scan)
scan = night.begin(2, attrs=ATTRS, publish={publish})
add(scan.group("source"), 0)
add(scan.group("source"), 1)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("publish", [False, True])
def test_a_killed_writer_leaves_whole_scans_only(night: Any, tmp_path: Path, publish: bool) -> None:
    (tmp_path / "io_l0_writer_tests.py").symlink_to(__file__)
    code = KILLED.format(path=[str(tmp_path), *sys.path], store=str(night.path), publish=publish)
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == -signal.SIGKILL, run.stderr
    store = gpucal.open_l0(night.path)
    assert source_of(store.load(1)[0]).shape[4] == S
    if publish:
        assert source_of(store.load(2, partial=True)[0]).sobsmode == build.SOURCE_MODES[:2]
        return
    assert store.numbers() == [1]
    assert leftovers(night) == ["night.zarr.staging"]
    with gpucal.L0Writer(night.path) as again, again.begin(2, attrs=ATTRS) as scan:
        add_source(scan)
    assert (numbers(night), leftovers(night)) == ([1, 2], [])
