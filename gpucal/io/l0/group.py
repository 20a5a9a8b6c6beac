"""From the arrays of ``source/`` or ``calibration/`` to a SubscanGroup; legacy shapes expanded.

Shapes use C channels, D dumps, R receivers, A array pixels, S subscans. Source: the L0 layout of
docs/reference/l0.md.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from gpucal.errors import EmptyScanError, L0Error
from gpucal.io.chunks.counts import ZarrCounts
from gpucal.io.conventions.attributes import decoded_values
from gpucal.io.l0.nodes import counts_coding, node_of, stored_array, values_of
from gpucal.io.l0.schema import (
    ARRAYS,
    BOLOMETER_REQUIRED,
    COUNTS,
    TRACK_ARRAYS,
    GroupName,
    check_array,
    check_axis_order,
    check_counts,
    check_dtype,
    check_modes,
    is_bolometer,
    parse_scan_attrs,
)
from gpucal.io.l0.track import check_track, merge_track
from gpucal.scan import F64, CountsSource, SubscanGroup

DAY_S = 86400.0
NEVER_WRITTEN_MJD = (0.0, 40587.0)
"""MJD of a stored 0, in days and in Unix seconds."""
Raw = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class GroupContext:
    """The attributes of a scan that affect how a group is read.

    gain_zero: the receiver has no image sideband (gain_image is 0 everywhere). bolometer: the scan
    has no loads and no frequency axis, any sobsmode, and perhaps a track.
    """

    scan: int
    band: str
    calibration: bool
    ref_channel_base: int
    gain_zero: bool
    partial: bool
    bolometer: bool = False


def group_context(
    scan: int, band: str, group: GroupName, attrs: Mapping[str, Any], *, partial: bool
) -> GroupContext:
    """The context from the attributes of a scan; those of its band override them."""
    known = parse_scan_attrs(attrs)
    return GroupContext(
        scan=scan,
        band=band,
        calibration=group == "calibration",
        ref_channel_base=known.ref_channel_base,
        gain_zero=_all_zero(known.gain_image),
        partial=partial,
        bolometer=is_bolometer(attrs),
    )


def _all_zero(value: Any) -> bool:
    """Whether a number, or every number of a nested list, is 0."""
    return all(_all_zero(item) for item in value) if isinstance(value, list) else value == 0


def read_group(zgroup: Any, context: GroupContext, digest: Any) -> SubscanGroup:
    """Read one Zarr group; ``digest`` (hashlib) is fed with all that was read.

    Raises L0Error for missing or misshapen arrays, wrong dtypes, unknown observing modes.
    """
    counts = node_of(zgroup, COUNTS)
    if not hasattr(counts, "shape"):
        raise L0Error(f"array {COUNTS} is missing, expected counts [C, D, R, A, S].")
    check_counts(counts.shape, np.dtype(counts.dtype))
    check_axis_order(COUNTS, counts)
    attrs = dict(zgroup.attrs)
    raw = _read_arrays(zgroup, counts.shape, digest, bolometer=context.bolometer)
    track = read_track(zgroup, digest) if context.bolometer else {}
    modes = read_modes(zgroup, attrs)
    feed(digest, {"name": COUNTS, "shape": counts.shape, "dtype": np.dtype(counts.dtype).str})
    coding = counts_coding(counts)
    if not coding.plain:
        feed(digest, {"coding": repr(coding)})
    # How the counts are cut into chunks says nothing about them.
    feed(digest, {"attrs": attrs, "sobsmode": modes})
    n_subscans = int(counts.shape[4])
    if context.partial:
        n_subscans, raw, modes = _cut_to_common(n_subscans, raw, modes)
    if len(modes) != n_subscans:
        raise L0Error(f"sobsmode has {len(modes)} entries, expected {n_subscans}, one per subscan.")
    source = ZarrCounts(
        counts,
        scan=context.scan,
        band=context.band,
        n_subscans=n_subscans,
        coding=coding,
        zeros_lost=not context.bolometer,
    )
    for name, values in raw.items():
        check_array(name, values.shape, values.dtype, source.shape)
    if context.bolometer:
        group = build_group(source, tuple(modes), raw, context)
        return with_track(group, track, given=frozenset(raw)) if track else group
    known = check_modes(modes, calibration=context.calibration)
    return build_group(source, known, raw, context)


def read_track(zgroup: Any, digest: Any) -> Raw:
    """The track arrays [N] of a Zarr group, as stored; empty when it has none.

    ``digest`` (hashlib) is fed with them. Raises L0Error as ``check_track``.
    """
    track: Raw = {}
    for name in TRACK_ARRAYS:
        node = node_of(zgroup, name)
        if hasattr(node, "shape"):
            values = values_of(name, node)
            feed(digest, {"name": name, "shape": values.shape, "attrs": dict(node.attrs)})
            digest.update(np.ascontiguousarray(values).tobytes())
            track[name] = decoded_values(stored_array(name, node), values)
    if track:
        check_track(track)
    return track


def with_track(group: SubscanGroup, track: Raw, given: frozenset[str]) -> SubscanGroup:
    """Positions [D, S] from the track, but for the arrays that are ``given`` for the dumps."""
    merged = merge_track(track, group.mjd)
    changes: dict[str, Any] = {n: _frozen(v) for n, v in merged.items() if n not in given}
    return replace(group, **changes)


def feed(digest: Any, document: Mapping[str, Any]) -> None:
    """Add a document to a hashlib digest, independent of key order."""
    text = json.dumps(document, sort_keys=True, default=str)
    digest.update(hashlib.sha256(text.encode()).digest())


def _read_arrays(
    zgroup: Any, shape: tuple[int, ...], digest: Any, *, bolometer: bool = False
) -> Raw:
    """All known small arrays as stored, not yet expanded; each is fed to ``digest``, little endian."""
    raw: Raw = {}
    size = dict(zip("CDRAS", shape, strict=True))
    for name, rule in ARRAYS.items():
        if name == COUNTS:
            continue
        node = node_of(zgroup, name)
        if not hasattr(node, "shape"):
            if name in BOLOMETER_REQUIRED if bolometer else rule.required:
                wanted = " or ".join(str(tuple(size[d] for d in dims)) for dims in rule.dims)
                raise L0Error(f"array {name} is missing, expected shape {wanted}, {rule.unit}.")
            continue
        if len(node.shape) > 3:
            check_array(name, node.shape, np.dtype(node.dtype), shape)
        check_axis_order(name, node)
        values = values_of(name, node)
        decoded = decoded_values(stored_array(name, node), values)
        raw[name] = decoded if values.dtype.kind == "f" else _without_gaps(name, decoded)
        if values.dtype.kind not in "iuf":
            check_dtype(name, raw[name].dtype)
            values = raw[name]
        feed(digest, {"name": name, "shape": values.shape, "attrs": dict(node.attrs)})
        digest.update(np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<")).tobytes())
        digest.update(values.dtype.newbyteorder("<").str.encode())
    return raw


def _without_gaps(name: str, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Numbers that stand for something, of which some are no data: -1 for no load scan, else L0Error."""
    if "f" in ARRAYS[name].kinds or values.dtype.kind != "f":
        return values
    unknown = np.isnan(values)
    if name == "lloadsn":
        return np.where(unknown, -1, values).astype(np.int64)
    if unknown.any():
        at = tuple(int(i) for i in np.argwhere(unknown)[0])
        raise L0Error(f"array {name} holds no data at {at}, expected a number everywhere.")
    return values


