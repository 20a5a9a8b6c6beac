"""``gpucal export``: all commands, their refusals, and that nothing half-written is left."""

from __future__ import annotations

from pathlib import Path

import pytest
from astropy.io import fits
from builders.export.store import SHAPE, make_store

from gpucal import main

C, D, R, A, S = SHAPE
ALL = 2 * (S * D * R * A - 1)
COUNTS = {"none": ALL, "dumps": 2 * S * R * A, "subscans": 2 * R * A}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("cli"))


def rows(path: Path) -> int:
    """Spectra in what was written."""
    if path.is_dir():
        return len(list(path.iterdir()))
    if path.suffix == ".fits":
        return int(fits.getheader(path, 1)["NAXIS2"])
    from gpucal import open_class

    return len(open_class(path))


@pytest.mark.parametrize("average", list(COUNTS))
@pytest.mark.parametrize(
    ("command", "name"),
    [("sdfits", "x.fits"), ("class-fits", "x.fits"), ("fits1d", "x"), ("class", "x.30m")],
)
def test_every_format_and_average(
    store: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    command: str,
    name: str,
    average: str,
) -> None:
    out = tmp_path / name
    assert main(["export", command, str(store), str(out), "--average", average]) == 0
    assert capsys.readouterr().out.strip() == f"{COUNTS[average]} spectra in {out}"
    assert rows(out) == COUNTS[average]
    assert main(["export", command, str(store), str(out)]) != 0
    assert "already" in capsys.readouterr().err
    options = ["--overwrite", "--scans", "12", "--average", "subscans", "--quiet"]
    assert main(["export", command, str(store), str(out), *options]) == 0
    assert capsys.readouterr().out == ""
    assert rows(out) == R * A
    assert [p.name for p in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(
    ("options", "code", "text"),
    [
        (["--scans", "7,99"], 1, "has no scan 99"),
        (["--scans", "7-x"], 64, "expected numbers and ranges"),
        (["--scale", "tmb"], 64, "Give the main-beam efficiency with --b-eff"),
        (["--scale", "tmb", "--b-eff", "1.2"], 64, "expected a number in 0..1"),
        (["--average", "all"], 64, "--average"),
    ],
)
def test_refusals_are_one_sentence(
    store: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    code: int,
    text: str,
) -> None:
    assert main(["export", "sdfits", str(store), str(tmp_path / "x.fits"), *options]) == code
    said = capsys.readouterr().err
    assert text in said
    assert len(said.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "sdfits", str(tmp_path), str(tmp_path / "x.fits")]) == 1
    assert "is not a Zarr v3 group" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_t_mb_through_the_command(store: Path, tmp_path: Path) -> None:
    for scale in ("ta", "tmb"):
        options = ["--scale", scale, "--b-eff", "0.475", "--quiet"]
        assert main(["export", "sdfits", str(store), str(tmp_path / scale), *options]) == 0
    ta, tmb = (fits.getdata(tmp_path / scale, 1)["DATA"] for scale in ("ta", "tmb"))
    assert tmb[3][40] == pytest.approx(2.0 * ta[3][40], rel=1e-6)


def test_raw_counts_have_their_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "--help"]) == 0
    said = capsys.readouterr().out
    for command in ("sdfits", "class", "class-fits", "fits1d", "raw-fits"):
        assert command in said
