"""Write raw counts as an L0 store: simulators, importers and instrument teams use it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from gpucal.errors import L0Error, check_interpreter
from gpucal.io.files.json_text import plain
from gpucal.io.l0.checks import gain_image
from gpucal.io.l0.schema import (
    L0_FORMAT,
    L0_VERSION,
    RootAttrs,
    check_counts,
    parse_root_attrs,
    parse_scan_attrs,
)
from gpucal.io.l0.staging import StagedScan
from gpucal.io.l0.zarr_arrays import Codec, Shape5, create_counts, write_small_arrays


@dataclass(frozen=True)
class CountsMaker:
    """Counts made one subscan at a time, for scans larger than memory.

    shape  (C, D, R, A, S)
    dtype  of the counts: i32, u32, f32 or f64
    make   ``make(s)`` returns the counts [C, D, R, A] of subscan s; another shape is an L0Error
    """

    shape: Shape5
    dtype: np.dtype[Any]
    make: Callable[[int], npt.NDArray[Any]]


@dataclass(frozen=True, eq=False)
class GroupArrays:
    """One ``source/`` or ``calibration/`` group of a scan, for ``write_l0_scan``.

    data_5d   counts [C, D, R, A, S], i32, u32, f32 or f64, or a CountsMaker
    sobsmode  S observing modes, "ON", "OFF", "HOT", ...
    arrays    the small arrays of the L0 layout by name: mjd (d), exptime (s), elevation and azimuth
              (rad), each [S] or [D, S]; signal_freq, image_freq, freq_res (Hz) and ref_channel, each
              [S] or [R, S]; ...; in a bolometer scan also the track [N]
    """

    data_5d: npt.NDArray[Any] | CountsMaker
    sobsmode: Sequence[str]
    arrays: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)

    @property
    def shape(self) -> Shape5:
        return self.data_5d.shape

    def subscan(self, index: int) -> npt.NDArray[Any]:
        """Counts [C, D, R, A] of one subscan."""
        if isinstance(self.data_5d, CountsMaker):
            block = np.asarray(self.data_5d.make(index))
            if block.shape != self.shape[:4]:
                raise L0Error(
                    f"the counts made have shape {block.shape}, expected {self.shape[:4]}.",
                    subscan=index,
                )
            return block
        return self.data_5d[..., index]


def create_l0(
    path: str | Path,
    *,
    telescope: str,
    site: Mapping[str, float],
    instrument: str,
    zarr_format: Literal[2, 3] = 3,
    **attrs: Any,
) -> None:
    """Make an empty L0 store, or keep the one of the same telescope and instrument that is there.

    site: lat_deg, lon_deg (deg), alt_m (m). ``attrs`` become further attributes of the root. Raises L0Error
    when ``path`` is something else, or a store of another telescope or instrument.
    """
    check_interpreter()
    import zarr

    root = {
        "format": L0_FORMAT,
        "format_version": L0_VERSION,
        "telescope": telescope,
        "site": dict(site),
        "instrument": instrument,
        **attrs,
    }
    parse_root_attrs(root)
    target = Path(path)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        found, _ = existing_root(target)
        if (found.telescope, found.instrument) != (telescope, instrument):
            raise L0Error(
                f"{target} already holds scans of {found.telescope} {found.instrument}, "
                f"expected {telescope} {instrument}.",
                hint="Choose another path.",
            )
        return
    zarr.create_group(str(target), zarr_format=zarr_format, attributes=root)


def existing_root(path: Path) -> tuple[RootAttrs, Literal[2, 3]]:
    """Validated root attributes of a store and its Zarr format; L0Error when ``path`` is none."""
    import zarr

    try:
        group = zarr.open_group(str(path), mode="r", use_consolidated=False)
    except (OSError, ValueError, KeyError) as error:
        raise L0Error(
            f"{path} is not a Zarr group.", hint="Make the store with create_l0 first."
        ) from error
    return parse_root_attrs(dict(group.attrs)), group.metadata.zarr_format


def write_l0_scan(
    path: str | Path,
    number: int,
    *,
    attrs: Mapping[str, Any],
    groups: Mapping[str, Mapping[str, GroupArrays]],
    band_attrs: Mapping[str, Mapping[str, Any]] | None = None,
    codec: Codec | str = "zstd:1",
    chunk_channels: int | None = None,
    zarr_format: Literal[2, 3] | None = None,
) -> None:
    """Write one scan into an L0 store, whole or not at all.

    groups: {"": {"source": g, "calibration": g}} for a plain scan, or {"band_1": {...}, ...};
    attrs: attributes of the scan; band_attrs override them for a band. The scan gets the attributes ``scan_number``
    and, unless given, ``complete: true``. codec: "zstd:LEVEL", "blosc-lz4" or "none". Chunks hold
    one subscan, all of D, R, A and ``chunk_channels`` channels (default: about 16 MiB). The default
    zarr_format is that of the store. Raises L0Error when the scan exists already or an array does
    not fit the layout.
    """
    import zarr

    store = Path(path)
    root_format = existing_root(store)[1]
    scan_attrs = {"complete": True, **attrs, "scan_number": number}
    parse_scan_attrs(scan_attrs)
    if not groups or any(set(g) - {"source", "calibration"} or not g for g in groups.values()):
        raise L0Error("expected groups named source and calibration in each band.", scan=number)
    with StagedScan(store, number) as staged:
        scan_group = zarr.create_group(
            str(staged.path), zarr_format=zarr_format or root_format, attributes=plain(scan_attrs)
        )
        for band, members in groups.items():
            where = scan_group
            given = (band_attrs or {}).get(band, {}) if band else {}
            if band:
                where = scan_group.create_group(band, attributes=plain(given))
            for name, group in members.items():
                made = where.create_group(name)
                try:
                    _write_group(made, group, codec, chunk_channels)
                    gain_image({**scan_attrs, **given}.get("gain_image"), group.shape)
                except L0Error as error:
                    raise error.locate(scan=number, band=band) from None
        staged.put_in_place()


def _write_group(zgroup: Any, group: GroupArrays, codec: str, chunk_channels: int | None) -> None:
    """Write one group, its counts subscan by subscan."""
    shape, dtype = group.shape, np.dtype(group.data_5d.dtype)
    check_counts(shape, dtype)
    if len(group.sobsmode) != shape[4]:
        raise L0Error(f"{len(group.sobsmode)} sobsmode strings for {shape[4]} subscans.")
    zgroup.attrs["sobsmode"] = [str(mode) for mode in group.sobsmode]
    counts = create_counts(zgroup, shape, dtype, codec, chunk_channels)
    for index in range(shape[4]):
        counts[..., index] = group.subscan(index)
    write_small_arrays(zgroup, group.arrays, shape)
