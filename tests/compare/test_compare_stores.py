"""``gpucal compare``: finds what differs, all of it and nothing else, and says how much in each pixel."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from builders.night_stores import fast_folder, small_setup
from builders.synthetic_l1 import write_l1

import gpucal
from gpucal import CalibrationConfig, Flag, L1Error, calibrate_store, compare_stores, main, open_l1
from gpucal.compare import bands as compared_bands
from gpucal.io.chunks.counts import ZarrCounts

UNUSABLE = 0x0CF  # bits 0-3, 6, 7 of the flags, as the formats page lists them


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Two scans calibrated in four ways: twice as they are, rounded, with another forward efficiency."""
    with fast_folder(tmp_path_factory.mktemp("night")) as folder:
        setup = small_setup(kinds=("tp", "fsw"), channels=64, pixels=2)
        gpucal.simulate_night(
            folder / "l0", setup, 2, truth=folder / "truth.npz", table_out=folder / "table.npz"
        )
        run(folder, "base")
        run(folder, "again", workers=2)
        run(folder, "noise", precision="noise")
        run(folder, "other", f_eff=0.9)
        yield folder


def scan_of(store: Path, scan: int) -> Any:
    """A scan of a calibrated store."""
    return open_l1(store)[scan]


def run(folder: Path, name: str, **options: Any) -> None:
    config = CalibrationConfig(atmosphere=str(folder / "table.npz"), backend="cpu", **options)
    report = calibrate_store(folder / "l0", folder / name, config)
    assert not report.failures


def copied(night: Path, tmp_path: Path, name: str = "base") -> Path:
    return Path(shutil.copytree(night / name, tmp_path / "new"))


def array_of(store: Path, name: str, scan: int = 1) -> Any:
    return zarr.open_array(store / f"scan_{scan:06d}" / name, mode="r+")


def test_the_same_is_the_same(night: Path) -> None:
    found = compare_stores(night / "base", night / "again")
    assert found.differing() == {}
    assert not found.only_old
    assert not found.only_new
    for band in found.bands:
        change = band.changes["spectra"]
        assert (change.count > 100).all()
        assert (change.ratio == 1.0).all()
        assert (change.largest == 0.0).all()
        assert not band.flagged
        assert not band.config
        assert not band.origin


def test_numbers_of_each_pixel(night: Path) -> None:
    """Against the definitions, from whole arrays."""
    for scan in (1, 2):
        old, new = (scan_of(night / name, scan) for name in ("base", "other"))
        (band,) = compare_stores(night / "base", night / "other", scans=[scan]).bands
        values = [
            np.where((s["flags"][...] & UNUSABLE) != 0, np.nan, s["spectra"][...])
            for s in (old, new)
        ]
        change = band.changes["spectra"]
        for r, a in np.ndindex(change.count.shape):
            x, y = (v[:, :, r, a] for v in values)
            both = np.isfinite(x) & np.isfinite(y)
            noise = old["t_sys_star"][:, r, a][:, None] * _dump_noise(old)
            size = np.abs(y - x)
            assert change.count[r, a] == both.sum()
            x, y, size = x[both], y[both], size[both]
            assert change.old[r, a] == pytest.approx(x.mean(), rel=1e-9)
            assert change.new[r, a] == pytest.approx(y.mean(), rel=1e-9)
            assert change.ratio[r, a] == pytest.approx((x * y).sum() / (x * x).sum(), rel=1e-9)
            assert change.rms[r, a] == pytest.approx(np.sqrt((size**2).mean()), rel=1e-9)
            assert change.largest[r, a] == pytest.approx(size.max(), rel=1e-12)
            of = np.broadcast_to(noise, both.shape)[both]
            assert change.sigma[r, a] == pytest.approx(np.nanmax(size / of), rel=1e-9)
            least = np.maximum(np.abs(x), np.nan_to_num(of))
            assert change.relative[r, a] == pytest.approx((size / least).max(), rel=1e-9)
        assert 0.9 < change.ratio.min() < change.ratio.max() < 1.1
        star = band.changes["t_sys_star"]
        expected = np.nanmean(new["t_sys_star"][...], axis=(0, 3))
        assert np.allclose(star.new, expected, rtol=1e-12)
        pwv = band.changes["pwv"]
        assert np.allclose(pwv.new - pwv.old, new["pwv"][...] - old["pwv"][...])
        assert band.config == {"f-eff": (None, 0.9)}
        assert {"spectra", "t_sys_star", "pwv"} <= set(band.differences(compared_tolerance()))
        assert not band.changes["t_rec"].differs(compared_tolerance()).any()


def compared_tolerance(rtol: float = 0.0, sigma: float = 0.0) -> Any:
    from gpucal.compare.products import Tolerance

    return Tolerance(rtol, sigma)


def _dump_noise(scan: Any) -> Any:
    """rms of one dump over T_sys*, [S], from the attributes of L1."""
    noise = scan.attrs["noise"]
    total = np.array(noise["rate"]) * scan["spectra"].shape[1]
    for output, share in zip(noise["output"], noise["share"], strict=True):
        total[output] += share**2
    width = abs(np.diff(scan["frequency"][...]).mean()) * scan.attrs["noise_bandwidth"]
    return np.sqrt(total / width)


