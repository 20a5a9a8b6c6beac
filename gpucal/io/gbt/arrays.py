"""Arrange the rows of a GBT subscan as L0 arrays [C, D, R, A, S].

FDNUM becomes the array pixel, PLNUM the receiver, an integration a dump. Source: the GBT SDFITS
column definitions (Garwood, GBT Software Project Note 10) and GBT Memo 302 for the loads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gpucal.errors import ImportFormatError
from gpucal.io.fits.sdfits_read import SdfitsRows
from gpucal.io.l0.write import CountsMaker, GroupArrays

I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]

W_BAND, ARGUS = "Rcvr68_92", "RcvrArray75_115"
TWARM_OFFSET_K = {ARGUS: 273.15, W_BAND: 0.0}
"""TWARM is recorded in deg C for Argus, in K for W-band."""

DEG = np.pi / 180.0


@dataclass(frozen=True, eq=False)
class PlannedSubscan:
    """One subscan: its sobsmode and the rows [n] of all bands, feeds and polarisations."""

    mode: str
    rows: I64


@dataclass(frozen=True)
class Layout:
    """Which FDNUM is which array pixel and which PLNUM is which receiver."""

    feeds: tuple[int, ...]
    receivers: tuple[int, ...]


def build_group(
    rows: SdfitsRows, subscans: Sequence[PlannedSubscan], layout: Layout, *, loads: bool
) -> GroupArrays:
    """The ``source/`` group, or with ``loads`` the ``calibration/`` group, of one band.

    Subscans stand in the order of time. The counts stay on disk until they are written. A pixel
    without a row is NaN; a subscan with fewer dumps than the longest is padded with NaN counts,
    at the last dump's time and pointing. Raises ImportFormatError when the rows do not fit into one
    array.
    """
    every = np.concatenate([s.rows for s in subscans])
    n_channels = _one_channel_count(rows, every)
    wheel = loads and str(rows["FRONTEND"][every[0]]) == W_BAND
    places = [_places(rows, s.rows, layout, one_by_one=wheel) for s in subscans]
    n_dumps = max(p.shape[0] for p in places)
    mjd = _times_and_pointing(rows, places, n_dumps)["mjd"]
    order = np.argsort(0.5 * (mjd[0] + mjd[-1]), kind="stable")
    subscans, places = [subscans[s] for s in order], [places[s] for s in order]
    shape = (n_channels, n_dumps, len(layout.receivers), len(layout.feeds), len(subscans))
    dtype = rows.dtype(every)
    if dtype.kind == "i" and any(p.shape[0] < n_dumps or (p < 0).any() for p in places):
        dtype = np.dtype(np.float64)  # NaN marks what is missing

    def make(s: int) -> npt.NDArray[Any]:
        block = (
            np.zeros(shape[:4], dtype) if dtype.kind == "i" else np.full(shape[:4], np.nan, dtype)
        )
        for d, r, a in zip(*np.nonzero(places[s] >= 0), strict=True):
            block[:, d, r, a] = rows.spectrum(int(places[s][d, r, a]))
        return block

    arrays = _times_and_pointing(rows, places, n_dumps)
    arrays |= _frequencies(rows, subscans, places)
    arrays |= _weather(rows, subscans)
    if loads:
        arrays |= _load_temperatures(rows, places, arrays["signal_freq"])
    elif np.isfinite(rows["CRVAL2"][every] + rows["CRVAL3"][every]).all():
        arrays |= _pixel_offsets(rows, places, arrays)
    return GroupArrays(
        data_5d=CountsMaker(shape, dtype, make),
        sobsmode=[s.mode for s in subscans],
        arrays=arrays,
    )


def _one_channel_count(rows: SdfitsRows, index: I64) -> int:
    counts = np.unique(rows.n_channels[index])
    if counts.size > 1:
        first = int(index[0])
        raise ImportFormatError(
            f"IFNUM {rows['IFNUM'][first]} holds spectra of {' and '.join(map(str, counts))} "
            "channels, expected one number of channels per scan and IFNUM.",
            hint="Import files of one backend configuration at a time.",
            scan=int(rows["SCAN"][first]),
        )
    return int(counts[0])


def _places(rows: SdfitsRows, index: I64, layout: Layout, *, one_by_one: bool) -> I64:
    """Row number of each dump, receiver and pixel, [D, R, A]; -1 where there is none.

    Rows of different banks are one dump when their times agree to half an integration: a bank that
    starts late or lacks an integration has -1 there. ``one_by_one``: the feeds were read one after the
    other (loads of the W-band wheel), and their rows are matched by rank. Raises ImportFormatError for
    two rows of one pixel in one dump.
    """
    index = index[np.argsort(rows["MJD"][index], kind="stable")]
    pixel = np.searchsorted(layout.feeds, rows["FDNUM"][index])
    receiver = np.searchsorted(layout.receivers, rows["PLNUM"][index])
    number = receiver * len(layout.feeds) + pixel
    dump = _rank(number) if one_by_one else _dumps(rows, index, number)
    places = np.full((int(dump.max()) + 1, len(layout.receivers), len(layout.feeds)), -1)
    places[dump, receiver, pixel] = index
    return places


def _rank(number: I64) -> I64:
    """For each row how many of the same receiver and pixel come before it."""
    rank = np.zeros(number.size, dtype=np.int64)
    for n in np.unique(number):
        mine = np.nonzero(number == n)[0]
        rank[mine] = np.arange(mine.size)
    return rank


def _dumps(rows: SdfitsRows, index: I64, number: I64) -> I64:
    """The dump of each row, by time; ``index`` in order of time, ``number`` the receiver and pixel."""
    time = rows["MJD"][index] * 86400.0
    length = np.fmax(rows["DURATION"][index], rows["EXPOSURE"][index])
    half = 0.5 * float(np.nan_to_num(np.median(length)))
    first = np.zeros(index.size, dtype=np.int64)
    begin, seen = time[0], set[int]()
    for k in range(index.size):
        again = int(number[k]) in seen
        # The second row of a pixel begins a dump, and so does a time that is far from its first.
        if k and (again or time[k] - begin > half):
            if again and time[k] - begin < 1e-3:
                row = index[k]
                raise ImportFormatError(
                    f"IFNUM {rows['IFNUM'][row]}, PLNUM {rows['PLNUM'][row]}, FDNUM "
                    f"{rows['FDNUM'][row]} has two spectra at {rows['DATE-OBS'][row]}.",
                    hint="Give each file once.",
                    scan=int(rows["SCAN"][row]),
                )
            begin, seen = time[k], set()
            first[k] = 1
        seen.add(int(number[k]))
    return np.cumsum(first)


def _mean(values: F64, places: I64, axes: tuple[int, ...]) -> F64:
    """Mean of a column over axes of ``places`` where there is a row; NaN where there is none."""
    there = places >= 0
    picked = np.where(there, values[np.maximum(places, 0)], 0.0)
    count = there.sum(axis=axes)
    total = picked.sum(axis=axes)
    return np.asarray(np.divide(total, count, out=np.full(count.shape, np.nan), where=count > 0))


def _tracked(rows: SdfitsRows, places: I64) -> I64:
    """For each dump the row [D] of the pixel nearest to the tracked position."""
    flat = places.reshape(places.shape[0], -1)
    offset = np.hypot(rows["FEEDXOFF"], rows["FEEDEOFF"])
    distance = np.where(flat >= 0, np.nan_to_num(offset[np.maximum(flat, 0)]), np.inf)
    return np.asarray(flat[np.arange(flat.shape[0]), distance.argmin(axis=1)])


def _times_and_pointing(
    rows: SdfitsRows, places: Sequence[I64], n_dumps: int
) -> dict[str, npt.NDArray[Any]]:
    columns: dict[str, list[F64]] = {}
    for place in places:
        last = np.minimum(np.arange(n_dumps), place.shape[0] - 1)
        lead = _tracked(rows, place)
        values = {
            "mjd": _mean(rows["MJD"], place, (1, 2))[last],
            "exptime": _mean(rows["EXPOSURE"], place, (1, 2))[last],
            "elevation": rows["ELEVATIO"][lead][last] * DEG,
            "azimuth": rows["AZIMUTH"][lead][last] * DEG,
            "otf_lon": rows["CRVAL2"][lead][last],
            "otf_lat": rows["CRVAL3"][lead][last],
        }
        for name, value in values.items():
            columns.setdefault(name, []).append(value)
    return {name: np.stack(value, axis=1) for name, value in columns.items()}


def _pixel_offsets(
    rows: SdfitsRows, places: Sequence[I64], arrays: dict[str, npt.NDArray[Any]]
) -> dict[str, npt.NDArray[Any]]:
    """Offset [R, A, S] of each pixel from the tracked position on the sky, deg, mean over dumps.

    A pixel that is missing in a subscan has the offset 0 there.
    """
    lon, lat = [], []
    for s, place in enumerate(places):
        n = place.shape[0]
        there = place >= 0
        row = np.maximum(place, 0)
        lat_0 = arrays["otf_lat"][:n, s, None, None]
        turn = rows["CRVAL2"][row] - arrays["otf_lon"][:n, s, None, None]
        d_lon = ((turn + 180.0) % 360.0 - 180.0) * np.cos(lat_0 * DEG)
        d_lat = rows["CRVAL3"][row] - lat_0
        count = np.maximum(there.sum(axis=0), 1)
        lon.append(np.where(there, d_lon, 0.0).sum(axis=0) / count)
        lat.append(np.where(there, d_lat, 0.0).sum(axis=0) / count)
    return {"pixel_offset_lon": np.stack(lon, axis=2), "pixel_offset_lat": np.stack(lat, axis=2)}


def _frequencies(
    rows: SdfitsRows, subscans: Sequence[PlannedSubscan], places: Sequence[I64]
) -> dict[str, npt.NDArray[Any]]:
    """Sky frequency at the reference channel etc., [R, S], Hz; freq_throw when switching.

    The reference phase of a frequency switch is given the frequency of the signal phase, and the
    throw that leads from it to its own.
    """
    for name in ("CRPIX1", "CDELT1"):
        values = np.concatenate([rows[name][s.rows] for s in subscans])
        if np.ptp(values) > 1e-6 * abs(values[0]):
            raise ImportFormatError(
                f"{name} is {values.min():.10g} to {values.max():.10g} within one scan and IFNUM, "
                "expected one value.",
                scan=int(rows["SCAN"][subscans[0].rows[0]]),
            )
    first = int(subscans[0].rows[0])
    width = float(rows["CDELT1"][first])
    centre = np.stack([_per_receiver(rows["CRVAL1"], p) for p in places], axis=1)
    for s in subscans:
        _same_frequency_for_all_feeds(rows, s.rows, abs(width))
    arrays: dict[str, npt.NDArray[Any]] = {}
    modes = [s.mode for s in subscans]
    if "FSW-SIG" in modes:
        signal = centre[:, [modes.index("FSW-SIG")]] + np.zeros_like(centre)
        arrays["freq_throw"] = centre - signal
        centre = signal
    arrays["signal_freq"] = centre
    arrays["image_freq"] = centre.copy()  # single sideband: the image has no weight
    arrays["freq_res"] = np.full_like(centre, width)
    arrays["ref_channel"] = np.full_like(centre, float(rows["CRPIX1"][first]) - 1.0)
    return arrays


def _per_receiver(values: F64, place: I64) -> F64:
    """Mean over dumps and pixels, [R]; a receiver without a row gets the mean of the others."""
    mean = _mean(values, place, (0, 2))
    return np.where(np.isnan(mean), _mean(values, place, (0, 1, 2)), mean)


def _same_frequency_for_all_feeds(rows: SdfitsRows, index: I64, width: float) -> None:
    order = index[np.lexsort((rows["MJD"][index], rows["PLNUM"][index]))]
    time, centre = rows["MJD"][order], rows["CRVAL1"][order]
    together = (np.diff(time) * 86400.0 < 1e-3) & (np.diff(rows["PLNUM"][order]) == 0)
    step = np.abs(np.diff(centre))[together]
    if step.size and step.max() > 0.5 * width:
        raise ImportFormatError(
            f"feeds differ by {step.max():.0f} Hz in CRVAL1 at the same time and IFNUM, expected "
            f"less than half a channel ({0.5 * width:.0f} Hz).",
            hint="Import feeds tuned to different frequencies separately.",
            scan=int(rows["SCAN"][index[0]]),
        )


def _weather(rows: SdfitsRows, subscans: Sequence[PlannedSubscan]) -> dict[str, npt.NDArray[Any]]:
    return {
        name: np.array([rows[column][s.rows].mean() for s in subscans])
        for name, column in (("tamb", "TAMBIENT"), ("pamb", "PRESSURE"))
    }


def _load_temperatures(
    rows: SdfitsRows, places: Sequence[I64], centre: F64
) -> dict[str, npt.NDArray[Any]]:
    """thot and, for W-band, tcold, [R, S] K; T_cold = 54 - 0.6 (nu_GHz - 77), Memo 302 eq. 13."""
    frontend = str(rows["FRONTEND"][places[0].max()])
    offset = TWARM_OFFSET_K.get(frontend, np.nan)
    arrays = {"thot": np.stack([_per_receiver(rows["TWARM"], p) + offset for p in places], axis=1)}
    if frontend == W_BAND:
        arrays["tcold"] = 54.0 - 0.6 * (centre / 1e9 - 77.0)
    return arrays
