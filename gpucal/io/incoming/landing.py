"""How planned scans come into a store: all at once, or one after the other.

Shapes use C channels, D dumps, R receivers, A array pixels, S subscans.
"""

from __future__ import annotations

import functools
import hashlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from gpucal.errors import GpucalError, ImportFormatError, L0Error
from gpucal.io.chunks.zarr_metadata import scan_name
from gpucal.io.files.atomic import (
    as_write_error,
    clean_stale,
    discard,
    exchange,
    new_staged,
    rename_into_place,
    sync_tree,
)
from gpucal.io.files.json_text import dumps
from gpucal.io.incoming.assumptions import ATTRIBUTE, Assumptions
from gpucal.io.incoming.draft import resumable
from gpucal.io.incoming.protocol import (
    ImportPlan,
    ImportReport,
    Lost,
    PlannedScan,
    Request,
    ScanContent,
    Tick,
)
from gpucal.io.l0.checks import check_group
from gpucal.io.l0.group import GroupContext
from gpucal.io.l0.group import build_group as as_read
from gpucal.io.l0.store import L0Store, open_l0
from gpucal.io.l0.write import CountsMaker, GroupArrays, existing_root, write_l0_scan
from gpucal.scan import ArrayCounts

_END_BYTES = 64 << 10
IDENTITY = "import_identity"
"""Attribute of a scan: digest of what it was made of, by which it is known again."""


class Progress(Protocol):
    """Told how an import goes on."""

    def scan_started(self, scan: PlannedScan) -> None:
        """A scan is about to be written."""

    def advance(self, nbytes: int) -> None:
        """So many bytes of counts more were read."""

    def scan_finished(self, scan: PlannedScan) -> None:
        """A scan is written, was there already, or is lost."""


class Silent:
    """A Progress that says nothing."""

    def scan_started(self, scan: PlannedScan) -> None:
        """Nothing."""

    def advance(self, nbytes: int) -> None:
        """Nothing."""

    def scan_finished(self, scan: PlannedScan) -> None:
        """Nothing."""


def writer_of(
    number: int,
    read: Callable[[], ScanContent],
    *,
    identity: str = "",
    assumptions: Assumptions | None = None,
    done: Callable[[], None] | None = None,
) -> Callable[[Path, Tick], None]:
    """The ``write`` of a PlannedScan: what ``read`` returns, by ``write_l0_scan``.

    identity: kept as an attribute, for ``is_same``; assumptions: kept as the attribute that ``gpucal
    inspect`` shows; done: called at the end, also of a failure, to let go of what was opened.
    """

    def write(store: Path, tick: Tick) -> None:
        content = read()
        attrs = dict(content.attrs)
        if identity:
            attrs[IDENTITY] = identity
        if assumptions is not None and len(assumptions):
            attrs[ATTRIBUTE] = assumptions.attribute()
        groups = {
            band: {name: _ticking(group, tick) for name, group in members.items()}
            for band, members in content.groups.items()
        }
        try:
            write_l0_scan(store, number, attrs=attrs, groups=groups, band_attrs=content.band_attrs)
        finally:
            if done is not None:
                done()

    return write


def is_same(identity: str) -> Callable[[Any], bool]:
    """The ``same_as`` of a PlannedScan: the scan in the store was made of the same, with the same options."""
    return lambda group: bool(identity) and group.attrs.get(IDENTITY) == identity


