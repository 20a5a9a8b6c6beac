"""CLASS files: what is written comes back, other readers agree, broken files are named."""

from __future__ import annotations

import dataclasses
import gc
import math
import tracemalloc
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from builders.class_file import big_endian, write_v2
from hypothesis import given, settings
from hypothesis import strategies as st

from gpucal import (
    GpucalWarning,
    ImportFormatError,
    L1Error,
    Spectrum,
    main,
    open_class,
    write_class,
)
from gpucal.io.gildas import words as class_layout
from gpucal.io.gildas import writer as class_write
from gpucal.io.gildas.reader import is_class_file

LIGHT = 299792458.0
ROUNDING = 2.0**-24
"""Largest relative error of a 32-bit float."""


def spectrum(n: int = 64, seed: int = 0, **changes: Any) -> Spectrum:
    values = np.random.default_rng(seed).normal(size=n)
    base: dict[str, Any] = {
        "frequency": 460.9e9,
        "frequency_step": 61035.15625,
        "ref_channel": 20.25,
        "rest_frequency": 460.9021e9,
        "image_frequency": 472.9e9,
        "velocity": -12.3e3,
        "site_velocity": 21345.6,
        "source": "ORION-KL",
        "line": "CO(4-3)",
        "telescope": "FYST",
        "instrument": "CHAI",
        "scan": 25650,
        "subscan": 3,
        "receiver": 0,
        "pixel": 7,
        "mjd": 61365.123456,
        "exptime": 12.5,
        "azimuth": 2.1,
        "elevation": 0.9,
        "ra": 83.8083333,
        "dec": -5.3911111,
        "offset_lon": 0.01,
        "offset_lat": -0.02,
        "site_lat": -22.98,
        "site_lon": -67.74,
        "site_alt": 5612.0,
        "t_sys": 812.5,
        "t_rec": 301.0,
        "tau_signal": 0.71,
        "tau_image": 0.95,
        "pwv": 0.62,
        "tamb": 268.2,
        "pamb": 395.5,
        "f_eff": 0.95,
        "gain_image": 0.02,
        "t_hot": 289.1,
        "t_cold": 77.2,
        "counts_hot": 9.1e6,
        "counts_cold": 4.3e6,
        "counts_sky": 5.2e6,
    }
    return Spectrum(values=values, **(base | changes))


def in_frame(s: Spectrum) -> np.ndarray:
    """Frequencies in the frame of the source velocity, Hz."""
    return s.frequencies * (1.0 + s.site_velocity / LIGHT)


def assert_same_axis(s: Spectrum, back: Spectrum, header: dict[str, Any]) -> None:
    """Frequency and velocity of every channel, to 1 Hz and 1 m/s beside the rounding of the steps."""
    line = header["rchan"] - 1.0
    distance = np.abs(np.arange(s.values.size) - line) * abs(s.frequency_step)
    error = np.abs(in_frame(back) - in_frame(s))
    assert np.all(error < 1.0 + 1.1 * ROUNDING * distance)
    if math.isfinite(s.rest_frequency):
        i = np.arange(s.values.size) + 1.0
        velocity = header["voff"] * 1e3 + (i - header["rchan"]) * header["vres"] * 1e3
        expected = LIGHT * (1.0 - in_frame(s) / s.rest_frequency)
        assert np.abs(velocity - expected).max() < 1.0


def test_every_field_survives(tmp_path: Path) -> None:
    s = spectrum()
    assert write_class(tmp_path / "a.30m", [s]) == 1
    file = open_class(tmp_path / "a.30m")
    back = file[0]
    assert (len(file), file.version, file.kind, file.byte_order) == (1, 1, "single", "<")
    assert (back.source, back.line, back.telescope) == (s.source, s.line, "FYST-CH00070")
    assert (back.scan, back.subscan, back.scale) == (s.scan, s.subscan, "ta")
    assert back.velocity_frame == "LSRK"
    assert back.mjd == pytest.approx(s.mjd, abs=1e-9)
    assert_same_axis(s, back, file.header(0))
    exact = {"ra", "dec", "site_lat", "site_lon"}
    rounded = (
        "exptime azimuth elevation offset_lon offset_lat site_alt t_sys t_rec tau_signal tau_image"
    )
    rounded += (
        " pwv tamb pamb f_eff gain_image t_hot t_cold counts_hot counts_cold counts_sky velocity"
    )
    for name in [*exact, *rounded.split()]:
        near = 1e-12 if name in exact else 2 * ROUNDING
        assert getattr(back, name) == pytest.approx(getattr(s, name), rel=near), name
    image = s.image_frequency + (s.ref_channel - back.ref_channel) * s.frequency_step
    shifted = image * (1 + s.site_velocity / LIGHT)
    assert back.image_frequency == pytest.approx(shifted, abs=10.0)


