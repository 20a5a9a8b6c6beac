"""Flags set by hand: the samples, the bytes after an undo, crashes, and two people at once."""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray
import zarr
from builders.night_stores import fast_folder
from builders.synthetic_l1 import write_l1

import gpucal
from gpucal import ConfigError, Flag, GpucalWarning, L1Error
from gpucal.io.chunks.counts import ZarrCounts
from gpucal.io.files import atomic

SHAPE = (32, 4, 2, 3, 3)
MANUAL = int(Flag.MANUAL)


def tree(store: Path) -> dict[str, bytes]:
    """Every file of a store."""
    return {str(p.relative_to(store)): p.read_bytes() for p in store.rglob("*") if p.is_file()}


def bits(store: Path, scan: int = 5, band: str = "") -> np.ndarray[Any, Any]:
    """Where the bit MANUAL is set, read with zarr-python alone."""
    place = f"scan_{scan:06d}/" + (f"{band}/" if band else "") + "flags"
    values: Any = zarr.open_group(store, mode="r")[place]
    found: np.ndarray[Any, Any] = np.asarray(values[...] & MANUAL) != 0
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    with fast_folder(tmp_path) as fast:
        yield fast


@pytest.fixture
def store(folder: Path) -> Path:
    return write_l1(folder / "l1.zarr", (5, 6), SHAPE)


CASES: list[tuple[dict[str, Any], tuple[Any, ...]]] = [
    ({"pixels": 1}, np.s_[:, :, :, 1, :]),
    ({"receivers": "1", "pixels": "0-1"}, np.s_[:, :, 1, 0:2, :]),
    ({"subscans": [2]}, np.s_[..., 2]),
    ({"channels": "10:12"}, np.s_[10:13, :]),
    ({"channels": "31"}, np.s_[31, :]),
    ({"dumps": "0,3", "channels": "0"}, np.s_[0, [0, 3]]),
    ({"scans": 5}, np.s_[:, :]),
]


@pytest.mark.parametrize(("chosen", "place"), CASES, ids=[str(c[0]) for c in CASES])
def test_the_bit_is_set_where_it_was_asked_for_and_nowhere_else(
    store: Path, chosen: dict[str, Any], place: Any
) -> None:
    before = tree(store)
    gpucal.flag(store, reason="spur", **chosen)
    expected = np.zeros(SHAPE, dtype=bool)
    expected[place] = True
    np.testing.assert_array_equal(bits(store), expected)
    after = tree(store)
    changed = {name for name in before if after[name] != before[name]}
    assert after != before
    assert all(name.split("/")[1] == "flags" for name in changed)
    other: Any = zarr.open_group(store, mode="r")["scan_000005/flags"]
    assert set(np.unique(other[...] & ~np.uint16(MANUAL)).tolist()) <= {0, 1}


def test_both_readers_see_the_same(store: Path) -> None:
    gpucal.flag(store, scans=5, channels="3:20", pixels=2, reason="birdie")
    scan = gpucal.open_l1(store)[5]
    own = ZarrCounts(scan["flags"], cache_bytes=0, scan=5, band="", calibrated=True)
    for s in range(SHAPE[4]):
        plain: Any = scan["flags"][..., s]
        np.testing.assert_array_equal(own.read(0, SHAPE[0], s), plain)
    assert (np.asarray(scan["flags"][...]) & MANUAL).any()


def test_undo_in_any_order_gives_back_every_byte(store: Path) -> None:
    before = tree(store)
    one = gpucal.flag(store, channels="0:20", reason="ripple")
    after_one = tree(store)
    two = gpucal.flag(store, scans=5, channels="10:31", pixels=0, reason="spur")
    assert gpucal.unflag(store, two.id).reason == "spur"
    assert tree(store) == after_one
    two = gpucal.flag(store, scans=5, channels="10:31", pixels=0, reason="spur")
    gpucal.unflag(store, one.id)
    expected = np.zeros(SHAPE, dtype=bool)
    expected[10:32, :, :, 0] = True
    np.testing.assert_array_equal(bits(store), expected)
    gpucal.unflag(store)
    assert tree(store) == before
    assert not atomic.staging_dir(store).exists()


def test_a_bit_that_another_program_set_stays(store: Path) -> None:
    flags: Any = zarr.open_group(store, mode="r+")["scan_000005/flags"]
    flags[4, 0, 0, 0, 0] = MANUAL | int(Flag.RFI)
    before = tree(store)
    gpucal.flag(store, scans=5, channels="4", reason="spur")
    gpucal.unflag(store)
    assert tree(store) == before
    assert bits(store).sum() == 1