def read_modes(zgroup: Any, attrs: Mapping[str, Any]) -> list[str]:
    """Observing modes: attribute of the group, else a string array (fixed, vlen or object)."""
    if "sobsmode" in attrs:
        values = attrs["sobsmode"]
        if not isinstance(values, list) or not all(isinstance(v, str) for v in values):
            raise L0Error(f"attribute sobsmode is {values!r}, expected a list of strings.")
        return values
    node = node_of(zgroup, "sobsmode")
    if not hasattr(node, "shape"):
        raise L0Error("sobsmode is missing, expected a list of strings as group attribute.")
    if len(node.shape) != 1:
        raise L0Error(f"array sobsmode has shape {node.shape}, expected one axis [S].")
    values = values_of("sobsmode", node).tolist()
    return [v.decode("ascii", "replace") if isinstance(v, bytes) else str(v) for v in values]


def _cut_to_common(n_subscans: int, raw: Raw, modes: list[str]) -> tuple[int, Raw, list[str]]:
    """Keep the leading subscans that every array holds: the scan may be growing right now."""
    while modes and not modes[-1].strip():
        modes = modes[:-1]
    per_subscan = {
        name: values
        for name, values in raw.items()
        if any(d.endswith("S") and len(d) == values.ndim for d in ARRAYS[name].dims)
    }
    count = min([n_subscans, len(modes), *(v.shape[-1] for v in per_subscan.values())])
    mjd = raw["mjd"].reshape(-1, raw["mjd"].shape[-1])[:, :count]
    there = np.isfinite(mjd).any(axis=0) & ~np.isin(mjd, NEVER_WRITTEN_MJD).all(axis=0)
    missing = np.flatnonzero(~there)
    count = int(missing[0]) if missing.size else count
    if count == 0:
        raise EmptyScanError("no subscan is complete yet.", hint="Wait for the next subscan.")
    cut = {name: values[..., :count] for name, values in per_subscan.items()}
    return count, {**raw, **cut}, modes[:count]