@settings(max_examples=60)
@given(
    n=st.integers(1, 700),
    seed=st.integers(0, 2**31),
    nans=st.floats(0, 1),
    step=st.floats(1e3, 5e6),
    sign=st.sampled_from([-1, 1]),
    ref=st.floats(-500, 1500),
    frequency=st.floats(8e10, 4.8e12),
    off_line=st.floats(-900, 900) | st.none(),
    velocity=st.floats(-3e5, 3e6) | st.just(math.nan),
    site=st.floats(-6e4, 6e4),
    frame=st.sampled_from(["LSRK", "HELIOCEN", "TOPOCENT"]),
)
def test_round_trip(
    tmp_path: Path,
    n: int,
    seed: int,
    nans: float,
    step: float,
    sign: int,
    ref: float,
    frequency: float,
    off_line: float,
    velocity: float,
    site: float,
    frame: Literal["LSRK", "HELIOCEN", "GEOCENTR", "TOPOCENT"],
) -> None:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=n) * 10.0 ** rng.integers(-3, 4)
    values[rng.random(n) < nans] = np.nan
    site = 0.0 if frame == "TOPOCENT" else site
    source_velocity = 0.0 if math.isnan(velocity) else velocity
    rest = math.nan
    if off_line is not None:
        here = (frequency + off_line * step) * (1 + site / LIGHT)
        rest = here / (1 - source_velocity / LIGHT)
    s = dataclasses.replace(
        spectrum(),
        values=values,
        frequency=frequency,
        frequency_step=sign * step,
        ref_channel=ref,
        rest_frequency=rest,
        velocity=velocity,
        site_velocity=site,
        velocity_frame=frame,
    )
    write_class(tmp_path / "a.30m", [s], overwrite=True)
    file = open_class(tmp_path / "a.30m")
    back = file[0]
    assert np.array_equal(back.values, values.astype(np.float32), equal_nan=True)
    assert back.velocity_frame == frame
    assert_same_axis(s, back, file.header(0))


def test_nothing_known_but_the_axis(tmp_path: Path) -> None:
    s = Spectrum(values=np.array([1.0, np.nan]), frequency=1e11, frequency_step=-1e6, ref_channel=0)
    write_class(tmp_path / "a.30m", [s])
    back = open_class(tmp_path / "a.30m")[0]
    assert np.array_equal(back.values, s.values, equal_nan=True)
    assert back.frequencies == pytest.approx(s.frequencies, abs=1e-3)
    assert (back.scan, back.subscan, back.scale, back.velocity_frame) == (-1, -1, "", "TOPOCENT")
    unknown = "mjd exptime azimuth elevation ra dec t_sys t_rec tau_signal pwv tamb pamb f_eff b_eff gain_image"
    unknown += " t_hot t_cold counts_hot site_lat site_lon site_alt image_frequency"
    for name in unknown.split():
        assert math.isnan(getattr(back, name)), name


def test_without_site_velocity_the_axis_stays_topocentric(tmp_path: Path) -> None:
    write_class(tmp_path / "a.30m", [spectrum(site_velocity=math.nan)])
    file = open_class(tmp_path / "a.30m")
    assert (file[0].velocity_frame, file.header(0)["voff"]) == ("TOPOCENT", 0.0)
    assert file[0].frequencies == pytest.approx(spectrum().frequencies, abs=1.0)


def test_values_that_look_like_blanks_and_too_large_ones(tmp_path: Path) -> None:
    values = np.array([-1000.0, 1e300, -np.inf, 0.0])
    write_class(tmp_path / "a.30m", [dataclasses.replace(spectrum(), values=values)])
    back = open_class(tmp_path / "a.30m")[0].values
    assert back[0] == pytest.approx(-1000.0, rel=1e-6)
    assert np.isnan(back[1:3]).all()
    assert back[3] == 0.0