def test_rounded_spectra_are_within_their_step(night: Path, tmp_path: Path) -> None:
    found = compare_stores(night / "base", night / "noise")
    assert found.differing() == {}
    for band in found.bands:
        step = scan_of(night / "noise", band.scan)["spectra"].attrs["quantization_step"]
        change = band.changes["spectra"]
        assert change.rounding == 0.5 * step
        assert 0.4 * step < change.largest.max() <= 0.5 * step
        assert set(band.config) == {"precision", "codec"}
    # Both ways, and a step that is not what was done is found out.
    assert compare_stores(night / "noise", night / "base").differing() == {}
    store = copied(night, tmp_path, "noise")
    array = array_of(store, "spectra", 2)
    array.attrs["quantization_step"] = 0.5 * array.attrs["quantization_step"]
    assert compare_stores(night / "base", store).differing() == {(2, ""): ["spectra"]}


def test_exactly_the_scans_that_differ(night: Path, tmp_path: Path) -> None:
    store = copied(night, tmp_path)
    shutil.rmtree(store / "scan_000002")
    shutil.copytree(night / "other" / "scan_000002", store / "scan_000002")
    found = compare_stores(night / "base", store)
    assert list(found.differing()) == [(2, "")]
    assert not found.bands[0].config
    assert found.differing(rtol=1.0) == {}
    assert found.differing(sigma=1e-6).keys() == {(2, "")}
    assert found.differing(sigma=20.0) == {}


def test_one_sample_is_found(night: Path, tmp_path: Path) -> None:
    store = copied(night, tmp_path)
    spectra = array_of(store, "spectra")
    sample = (40, 2, 1, 0, 1)
    assert np.isfinite(spectra[sample])
    spectra[sample] = spectra[sample] + 1e-7
    (first, second) = compare_stores(night / "base", store).bands
    change = first.changes["spectra"]
    assert first.differences(compared_tolerance()) == ["spectra"]
    assert change.worst() == (1, 0)
    assert change.differs(compared_tolerance()).tolist() == [[False, False], [True, False]]
    assert change.largest[1, 0] == pytest.approx(1e-7, rel=1e-6)
    assert second.differences(compared_tolerance()) == []


def test_flags_bit_by_bit(night: Path, tmp_path: Path) -> None:
    store = copied(night, tmp_path)
    gpucal.flag(store, scans=1, receivers=0, pixels=1, subscans=0, channels="10:19", reason="rfi")
    (band, _) = compare_stores(night / "base", store).bands
    old, new = band.flags["MANUAL"]
    assert old.sum() == 0
    assert new.tolist() == [[0, 40], [0, 0]]
    lost = band.changes["spectra"].only_old
    bad = scan_of(night / "base", 1)["flags"][10:20, :, 0, 1, 0] & UNUSABLE
    assert lost.tolist() == [[0, 40 - np.count_nonzero(bad)], [0, 0]]
    assert band.differences(compared_tolerance()) == ["spectra", "flags"]
    assert compare_stores(store, night / "base").bands[0].flags["MANUAL"][0].sum() == 40
    assert set(band.flags) == {str(Flag.MANUAL.name)}


def test_axes_code_and_raw_data(night: Path, tmp_path: Path) -> None:
    store = copied(night, tmp_path)
    frequency = array_of(store, "frequency")
    width = abs(frequency[1] - frequency[0])
    frequency[...] = frequency[...] + 0.25 * width
    array_of(store, "elevation")[0, 0] = 0.1
    document = store / "scan_000001" / "zarr.json"
    content = json.loads(document.read_text())
    made = content["attributes"]["provenance"]
    made["versions"]["gpucal"] = "0.1"
    made["l0_counts_sha256"] = {"1": "0" * 64}
    document.write_text(json.dumps(content))
    (band, _) = compare_stores(night / "base", store).bands
    assert band.axes == {"frequency": pytest.approx(0.25, rel=1e-6)}
    assert set(band.recorded) == {"elevation"}
    assert set(band.origin) == {"gpucal", "counts of the raw data"}
    assert band.origin["gpucal"] == (gpucal.__version__, "0.1")
    assert band.differences(compared_tolerance(0.3, 1.0)) == ["elevation"]


