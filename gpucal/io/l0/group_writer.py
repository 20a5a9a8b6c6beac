"""One ``source/`` or ``calibration/`` group written subscan by subscan, each checked as it comes.

Shapes use C channels, D dumps, R receivers, A array pixels, S subscans.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gpucal.errors import L0Error
from gpucal.io.l0.checks import check_bolometer, check_group
from gpucal.io.l0.group import GroupContext, Raw, build_group
from gpucal.io.l0.schema import (
    ARRAYS,
    BOLOMETER_REQUIRED,
    COUNTS,
    TRACK_ARRAYS,
    check_array,
    check_counts,
    check_modes,
    check_subscan,
    subscan_shapes,
)
from gpucal.io.l0.zarr_arrays import (
    Codec,
    Shape5,
    check_known,
    create_counts,
    write_small_arrays,
)
from gpucal.scan import ArrayCounts

Shape4 = tuple[int, int, int, int]

WRITTEN_LAST = "mjd"
"""A subscan of a growing scan is there once its time is: readers with ``partial`` go by it."""


@dataclass(frozen=True)
class GroupPlan:
    """How a group is written: codec and channels of its chunks, and whether readers see it grow."""

    codec: Codec | str = "zstd:1"
    chunk_channels: int | None = None
    published: bool = False


class L0GroupWriter:
    """A group that grows by ``add``; made by ``L0ScanWriter.group``."""

    def __init__(
        self,
        context: GroupContext,
        plan: GroupPlan,
        first: Callable[[], Path],
        written: Callable[[Path], Path],
        constant: Mapping[str, Any],
    ) -> None:
        """Raises L0Error for an unknown array in ``constant``.

        first: the folder to write the first subscan into; written: called with it when that
        subscan is whole, it returns the folder where the group is from then on.
        """
        self._context = context
        self._plan = plan
        self._first, self._written = first, written
        self._constant: dict[str, npt.NDArray[Any]] = {}
        self._track: dict[str, npt.NDArray[Any]] = {}
        for name, value in constant.items():
            if name in TRACK_ARRAYS:
                self._track[name] = np.asarray(value)
                continue
            with _at(context, None):
                check_known(name)
            self._constant[name] = _number(name, value)
        self._folder: Path | None = None
        self._shape: Shape4 = (0, 0, 0, 0)
        self._dtype: np.dtype[Any] = np.dtype(np.int32)
        self._modes: list[str] = []
        self._values: list[dict[str, npt.NDArray[Any]]] = []
        self.closed = False

    @property
    def n_subscans(self) -> int:
        """How many subscans were added."""
        return len(self._modes)

    @property
    def shape(self) -> Shape5:
        """(C, D, R, A, S), S the subscans that were added."""
        return (*self._shape, self.n_subscans)

    def add(self, counts: npt.ArrayLike, mode: str, **values: npt.ArrayLike) -> int:
        """Append one subscan and return its index.

        counts: [C, D, R, A], i32, u32, f32 or f64, the same in every subscan. mode: as in
        ``sobsmode``, "ON", "HOT", ... values: the small arrays of the layout for this subscan, a
        number or per dump [D] (mjd, d; exptime, s; elevation, azimuth, rad; ...), per receiver [R]
        (signal_freq, Hz; ...), [R, A] (pixel offsets, deg) or per channel [C]; the same names and
        shapes in every subscan. Raises L0Error, and leaves the group as it was, when something is
        missing, misshapen or cannot be right.
        """
        if self.closed:
            raise L0Error("the scan is closed, no subscan can be added.", scan=self._context.scan)
        index = self.n_subscans
        block = np.asarray(counts)
        arrays = {name: _number(name, value) for name, value in values.items()}
        with _at(self._context, index):
            shape = self._check_counts(block)
            known = self._known(mode)
            self._check_names(arrays, shape)
            self._check_shapes(arrays, shape)
        self._check_values(known, arrays, shape)
        self._store(index, block, mode, arrays)
        self._shape, self._dtype = shape, block.dtype
        self._modes.append(mode)
        self._values.append(arrays)
        return index

    def set_track(self, **arrays: npt.ArrayLike) -> None:
        """The telescope's track [N] of a bolometer scan, any time before the scan is closed.

        Arrays as in the layout: track_mjd, track_azimuth, track_elevation, track_lon, track_lat.
        Raises L0Error for other names.
        """
        for name, values in arrays.items():
            if name not in TRACK_ARRAYS:
                raise L0Error(
                    f"array {name!r} is not of a track, expected {', '.join(TRACK_ARRAYS)}.",
                    scan=self._context.scan,
                )
            self._track[name] = np.asarray(values)

    def finish(self) -> None:
        """Write what was kept until the end; called when the scan is closed."""
        import zarr

        if self._folder is None:
            raise L0Error(
                f"{self._name} holds no subscan, expected at least one.", scan=self._context.scan
            )
        zgroup = zarr.open_group(str(self._folder), mode="r+", use_consolidated=False)
        with _at(self._context, None):
            if not self._plan.published:
                zgroup.attrs["sobsmode"] = self._modes
                write_small_arrays(zgroup, self._joined(self._values), self.shape)
            write_small_arrays(zgroup, self._track, self.shape)

    @property
    def _name(self) -> str:
        """Beginning of the places named in messages."""
        return "calibration/" if self._context.calibration else "source/"

    def _check_counts(self, block: npt.NDArray[Any]) -> Shape4:
        """The shape of a block [C,D,R,A]; raises L0Error unless it and its dtype are those of subscan 0."""
        if block.ndim != 4:
            raise L0Error(f"the counts have shape {block.shape}, expected [C, D, R, A].")
        c, d, r, a = block.shape
        check_counts((c, d, r, a, 1), block.dtype)
        if self._modes and block.shape != self._shape:
            raise L0Error(
                f"the counts have shape {block.shape}, expected {self._shape} as in subscan 0.",
                hint="Pad missing dumps at the end with the fill value.",
            )
        if self._modes and block.dtype != self._dtype:
            raise L0Error(
                f"the counts have dtype {block.dtype}, expected {self._dtype} as in subscan 0."
            )
        return (c, d, r, a)

    def _known(self, mode: str) -> str:
        """The mode with aliases resolved; a bolometer scan may hold any words."""
        if self._context.bolometer:
            return mode
        return check_modes([mode], calibration=self._context.calibration)[0]

    def _check_names(self, arrays: Mapping[str, Any], shape: Shape4) -> None:
        """All that is required, nothing twice, and the same as in the first subscan."""
        for name in arrays:
            check_known(name)
            if name in self._constant:
                raise L0Error(f"array {name} was given for all subscans, expected it once.")
        if self._values:
            wanted, again = set(self._values[0]), " as in subscan 0"
        else:
            wanted, again = self._required() - set(self._constant), ""
        for name, rule in ARRAYS.items():
            if name in wanted and name not in arrays:
                shapes = subscan_shapes(name, shape)
                raise L0Error(
                    f"array {name} is missing, expected shape {shapes}, {rule.unit}{again}."
                )
            if name in arrays and name not in wanted and self._values:
                raise L0Error(f"array {name} is new, expected it from subscan 0 on.")

    def _required(self) -> set[str]:
        """Names of the small arrays that every subscan needs; fewer for bolometers."""
        rules = ARRAYS.items()
        bolometer = self._context.bolometer
        names = BOLOMETER_REQUIRED if bolometer else {n for n, rule in rules if rule.required}
        return {name for name in names if name != COUNTS}

    def _check_shapes(self, arrays: Mapping[str, npt.NDArray[Any]], shape: Shape4) -> None:
        """Raise L0Error for an array whose shape does not fit the counts, or differs from subscan 0."""
        for name, values in self._constant.items():
            if _is_whole(name):
                check_array(name, values.shape, values.dtype, (*shape, 1))
            else:
                check_subscan(name, values, shape)
        for name, values in arrays.items():
            check_subscan(name, values, shape)
            if self._values and values.shape != self._values[0][name].shape:
                raise L0Error(
                    f"array {name} has shape {values.shape}, expected "
                    f"{self._values[0][name].shape} as in subscan 0."
                )

    def _check_values(self, mode: str, arrays: dict[str, Any], shape: Shape4) -> None:
        """The rules of the reader, on this subscan and the one before it."""
        pair = [*self._values[-1:], arrays]
        modes = (*(self._known(before) for before in self._modes[-1:]), mode)
        counts = ArrayCounts(np.broadcast_to(np.zeros((), np.int32), (*shape, len(pair))))
        first = self.n_subscans + 1 - len(pair)
        try:
            group = build_group(counts, modes, self._joined(pair), self._context)
            if self._context.bolometer:
                check_bolometer(group)
            else:
                check_group(group, calibration=self._context.calibration, growing=True)
        except L0Error as error:
            error.subscan = self.n_subscans if error.subscan is None else error.subscan + first
            raise error.locate(scan=self._context.scan, band=self._context.band) from None

    def _joined(self, subscans: list[dict[str, Any]]) -> Raw:
        """Values of some subscans, and those that hold for all, in the dtypes of the store."""
        joined = {
            name: np.stack([values[name] for values in subscans], axis=-1) for name in subscans[0]
        }
        for name, value in self._constant.items():
            joined[name] = value if _is_whole(name) else _repeat(value, len(subscans))
        return {name: value.astype(ARRAYS[name].dtype) for name, value in joined.items()}

    def _store(
        self, index: int, block: npt.NDArray[Any], mode: str, arrays: dict[str, Any]
    ) -> None:
        """Write the counts, and in a published group all of the subscan, its time last."""
        import zarr

        plan = self._plan
        if self._folder is None:
            folder = self._first()
            zgroup = zarr.open_group(str(folder), mode="r+", use_consolidated=False)
            shape = (*self._check_counts(block), 1)
            counts_array = create_counts(
                zgroup, shape, block.dtype, plan.codec, plan.chunk_channels
            )
            counts_array[..., 0] = block
            if plan.published:
                # one subscan a chunk: what a reader may be reading is never written again
                zgroup.attrs["sobsmode"] = [mode]
                write_small_arrays(zgroup, self._joined([arrays]), shape)
            self._folder = self._written(folder)
            return
        zgroup = zarr.open_group(str(self._folder), mode="r+", use_consolidated=False)
        _append(zgroup[COUNTS], index, block)
        if plan.published:
            small = self._joined([arrays])
            times = small.pop(WRITTEN_LAST)
            for name, values in small.items():
                if not (name in self._constant and _is_whole(name)):
                    _append(zgroup[name], index, values[..., 0])
            zgroup.attrs["sobsmode"] = [*self._modes, mode]
            _append(zgroup[WRITTEN_LAST], index, times[..., 0])


@contextmanager
def _at(context: GroupContext, subscan: int | None) -> Iterator[None]:
    """Name scan, band and subscan in the L0Errors of the block."""
    try:
        yield
    except L0Error as error:
        error.subscan = subscan
        raise error.locate(scan=context.scan, band=context.band) from None


def _append(array: Any, index: int, values: npt.NDArray[Any]) -> None:
    """Write a subscan behind those of a Zarr array [..., S]."""
    array.resize((*array.shape[:-1], index + 1))
    array[..., index] = values


def _number(name: str, value: npt.ArrayLike) -> npt.NDArray[Any]:
    """As array; a whole number, such as an azimuth of 0, is taken where a real one is expected."""
    values = np.asarray(value)
    rule = ARRAYS.get(name)
    if rule is not None and not values.ndim and values.dtype.kind in "iu" and "f" in rule.kinds:
        return values.astype(np.float64)
    return values


def _is_whole(name: str) -> bool:
    """Pixel offsets that hold for all subscans are stored once, [R, A]."""
    return name.startswith("pixel_offset")


def _repeat(value: npt.NDArray[Any], n: int) -> npt.NDArray[Any]:
    """Add a last axis of ``n`` equal subscans."""
    return np.repeat(value[..., None], n, axis=-1)