def test_main_beam_scale_and_names(tmp_path: Path) -> None:
    s = [
        spectrum(scale="tmb", b_eff=0.7, source="a very long name", receiver=-1, band="band_2"),
        spectrum(scale="", b_eff=1.0, source="Grün", pixel=-1, receiver=-1),
    ]
    write_class(tmp_path / "a.30m", s)
    first, second = open_class(tmp_path / "a.30m")
    assert (first.scale, first.source) == ("tmb", "A VERY LONG")
    assert first.telescope == "FYST-CH2007-"
    assert first.b_eff == pytest.approx(0.7)
    assert (second.scale, second.source, second.telescope) == ("", "GR?N", "FYST-CHAI")


def test_ten_thousand_spectra_in_several_extensions(tmp_path: Path) -> None:
    def many() -> Iterator[Spectrum]:
        for i in range(10_000):
            yield spectrum(3, i, scan=i + 1)

    assert write_class(tmp_path / "a.30m", many()) == 10_000
    file = open_class(tmp_path / "a.30m")
    assert len(file) == 10_000
    assert np.array_equal(file.index["scan"], np.arange(1, 10_001))
    assert np.all(np.diff(file.index["bloc"]) == 1)
    for i in (0, 63, 64, 79, 80, 5000, 9999, -1):
        back = file[i]
        assert back.scan == i % 10_000 + 1
        assert np.array_equal(back.values, spectrum(3, i % 10_000).values.astype(np.float32))


def test_memory_stays_bounded(tmp_path: Path) -> None:
    n = 500_000
    tracemalloc.start()
    try:
        write_class(tmp_path / "a.30m", (spectrum(n, i) for i in range(20)))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (tmp_path / "a.30m").stat().st_size > 20 * 4 * n
    assert peak < 8 * 4 * n


@pytest.mark.parametrize("code", [b"9B  ", b"1B  "])
def test_big_endian(tmp_path: Path, code: bytes) -> None:
    spectra = [spectrum(5 + i, i, scan=i + 1) for i in range(70)]
    write_class(tmp_path / "a.30m", spectra)
    other = tmp_path / "b.30m"
    other.write_bytes(big_endian((tmp_path / "a.30m").read_bytes(), code))
    little, big = open_class(tmp_path / "a.30m"), open_class(other)
    assert (big.byte_order, big.kind) == (">", "single" if code[:1] == b"9" else "multiple")
    for i in range(70):
        assert big.header(i) == little.header(i)
        assert np.array_equal(big[i].values, little[i].values)


@pytest.mark.parametrize("growth", [10, 20])
def test_version_2(tmp_path: Path, growth: int) -> None:
    spectra = [spectrum(50 + i, i, scan=i + 1) for i in range(9)]
    write_v2(tmp_path / "a.30m", spectra, growth=growth)
    write_class(tmp_path / "b.30m", spectra)
    two, one = open_class(tmp_path / "a.30m"), open_class(tmp_path / "b.30m")
    assert (two.version, len(two)) == (2, 9)
    for i in range(9):
        assert np.array_equal(two[i].values, one[i].values)
        for key, value in one.header(i).items():
            assert key in ("bloc", "dred") or two.header(i)[key] == value, key


def test_drifts_and_old_versions_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "a.30m"
    write_class(path, [spectrum(5, i, scan=i + 1) for i in range(6)])
    raw = bytearray(path.read_bytes())
    start = (int(np.frombuffer(raw, "<i4", 1, 20)[0]) - 1) * 512
    index = np.frombuffer(raw, class_layout.INDEX[1].newbyteorder("<"), 6, start).copy()
    index["kind"][[1, 4]] = 1
    index[2] = index[3]
    index["ver"][[2, 3]] = -1, 2
    raw[start : start + index.nbytes] = index.tobytes()
    path.write_bytes(raw)
    file = open_class(path)
    assert (len(file), file.n_other, file.n_superseded) == (3, 2, 1)
    assert [s.scan for s in file] == [1, 4, 6]
    assert [s.scan for s in open_class(path, superseded=True)] == [1, 4, 4, 6]


