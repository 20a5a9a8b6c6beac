"""What each recipe answers, against values worked out by hand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from gpucal import select_backend
from gpucal.modes.beam_merge import BeamMerge
from gpucal.modes.chop_cycles import ChopCycle, ChopCycles
from gpucal.modes.dump_pair import DumpPair
from gpucal.modes.interpolated import Interpolated
from gpucal.modes.nod_beams import NodBeams
from gpucal.modes.phase_difference import PhaseDifference
from gpucal.products import MeanKey, SubscanMean

BACKEND = select_backend("cpu", threads=1)
EXPTIME = np.tile([2.0, 4.0, 8.0, 5.0], (6, 1))  # s, [D,S]
MEANS = {
    MeanKey(s): SubscanMean(np.full((1, 1, 2), float(s)), t)
    for s, t in enumerate((12.0, 20.0, 40.0))
}
OFF0, OFF2 = MeanKey(0), MeanKey(2)


def counts(n_dumps: int = 6) -> Any:
    """Counts whose dump d of subscan s is 10 s + d; a ``TileCounts`` of one channel and two pixels."""

    def dumps(subscan: int) -> Any:
        values = 10.0 * subscan + np.arange(6.0)
        return np.broadcast_to(values[None, :, None, None], (1, 6, 1, 2)).copy()

    return SimpleNamespace(
        backend=BACKEND,
        n_dumps=n_dumps,
        source=dumps,
        reference=lambda subscan: -dumps(subscan),
        mean=lambda key: MEANS[key].mean,
    )


def test_interpolated() -> None:
    one = Interpolated(1, OFF0, OFF2, 0.25, OFF0, one_sided=True)
    assert (one.subscans(), one.means(), one.sky_key()) == ((1,), (OFF0, OFF2), OFF0)
    assert one.extrapolated()
    on, reference = one.on_and_reference(counts())
    assert on[0, :, 0, 0].tolist() == [10, 11, 12, 13, 14, 15]
    assert reference.tolist() == [[[0.5, 0.5]]]
    own, shared = one.noise_rates(EXPTIME, MEANS)
    assert own == 0.25
    assert shared == pytest.approx(0.75**2 / 12.0 + 0.25**2 / 40.0)
    assert [sky.subscan for sky in one.skies(MEANS, BACKEND)] == [0, 2, 0]
    assert one.compared_offs() == [(OFF0,), (OFF2,)]


def test_interpolated_with_one_off_or_per_dump() -> None:
    same = Interpolated(1, OFF2, OFF2, 0.0, OFF2)
    assert same.reference_weights() == {OFF2: 1.0}
    assert same.noise_rates(EXPTIME, MEANS).shared == pytest.approx(1.0 / 40.0)
    lost = {**MEANS, OFF2: SubscanMean(np.full((1, 1, 2), np.nan), 0.0)}
    assert np.isnan(same.noise_rates(EXPTIME, lost).shared)
    per_dump = Interpolated(1, OFF0, OFF2, np.linspace(0.0, 1.0, 6), OFF0)
    _, reference = per_dump.on_and_reference(counts())
    assert reference[0, :, 0, 0] == pytest.approx(np.linspace(0.0, 2.0, 6))
    assert list(per_dump.reference_weights().values()) == pytest.approx([0.5, 0.5])


def test_dump_pair() -> None:
    one = DumpPair(1, 2)
    assert (one.subscans(), one.means(), one.sky_key()) == ((1, 2), (OFF2,), OFF2)
    on, reference = one.on_and_reference(counts())
    assert on[0, 3, 0, 0] == 13.0
    assert reference[0, 3, 0, 0] == -23.0
    assert one.noise_rates(EXPTIME, MEANS) == (1 / 4 + 1 / 8, 0.0)
    assert one.track(EXPTIME, 6).tolist() == [4.0] * 6
    assert one.parts() == (one,)
    assert (one.fold_throw(), one.channels_around(), one.output_dumps(6)) == (None, (0, 0), 6)


@pytest.mark.parametrize(
    ("throw", "around"),
    [([[8.0], [-8.0]], (8, 8)), ([[8.0], [8.0]], (8, 0)), ([[0.5], [-0.5]], (17, 17))],
)
def test_phase_difference(throw: list[list[float]], around: tuple[int, int]) -> None:
    folded = PhaseDifference(0, 1, np.array(throw), fold=True)
    plain = PhaseDifference(0, 1, np.array(throw), fold=False)
    assert folded.channels_around() == around
    assert plain.channels_around() == (0, 0)
    assert folded.fold_throw() is folded.throw
    assert plain.fold_throw() is None
    assert plain.noise_rates(EXPTIME, MEANS) == (0.75, 0.0)
    assert folded.noise_rates(EXPTIME, MEANS) == (0.375, 0.0)
    assert (folded.subscans(), folded.means(), folded.sky_key()) == ((0, 1), (), MeanKey(1))


CYCLES = ChopCycles(1, (ChopCycle((0, 1), (2,)), ChopCycle((3,), (4, 5))), MeanKey(1, 1))


def test_chop_cycles() -> None:
    assert (CYCLES.subscans(), CYCLES.means(), CYCLES.sky_key()) == (
        (1,),
        (MeanKey(1, 1),),
        MeanKey(1, 1),
    )
    assert CYCLES.output_dumps(6) == 2
    on, off = CYCLES.on_and_reference(counts(n_dumps=3))
    assert on[0, :, 0, 0].tolist()[:2] == [10.5, 13.0]
    assert off[0, :, 0, 0].tolist()[:2] == [12.0, 14.5]
    assert np.isnan(on[:, 2]).all()
    # two dumps against one, and one against two, of 4 s each
    assert CYCLES.noise_rates(EXPTIME, MEANS) == pytest.approx((1 / 8 + 1 / 4, 0.0))
    times = np.tile(np.arange(6.0)[:, None], (1, 2))
    assert CYCLES.track(times, 3)[:2].tolist() == [0.5, 3.0]
    assert CYCLES.track(times, 3, total=True)[:2].tolist() == [1.0, 3.0]
    assert np.isnan(CYCLES.track(times, 3)[2])


def test_nod_beams() -> None:
    one = NodBeams(0, 2, np.array([[False, True]]))
    assert (one.subscans(), one.means(), one.sky_key()) == ((0, 2), (OFF0, OFF2), OFF2)
    on, reference = one.on_and_reference(counts())
    assert on[0, 0, 0].tolist() == [0.0, 20.0]
    assert reference.tolist() == [[[2.0, 0.0]]]
    (sky,) = one.skies(MEANS, BACKEND)
    assert sky.counts.tolist() == [[[2.0, 0.0]]]
    assert np.asarray(sky.subscan).tolist() == [[2, 0]]
    assert np.asarray(one.source_subscan()).tolist() == [[0, 2]]
    assert np.asarray(sky.time).tolist() == [[MEANS[OFF2].time, MEANS[OFF0].time]]
    assert one.noise_rates(EXPTIME, MEANS) == pytest.approx((0.5, 1.0 / 40.0))


def test_offsets_of_a_nod_across_the_meridian() -> None:
    """Position 2 lies 2 deg of longitude further on, beyond 360 deg, at 60 deg latitude: 1 deg."""
    one = NodBeams(0, 1, np.array([[False, True]]))
    group: Any = SimpleNamespace(
        otf_lon=np.array([[359.0, 1.0]]),
        otf_lat=np.array([[60.0, 60.5]]),
        pixel_offset_lon=np.array([[[0.1, 0.1], [0.2, 0.2]]]),
        pixel_offset_lat=np.array([[[0.3, 0.3], [0.4, 0.4]]]),
    )
    lon, lat = one.pixel_offsets(group)
    assert lon[0] == pytest.approx([0.1, 1.2])
    assert lat[0] == pytest.approx([0.3, 0.9])
    assert [x[0].tolist() for x in DumpPair(0, 1).pixel_offsets(group)] == [[0.1, 0.2], [0.3, 0.4]]


def test_beam_merge_asks_its_beams() -> None:
    a, b = DumpPair(1, 2), DumpPair(3, 0)
    one = BeamMerge(a, b)
    assert (one.on, one.parts(), one.subscans()) == (1, (a, b), (1, 2, 3, 0))
    assert set(one.means()) == {OFF0, OFF2}
    assert one.sky_key() == OFF2
    assert one.compared_offs() == [(OFF2, OFF0)]
    assert one.noise_rates(EXPTIME, MEANS) == pytest.approx(
        (0.25 * (1 / 4 + 1 / 8 + 1 / 5 + 1 / 2), 0.0)
    )
    assert one.track(EXPTIME, 6).tolist() == [4.0] * 6
    assert [sky.subscan for sky in one.skies(MEANS, BACKEND)] == [0, 2]
    assert BeamMerge(CYCLES, CYCLES).output_dumps(6) == 2
    assert not one.extrapolated()


def test_beams_with_one_off_share_its_noise() -> None:
    beams = [
        Interpolated(on, OFF0, OFF2, w, OFF0, one_sided=on == 3) for on, w in ((1, 0.5), (3, 0))
    ]
    one = BeamMerge(*beams)
    assert one.reference_weights() == {OFF0: 0.75, OFF2: 0.25}
    assert one.extrapolated()
