"""Samples and dumps that cannot be are flagged; lines, planets and noise are not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import zarr
from builders.night_stores import assert_same, fast_folder, make_night, small_setup
from builders.truth_setup import calibrated, simulate_scan, steady, without_lines
from fakes.strict_backend import strict_backend

from gpucal import (
    CalibratedScan,
    CalibrationConfig,
    Flag,
    calibrate_store,
    open_l0,
    open_l1,
    reduce_scan,
    select_backend,
)
from gpucal.axes import UNUSABLE
from gpucal.pipeline.scan.averaging import average_scan
from gpucal.scan import ArrayCounts
from gpucal.simulate.counts import Recording
from gpucal.simulate.night import SimulatedScan
from gpucal.simulate.presets import preset
from gpucal.simulate.setup import Kind
from gpucal.steps.judge import columns, samples

F64 = npt.NDArray[np.float64]
MARKS = int(Flag.SPIKE | Flag.TSYS_OUTLIER)
CHANNEL, DUMP, PIXEL = 100, 5, 2


def noisy(kind: Kind = "tp", dumps: int = 12, seed: int = 1, **changes: Any) -> SimulatedScan:
    """One scan with noise, without a source and without anything that drifts."""
    setup = replace(preset("hera", channels=256, dumps=dumps, n_on=2), sky_drift="none", **changes)
    recording = Recording(dtype="f64", seed=seed)
    return simulate_scan(
        without_lines(replace(setup, fill_fraction=0.0)), kind, 7, recording=recording
    )


def config_of(simulated: SimulatedScan, **options: Any) -> CalibrationConfig:
    return CalibrationConfig(pwv=simulated.truths[0].pwv_mm, **options)


def sigma_of(simulated: SimulatedScan) -> float:
    """rms of one raw dump of an ON over its counts."""
    scan = simulated.scans[0]
    assert scan.source is not None
    freq_res = float(np.abs(np.ravel(scan.source.freq_res)[0]))
    return float(1.0 / np.sqrt(freq_res * scan.source.exptime.mean()))


def changed(simulated: SimulatedScan, act: Callable[[F64], None]) -> SimulatedScan:
    """The scan after ``act`` has changed the counts [C,D,R,A] of its first ON."""
    scan = simulated.scans[0]
    assert scan.source is not None
    counts = np.array(scan.source.counts.data)  # type: ignore[attr-defined]
    first = next(i for i, m in enumerate(scan.source.sobsmode) if m not in ("OFF", "OTF-OFF"))
    act(counts[..., first])
    source = replace(scan.source, counts=ArrayCounts(counts))
    return replace(simulated, scans=(replace(scan, source=source),))


def add(simulated: SimulatedScan, pattern: Any, channel: int = CHANNEL, dump: int = DUMP) -> Any:
    """Add a pattern [c,d], in sigma of a dump, to one pixel from this channel and dump on."""
    values = np.atleast_2d(np.asarray(pattern, dtype=np.float64)) * sigma_of(simulated)

    def act(counts: F64) -> None:
        place = (
            slice(channel, channel + len(values)),
            slice(dump, dump + values.shape[1]),
            0,
            PIXEL,
        )
        counts[place] *= 1.0 + values

    return changed(simulated, act)


def marks(result: CalibratedScan) -> set[tuple[int, ...]]:
    """Where SPIKE or TSYS_OUTLIER is set."""
    return {tuple(map(int, at)) for at in np.argwhere(np.asarray(result.flags) & MARKS)}


@pytest.fixture(scope="module")
def clean() -> SimulatedScan:
    return noisy()


def test_the_noise_of_these_tests_is_that_of_the_radiometer_equation(clean: SimulatedScan) -> None:
    """What the tests inject in sigma is what they say."""
    result = calibrated(add(clean, [[1000.0]]), config_of(clean, spike_sigma=0))
    other = calibrated(clean, config_of(clean, spike_sigma=0))
    step = np.asarray(result.spectra) - np.asarray(other.spectra)
    difference = np.diff(np.asarray(other.spectra)[:, :, 0, PIXEL, 0], axis=1)
    sigma = np.nanstd(difference) / np.sqrt(2)
    assert np.nanmax(step) / sigma == pytest.approx(1000.0, rel=0.15)


@pytest.mark.parametrize("height", [14.0, -14.0, 100.0, -200.0, 1e4, 1e7])
@pytest.mark.parametrize("kind", ["tp", "otf"])
def test_a_single_sample_is_flagged_and_nothing_else(kind: Kind, height: float) -> None:
    made = noisy(kind)
    if height * sigma_of(made) <= -1:  # counts below zero are no data
        height = -0.5 / sigma_of(made)
    result = calibrated(add(made, height), config_of(made))
    assert marks(result) == {(CHANNEL, DUMP, 0, PIXEL, 0)}
    before = calibrated(made, config_of(made))
    assert not marks(before)
    # The value stays to be looked at, but does not enter what is told of the noise.
    assert np.isfinite(np.asarray(result.spectra)[CHANNEL, DUMP, 0, PIXEL, 0])
    np.testing.assert_allclose(
        np.array(result.quality["rms_ratio"]), np.array(before.quality["rms_ratio"]), rtol=1e-3
    )
    assert np.sum(result.quality["spike_samples"]) == 1
    assert result.quality["spike_samples"][0][PIXEL] == 1


@pytest.mark.parametrize("kind", ["nod", "fsw", "wsw", "wsw-chopped", "otf-chopped"])
def test_a_spike_in_other_modes(kind: Kind) -> None:
    made = noisy(kind)
    result = calibrated(add(made, 300.0), config_of(made, fold=False))
    found = marks(result)
    assert {at[0] for at in found} == {CHANNEL}
    assert {at[3] for at in found} == {PIXEL}
    assert 1 <= len(found) <= 2
    assert not marks(calibrated(made, config_of(made, fold=False)))


@pytest.mark.parametrize("channel", [0, 1, 254, 255])
def test_at_the_edges_of_the_band_and_of_the_subscan(clean: SimulatedScan, channel: int) -> None:
    for dump in (0, 11):
        made = add(clean, 50.0, channel, dump)
        config = config_of(clean, clip_counts=0.0)
        blank = np.isnan(np.asarray(calibrated(clean, config).spectra)[channel, dump, 0, PIXEL, 0])
        assert marks(calibrated(made, config)) == (
            set() if blank else {(channel, dump, 0, PIXEL, 0)}
        )


def test_beside_samples_that_were_never_written(clean: SimulatedScan) -> None:
    """A spike whose neighbours are partly blank is found; one that nothing is left around cannot be judged."""
    spiked = add(clean, 50.0)

    def lose(*places: tuple[int, int]) -> Any:
        def act(counts: F64) -> None:
            for c, d in places:
                counts[CHANNEL + c, DUMP + d, 0, PIXEL] = np.nan

        return calibrated(changed(spiked, act), config_of(clean))

    here = {(CHANNEL, DUMP, 0, PIXEL, 0)}
    assert marks(lose((0, 1))) == here
    assert marks(lose((-1, 0), (0, -1))) == here
    assert marks(lose((-1, 0), (1, 0))) == here
    assert marks(lose((-2, 0), (-1, 0), (1, 0), (2, 0))) == set()
    assert marks(lose((0, -1), (0, 1))) == set()


@pytest.mark.parametrize(("factor", "spike"), [(1e4, True), (5.0, True), (0.3, True), (1.9, False)])
def test_a_whole_dump(clean: SimulatedScan, factor: float, spike: bool) -> None:
    """A jump of the gain or a saturated dump; up to 3 T_sys* it is a remark only."""

    def act(counts: F64) -> None:
        counts[:, DUMP, 0, PIXEL] *= factor

    result = calibrated(changed(clean, act), config_of(clean))
    flags = np.asarray(result.flags)
    place = (slice(None), DUMP, 0, PIXEL, 0)
    assert (flags[place] & int(Flag.TSYS_OUTLIER) != 0).all()
    assert ((flags[place] & int(Flag.SPIKE) != 0) == spike).all()
    flags = np.array(flags)
    flags[place] = 0
    assert not (flags & MARKS).any()
    assert np.sum(result.quality["outlier_samples"]) == 256
    if spike:
        usual = np.array(calibrated(clean, config_of(clean)).quality["rms_ratio"])
        np.testing.assert_allclose(np.array(result.quality["rms_ratio"]), usual, rtol=0.1)


@pytest.mark.parametrize("dumps", [2, 3, 4])
@pytest.mark.parametrize("at", [0, 1])
def test_of_few_dumps_the_right_one_is_flagged(dumps: int, at: int) -> None:
    made = noisy("tp", dumps)

    def saturate(counts: F64) -> None:
        counts[:, at, 0, PIXEL] *= 1e4

    result = calibrated(changed(made, saturate), config_of(made))
    assert {(d, a, s) for _, d, _, a, s in marks(result)} == {(at, PIXEL, 0)}
    assert marks(calibrated(add(made, 500.0, dump=at), config_of(made))) == {
        (CHANNEL, at, 0, PIXEL, 0)
    }


def test_several_saturated_dumps_and_a_part_of_the_band(clean: SimulatedScan) -> None:
    def three(counts: F64) -> None:
        counts[:, 4:7, 0, PIXEL] *= 1e6

    result = calibrated(changed(clean, three), config_of(clean))
    assert {d for _, d, *_ in marks(result)} == {4, 5, 6}
    assert np.sum(result.quality["spike_samples"]) == 3 * 256

    def part(counts: F64) -> None:
        counts[60:120, DUMP, 0, PIXEL] *= 1e4

    assert marks(calibrated(changed(clean, part), config_of(clean))) == {
        (c, DUMP, 0, PIXEL, 0) for c in range(60, 120)
    }


def test_spikes_among_dumps_that_jump(clean: SimulatedScan) -> None:
    """The sky moves all channels together, by more than the threshold; a spike is found all the same."""

    def drift(counts: F64) -> None:
        counts[:, :, 0, PIXEL] *= 1.0 + 0.1 * np.sin(np.arange(12.0))

    moving = changed(clean, drift)
    assert not marks(calibrated(moving, config_of(clean)))
    assert marks(calibrated(add(moving, 60.0), config_of(clean))) == {(CHANNEL, DUMP, 0, PIXEL, 0)}


STRONG = 1000.0
BEAMS = {
    "two dumps": [0.5, 0.5],
    "two dumps, off centre": [1.0, 0.3],
    "half-power steps": [0.5, 1.0, 0.5],
    "one beam a dump": [0.0625, 1.0, 0.0625],
    "slowly": [0.1, 0.4, 0.8, 1.0, 0.8, 0.4, 0.1],
}


@pytest.mark.parametrize("width", [1, 2, 3])
@pytest.mark.parametrize("height", [20.0, STRONG, -STRONG, 30 * STRONG])
def test_a_maser_in_every_dump_survives(clean: SimulatedScan, height: float, width: int) -> None:
    height = max(height, -0.5 / sigma_of(clean))
    # Pointing and scintillation change it from dump to dump.
    for jitter in (0.0, 0.1, 0.3):
        steps = 1.0 + jitter * np.cos(2.4 * np.arange(12.0))
        pattern = height * np.outer(np.ones(width), steps)
        assert not marks(calibrated(add(clean, pattern, dump=0), config_of(clean)))


@pytest.mark.parametrize("width", [1, 2, 3])
@pytest.mark.parametrize("beam", BEAMS)
@pytest.mark.parametrize("height", [STRONG, 10 * STRONG, -0.2])
def test_a_maser_that_passes_through_the_beam_survives(
    clean: SimulatedScan, height: float, beam: str, width: int
) -> None:
    made = clean
    height = height if height > 0 else height / sigma_of(clean)
    for dump in (0, 4):
        pattern = height * np.outer(np.ones(width), BEAMS[beam])
        made = add(clean, pattern, dump=dump)
        assert not marks(calibrated(made, config_of(clean)))


@pytest.mark.parametrize("dumps", [2, 3, 4, 5])
def test_a_source_in_most_of_few_dumps_survives(dumps: int) -> None:
    made = noisy("otf", dumps)
    for first in range(dumps - 1):
        for n in range(2, dumps - first + 1):
            for shape in (np.ones(n), np.linspace(1.0, 0.3, n), np.linspace(0.4, 1.0, n)):
                result = calibrated(add(made, STRONG * shape[None], dump=first), config_of(made))
                assert not marks(result), (first, n)


@pytest.mark.parametrize("width", [2, 3, 5, 40])
def test_a_line_in_one_dump_alone_survives(clean: SimulatedScan, width: int) -> None:
    for height in (30.0, STRONG):
        line = height * np.exp(-(np.linspace(-1, 1, width) ** 2))[:, None]
        assert not marks(calibrated(add(clean, line), config_of(clean)))


@pytest.mark.parametrize("kelvin", [0.4, 2.0, 20.0, -0.4])
def test_a_planet_in_a_few_dumps_survives(clean: SimulatedScan, kelvin: float) -> None:
    """Continuum, in units of T_sys; the Sun is far above it."""
    for beam in ([0.5, 1.0, 0.5], [1.0, 0.6], [0.3, 0.9, 1.0, 1.0, 0.9, 0.3]):
        pattern = kelvin / sigma_of(clean) * np.outer(np.ones(256), beam)
        assert not marks(calibrated(add(clean, pattern, channel=0), config_of(clean)))
    one_dump = min(kelvin, 0.4) / sigma_of(clean) * np.ones((256, 1))
    assert not marks(calibrated(add(clean, one_dump, channel=0), config_of(clean)))


def test_a_short_dump_has_more_noise(clean: SimulatedScan) -> None:
    """A dump of a hundredth of the time has ten times the noise."""
    scan = clean.scans[0]
    assert scan.source is not None
    exptime = np.array(scan.source.exptime)
    exptime[DUMP] /= 100.0
    rng = np.random.default_rng(5)
    noise = 10.0 * rng.standard_normal((256, 1))
    made = add(clean, noise, channel=0)
    short = replace(
        made, scans=(replace(made.scans[0], source=replace(made.scans[0].source, exptime=exptime)),)
    )
    assert not marks(calibrated(short, config_of(clean)))
    assert marks(calibrated(made, config_of(clean)))


def test_noise_above_the_radiometer_equation_is_noise(clean: SimulatedScan) -> None:
    """Three times the noise that exptime and resolution promise, as of a wrong exptime: no alarm of single samples."""
    rng = np.random.default_rng(3)

    def act(counts: F64) -> None:
        counts *= 1.0 + 3.0 * sigma_of(clean) * rng.standard_normal(counts.shape)

    assert not marks(calibrated(changed(clean, act), config_of(clean, spike_sigma=5.0)))


@pytest.mark.parametrize("noise", [2.0, 3.0])
def test_a_spike_above_much_noise(clean: SimulatedScan, noise: float) -> None:
    """Where everything is noisier than expected the threshold is that of the noise, and spikes are found."""
    rng = np.random.default_rng(4)

    def act(counts: F64) -> None:
        counts *= 1.0 + noise * sigma_of(clean) * rng.standard_normal(counts.shape)

    noisier = changed(clean, act)
    assert marks(calibrated(add(noisier, 30.0 * noise), config_of(clean))) == {
        (CHANNEL, DUMP, 0, PIXEL, 0)
    }


def test_a_spike_in_a_map_of_bright_lines(clean: SimulatedScan) -> None:
    """A bright line in some dumps of all pixels, a sky that moves in half of them: the spikes alone are found."""
    line = 300.0 * np.exp(-(((np.arange(256) - 60) / 12.0) ** 2))
    seen = np.exp(-(((np.arange(12.0) - 6) / 2.0) ** 2))

    def act(counts: F64) -> None:
        counts *= 1.0 + sigma_of(clean) * np.multiply.outer(line, seen)[..., None, None]
        counts[..., 4:] *= 1.0 + 0.1 * np.sin(np.arange(12.0))[:, None, None]

    bright = changed(clean, act)
    assert not marks(calibrated(bright, config_of(clean)))
    result = calibrated(add(add(bright, 60.0, 200, 3), -60.0, 150, 0), config_of(clean))
    assert marks(result) == {(200, 3, 0, PIXEL, 0), (150, 0, 0, PIXEL, 0)}


def test_the_end_of_the_format_is_blank_and_what_is_below_it_a_spike() -> None:
    """Saturated samples are no data; those next to the end of the format are judged with the dumps that are left."""
    setup = replace(preset("hera", channels=256, dumps=12, n_on=2), sky_drift="none")
    setup = without_lines(replace(setup, fill_fraction=0.0))
    made = simulate_scan(setup, "tp", 7, recording=Recording(dtype="i32", seed=1))
    end, below = 2**31 - 1, 2**31 - 10

    def act(counts: F64) -> None:
        counts[:, 2, 0, PIXEL] = end
        counts[:, 5, 0, PIXEL] = below
        counts[::2, 8, 0, PIXEL], counts[1::2, 8, 0, PIXEL] = end, below
        counts[30, 10, 0, PIXEL], counts[60, 10, 0, PIXEL] = end, below

    result = calibrated(changed(made, act), config_of(made))
    flags = np.asarray(result.flags)[:, :, 0, PIXEL, 0]
    good = flags & int(Flag.BAD_CHANNEL) == 0
    blank, spike = ((flags & int(bit) != 0) & good for bit in (Flag.FILL_VALUE, Flag.SPIKE))
    here = np.zeros((256, 12, 1, PIXEL + 1))
    act(here)
    assert np.array_equal(blank, (here[:, :, 0, PIXEL] == end) & good)
    assert np.array_equal(spike & ~blank, (here[:, :, 0, PIXEL] == below) & good)
    assert np.isnan(np.asarray(result.spectra)[:, :, 0, PIXEL, 0][blank]).all()
    assert {at[3] for at in marks(result)} == {PIXEL}


def test_one_dump_cannot_be_judged() -> None:
    made = noisy("tp", 1)

    def act(counts: F64) -> None:
        counts[CHANNEL] *= 50.0

    assert not marks(calibrated(changed(made, act), config_of(made)))


def test_off_and_lower(clean: SimulatedScan) -> None:
    """0 flags nothing, and changes nothing else; a lower threshold finds lower spikes."""
    made = add(clean, 50.0)
    none = calibrated(made, config_of(clean, spike_sigma=0))
    assert not marks(none)
    low = add(clean, 9.0)
    assert not marks(calibrated(low, config_of(clean, spike_sigma=15)))
    assert marks(calibrated(low, config_of(clean, spike_sigma=6))) == {(CHANNEL, DUMP, 0, PIXEL, 0)}
    np.testing.assert_array_equal(
        np.asarray(none.spectra), np.asarray(calibrated(made, config_of(clean)).spectra)
    )


def test_f32_and_other_arrays(clean: SimulatedScan) -> None:
    """f32 spectra and arrays of a backend that is not NumPy give the same flags."""

    def act(counts: F64) -> None:
        counts[CHANNEL, DUMP, 0, PIXEL] *= 1e36
        counts[:, 3, 0, 1] *= 1e5
        counts[30, 7, 0, 1] *= 1.5

    made = changed(clean, act)
    found = np.asarray(calibrated(made, config_of(clean)).flags)
    assert marks(calibrated(made, config_of(clean, dtype="f32"))) == {
        tuple(map(int, at)) for at in np.argwhere(found & MARKS)
    }
    strict = calibrated(made, config_of(clean), backend=strict_backend())
    assert np.array_equal(strict_backend().to_host(strict.flags), found)
    quiet = calibrated(clean, config_of(clean), backend=strict_backend())
    assert not (strict_backend().to_host(quiet.flags) & MARKS).any()


def test_groups_of_channels_change_nothing(
    clean: SimulatedScan, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many channels are compared at once, the same samples are found."""
    made = add(add(clean, 50.0), 12.0, channel=11, dump=2)
    expected = marks(calibrated(made, config_of(clean)))
    assert len(expected) == 2
    for nbytes in (1, 1 << 14, 1 << 30):
        for module in (columns, samples):
            monkeypatch.setattr(module, "GROUP_BYTES", nbytes)
        assert marks(calibrated(made, config_of(clean))) == expected


