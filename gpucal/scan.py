"""One scan of raw counts as frozen values; the counts themselves are read on demand.

Shapes use C channels, D dumps, R receivers, A array pixels, S subscans. Source: the L0
layout of the formats page.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from gpucal.notebook import html_of

F64 = npt.NDArray[np.float64]
I32 = npt.NDArray[np.int32]


class Frame(NamedTuple):
    """Bytes ``start`` to ``start + size`` of a chunk file; they decode to ``nbytes`` of counts."""

    start: int
    size: int
    nbytes: int


@dataclass(frozen=True, eq=False)
class EncodedBlock:
    """Chunk files of one subscan that a device can decode: whole channels, one file after another.

    first     first channel of the first file
    rows      channels [rows, D, R, A] of each file; the last one is padded beyond C
    paths     one file per chunk, None where there is none: all ``fill``
    sizes     bytes of each file, 0 where there is none
    compressed  zstd frames; else the counts themselves
    checksum  a crc32c of all before it ends each file
    frames    bytes u8 of a whole file -> its frames, checksum verified; they fill the chunk exactly
    frames_on_disk  the same from the file itself, reading little of it: no checksum is verified
    guarded   floats of INT32_MIN are no data; zeros_lost: so is a dump that is 0 in all channels

    Both functions raise ValueError saying what is wrong with the file, or that a frame does not
    declare its size.
    """

    first: int
    rows: int
    paths: tuple[Path | None, ...]
    sizes: tuple[int, ...]
    compressed: bool
    checksum: bool
    fill: Any
    frames: Callable[[npt.NDArray[np.uint8]], Sequence[Frame]]
    frames_on_disk: Callable[[Path], Sequence[Frame]]
    guarded: bool = False
    zeros_lost: bool = False


class CountsSource(Protocol):
    """Lazy raw counts [C, D, R, A, S]; implemented by io (Zarr) and by ``ArrayCounts``.

    A source whose files a device may decode itself also has ``encoded``, see ``EncodedCounts``.
    """

    @property
    def shape(self) -> tuple[int, int, int, int, int]: ...

    @property
    def dtype(self) -> np.dtype[Any]: ...

    @property
    def chunks(self) -> tuple[int, int, int, int, int]:
        """Storage granularity; reads aligned to it are decoded once."""

    def read(
        self, c0: int, c1: int, subscan: int, out: npt.NDArray[Any] | None = None
    ) -> npt.NDArray[Any]:
        """Return the counts [c1-c0, D, R, A] of one subscan, C-contiguous, native endian.

        With ``out``, of that shape and dtype, they are put there. The array may be read-only and
        must not be edited.
        """


class EncodedCounts(Protocol):
    """Protocol of a ``CountsSource`` whose chunk files can also be handed out as they are."""

    def encoded(self, c0: int, c1: int, subscan: int) -> EncodedBlock | str:
        """The files that hold channels c0..c1 of a subscan, or why a device cannot decode them."""


@dataclass(frozen=True, eq=False)
class ArrayCounts:
    """Counts held in memory, array [C, D, R, A, S]."""

    data: npt.NDArray[Any]

    @property
    def shape(self) -> tuple[int, int, int, int, int]:
        c, d, r, a, s = self.data.shape
        return (c, d, r, a, s)

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.data.dtype

    @property
    def chunks(self) -> tuple[int, int, int, int, int]:
        c, d, r, a, _ = self.shape
        return (c, d, r, a, 1)

    def read(
        self, c0: int, c1: int, subscan: int, out: npt.NDArray[Any] | None = None
    ) -> npt.NDArray[Any]:
        if out is None:
            return np.ascontiguousarray(self.data[c0:c1, ..., subscan])
        np.copyto(out, self.data[c0:c1, ..., subscan])
        return out


@dataclass(frozen=True, eq=False)
class SubscanGroup:
    """The ``source/`` or ``calibration/`` group of one band.

    counts            CountsSource [C, D, R, A, S]
    sobsmode          S strings ("COL" already read as "COLD")
    mjd               f64 [D, S]  MJD UTC of the middle of each dump, days
    exptime           f64 [D, S]  s
    elevation, azimuth f64 [D, S] rad
    pamb, tamb        f64 [S]     Torr, K  (NaN when absent)
    signal_freq, image_freq, freq_res, ref_channel   f64 [R, S]  Hz, Hz, Hz, 0-based channel
    lloadsn           i32 [S]     scan number of the load scan, -1 none
    otf_lon, otf_lat  f64 [D, S]  deg
    pixel_offset_lon, pixel_offset_lat   f64 [R, A, S]  deg
    chop_phase        u8 [D, S] or None
    freq_throw        f64 [R, S] or None, Hz: sky frequency of a channel in this phase minus
                      that given by signal_freq
    thot, tcold       f64 [R, S] K (calibration only; NaN when absent)
    load_temp_sig, load_temp_img  f64 [C, S] K or None: physical load temperature per channel as
                      seen in each sideband; replaces thot / tcold of that subscan
    recorded          int [S] or None: dumps of each subscan that were recorded, the others at the
                      end are padding; None: all D
    """

    counts: CountsSource
    sobsmode: tuple[str, ...]
    mjd: F64
    exptime: F64
    elevation: F64
    azimuth: F64
    pamb: F64
    tamb: F64
    signal_freq: F64
    image_freq: F64
    freq_res: F64
    ref_channel: F64
    lloadsn: I32
    otf_lon: F64
    otf_lat: F64
    pixel_offset_lon: F64
    pixel_offset_lat: F64
    chop_phase: npt.NDArray[np.uint8] | None = None
    freq_throw: F64 | None = None
    thot: F64 | None = None
    tcold: F64 | None = None
    load_temp_sig: F64 | None = None
    load_temp_img: F64 | None = None
    recorded: npt.NDArray[np.int64] | None = None

    @property
    def shape(self) -> tuple[int, int, int, int, int]:
        return self.counts.shape

    @property
    def mjd_mid(self) -> F64:
        """MJD of the middle of the recorded dumps of each subscan, f64 [S]."""
        n = self.mjd.shape[0] if self.recorded is None else self.recorded
        last = self.mjd[n - 1, np.arange(self.mjd.shape[1])]
        return np.asarray(0.5 * (self.mjd[0] + last), dtype=np.float64)

    def recorded_of(self, values: F64, subscan: int) -> F64:
        """The column of ``subscan`` of values [D, S], without the padding at its end."""
        stop = None if self.recorded is None else int(self.recorded[subscan])
        return np.asarray(values[:stop, subscan])

    def mean_elevation(self, subscan: int) -> float:
        """Mean elevation of the recorded dumps of a subscan, rad."""
        return float(np.mean(self.recorded_of(self.elevation, subscan)))

    def said(self) -> tuple[str, str]:
        """The subscans by mode, and the shape and type of the counts."""
        shape = ", ".join(f"{k} {n}" for n, k in zip(self.shape, "CDRAS", strict=True))
        counted = {mode: self.sobsmode.count(mode) for mode in dict.fromkeys(self.sobsmode)}
        modes = ", ".join(f"{count} {mode}" for mode, count in counted.items())
        return modes, f"[{shape}] {self.counts.dtype}"

    def __repr__(self) -> str:
        return f"<subscans: {'; '.join(self.said())}>"

    def select(self, mode: str) -> list[int]:
        """Indices of the subscans whose sobsmode is ``mode``."""
        return [i for i, m in enumerate(self.sobsmode) if m == mode]


@dataclass(frozen=True, eq=False)
class Scan:
    """One band of one scan: the unit of calibration.

    ``band`` is "" for a scan without band groups, else the group's name ("band_1"). ``attrs`` are
    the scan's attributes, ``store_attrs`` those of the store's root (telescope, site, instrument).
    ``f_eff`` and ``gain_image`` may come from the attributes: gain_image scalar, [R,A] or [C,R,A].
    ``metadata_sha256`` covers every metadata document and small array read for this scan.
    """

    number: int
    band: str
    attrs: Mapping[str, Any]
    store_attrs: Mapping[str, Any]
    source: SubscanGroup | None
    calibration: SubscanGroup | None
    path: str = ""
    metadata_sha256: str = ""
    warnings: tuple[str, ...] = field(default=())

    @property
    def label(self) -> str:
        return f"scan {self.number}" + (f" {self.band}" if self.band else "")

    def __repr__(self) -> str:
        said = [str(self.attrs[k]) for k in ("source", "line", "instmode") if self.attrs.get(k)]
        lines = [f"<gpucal L0 {self.label}{': ' if said else ''}{', '.join(said)}>"]
        for name in ("source", "calibration"):
            group = getattr(self, name)
            if group is not None:
                lines.append(f"  {name:11}  {group!r}")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        """The subscans of both groups; no counts are read."""
        said = [str(self.attrs[k]) for k in ("source", "line", "instmode") if self.attrs.get(k)]
        groups = {"source": self.source, "calibration": self.calibration}
        rows = [(name, *group.said()) for name, group in groups.items() if group is not None]
        title = f"raw {', '.join([self.label, *said])}"
        return html_of(title, ("group", "subscans", "counts"), rows, " ".join(self.warnings))
