"""``precision`` noise:K end to end: the same scan but for half a step, whatever computes it; exact where it must be."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from builders.night_stores import assert_same, fast_folder, make_night, rechunk, small_setup
from builders.truth_setup import calibrated, simulate_scan, steady
from fakes.codec import FakeTools
from fakes.device import FakeDevice, fake_backend
from fakes.strict_backend import strict_backend, to_numpy

from gpucal import (
    CalibrationConfig,
    Flag,
    Selection,
    StoreReport,
    calibrate_scan,
    calibrate_store,
    open_l1,
    spectra_of_store,
    to_spectrum1d,
)
from gpucal.errors import ConfigError, OtherSettingsError
from gpucal.io.files.verify import verify_store
from gpucal.pipeline.scan import work_units
from gpucal.scan import ArrayCounts
from gpucal.simulate.counts import Recording
from gpucal.simulate.setup import Kind

KINDS: tuple[Kind, ...] = ("tp", "nod", "fsw")
"""One difference, the mean of two beams, two phases folded."""

SCANS = range(1, len(KINDS) + 1)


@pytest.fixture(scope="module", autouse=True)
def small_chunks() -> Iterator[None]:
    """Several blocks of channels per scan."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(work_units, "L1_CHUNK_BYTES", 1 << 12)
        patch.setattr(work_units, "T_SYS_CHUNK_BYTES", 1 << 10)
        yield


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Noisy raw data, calibrated exactly and rounded."""
    with fast_folder(tmp_path_factory.mktemp("night")) as folder:
        make_night(folder, small_setup(kinds=KINDS, channels=72))
        run(folder, folder / "exact.zarr")
        run(folder, folder / "noise.zarr", precision="noise")
        yield folder


def scan_of(store: Path, scan: int) -> Any:
    """A scan of a calibrated store."""
    return open_l1(store)[scan]


def run(
    folder: Path, out: Path, *, l0: str = "l0.zarr", backend: Any = None, **options: Any
) -> StoreReport:
    chosen = {"atmosphere": str(folder / "table.npz"), "backend": "cpu", "workers": 1, **options}
    report = calibrate_store(folder / l0, out, CalibrationConfig(**chosen), backend=backend)
    assert not report.failures, report.failures
    return report


def attributes_of(store: Path, scan: int) -> dict[str, Any]:
    """Attributes of a scan without what says how and when it was made."""
    found = dict(scan_of(store, scan).attrs)
    return {k: v for k, v in found.items() if k not in ("provenance", "config", "config_sha256")}


@pytest.mark.parametrize("scan", SCANS)
def test_only_the_spectra_differ_and_by_half_a_step(night: Path, scan: int) -> None:
    exact, noise = (scan_of(night / f"{name}.zarr", scan) for name in ("exact", "noise"))
    assert attributes_of(night / "exact.zarr", scan) == attributes_of(night / "noise.zarr", scan)
    assert set(exact) == set(noise)
    for name in exact:
        if name != "spectra":
            one, two = exact[name][...], noise[name][...]
            assert one.dtype == two.dtype
            assert np.array_equal(one, two, equal_nan=one.dtype.kind == "f"), name
            assert dict(exact[name].attrs) == dict(noise[name].attrs)
    as_computed, found = exact["spectra"][...], noise["spectra"][...]
    said = noise["spectra"].attrs
    step = said["quantization_step"]
    assert (as_computed.dtype, found.dtype) == (np.float64, np.float32)
    assert noise["spectra"].chunks == exact["spectra"].chunks
    assert np.array_equal(np.isnan(as_computed), np.isnan(found))
    error = found - as_computed
    assert 0.45 * step < np.nanmax(np.abs(error)) <= 0.5 * step
    assert np.nanvar(error) == pytest.approx(said["quantization_added_variance"], rel=0.05)
    assert said["quantization_added_variance"] == pytest.approx(step**2 / 12)


@pytest.mark.parametrize("scan", SCANS)
def test_the_step_follows_from_the_smallest_noise(night: Path, scan: int) -> None:
    """sigma_min by the definition, from what L1 records: T_sys*, widths, times."""
    stored = scan_of(night / "noise.zarr", scan)
    said, attrs = stored["spectra"].attrs, stored.attrs
    noise = attrs["noise"]
    share = np.zeros(len(noise["rate"]))
    np.add.at(share, noise["output"], np.square(noise["share"]))
    dumps = stored["spectra"].shape[1]
    rate = np.asarray(noise["rate"]) * dumps + share
    width = abs(np.diff(stored["frequency"][:2])[0]) * attrs["noise_bandwidth"]
    bad = (stored["flags"][...] & 3 != 0).all(axis=1)
    star = np.where(bad, np.inf, stored["t_sys_star"][...])
    sigma_min = float(np.nanmin(star * np.sqrt(rate / width)))
    assert said["quantization_sigma_min"] == pytest.approx(sigma_min, rel=1e-9)
    assert said["quantization_step"] == 2.0 ** math.floor(math.log2(sigma_min / 16))
    assert said["quantization_steps_per_sigma"] == 16


def test_same_bytes_whatever_cuts_and_computes(night: Path, tmp_path: Path) -> None:
    rechunk(night / "l0.zarr", tmp_path / "l0", (10, 3, 2))
    options: dict[str, Any] = {"precision": "noise:64"}
    first = tmp_path / "first.zarr"
    run(night, first, **options)
    run(night, tmp_path / "workers.zarr", l0=str(tmp_path / "l0"), workers=4, ring=64, **options)
    assert_same(tmp_path / "workers.zarr", first)
    other = fake_backend(FakeDevice())
    for name, backend in (("fake", other), ("tools", FakeTools().backend())):
        run(night, tmp_path / name, backend=backend, **options)
        for scan in SCANS:
            for array in ("spectra", "flags", "t_sys_star"):
                one, two = (scan_of(p, scan)[array] for p in (first, tmp_path / name))
                assert one[...].tobytes() == two[...].tobytes()
                assert dict(one.attrs) == dict(two.attrs)


def test_encoded_by_a_device_that_can(night: Path, tmp_path: Path) -> None:
    tools = FakeTools()
    run(night, tmp_path / "device", backend=tools.backend(), precision="noise", codec="zstd:1")
    assert tools.encoded > 0
    for scan in SCANS:
        one, two = (
            scan_of(p, scan)["spectra"] for p in (night / "noise.zarr", tmp_path / "device")
        )
        assert one[...].tobytes() == two[...].tobytes()


@pytest.mark.parametrize("kind", ["tp", "fsw"])
def test_in_memory_and_on_strict_arrays(kind: Kind) -> None:
    setup = steady("hera", pixels=2)
    bands = tuple(replace(b, channels=64, throw_hz=4.25 * b.bandwidth_hz / 64) for b in setup.bands)
    simulated = simulate_scan(replace(setup, bands=bands), kind, 7, recording=Recording())
    exact = calibrated(simulated, CalibrationConfig())
    ours = calibrated(simulated, CalibrationConfig(precision="noise"))
    theirs = calibrated(simulated, CalibrationConfig(precision="noise"), backend=strict_backend())
    rounding = ours.precision.rounding
    assert rounding is not None
    assert rounding == theirs.precision.rounding
    spectra = np.asarray(ours.spectra)
    assert spectra.dtype == np.float32
    assert spectra.tobytes() == to_numpy(theirs.spectra).tobytes()
    assert np.array_equal(exact.flags, ours.flags)
    assert np.nanmax(np.abs(spectra - exact.spectra)) <= 0.5 * rounding.step
    assert ours.quality == exact.quality
    assert ours.l1["spectra"].attrs["quantization_step"] == rounding.step
    assert ours.l1.to_xarray().spectra.attrs["quantization_step"] == rounding.step


@pytest.mark.parametrize("hot", [1.6, None])
def test_a_broken_pixel_costs_itself_alone(hot: float | None) -> None:
    """Nearly no T_rec, or a wrong OFF and T_A* beyond f32: the step is that of a night without this pixel."""
    setup = steady("hera", pixels=4)
    bands = tuple(replace(b, channels=64) for b in setup.bands)
    simulated = simulate_scan(replace(setup, bands=bands), "tp", 7, recording=Recording())
    scan = simulated.scans[0]
    assert scan.calibration is not None
    assert scan.source is not None
    group = scan.source if hot is None else scan.calibration
    counts = np.array(group.counts.data, dtype=np.float64)  # type: ignore[attr-defined]
    for s, mode in enumerate(group.sobsmode):
        factor = {"HOT": hot, "OFF": 0.5, "ON": 1e9}.get(mode) or 1.0
        counts[:, :, 1, 3, s] *= factor
    changed = replace(group, counts=ArrayCounts(counts))
    part: dict[str, Any] = {"source" if hot is None else "calibration": changed}
    config = CalibrationConfig(precision="noise", spike_sigma=0)
    whole, broken = (
        calibrate_scan(s, config, table=simulated.table) for s in (scan, replace(scan, **part))
    )
    flags = np.asarray(broken.flags)
    assert (flags[:, :, 1, 3] & int(Flag.TSYS_OUTLIER)).any()
    assert whole.precision.rounding is not None
    assert broken.precision.rounding is not None, broken.notes
    assert broken.precision.rounding.step == whole.precision.rounding.step
    sigma = broken.precision.rounding.sigma_min
    assert sigma == pytest.approx(whole.precision.rounding.sigma_min, rel=0.02)
    if hot is None:
        assert np.nanmax(np.abs(np.asarray(broken.spectra))) > broken.precision.rounding.largest


def test_every_reader_opens_it_and_it_verifies(night: Path) -> None:
    path = night / "noise.zarr"
    array: Any = zarr.open_group(path, mode="r")["scan_000001/spectra"]
    codecs = json.loads((path / "scan_000001/spectra/zarr.json").read_text())["codecs"]
    assert codecs[1]["name"] == "blosc"
    assert (
        codecs[1]["configuration"] | {"cname": "lz4", "shuffle": "bitshuffle"}
        == (codecs[1]["configuration"])
    )
    assert array[...].tobytes() == scan_of(path, 1)["spectra"][...].tobytes()
    report = verify_store(path)
    assert report.ok
    assert report.with_checksum == report.files > 0
    data = open_l1(path).to_xarray(1)
    assert data.spectra.attrs["quantization_step"] > 0


def test_exports_differ_by_the_stated_variance(night: Path) -> None:
    """Means of n dumps differ from the exact ones by step / sqrt(12 n)."""
    for scan in SCANS:
        found = {
            name: list(spectra_of_store(night / f"{name}.zarr", Selection([scan], "dumps")))
            for name in ("exact", "noise")
        }
        stored = scan_of(night / "noise.zarr", scan)
        step, dumps = stored["spectra"].attrs["quantization_step"], stored["spectra"].shape[1]
        error = np.concatenate(
            [two.values - one.values for one, two in zip(*found.values(), strict=True)]
        )
        assert np.nanstd(error) == pytest.approx(step / math.sqrt(12 * dumps), rel=0.1)
        assert abs(np.nanmean(error)) < 5 * step / math.sqrt(12 * dumps * error.size)
        for one, two in zip(*found.values(), strict=True):
            assert math.isnan(one.rounding)
            assert two.rounding == step
            assert (one.t_sys, one.exptime, one.frequency) == (
                two.t_sys,
                two.exptime,
                two.frequency,
            )


def test_specutils_knows_the_step(night: Path) -> None:
    pytest.importorskip("specutils")
    exact, noise = (
        to_spectrum1d(scan_of(night / f"{name}.zarr", 1)) for name in ("exact", "noise")
    )
    step = scan_of(night / "noise.zarr", 1)["spectra"].attrs["quantization_step"]
    assert noise.meta["rounding_step"].value == step
    assert "rounding_step" not in exact.meta
    assert np.array_equal(noise.uncertainty.array, exact.uncertainty.array, equal_nan=True)


def test_without_noise_it_is_exact_and_says_so(tmp_path: Path) -> None:
    with fast_folder(tmp_path) as folder:
        make_night(folder, small_setup(kinds=KINDS, fill=0.0), noise=False, dtype="f64")
        run(folder, folder / "exact.zarr")
        report = run(folder, folder / "noise.zarr", precision="noise", codec="zstd:1")
        for summary in report.summaries:
            (note,) = [w for w in summary.warnings if "kept as computed" in w]
            assert "not limited by noise" in note
            stored = scan_of(folder / "noise.zarr", summary.scan)
            assert note in stored.attrs["warnings"]
            assert not any(key.startswith("quantization") for key in stored["spectra"].attrs)
        for part in ("spectra", "flags", "t_sys"):
            for path in sorted((folder / "exact.zarr").rglob(f"{part}/**/*")):
                if path.is_file():
                    other = folder / "noise.zarr" / path.relative_to(folder / "exact.zarr")
                    assert path.read_bytes() == other.read_bytes()


def test_a_peak_beyond_f32_is_exact_and_says_so(night: Path, tmp_path: Path) -> None:
    """A source of 10^7 sigma in one dump: f32 has no step small enough for the noise there."""
    out = tmp_path / "bright.zarr"
    l0 = rechunk(night / "l0.zarr", tmp_path / "l0", (99, 99, 99))
    group: Any = zarr.open_group(l0 / "scan_000001" / "source", mode="r+")
    counts = group["data_5d"]
    on = next(i for i, mode in enumerate(group.attrs["sobsmode"]) if mode == "ON")
    values = counts[..., on]
    assert values.dtype == np.int32
    values[:, 1] = 2_000_000_000
    counts[..., on] = values
    report = run(
        night, out, l0=str(l0), precision="noise:1024", scans="1", spike_sigma=0, workers=4
    )
    (note,) = [w for w in report.summaries[0].warnings if "kept as computed" in w]
    assert "the most that f32 holds" in note
    run(night, tmp_path / "exact.zarr", l0=str(l0), scans="1", spike_sigma=0, codec="blosc-lz4")
    one, two = (scan_of(p, 1)["spectra"] for p in (out, tmp_path / "exact.zarr"))
    assert one.dtype == np.float64
    assert one[...].tobytes() == two[...].tobytes()


def test_another_precision_is_other_settings(night: Path) -> None:
    with pytest.raises(OtherSettingsError, match="precision exact, now noise:16"):
        run(night, night / "exact.zarr", precision="noise")
    with pytest.raises(OtherSettingsError, match="precision noise:16, now noise:8"):
        run(night, night / "noise.zarr", precision="noise:8")
    again = run(night, night / "noise.zarr", precision="noise:16")
    assert {s.status for s in again.summaries} == {"skipped"}


@pytest.mark.parametrize(
    "wrong", ["noisy", "noise:", "noise:3", "noise:1025", "noise:8.5", "exact:2"]
)
def test_what_precision_may_be(wrong: str) -> None:
    with pytest.raises(ConfigError, match=r"^precision is"):
        CalibrationConfig(precision=wrong)


def test_the_codec_goes_with_the_precision() -> None:
    assert CalibrationConfig().codec == "zstd:1"
    assert CalibrationConfig(precision="noise").codec == "blosc-lz4"
    assert CalibrationConfig(precision="noise", codec="blosc-zstd").codec == "blosc-zstd"
    assert CalibrationConfig(precision="noise", codec="zstd").codec == "zstd:1"
    back = CalibrationConfig(precision="noise").model_copy(update={"precision": "exact"})
    assert back.codec == "zstd:1"
    assert (
        CalibrationConfig(**CalibrationConfig(precision="noise").model_dump()).codec == "blosc-lz4"
    )