@pytest.mark.parametrize("reverse", [False, True])
def test_frequencies_choose_channels_of_each_receiver(folder: Path, reverse: bool) -> None:
    store = write_l1(folder / "l1.zarr", (5,), SHAPE, own_axes=True)
    axis: Any = zarr.open_group(store, mode="r+")["scan_000005/frequency"]
    if reverse:
        axis[...] = axis[...][::-1]
    nu = np.asarray(axis[...])  # [C,R], 3 GHz apart
    lo, hi = sorted(nu[[8, 11], 1])
    gpucal.flag(store, channels=f"{lo / 1e9:.9f}:{hi / 1e9:.9f}GHz", reason="spur")
    expected = np.zeros(SHAPE, dtype=bool)
    inside = (nu >= lo - 1.0) & (nu <= hi + 1.0)
    assert inside[:, 1].sum() == 4
    assert not inside[:, 0].any()
    expected[:] = inside[:, None, :, None, None]
    np.testing.assert_array_equal(bits(store), expected)


def test_frequencies_choose_the_band(folder: Path) -> None:
    store = write_l1(folder / "l1.zarr", (5,), SHAPE, bands=("band_1", "band_2"))
    before = tree(store)
    gpucal.flag(store, scans=5, channels="462.6-462.7 GHz", reason="spur")  # band_2 starts there
    assert not bits(store, band="band_1").any()
    assert bits(store, band="band_2").any()
    gpucal.unflag(store)
    gpucal.flag(store, band="band_1", pixels=1, reason="dead")
    assert bits(store, band="band_1")[:, :, :, 1].all()
    assert not bits(store, band="band_2").any()
    gpucal.unflag(store)
    assert tree(store) == before


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"scans": 7}, "no scan 7"),
    ({"scans": 5, "pixels": 3}, "no pixel 3, only 0 to 2"),
    ({"pixels": "1-9"}, "no pixel 9, only 0 to 2"),
    ({"receivers": 2}, "no receiver 2"),
    ({"subscans": 3}, "no subscan 3"),
    ({"dumps": "4"}, "no dump 4"),
    ({"channels": "30:32"}, "no channel 32"),
    ({"channels": "230.1:230.2GHz"}, "no channel at 230.1:230.2 GHz, only from 460.6 to"),
    ({"scans": 5, "band": "band_1"}, "no 'band_1'"),
]


@pytest.mark.parametrize(("chosen", "said"), REFUSED, ids=[str(c[0]) for c in REFUSED])
def test_what_is_not_there_is_refused_before_anything_changes(
    store: Path, chosen: dict[str, Any], said: str
) -> None:
    before = tree(store)
    with pytest.raises(L1Error, match=said):
        gpucal.flag(store, reason="x", **chosen)
    assert tree(store) == before


def test_a_range_has_gaps_and_may_end_beyond_the_store(folder: Path) -> None:
    """Numbers of load scans and failed scans are not in L1; what lies outside may be a slip."""
    store = write_l1(folder / "l1.zarr", (5, 9), SHAPE)
    assert gpucal.flag(store, scans="5-9", pixels=1, reason="dead").scans == (5, 9)
    assert bits(store, 9)[:, :, :, 1].all()
    with pytest.warns(GpucalWarning, match=r"there is no scan 3, 4, 10 \.\.\.; the others"):
        assert gpucal.flag(store, scans="3-5,10-11", pixels=0, reason="dead").scans == (5,)


UNREADABLE: list[tuple[dict[str, Any], str]] = [
    ({"channels": "20:10"}, "runs backwards"),
    ({"channels": "230.2:230.1GHz"}, "runs backwards"),
    ({"channels": "230.1:230.2"}, "frequencies with their unit"),
    ({"pixels": "one"}, "expected numbers and ranges"),
    ({"pixels": -1}, "expected numbers and ranges"),
    ({"pixels": True}, "expected numbers and ranges"),
    ({"dumps": ""}, "expected numbers and ranges"),
    ({}, "would flag the whole store"),
]


@pytest.mark.parametrize(("chosen", "said"), UNREADABLE, ids=[str(c[0]) for c in UNREADABLE])
def test_what_cannot_be_read_is_refused(store: Path, chosen: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        gpucal.flag(store, reason="x", **chosen)


def test_a_reason_is_needed(store: Path) -> None:
    with pytest.raises(ConfigError, match="needs a reason"):
        gpucal.flag(store, pixels=1, reason="  ")


def test_scans_that_do_not_fit_are_passed_over_with_a_warning(folder: Path) -> None:
    store = write_l1(folder / "l1.zarr", (5,), SHAPE)
    small = write_l1(folder / "small.zarr", (6,), (32, 4, 1, 2, 3))
    (small / "scan_000006").rename(store / "scan_000006")
    with pytest.warns(GpucalWarning, match="passed over: scan 6: there is no pixel 2"):
        rule = gpucal.flag(store, pixels=2, reason="dead")
    assert rule.scans == (5,)
    assert not bits(store, 6).any()


def test_rules_are_listed_and_an_unknown_one_is_named(store: Path) -> None:
    gpucal.flag(store, pixels=1, reason="dead")
    gpucal.flag(store, scans="6", channels="3", reason="spur")
    one, two = gpucal.flag_rules(store)
    assert (one.id, one.scans, one.reason) == ("1", (5, 6), "dead")
    assert (two.id, two.scans, two.text()) == ("2", (6,), "channel 3")
    assert one.who
    assert one.when.endswith("Z")
    with pytest.raises(L1Error, match=r"no flag rule 9. It has the rules 1, 2"):
        gpucal.unflag(store, 9)
    gpucal.unflag(store)
    gpucal.unflag(store)
    with pytest.raises(L1Error, match="Nothing was flagged by hand"):
        gpucal.unflag(store)


def _flag_some(store: Path, pixel: int) -> None:
    for channel in range(6):
        gpucal.flag(store, scans="5-6", pixels=pixel, channels=channel, reason=f"{pixel} {channel}")


def test_people_who_flag_at_once_do_not_lose_each_others_rules(store: Path) -> None:
    before = tree(store)
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_flag_some, args=(store, pixel)) for pixel in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    rules = gpucal.flag_rules(store)
    assert sorted(int(r.id) for r in rules) == list(range(1, 19))
    expected = np.zeros(SHAPE, dtype=bool)
    expected[:6] = True
    for scan in (5, 6):
        np.testing.assert_array_equal(bits(store, scan), expected)
    for rule in rules:
        gpucal.unflag(store, rule.id)
    assert tree(store) == before