def build_group(
    counts: CountsSource, modes: tuple[str, ...], raw: Raw, context: GroupContext
) -> SubscanGroup:
    """The group of arrays in any of the shapes that the layout allows, expanded to full shape.

    raw: the small arrays as stored. Raises L0Error when image frequencies are needed and missing.
    """
    _, n_dumps, n_receivers, n_pixels, n_subscans = counts.shape
    per_dump, per_receiver = (n_dumps, n_subscans), (n_receivers, n_subscans)
    whole = {name: np.asarray(values, dtype=np.float64) for name, values in raw.items()}

    def wide(name: str, shape: tuple[int, ...], default: float = np.nan) -> F64:
        """[S] -> [.., S]; [R,A] -> [R,A,S]; absent -> default."""
        values = whole.get(name, np.array(default))
        if name.startswith("pixel_offset") and values.ndim == 2:
            values = values[:, :, None]
        return _frozen(np.broadcast_to(values, shape))

    mjd, exptime, n_valid = _times(whole["mjd"], whole["exptime"], per_dump)
    if "image_freq" not in whole and not context.gain_zero and not context.bolometer:
        raise L0Error(
            "array image_freq is missing, and gain_image is not 0.",
            hint="Write image_freq, or the scan attribute gain_image = 0 for a single-sideband "
            "receiver.",
        )
    phase = raw.get("chop_phase")
    pixels = (n_receivers, n_pixels, n_subscans)
    signal = wide("signal_freq", per_receiver)
    return SubscanGroup(
        counts=counts,
        sobsmode=modes,
        mjd=mjd,
        exptime=exptime,
        elevation=_hold(wide("elevation", per_dump), n_valid),
        azimuth=_hold(wide("azimuth", per_dump), n_valid),
        pamb=wide("pamb", (n_subscans,)),
        tamb=wide("tamb", (n_subscans,)),
        signal_freq=signal,
        image_freq=wide("image_freq", per_receiver) if "image_freq" in whole else signal,
        freq_res=wide("freq_res", per_receiver),
        ref_channel=_frozen(wide("ref_channel", per_receiver) - context.ref_channel_base),
        lloadsn=_load_numbers(raw.get("lloadsn"), n_subscans),
        otf_lon=_hold(wide("otf_lon", per_dump, 0.0), n_valid),
        otf_lat=_hold(wide("otf_lat", per_dump, 0.0), n_valid),
        pixel_offset_lon=wide("pixel_offset_lon", pixels, 0.0),
        pixel_offset_lat=wide("pixel_offset_lat", pixels, 0.0),
        chop_phase=None if phase is None else _frozen_u8(phase),
        freq_throw=wide("freq_throw", per_receiver) if "freq_throw" in whole else None,
        recorded=_frozen_counts(n_valid) if (n_valid < n_dumps).any() else None,
        thot=wide("thot", per_receiver) if context.calibration else None,
        tcold=wide("tcold", per_receiver) if context.calibration else None,
        **{
            name: _frozen(whole[name])
            for name in ("load_temp_sig", "load_temp_img")
            if name in whole and context.calibration
        },
    )