@pytest.mark.parametrize("name", ["hera", "upgreat", "chai", "superc"])
def test_nights_without_noise_have_no_outlier(name: str) -> None:
    kinds: tuple[Kind, ...] = ("tp", "otf", "otf-chopped", "nod", "fsw", "wsw-chopped")
    for kind in kinds:
        setup = steady(name)
        made = simulate_scan(setup, kind, 7)
        for band, of in enumerate(setup.bands):
            config = CalibrationConfig(fold=of.throw_hz != 0)
            assert not marks(calibrated(made, config, band))


@pytest.mark.parametrize("kind", ["otf", "otf-chopped", "fsw", "wsw-chopped"])
def test_noise_and_lines_raise_no_false_alarm(kind: Kind) -> None:
    setup = preset("hera", channels=512, dumps=40, n_on=4)
    made = simulate_scan(setup, kind, 7, recording=Recording(dtype="i32", seed=11))
    assert not marks(calibrated(made, config_of(made)))


def hurt_night(folder: Path, kinds: tuple[Kind, ...]) -> Path:
    """A small night on disk with a spike and a saturated dump in its first ON."""
    store = make_night(folder, small_setup("hera", kinds, dumps=8, fill=0.0))
    path = next(p.parent for p in sorted(store.rglob("source/**/data_5d/zarr.json")))
    counts: Any = zarr.open_array(path, mode="r+")
    values = counts[...]
    values[30, 3, 0, 1, 1] *= 4
    values[:, 5, 0, 2, 1] = 2_000_000_000
    counts[...] = values
    return store


