"""What is done for a job, against a slow statement of the rules that shares no code with them."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpucal import OnlineError
from gpucal.axes import SOURCE_MODES
from gpucal.online.queue.events import (
    END,
    Action,
    CountsLook,
    EndOfScan,
    Group,
    Job,
    NewCalibration,
    Notice,
    OtfGroup,
    QuickLook,
    ScanView,
    job_from_json,
)
from gpucal.online.queue.scan_ends import KnownScan, OpenScan, missing_ends
from gpucal.online.queue.trigger import decide, has_ended
from gpucal.pipeline.reduction import procedure_choice
from gpucal.procedures.names import KINDS, procedure_of

REF, FLY = "OTF-OFF", "OTF-ON"


def job(subscan: int, procedure: str = "otf", **changes: object) -> Job:
    return replace(Job("night.zarr", 7, subscan, "p1", procedure=procedure), **changes)  # type: ignore[arg-type]


def run_scan(modes: tuple[str, ...], procedure: str = "otf", **view: object) -> list[list[Action]]:
    """Actions subscan by subscan and, last, those of the announced end."""
    out = []
    for n in range(len(modes)):
        seen = ScanView(7, modes[: n + 1], **view)  # type: ignore[arg-type]
        out.append(list(decide(seen, job(n, procedure))))
    out.append(list(decide(ScanView(7, modes, **view), job(END, procedure))))  # type: ignore[arg-type]
    return out


def groups_by_the_book(
    modes: tuple[str, ...],
) -> dict[int, tuple[list[int], int | None, int | None]]:
    """The e-mail of 2001, word by word: when (subscan, or len = end) -> what is processed with what.

    Beyond it: OTF subscans before the first REF are processed with that one.
    """
    found: dict[int, tuple[list[int], int | None, int | None]] = {}
    for position in range(len(modes)):
        if modes[position] != REF:
            continue  # "after an OTF subscan that is not the last subscan: do nothing"
        flown = []
        walk = position - 1
        while walk >= 0 and modes[walk] == FLY:
            flown.append(walk)
            walk -= 1
        if flown:
            found[position] = (sorted(flown), walk if walk >= 0 else None, position)
    if modes and modes[-1] == FLY and REF in modes:
        last = max(i for i, mode in enumerate(modes) if mode == REF)
        found[len(modes)] = ([i for i in range(len(modes)) if i > last], last, None)
    return found


def check_otf(modes: tuple[str, ...]) -> None:
    expected = groups_by_the_book(modes)
    done: list[int] = []
    for moment, actions in enumerate(run_scan(modes)):
        groups = [a for a in actions if isinstance(a, OtfGroup)]
        assert len(groups) <= 1
        found = (list(groups[0].subscans), groups[0].before, groups[0].after) if groups else None
        assert found == expected.get(moment)
        done += [s for g in groups for s in g.subscans]
        assert not [a for a in actions if isinstance(a, QuickLook | CountsLook)]
        assert [a for a in actions if isinstance(a, EndOfScan)] == (
            [EndOfScan("otf", False)] if moment == len(modes) else []
        )
    assert done == sorted(set(done)), "an OTF subscan is processed once, in order"
    if REF in modes:
        assert done == [i for i, mode in enumerate(modes) if mode == FLY]


@pytest.mark.parametrize("length", range(9))
def test_every_otf_sequence(length: int) -> None:
    for modes in itertools.product((REF, FLY), repeat=length):
        check_otf(modes)


@pytest.mark.parametrize("length", range(1, 9))
def test_a_cancelled_otf_is_processed_as_far_as_it_goes(length: int) -> None:
    for modes in itertools.product((REF, FLY), repeat=length):
        stopped = decide(ScanView(7, modes, planned=20), job(length - 1, cancelled=True))
        book = groups_by_the_book(modes)
        wanted = [book[m] for m in (length - 1, length) if m in book]
        groups = [a for a in stopped if isinstance(a, OtfGroup)]
        assert [(list(g.subscans), g.before, g.after) for g in groups] == wanted
        assert stopped[-1] == EndOfScan("otf", True)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from([REF, FLY, FLY]), min_size=9, max_size=99))
def test_long_otf_sequences(modes: list[str]) -> None:
    check_otf(tuple(modes))


@pytest.mark.parametrize(
    ("modes", "said"),
    [
        ((FLY, REF), "without a REF"),
        ((REF, REF, FLY), "two REF in a row"),
        ((FLY, FLY), "no REF at all"),
    ],
)
def test_non_standard_otf_is_named(modes: tuple[str, ...], said: str) -> None:
    notices = [a.text for acts in run_scan(modes) for a in acts if isinstance(a, Notice)]
    assert any(said in text for text in notices)


def test_standard_otf_says_nothing() -> None:
    for modes in [(REF, FLY, FLY, REF), (REF, FLY, REF, FLY), (REF, FLY, REF, FLY, FLY, REF)]:
        assert not [a for acts in run_scan(modes) for a in acts if isinstance(a, Notice)]


ANY_MODE = st.sampled_from(sorted(SOURCE_MODES))
NAMES = ("", "unheard of", *KINDS)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(ANY_MODE, max_size=12),
    st.sampled_from(NAMES),
    st.booleans(),
    st.integers(0, 14),
    st.data(),
)
def test_decisions_do_not_look_ahead_and_repeat(
    modes: list[str], name: str, calibrated: bool, planned: int, data: st.DataObject
) -> None:
    seen = tuple(modes)
    for n in range(len(seen)):
        view = ScanView(7, seen[: n + 1], planned=planned, calibrated=calibrated)
        wake = job(
            n, name, cancelled=data.draw(st.booleans()), end_of_scan=data.draw(st.booleans())
        )
        actions = decide(view, wake)
        assert actions == decide(view, wake)
        ends = [a for a in actions if isinstance(a, EndOfScan)]
        assert bool(ends) == (
            wake.cancelled or wake.end_of_scan or (0 < planned <= n + 1 and name != "calibration")
        )
        assert all(end.cancelled == wake.cancelled for end in ends)
        used = [
            s for a in actions if isinstance(a, QuickLook) for s in (*a.subscans, *a.references)
        ]
        assert all(0 <= s <= n for s in used)
        if not calibrated and procedure_of(name, seen[: n + 1]) != "skydip":
            assert not [a for a in actions if isinstance(a, QuickLook | OtfGroup)]


@pytest.mark.parametrize("procedure", ["pointing", "focus"])
def test_a_drift_is_shown_at_once_and_a_cancelled_scan_is_finished(procedure: str) -> None:
    modes = ("OTF-ON", "OTF-ON", "OTF-ON", "OTF-ON")
    actions = decide(ScanView(7, modes[:2], planned=4), job(1, procedure, cancelled=True))
    assert actions == (QuickLook((1,)), EndOfScan(procedure, True))


def test_on_off_so_far() -> None:
    looks = run_scan(("OFF", "ON", "ON", "OFF"), "onoff")
    assert looks[0] == []
    assert looks[1] == [QuickLook((1,), (0,))]
    assert looks[3] == [QuickLook((1, 2), (0, 3))]
    assert looks[4] == [EndOfScan("on-off", False)]


def test_a_chopped_wobbler_needs_no_off() -> None:
    assert run_scan(("WSW-ON",), "wobbler")[0] == [QuickLook((0,), ())]


def test_frequency_switch_waits_for_both_phases() -> None:
    looks = run_scan(("FSW-SIG", "FSW-REF"), "")
    assert looks[0] == []
    assert looks[1] == [QuickLook((0,), (1,))]


def test_otf_with_frequency_switch_needs_no_ref() -> None:
    looks = run_scan(("FSW-SIG", "FSW-REF", "FSW-SIG", "FSW-REF"), "otf")
    assert looks[3] == [QuickLook((0, 2), (1, 3))]
    assert looks[4] == [EndOfScan("otf", False)]


def test_a_calibration_becomes_current_at_its_end() -> None:
    view = ScanView(5, (), ("HOT", "COLD", "SKY"), planned=3)
    calibration = replace(job(2, "calibration"), group="calibration")
    assert decide(view, calibration) == (
        CountsLook(2, "calibration"),
        NewCalibration(),
        EndOfScan("calibration", False),
    )
    no_hot = replace(view, calibration_modes=("SKY", "SKY", "SKY"))
    assert not [a for a in decide(no_hot, calibration) if isinstance(a, NewCalibration)]


def test_loads_inside_a_science_scan_do_not_end_it() -> None:
    view = ScanView(5, (), ("HOT", "COLD"), planned=2)
    assert decide(view, replace(job(1, "otf"), group="calibration")) == (
        CountsLook(1, "calibration"),
    )


def test_a_subscan_that_is_not_there_yet() -> None:
    with pytest.raises(OnlineError, match=r"scan 7: subscan 3 of source/ is not in the store"):
        decide(ScanView(7, ("OTF-OFF",)), job(3))


@pytest.mark.parametrize("name", ["Track", "OnOff", "otf", "fsw", "", "CALSEQ"])
def test_loads_alone_are_a_calibration_whatever_the_motion_is_called(name: str) -> None:
    """A vane scan is a "Track" of the telescope: nothing is reduced, and nothing is missing."""
    view = ScanView(7, (), calibration_modes=("HOT", "SKY"))
    last = replace(job(END, name), group="calibration")
    assert decide(view, last) == (NewCalibration(), EndOfScan("calibration", False))


def test_tips_and_drifts_keep_their_name_without_a_source() -> None:
    for kind in ("skydip", "pointing", "focus"):
        assert procedure_of(kind, (), ("HOT", "SKY")) == kind


def test_an_empty_scan_ends_with_a_word() -> None:
    assert decide(ScanView(7), job(END)) == (
        Notice("the scan ended without a subscan"),
        EndOfScan("otf", False),
    )


@given(
    st.lists(
        st.tuples(st.integers(1, 9), st.sampled_from("ab"), st.floats(0, 100)),
        unique_by=lambda t: t[:2],
    ),
    st.floats(1, 100),
)
def test_ends_that_nobody_announced(scans: list[tuple[int, str, float]], timeout: float) -> None:
    known = [
        OpenScan(Job("night.zarr", number, 3, project, procedure="otf"), idle)
        for number, project, idle in scans
    ]
    ends = missing_ends(known, timeout)
    expected = {
        (project, number)
        for number, project, idle in scans
        if idle >= timeout or any(n > number for n, _, _ in scans)  # of whatever project
    }
    assert {(e.project, e.scan) for e in ends} == expected
    assert all(e.subscan == END and e.end_of_scan for e in ends)
    assert [e.scan for e in ends if e.project == "a"] == sorted(
        e.scan for e in ends if e.project == "a"
    )
    assert ends == missing_ends(list(reversed(known)), timeout)


def test_a_later_scan_that_has_ended_already_ends_the_one_before() -> None:
    opened = OpenScan(Job("night.zarr", 7, 3, "a"), 1.0)
    assert not missing_ends([opened], 60.0, [KnownScan("b", "other.zarr", 8)])
    (end,) = missing_ends([opened], 60.0, [KnownScan("b", "night.zarr", 8)])
    assert (end.project, end.scan, end.subscan) == ("a", 7, END)


@pytest.mark.parametrize(
    ("other", "ends"),
    [
        (KnownScan("b", "b.zarr", 2, "30m", "2026-02-03T04:06:00"), True),
        (KnownScan("b", "b.zarr", 2, "30m", "2026-02-03T04:04:00"), False),
        (KnownScan("b", "b.zarr", 2, "APEX", "2026-02-03T04:06:00"), False),
        (KnownScan("a", "b.zarr", 2, "30m", "2026-02-03T04:06:00"), False),
        (KnownScan("b", "b.zarr", 2, "", ""), False),
    ],
)
def test_a_change_of_project_in_another_store(other: KnownScan, ends: bool) -> None:
    """The telescope does one thing at a time; what another one does says nothing."""
    opened = OpenScan(Job("a.zarr", 7, 3, "a"), 1.0, "30m", "2026-02-03T04:05:06.000")
    assert bool(missing_ends([opened], 60.0, [other])) == ends


@pytest.mark.parametrize(
    ("name", "group", "ends"),
    [
        ("calibration", "calibration", True),
        ("skydip", "calibration", True),
        ("skydip", "source", True),
        ("otf", "source", True),
        ("otf", "calibration", False),
    ],
)
def test_the_planned_number_ends_a_scan_for_every_task(name: str, group: Group, ends: bool) -> None:
    last = replace(job(2, name), group=group)
    assert has_ended(last, 3) == ends
    assert not has_ended(last, 0)
    assert not has_ended(replace(last, subscan=1), 3)


def test_jobs_are_written_and_read() -> None:
    one = job(3, cancelled=True, created=12.5, project="a/../b c")
    assert job_from_json(one.to_json()) == one
    assert one.name == "a____b_c.00000007.s00003.json"
    assert job(END).name == "p1.00000007.end.json"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "not JSON"),
        ("[]", "not a JSON object"),
        ('{"store": "x", "scan": 1, "subscan": 0}', "no 'project'"),
        ('{"store": "x", "scan": 1, "subscan": 0, "project": "p", "colour": 1}', "'colour'"),
        ('{"store": "x", "scan": "1", "subscan": 0, "project": "p"}', "expected int"),
        ('{"store": "x", "scan": -1, "subscan": 0, "project": "p"}', "scan -1"),
        ('{"store": "x", "scan": true, "subscan": 0, "project": "p"}', "expected int"),
        ('{"store": "x", "scan": 1, "subscan": 0, "project": "p", "group": "q"}', "source or"),
        ('{"store": "x", "scan": 1, "subscan": 0, "project": "p", "created": "n"}', "float"),
    ],
)
def test_half_written_jobs_are_refused(text: str, said: str) -> None:
    with pytest.raises(OnlineError, match=said):
        job_from_json(text)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("CrossScan", "pointing"),
        ("antenna tip", "skydip"),
        ("On_Off", "on-off"),
        ("FOCUS", "focus"),
    ],
)
def test_offline_and_online_understand_the_same_names(name: str, kind: str) -> None:
    assert procedure_of(name, (REF, FLY)) == kind
    assert procedure_choice.reduction_of({"obs_procedure": name}) == kind