def _flag_and_die(store: Path, step: str) -> None:
    def die(*_: Any, **__: Any) -> None:
        os._exit(9)

    setattr(atomic, step, die)
    gpucal.flag(store, scans=5, channels="3:20", reason="lost")


@pytest.mark.parametrize("step", ["sync_tree", "exchange"])
def test_a_process_that_dies_leaves_the_store_as_it_was(store: Path, step: str) -> None:
    gpucal.flag(store, scans=5, pixels=1, reason="first")
    before = tree(store)
    context = multiprocessing.get_context("spawn")
    worker = context.Process(target=_flag_and_die, args=(store, step))
    worker.start()
    worker.join()
    assert worker.exitcode == 9
    assert tree(store) == before
    gpucal.flag(store, scans=5, channels="3", reason="second")  # nobody waits for the dead one
    assert [rule.reason for rule in gpucal.flag_rules(store)] == ["first", "second"]
    atomic.clean_stale(store)
    assert not atomic.staging_dir(store).exists()


def test_a_failure_in_the_second_scan_takes_back_the_first(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = tree(store)
    plain = atomic.exchange
    calls = []

    def fail_second(staged: Path, final: Path) -> None:
        calls.append(final)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        plain(staged, final)

    monkeypatch.setattr(atomic, "exchange", fail_second)
    with pytest.raises(L1Error, match="No space left"):
        gpucal.flag(store, pixels=1, reason="dead")
    assert tree(store) == before


@pytest.mark.parametrize("code", [13, 30])
def test_a_store_that_is_read_only_is_named(
    store: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    gpucal.flag(store, pixels=1, reason="dead")

    def refuse(*_: Any, **__: Any) -> Any:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(Path, "mkdir", refuse)
    changes: list[Callable[[], Any]] = [
        lambda: gpucal.flag(store, pixels=2, reason="dead"),
        lambda: gpucal.unflag(store),
    ]
    for change in changes:
        with pytest.raises(L1Error, match=rf"l1.zarr cannot be written: {os.strerror(code)}.*copy"):
            change()
    assert len(gpucal.flag_rules(store)) == 1


def test_a_file_of_rules_that_is_damaged_is_named(store: Path) -> None:
    gpucal.flag(store, scans=5, pixels=1, reason="dead")
    (store / "scan_000005/flags/manual_flags.json").write_text("{")
    with pytest.raises(L1Error, match=r"manual_flags.json cannot be read"):
        gpucal.flag_rules(store)


def test_xarray_leaves_flagged_samples_out_and_stays_lazy(store: Path) -> None:
    plain: Any = zarr.open_group(store, mode="r")["scan_000005/spectra"]
    gpucal.flag(store, scans=5, channels="9:12", pixels=1, reason="spur")
    found = gpucal.open_l1(store).to_xarray(5)
    expected = np.array(plain[...])
    expected[9:13, :, :, 1] = np.nan
    assert not found["spectra"].variable._in_memory
    np.testing.assert_array_equal(
        found["spectra"].isel(array=1, subscan=[2, 0]).to_numpy(), expected[:, :, :, 1][..., [2, 0]]
    )
    np.testing.assert_array_equal(found["spectra"].to_numpy(), expected)
    assert found["spectra"].attrs == dict(plain.attrs)
    foreign = xarray.open_zarr(store, group="scan_000005", consolidated=False, chunks=None)
    np.testing.assert_array_equal(foreign["flags"].to_numpy(), found["flags"].to_numpy())


def test_the_record_is_plain_json(store: Path) -> None:
    rule = gpucal.flag(store, scans=5, subscans=1, channels="3:4", reason="spur ≥ 3σ")
    text = (store / "scan_000005/flags/manual_flags.json").read_text(encoding="utf-8")
    (entry,) = json.loads(text)["rules"]
    assert entry["channels"] == [[3, 4]]
    assert entry["reason"] == "spur ≥ 3σ"
    assert entry["id"] == rule.id
    assert "pixels" not in entry
    again = gpucal.FlagRule.from_record(entry)
    assert replace(again, raw_subscans=()) == rule