def test_in_a_store(tmp_path: Path) -> None:
    """L1, its warnings and ``qa``, the averages, and what is reduced from L0 and from L1; for any number of workers."""
    with fast_folder(tmp_path) as folder:
        store = hurt_night(folder, ("otf",))
        table = str(folder / "table.npz")
        options = {"atmosphere": table, "backend": "cpu"}
        stores = []
        for workers in (1, 3):
            out = folder / f"l1-{workers}.zarr"
            report = calibrate_store(store, out, CalibrationConfig(workers=workers, **options))
            assert report.exit_code == 0
            stores.append(out)
        assert_same(*stores)
        said = " ".join(report.summaries[0].warnings)
        assert "flag SPIKE" in said
        assert "TSYS_OUTLIER" in said
        again = calibrate_store(store, stores[0], CalibrationConfig(**options))
        assert again.summaries[0].status == "skipped"
        assert "flag SPIKE" in " ".join(again.summaries[0].warnings)
        scan = open_l1(stores[0]).scan(1)
        flags: Any = np.asarray(scan["flags"][...])
        spikes = flags & int(Flag.SPIKE) != 0
        assert spikes[30, 3, 0, 1].any()
        assert spikes[:, 5, 0, 2].any(axis=-1).sum() > 50
        assert spikes.sum() == np.sum(scan.attrs["qa"]["spike_samples"])