def _times(mjd: F64, exptime: F64, shape: tuple[int, int]) -> tuple[F64, F64, npt.NDArray[np.intp]]:
    """MJD and exptime [D,S], and the number of dumps [S] that are not padding at the end.

    MJD given as [S] holds for the middle of the subscan. Padding (NaN) is filled: exptime held,
    MJD carried on from the last dump.
    """
    n_dumps = shape[0]
    there = np.ones(shape, dtype=bool)
    for values in (mjd, exptime):
        if values.ndim == 2:
            there &= np.isfinite(values)
    n_valid = np.where(there.any(axis=0), n_dumps - np.argmax(there[::-1], axis=0), n_dumps)
    exposure = _hold(np.broadcast_to(exptime, shape), n_valid)
    if mjd.ndim == 1:
        if exptime.ndim == 1:
            with np.errstate(invalid="ignore"):  # an infinite exptime is told of by the check
                offset = (np.arange(n_dumps)[:, None] - 0.5 * (n_dumps - 1)) * exposure
        else:  # dumps of unequal length: the middle of each, about the middle of the subscan
            real = np.where(np.arange(n_dumps)[:, None] < n_valid, exposure, 0.0)
            offset = np.cumsum(exposure, axis=0) - 0.5 * exposure - 0.5 * real.sum(axis=0)
        return _frozen(mjd + offset / DAY_S), exposure, n_valid
    filled = np.array(mjd)
    for s in np.flatnonzero(n_valid < n_dumps):
        steps = np.arange(1, n_dumps - n_valid[s] + 1)
        last = filled[n_valid[s] - 1, s]
        filled[n_valid[s] :, s] = last + steps * exposure[n_valid[s] - 1, s] / DAY_S
    return _frozen(filled), exposure, n_valid


def _hold(values: F64, n_valid: npt.NDArray[np.intp]) -> F64:
    """Repeat the last real dump of each subscan over the padding after it; values [D,S]."""
    index = np.minimum(np.arange(values.shape[0])[:, None], n_valid - 1)
    return _frozen(np.take_along_axis(values, index, axis=0))


def _load_numbers(values: npt.NDArray[Any] | None, n_subscans: int) -> npt.NDArray[np.int32]:
    """Scan numbers of the loads i32 [S], -1 where there is none or it does not fit."""
    if values is None:
        result = np.full(n_subscans, -1, dtype=np.int32)
    else:
        limit = np.iinfo(np.int32).max
        result = np.where(values > limit, -1, values).astype(np.int32)
    result.setflags(write=False)
    return result


def _frozen(values: npt.NDArray[Any]) -> F64:
    """A read-only f64 copy."""
    result = np.array(values, dtype=np.float64, order="C")
    result.setflags(write=False)
    return result


def _frozen_counts(values: npt.NDArray[np.intp]) -> npt.NDArray[np.int64]:
    """A read-only i64 copy; at least 1, as a subscan of padding alone is told of by the check."""
    result = np.maximum(values.astype(np.int64), 1)
    result.setflags(write=False)
    return result


def _frozen_u8(values: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """A read-only u8 copy."""
    result = np.array(values, dtype=np.uint8, order="C")
    result.setflags(write=False)
    return result
