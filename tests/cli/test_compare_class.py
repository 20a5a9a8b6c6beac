"""``gpucal compare class``: a calibrated store against a CLASS file that another program made of the same data."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from builders.night_stores import fast_folder, make_night, small_setup

from gpucal import (
    ClassComparison,
    L1Error,
    Selection,
    Spectrum,
    calibrate_store,
    compare_class,
    main,
    spectra_of_store,
    write_class,
)
from gpucal.export.rows import Average

Change = Callable[[Spectrum], Spectrum]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with fast_folder(tmp_path_factory.mktemp("night")) as path:
        make_night(path, small_setup(kinds=("tp", "otf"), pixels=2))
        calibrate_store(path / "l0.zarr", path / "l1", {"atmosphere": str(path / "table.npz")})
        yield path


def theirs(
    folder: Path,
    out: Path,
    change: Change = lambda s: s,
    *,
    average: Average = "none",
    scans: Sequence[int] | None = None,
) -> Path:
    """A CLASS file as another program would write it: other numbers of receivers and pixels are lost in it."""
    made = spectra_of_store(folder / "l1", Selection(average=average, scans=scans))
    write_class(out, (change(s) for s in made))
    return out


def compared(folder: Path, file: Path) -> ClassComparison:
    return compare_class(folder / "l1", file)


@pytest.mark.parametrize("average", ["none", "dumps", "subscans"])
def test_the_same_spectra_agree(folder: Path, tmp_path: Path, average: Average) -> None:
    found = compared(folder, theirs(folder, tmp_path / "a.30m", average=average))
    assert found.agrees(1e-4)
    assert {(r.scan, r.receiver, r.pixel) for r in found.rows} == {
        (n, r, a) for n in (1, 2) for r in (0, 1) for a in (0, 1)
    }
    for row in found.rows:
        assert row.count == {"none": 8, "dumps": 2, "subscans": 1}[average]
        assert (row.ratio, row.t_sys) == pytest.approx((1.0, 1.0), rel=1e-5)
        assert row.axis < 1e-3
        assert row.alike > 0.9999
        assert row.apart_arcsec < 0.01
        assert row.apart_s < 0.01
    assert found.verdict(0.01).startswith("Agrees")


def scaled(s: Spectrum) -> Spectrum:
    return replace(s, values=1.05 * s.values)


def warmer(s: Spectrum) -> Spectrum:
    return replace(s, t_sys=1.1 * s.t_sys)


def shifted(s: Spectrum) -> Spectrum:
    return replace(s, frequency=s.frequency + 0.3 * s.frequency_step)


def far(s: Spectrum) -> Spectrum:
    return replace(s, frequency=s.frequency + 3 * s.frequency_step)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (scaled, "T_A* -4.76 %"),
        (warmer, "T_sys* -9.09 %"),
        (shifted, "axis off by 0."),
        (far, "not of the same data"),
    ],
)
def test_what_differs_is_told(folder: Path, tmp_path: Path, change: Change, said: str) -> None:
    found = compared(folder, theirs(folder, tmp_path / "a.30m", change))
    assert not found.agrees(0.03)
    assert all(any(said in text for text in row.wrong(0.03)) for row in found.rows)
    assert found.verdict(0.03).startswith("Differs")


def test_an_axis_that_runs_the_other_way_and_a_part_of_it(folder: Path, tmp_path: Path) -> None:
    def turned(s: Spectrum) -> Spectrum:
        part = s.values[10:50][::-1]
        return replace(
            s, values=part, frequency_step=-s.frequency_step, ref_channel=49 - s.ref_channel
        )

    found = compared(folder, theirs(folder, tmp_path / "a.30m", turned))
    assert found.agrees(1e-3)


def test_a_file_with_the_frequencies_of_the_sky(folder: Path, tmp_path: Path) -> None:
    """Without a Doppler factor they are those of its frame of rest, or of the sky: the data tell."""

    def sky(s: Spectrum) -> Spectrum:
        return replace(s, velocity_frame="TOPOCENT", velocity=0.0, site_velocity=0.0)

    found = compared(folder, theirs(folder, tmp_path / "a.30m", sky))
    assert found.agrees(1e-3)
    assert max(row.axis for row in found.rows) < 1e-3


def test_a_time_and_an_offset_are_told_and_spoil_nothing(folder: Path, tmp_path: Path) -> None:
    def moved(s: Spectrum) -> Spectrum:
        return replace(s, mjd=s.mjd + 0.4 / 86400, offset_lon=s.offset_lon + 3 / 3600)

    found = compared(folder, theirs(folder, tmp_path / "a.30m", moved))
    assert found.agrees(1e-3)
    for row in found.rows:
        assert row.apart_arcsec == pytest.approx(3.0, abs=0.01)
        assert row.apart_s == pytest.approx(0.4, abs=0.01)


def test_other_data_of_the_same_scan_are_no_agreement(folder: Path, tmp_path: Path) -> None:
    """The same lines, but noise of their own: the scale may fit, and yet it is not the same observation."""
    random = np.random.default_rng(1)

    def other(s: Spectrum) -> Spectrum:
        return replace(s, values=random.normal(size=s.values.size) * np.nanstd(s.values))

    found = compared(folder, theirs(folder, tmp_path / "a.30m", other))
    assert not found.agrees(0.5)


def test_what_one_of_them_lacks(folder: Path, tmp_path: Path) -> None:
    found = compared(folder, theirs(folder, tmp_path / "one.30m", scans=[2]))
    assert (found.only_here, found.missing) == ((1,), {})
    assert found.agrees(0.01)

    def renamed(s: Spectrum) -> Spectrum:
        return replace(s, scan=9 if s.scan == 1 else s.scan)

    file = theirs(folder, tmp_path / "nine.30m", renamed)
    found = compared(folder, file)
    assert found.missing == {9: 32}
    assert not found.agrees(0.01)
    with pytest.raises(L1Error, match="no scan in common"):
        compare_class(folder / "l1", file, scans=[9])


def test_the_command(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = str(folder / "l1")
    same, other = theirs(folder, tmp_path / "a.30m"), theirs(folder, tmp_path / "b.30m", scaled)
    assert main(["compare", "class", store, str(same)]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[-1].startswith("Agrees: 64 spectra of 8 pixels within 3 %")
    assert main(["compare", "class", store, str(other), "--scans", "2"]) == 2
    assert "Differs: 4 of 4 pixels" in capsys.readouterr().out
    assert main(["compare", "class", store, str(other), "--rtol", "0.1", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["agrees"] is True
    assert len(said["rows"]) == 8
    assert main(["compare", "class", store, str(same), "--sigma", "3"]) == 64
    assert main(["compare", store]) == 64
    assert main(["compare", "class", store, str(folder / "table.npz")]) != 0
    assert "Traceback" not in capsys.readouterr().err