def edited(path: Path, n: int, change: Callable[[Any, Any], None]) -> None:
    """Change index entries and general sections [n] of a file of ``write_class``."""
    raw = bytearray(path.read_bytes())
    start = (int(np.frombuffer(raw, "<i4", 1, 20)[0]) - 1) * 512
    index = np.frombuffer(raw, class_layout.INDEX[1].newbyteorder("<"), n, start).copy()
    kind = class_layout.written_entry()
    places = [(int(record) - 1) * 512 for record in index["bloc"]]
    entries = np.array([np.frombuffer(raw, kind, 1, p)[0] for p in places], kind)
    change(index, entries)
    raw[start : start + index.nbytes] = index.tobytes()
    for p, entry in zip(places, entries, strict=True):
        raw[p : p + kind.itemsize] = entry.tobytes()
    path.write_bytes(raw)


@pytest.mark.parametrize("negated", [False, True])
def test_one_number_for_all_spectra_hides_none(
    tmp_path: Path, negated: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """CLASS takes what has one number for versions of one spectrum: scan and telescope say otherwise."""
    path = tmp_path / "a.30m"
    write_class(path, [spectrum(5, i, scan=9, subscan=i // 2, pixel=i % 2) for i in range(6)])

    def change(index: Any, entries: Any) -> None:
        index["num"] = 1
        if negated:
            index["ver"] = [-1, -2, -3, -4, -5, 6]

    edited(path, 6, change)
    file = open_class(path)
    assert (len(file), file.n_superseded) == (6, 0)
    assert [s.subscan for s in file] == [0, 0, 1, 1, 2, 2]
    for i in range(6):
        assert file[i].values == pytest.approx(spectrum(5, i).values, rel=1e-6)
    assert main(["inspect", str(path)]) == 0
    out = capsys.readouterr().out
    assert "index" in out
    assert [line.split()[0] for line in out.splitlines() if "9.3" in line] == ["4", "5"]


@pytest.mark.parametrize("day", [-60549, -60549 + 15020, -32768, 0, 40000, 2**31 - 1])
def test_a_missing_date_is_nan(tmp_path: Path, day: int) -> None:
    path = tmp_path / "a.30m"
    write_class(path, [spectrum(5)])

    def change(index: Any, entries: Any) -> None:
        index["dobs"] = day
        entries["general"]["ut"] = entries["general"]["st"] = 0.0

    edited(path, 1, change)
    assert math.isnan(open_class(path)[0].mjd)


def test_day_zero_with_a_time_is_a_date(tmp_path: Path) -> None:
    path = tmp_path / "a.30m"
    write_class(path, [spectrum(5, mjd=60549.25)])
    assert open_class(path)[0].mjd == pytest.approx(60549.25)


@pytest.mark.parametrize("code", [0, 5])
def test_a_frame_that_is_not_told_is_not_topocentric(tmp_path: Path, code: int) -> None:
    path = tmp_path / "a.30m"
    write_class(path, [spectrum(5)])
    edited(path, 1, lambda _, entries: entries["spectroscopic"].__setitem__("vtype", code))
    found = open_class(path)[0]
    assert found.velocity_frame == ""
    write_class(tmp_path / "b.30m", [found])
    assert open_class(tmp_path / "b.30m").header(0)["vtype"] == 0


@pytest.mark.parametrize("frame", ["BARYCENT", "LSRD", "GALACTOC", "CMBDIPOL"])
def test_a_frame_that_class_does_not_have_is_converted(tmp_path: Path, frame: Any) -> None:
    """The line stays where it is on the sky; barycentric velocities are not called heliocentric."""
    s = spectrum(velocity_frame=frame)
    path = tmp_path / "a.30m"
    with pytest.warns(GpucalWarning, match=f"CLASS has no frame {frame}, velocities are converted"):
        write_class(path, [s, s])
    back = open_class(path)[0]
    assert back.velocity_frame == "LSRK"
    rest = s.rest_frequency

    def line(x: Spectrum) -> float:
        """Channel of the line at the velocity of the source."""
        here = rest * (1 - x.velocity / LIGHT) / (1 + x.site_velocity / LIGHT)
        return x.ref_channel + (here - x.frequency) / x.frequency_step

    assert line(back) == pytest.approx(line(s), abs=0.05)
    assert abs(back.velocity - s.velocity) > 1e3
    with pytest.warns(GpucalWarning, match="no direction to convert from"):
        write_class(path, [dataclasses.replace(s, ra=math.nan)], overwrite=True)
    assert open_class(path).header(0)["vtype"] == 3


def test_existing_file_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.30m"
    path.write_text("precious")
    with pytest.raises(L1Error, match="is there already"):
        write_class(path, [spectrum()])
    assert path.read_text() == "precious"
    assert write_class(path, [spectrum()], overwrite=True) == 1
    assert len(open_class(path)) == 1


def test_a_failure_leaves_nothing_behind(tmp_path: Path) -> None:
    def broken() -> Iterator[Spectrum]:
        yield spectrum()
        yield spectrum(frequency=math.nan)

    path = tmp_path / "a.30m"
    with pytest.raises(L1Error, match="spectrum 2 cannot be written as CLASS: its frequency axis"):
        write_class(path, broken())
    with pytest.raises(L1Error, match="no spectrum to write"):
        write_class(path, [])
    with pytest.raises(L1Error, match="no room in the 12 characters"):
        write_class(path, [spectrum(pixel=1000)])
    with pytest.raises(L1Error, match="do not fit in 32 bits"):
        write_class(path, [spectrum(scan=2**40)])
    with pytest.raises(L1Error, match="cannot be written"):
        write_class(tmp_path / "missing" / "a.30m", [spectrum()])
    assert list(tmp_path.iterdir()) == []


def test_too_many_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(class_write, "MAX_RECORDS", 10)
    with pytest.raises(L1Error, match="would exceed 1 TiB"):
        write_class(tmp_path / "a.30m", (spectrum() for _ in range(9)))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "expected the code of a CLASS file"),
        (b"SIMPLE  =", "expected the code of a CLASS file"),
        (b"9   " + bytes(2000), "VAX"),
        (b"9A  " + bytes(4), "truncated or corrupt"),
        (b"2A  " + bytes(4000), "truncated or corrupt"),
        (b"9A  " + np.array([3, -1, 1, 5], "<i4").tobytes() + bytes(2000), "truncated or corrupt"),
        (b"9A  " + np.array([3, 64, 0, 5], "<i4").tobytes() + bytes(2000), "room for 0 spectra"),
    ],
)
def test_no_class_file(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "a.30m"
    path.write_bytes(content)
    with pytest.raises(ImportFormatError, match=words):
        open_class(path)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ImportFormatError, match="cannot be read"):
        open_class(tmp_path / "nothing.30m")
    assert not is_class_file(tmp_path / "nothing.30m")
    assert not is_class_file(tmp_path)


def check_sentence(error: Exception) -> None:
    """An error for the user is one line that names the file."""
    assert "\n" not in str(error)
    assert "b.30m" in str(error)


def read_all(path: Path, originals: Sequence[Spectrum]) -> int:
    """Read a damaged file; what comes back must be an error or the right spectrum."""
    failed = 0
    try:
        file = open_class(path)
    except ImportFormatError as error:
        check_sentence(error)
        return len(originals)
    for i in range(len(file)):
        try:
            back = file[i]
        except ImportFormatError as error:
            check_sentence(error)
            failed += 1
            continue
        assert np.array_equal(back.values, originals[i].values.astype(np.float32))
        assert in_frame(back) == pytest.approx(in_frame(originals[i]), abs=10.0)
    return failed


@pytest.mark.parametrize("version", [1, 2])
def test_truncated_anywhere(tmp_path: Path, version: int) -> None:
    originals = [spectrum(200 + i, i, scan=i + 1) for i in range(5)]
    path = tmp_path / "a.30m"
    write_class(path, originals) if version == 1 else write_v2(path, originals, reclen=128)
    raw = path.read_bytes()
    assert read_all(path, originals) == 0
    cut = tmp_path / "b.30m"
    failures = 0
    for size in np.random.default_rng(version).integers(0, len(raw), 150).tolist():
        cut.write_bytes(raw[:size])
        failures += read_all(cut, originals) > 0
    assert failures > 75


@pytest.mark.parametrize("version", [1, 2])
def test_damaged_headers_never_end_in_a_traceback(tmp_path: Path, version: int) -> None:
    originals = [spectrum(200 + i, i, scan=i + 1) for i in range(5)]
    path = tmp_path / "a.30m"
    write_class(path, originals) if version == 1 else write_v2(path, originals, reclen=128)
    raw = path.read_bytes()
    rng = np.random.default_rng(version)
    bad = tmp_path / "b.30m"
    failures = 0
    for _ in range(300):
        damaged = bytearray(raw)
        for place in rng.integers(4, len(raw), 30).tolist():
            damaged[place] = int(rng.integers(0, 256))
        bad.write_bytes(damaged)
        try:
            for spectrum_read in open_class(bad):
                assert spectrum_read.values.ndim == 1
        except ImportFormatError:
            failures += 1
    assert failures > 30


class TestPyspeckit:
    """read_class of pyspeckit, an independent reader."""

    @pytest.fixture
    def reader(self) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pytest.importorskip("pyspeckit")
            from pyspeckit.spectrum.readers import read_class
        return read_class

    def read(self, reader: Any, path: Path) -> tuple[list[Any], list[dict[str, Any]], list[Any]]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            data, headers, _ = reader.read_class(str(path))
            data = [np.array(x) for x in data]
            headers = [dict(h) for h in headers]
            gc.collect()  # read_class leaves its file open
            axes = [np.asarray(reader.make_axis(h).as_unit("Hz").value) for h in headers]
        return data, headers, axes

    def test_values_and_axes(self, tmp_path: Path, reader: Any) -> None:
        spectra = [
            spectrum(1 + 7 * i, i, scan=i + 1, frequency_step=(-1) ** i * 61035.15625)
            for i in range(150)
        ]
        write_class(tmp_path / "a.30m", spectra)
        data, headers, axes = self.read(reader, tmp_path / "a.30m")
        assert len(data) == 150
        for s, values, header, axis in zip(spectra, data, headers, axes, strict=True):
            assert header["SCAN"] == s.scan
            assert values == pytest.approx(s.values, rel=1e-6)
            distance = abs(s.frequency_step) * (s.values.size + 40)
            assert np.abs(axis - in_frame(s)).max() < 1.0 + ROUNDING * distance
            velocity = LIGHT * (1.0 - axis / (header["RESTF"] * 1e6))
            expected = LIGHT * (1.0 - in_frame(s) / s.rest_frequency)
            assert np.abs(velocity - expected).max() < 1.0
            assert header["TSYS"] == pytest.approx(s.t_sys)
            assert header["OBSDATE"] == pytest.approx(s.mjd, abs=1e-9)
            assert (header["RA"], header["DEC"]) == pytest.approx((s.ra, s.dec))

    def test_wide_band(self, tmp_path: Path, reader: Any) -> None:
        """65536 channels over 4 GHz: the step has 32 bits, so the edges are off by at most 0.003 channel."""
        s = spectrum(65536, ref_channel=32768.5, frequency_step=4e9 / 65536)
        write_class(tmp_path / "a.30m", [s])
        _, headers, axes = self.read(reader, tmp_path / "a.30m")
        error = np.abs(axes[0] - in_frame(s))
        assert error[int(headers[0]["RCHAN"])] < 1.0
        assert error.max() < 2.1e9 * ROUNDING
        velocity = LIGHT * (1.0 - axes[0] / (headers[0]["RESTF"] * 1e6))
        expected = LIGHT * (1.0 - in_frame(s) / s.rest_frequency)
        assert np.abs(velocity - expected).max() < 1.0

    def test_as_spectrum(self, tmp_path: Path, reader: Any) -> None:
        write_class(tmp_path / "a.30m", [spectrum()])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            loaded = reader.class_to_spectra(str(tmp_path / "a.30m"))
            data = np.array(loaded.data).ravel()
            del loaded
            gc.collect()
        assert data == pytest.approx(spectrum().values, rel=1e-6)

    @pytest.mark.parametrize("growth", [10, 20])
    def test_version_2_of_the_tests_is_one(self, tmp_path: Path, reader: Any, growth: int) -> None:
        spectra = [spectrum(50 + i, i, scan=i + 1) for i in range(9)]
        write_v2(tmp_path / "a.30m", spectra, growth=growth)
        data, headers, _ = self.read(reader, tmp_path / "a.30m")
        for s, values, header in zip(spectra, data, headers, strict=True):
            assert header["SCAN"] == s.scan
            assert values == pytest.approx(s.values, rel=1e-6)