@pytest.mark.parametrize("procedure", ["pointing", "on-off"])
def test_what_is_reduced_leaves_spikes_out(procedure: Any, tmp_path: Path) -> None:
    """The same from L0, from L1, and in the averages of the online looks."""
    store = hurt_night(tmp_path, ("otf",))
    config = CalibrationConfig(atmosphere=str(tmp_path / "table.npz"), backend="cpu")
    assert calibrate_store(store, tmp_path / "l1.zarr", config).exit_code == 0
    scan = open_l0(store).load(1)[0]
    found = average_scan(scan, config, load=None, backend=select_backend("cpu"))
    l1 = open_l1(tmp_path / "l1.zarr").scan(1)
    spectra: Any = np.asarray(l1["spectra"][...])
    flags: Any = np.asarray(l1["flags"][...])
    assert (np.abs(spectra) > 1e4).any()
    good = np.where(flags & int(UNUSABLE), np.nan, spectra)
    n = np.isfinite(good).sum(axis=(1, 4))
    expected = np.nansum(good, axis=(1, 4)) / np.maximum(n, 1)
    np.testing.assert_allclose(np.nan_to_num(found.spectrum), expected, atol=1e-9)
    assert np.nanmax(np.abs(found.continuum)) < 1e3
    one, other = (
        reduce_scan(path, 1, procedure=procedure, config=config)
        for path in (store, tmp_path / "l1.zarr")
    )
    assert repr(one.result) == repr(other.result)


def test_a_line_narrower_than_a_channel_survives_in_a_map() -> None:
    """Each pixel of an array sees the source in one dump alone; they share its channel."""
    setup = preset("hera", channels=64, dumps=3, n_on=2, sky="isothermal")
    made = simulate_scan(setup, "otf", 3, recording=Recording(dtype="i32", seed=1))
    result = calibrated(made, config_of(made))
    assert np.nanmax(result.spectra) > 50 * np.nanmedian(result.quality["rms_expected"])
    assert not marks(result)