def test_blocks_do_not_matter(night: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = compare_stores(night / "base", night / "other").to_dict()
    read = ZarrCounts.read
    sizes = []

    def noting(counts: ZarrCounts, c0: int, c1: int, subscan: int, out: Any = None) -> Any:
        sizes.append(c1 - c0)
        return read(counts, c0, c1, subscan, out)

    monkeypatch.setattr(ZarrCounts, "read", noting)
    monkeypatch.setattr(compared_bands, "BLOCK_BYTES", 10 * 4 * 4 * 8)
    monkeypatch.setattr(compared_bands, "CACHED_SAMPLES", 50)
    parts = compare_stores(night / "base", night / "other").to_dict()
    assert max(sizes) == 10
    for one, two in zip(whole["bands"], parts["bands"], strict=True):
        assert one["differs"] == two["differs"]
        for name, change in one["changes"].items():
            for key, values in change.items():
                if isinstance(values, list):
                    other = two["changes"][name][key]
                    assert np.allclose(values, other, rtol=1e-9, equal_nan=True), (name, key)


def test_a_broken_chunk_costs_its_scan(night: Path, tmp_path: Path) -> None:
    store = copied(night, tmp_path)
    chunk = next(p for p in sorted((store / "scan_000001/spectra/c").rglob("*")) if p.is_file())
    data = bytearray(chunk.read_bytes())
    data[len(data) // 2] ^= 1
    chunk.write_bytes(data)
    first, second = compare_stores(night / "base", store).bands
    (problem,) = first.problems
    assert "spectra" in problem or "chunk" in problem
    assert first.differences(compared_tolerance(1.0, 1.0)) == ["what can be compared"]
    assert not second.problems
    assert main(["compare", str(night / "base"), str(store), "--rtol", "1"]) == 2


def synthetic(*args: Any) -> Path:
    """A store with flags that all have a remark: zarr-python leaves out chunks of zeros."""
    store = write_l1(*args)
    for document in store.rglob("flags/zarr.json"):
        flags: Any = zarr.open_array(document.parent, mode="r+")
        flags[...] = int(Flag.CAL_STALE)
    return store


def test_other_shapes(tmp_path: Path) -> None:
    base = synthetic(tmp_path / "base", (1, 2, 3), (32, 4, 1, 2, 3))
    for name, shape, word in (
        ("channels", (16, 4, 1, 2, 3), "it has 32 channels, now 16"),
        ("dumps", (32, 5, 1, 2, 3), "it has 4 dumps, now 5"),
        ("pixels", (32, 4, 1, 3, 3), "it has 2 pixels, now 3"),
        ("subscans", (32, 4, 1, 2, 2), "is in OLD alone"),
    ):
        other = synthetic(tmp_path / name, (1, 2, 4), shape)
        found = compare_stores(base, other)
        assert (found.only_old, found.only_new) == (("3",), ("4",))
        for band in found.bands:
            assert any(word in problem for problem in band.problems), band.problems
            assert "what can be compared" in band.differences(compared_tolerance(1e9, 1e9))
            assert ("t_sys" in band.changes) == (name in ("dumps", "subscans"))
            assert ("spectra" in band.changes) == (name == "subscans")


def test_nothing_in_common(night: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = write_l1(tmp_path / "other", (99,), (8, 2, 1, 1, 1))
    with pytest.raises(L1Error, match="no scan in common"):
        compare_stores(night / "base", other)
    assert main(["compare", str(night / "base"), str(other)]) == 1
    assert "no scan in common" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "options", "code", "words"),
    [
        ("again", [], 0, "No scan of 2 differs."),
        ("noise", [], 0, "No scan of 2 differs by more than the rounding that they state."),
        ("other", [], 2, "2 of 2 scans differ: scans 1-2."),
        ("other", ["--rtol", "1"], 0, "No scan of 2 differs by more than 1 relative."),
        ("other", ["--scans", "2"], 2, "1 of 1 scans differ: scan 2."),
        ("again", ["--rtol", "-1"], 64, "--rtol is -1"),
        ("again", ["--sigma", "inf"], 64, "--sigma is inf"),
    ],
)
def test_command(
    night: Path,
    name: str,
    options: list[str],
    code: int,
    words: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["compare", str(night / "base"), str(night / name), *options]) == code
    shown = capsys.readouterr()
    assert words in shown.out + shown.err


def test_json_and_picture(night: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = tmp_path / "changes.png"
    stores = [str(night / "base"), str(night / "other")]
    assert main(["compare", *stores, "--json", "--plot", str(place)]) == 2
    found = json.loads(capsys.readouterr().out)
    assert [band["scan"] for band in found["bands"]] == [1, 2]
    assert found["bands"][0]["config"] == {"f-eff": {"old": None, "new": 0.9}}
    assert np.shape(found["bands"][0]["changes"]["spectra"]["ratio"]) == (2, 2)
    assert place.read_bytes()[:4] == b"\x89PNG"


def test_truth(night: Path, capsys: pytest.CaptureFixture[str]) -> None:
    truth = ["--truth", str(night / "truth.npz")]
    stores = [str(night / "base"), str(night / "noise")]
    assert main(["compare", *stores, *truth]) == 0
    assert "Against the truth" in capsys.readouterr().out
    wrong = [str(night / "base"), str(night / "other"), "--rtol", "10", "--json"]
    assert main(["compare", *wrong]) == 0
    capsys.readouterr()
    assert main(["compare", *wrong, *truth]) == 2
    rows = {r["quantity"]: r for r in json.loads(capsys.readouterr().out)["truth"]}
    assert rows["PWV"]["old_holds"]
    assert not rows["PWV"]["new_holds"]
    assert rows["PWV"]["new"] > 10 * rows["PWV"]["old"]