def digest_of(files: Sequence[Path], request: Request, *more: Any) -> str:
    """Identity of what is made of these files with the options and the profile of a request; more: plain values.

    A file is known by its name, its size, and its first and last bytes, so that a copy of it is the same.
    """
    facts = sorted((path.name, _digest_of_file(path, *_state(path))) for path in files)
    asked = [dict(request.options), dict(request.profile.values), dict(request.profile.receivers)]
    text = dumps([facts, asked, more], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _state(path: Path) -> tuple[int, int]:
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns


@functools.lru_cache(maxsize=4096)
def _digest_of_file(path: Path, size: int, changed: int) -> str:
    """Of size and ends; ``changed`` is there so that a file that was written again is read again."""
    with open(path, "rb") as stream:
        head = stream.read(_END_BYTES)
        stream.seek(max(0, size - _END_BYTES))
        return hashlib.sha256(b"%d" % size + head + stream.read(_END_BYTES)).hexdigest()


def _ticking(group: GroupArrays, tick: Tick) -> GroupArrays:
    """The group, telling ``tick`` of the counts of each subscan that were made."""
    data = group.data_5d
    if not isinstance(data, CountsMaker):
        return group
    make = data.make

    def counted(subscan: int) -> npt.NDArray[Any]:
        block = make(subscan)
        tick(int(block.nbytes))
        return block

    return GroupArrays(CountsMaker(data.shape, data.dtype, counted), group.sobsmode, group.arrays)


def check_values(group: GroupArrays, *, loads: bool, t_hot_given: bool = True) -> None:
    """Raise ImportFormatError for values with which nobody could read the scan again, before it is written.

    t_hot_given: the temperature of the hot load may be anything, --t-hot replaces it.
    """
    counts = ArrayCounts(np.broadcast_to(np.zeros((), np.int32), group.shape))
    context = GroupContext(0, "", loads, ref_channel_base=0, gain_zero=True, partial=False)
    try:
        check_group(
            as_read(counts, tuple(group.sobsmode), dict(group.arrays), context),
            calibration=loads,
            t_hot_given=t_hot_given,
        )
    except L0Error as error:
        raise ImportFormatError(error.message, hint=error.hint, subscan=error.subscan) from None


def check_target(out: Path, *, whole_store: bool, overwrite: bool) -> None:
    """Raise L0Error when ``out`` cannot become, or receive, the store; nothing is touched."""
    if not out.exists():
        if not out.parent.is_dir():
            raise L0Error(f"the folder {out.parent} does not exist.", hint="Make it first.")
        return
    if whole_store and not overwrite:
        raise L0Error(f"{out} is already there.", hint="Use --overwrite, or another name.")
    existing_root(out)  # replaces, and adds to, nothing but an L0 store


def land(
    plan: ImportPlan, out: Path, *, whole_store: bool, overwrite: bool, progress: Progress
) -> ImportReport:
    """Write the scans of a plan into the store ``out``.

    whole_store: it appears when all of them are there; what an interrupted run wrote waits beside it. Else
    they are added one by one; of those that are there already the same are kept and others in their place
    are in the way and lost, unless ``overwrite`` replaces both. Raises the first of the lost when nothing is left.
    """
    if not plan.scans and plan.lost:
        raise plan.lost[0].error
    if whole_store:
        return _whole(plan, out, progress)
    return _one_by_one(plan, out, overwrite, progress)


def _whole(plan: ImportPlan, out: Path, progress: Progress) -> ImportReport:
    with resumable(out, plan.inputs, plan.options) as draft:
        _make_store(draft.store, plan.root)
        finished = draft.finished()
        for scan in plan.scans:
            with _told(progress, scan):
                if scan.number not in finished:
                    scan.write(draft.store, progress.advance)
                    draft.add(scan.number)
        sync_tree(draft.store)
        draft.retire()
        if out.exists():
            exchange(draft.store, out)
        else:
            rename_into_place(draft.store, out)
    return ImportReport(tuple(s.number for s in plan.scans), tuple(plan.lost))


def _one_by_one(plan: ImportPlan, out: Path, overwrite: bool, progress: Progress) -> ImportReport:
    there = open_l0(out) if out.exists() else None
    if there is not None:
        clean_stale(out)
        _check_same_telescope(plan, there, out)
    lost = list(plan.lost)
    written: list[int] = []
    present: list[int] = []
    numbers = set() if there is None else set(there.numbers())
    for scan in plan.scans:
        with _told(progress, scan):
            held = scan.number in numbers
            if held and not overwrite:
                assert there is not None
                trouble = _not_the_same(scan, there, out)
                if trouble is None:
                    present.append(scan.number)
                else:
                    lost.append(Lost(scan.number, "", trouble))
                continue
            try:
                with as_write_error(out, scan.number):
                    _make_store(out, plan.root)
                    _put(scan, out, progress, replace=held)
            except (ImportFormatError, L0Error) as error:
                lost.append(Lost(scan.number, error.band, error.locate(scan=scan.number)))
                continue
            written.append(scan.number)
    if lost and not (written or present):
        raise lost[0].error
    return ImportReport(tuple(written), tuple(lost), tuple(sorted(present)))


@contextmanager
def _told(progress: Progress, scan: PlannedScan) -> Any:
    progress.scan_started(scan)
    yield
    progress.scan_finished(scan)


def _put(scan: PlannedScan, out: Path, progress: Progress, *, replace: bool) -> None:
    """Write a scan into the store; one in its place is exchanged for it when it is whole."""
    if not replace:
        scan.write(out, progress.advance)
        return
    scratch = new_staged(out, "scratch")
    try:
        _make_store(scratch, dict(open_l0(out).attrs))
        scan.write(scratch, progress.advance)
        sync_tree(scratch)
        exchange(scratch / scan_name(scan.number), out / scan_name(scan.number))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        discard(scratch)


def _make_store(path: Path, root: Mapping[str, Any]) -> None:
    """An empty store with these attributes, or the one that is there."""
    import zarr

    if not path.exists() or not any(path.iterdir()):
        zarr.create_group(str(path), zarr_format=3, attributes=dict(root))


def _check_same_telescope(plan: ImportPlan, there: L0Store, out: Path) -> None:
    origin = plan.scans[0].origin or "the data" if plan.scans else "the data"
    for name in ("telescope", "instrument"):
        if plan.root.get(name) != there.attrs.get(name):
            raise ImportFormatError(
                f"{origin} is of {name} {plan.root.get(name)!r}, {out} of "
                f"{there.attrs.get(name)!r}, expected one {name} in a store.",
                scan=plan.scans[0].number if plan.scans else None,
            )


def _not_the_same(scan: PlannedScan, there: L0Store, out: Path) -> GpucalError | None:
    """Why the scan of this number in the store is not this one; None when it is."""
    try:
        if scan.same_as(there.scan_group(scan.number)):
            return None
    except GpucalError as error:
        return error.locate(scan=scan.number)
    return L0Error(
        f"{out} holds another scan of this number than {scan.origin}.",
        hint="Raw data are never overwritten unasked: import into another store, or use --overwrite.",
        scan=scan.number,
    )
