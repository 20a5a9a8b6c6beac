"""The spectra of an L1 store, one after the other: dumps, or averages over dumps or subscans.

Weights are t dnu / T_sys*^2 (the radiometer equation); dnu is the same for all and drops out.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from gpucal.errors import ConfigError, L1Error
from gpucal.export.blocks import BUDGET_BYTES, SpectraReader, slabs
from gpucal.export.scan_table import TRACKED, Scale, ScanTable
from gpucal.io.l1.reader import L1, L1Scan, open_l1
from gpucal.spectrum import Spectrum

F64 = npt.NDArray[np.float64]
Average = Literal["none", "dumps", "subscans"]


@dataclass(frozen=True)
class Selection:
    """Which spectra of a calibrated store to export, and how.

    scans    numbers, e.g. [1, 5], None = all
    average  "none" every dump, "dumps" one spectrum per subscan, "subscans" one per scan
    scale    "ta" T_A*, or "tmb" T_mb = T_A* f_eff / b_eff
    b_eff    main-beam efficiency 0..1 for T_mb, None = the scan's own
    budget   bytes of spectra in work at a time
    """

    scans: Collection[int] | None = None
    average: Average = "none"
    scale: Scale = "ta"
    b_eff: float | None = None
    budget: int = BUDGET_BYTES

    def __post_init__(self) -> None:
        """Scans as a set of numbers; raises ConfigError for a value that is not listed above."""
        for name, words in (("average", get_args(Average)), ("scale", get_args(Scale))):
            found = getattr(self, name)
            if found not in words:
                raise ConfigError(f"{name} is {found!r}, expected {', '.join(words)}.")
        if self.b_eff is not None and not 0 < self.b_eff <= 1:
            raise ConfigError(f"b_eff is {self.b_eff!r}, expected a number above 0 and at most 1.")
        if self.scans is not None:
            several = [self.scans] if isinstance(self.scans, int | np.integer) else self.scans
            try:
                numbers = frozenset(int(n) for n in several)
            except (TypeError, ValueError):
                raise ConfigError(
                    f"scans is {self.scans!r}, expected scan numbers such as [1, 5]."
                ) from None
            object.__setattr__(self, "scans", numbers)


def spectra_of_store(store: L1 | str | Path, selection: Selection) -> Iterator[Spectrum]:
    """Spectra [C] of the scans asked for, one after the other, for the writers of other formats.

    Their order is scan, band, subscan, dump, receiver, pixel. store: from ``open_l1``, or its path. Those without
    a single good channel are left out. Raises L1Error for a scan that is not there, CorruptDataError
    for a chunk that cannot be decoded, ConfigError when T_mb lacks an efficiency.
    """
    store = store if isinstance(store, L1) else open_l1(store)
    numbers = store.scans()
    missing = sorted(set(selection.scans or ()) - set(numbers))
    if missing:
        store.scan(missing[0])  # its error names the scans there are
    root = store.attrs
    for number in numbers:
        if selection.scans is not None and number not in selection.scans:
            continue
        for band in store.scan(number).bands or [""]:
            scan = store.scan(number, band)
            if "spectra" not in scan:
                raise L1Error("there are no spectra.", scan=number, band=band)
            yield from spectra_of_scan(scan, root, selection)


def spectra_of_scan(scan: L1Scan, root: Any, selection: Selection) -> Iterator[Spectrum]:
    """Spectra of one scan, or of one band; ``root``: attributes of the store. See above."""
    table = ScanTable(scan, root, selection.scale, selection.b_eff, selection.budget)
    reader = SpectraReader(scan, selection.budget)
    if selection.average == "none":
        rows = _dumps(reader, table, selection.budget)
    else:
        groups = [[s] for s in range(table.shape[4])]
        if selection.average == "subscans":
            groups = [list(range(table.shape[4]))]
        rows = (
            spectrum
            for group in groups
            for spectrum in _averages(reader, table, group, selection.budget)
        )
    yield from rows


def _dumps(reader: SpectraReader, table: ScanTable, budget: int) -> Iterator[Spectrum]:
    """One spectrum per dump, receiver and pixel with a good channel, a slab of dumps in memory at a time."""
    n_channels, dumps, receivers, pixels, subscans = reader.shape
    per_dump = receivers * pixels
    fixed = [table.of_pixel(*divmod(i, pixels)) for i in range(per_dump)]
    for s in range(subscans):
        for first, last in slabs(dumps * per_dump, n_channels * 8, budget):
            block = np.empty((last - first, n_channels))
            for c0, c1 in reader.steps():
                part = reader.read(c0, c1, s).reshape(c1 - c0, -1)
                block[:, c0:c1] = part[:, first:last].T
            if table.factor != 1.0:
                block *= table.factor
            good = np.isfinite(block).any(axis=1)
            for row in np.flatnonzero(good).tolist():
                d, item = divmod(first + row, per_dump)
                r, a = divmod(item, pixels)
                now: dict[str, Any] = {name: float(table.tracked[name][d, s]) for name in TRACKED}
                now["offset_lon"] += float(table.pixel_lon[r, a, s])
                now["offset_lat"] += float(table.pixel_lat[r, a, s])
                yield Spectrum(
                    values=block[row],
                    subscan=int(table.on_index[s]),
                    dump=d,
                    t_sys=float(table.t_sys[r, a, s]),
                    pwv=table.pwv(r, a, s),
                    **now,
                    **fixed[item],
                )


def _averages(
    reader: SpectraReader, table: ScanTable, group: list[int], budget: int
) -> Iterator[Spectrum]:
    """One spectrum per receiver and pixel: all dumps of the subscans in ``group``."""
    n_channels, dumps, receivers, pixels, _ = reader.shape
    weights = _weights(table, group)
    # sum, weights and the mask of one channel block are there at the same time
    for first, last in slabs(receivers * pixels, n_channels * 8 * 2, budget):
        total = np.zeros((last - first, n_channels))
        norm = np.zeros((last - first, n_channels))
        seen = np.zeros((dumps, len(group), last - first), dtype=bool)
        for n, s in enumerate(group):
            w = weights[:, n, first:last]
            for c0, c1 in reader.steps():
                part = reader.read(c0, c1, s)[:, :, first:last]
                good = np.isfinite(part)
                seen[:, n] |= good.any(axis=0)
                part[~good] = 0.0
                total[:, c0:c1] += np.einsum("cdi,di->ic", part, w)
                norm[:, c0:c1] += np.einsum("cdi,di->ic", good, w)
        with np.errstate(invalid="ignore"):
            total /= np.where(norm > 0, norm, np.nan)
        if table.factor != 1.0:
            total *= table.factor
        counted = weights[:, :, first:last] * seen
        for row in np.flatnonzero(np.isfinite(total).any(axis=1)).tolist():
            r, a = divmod(first + row, pixels)
            yield Spectrum(
                values=total[row],
                subscan=int(table.on_index[group[0]]) if len(group) == 1 else -1,
                dump=-1,
                **_mean_numbers(table, group, counted[:, :, row], r, a),
                **table.of_pixel(r, a),
            )


def _weights(table: ScanTable, group: list[int]) -> F64:
    """t / T_sys*^2 of each dump, f64 [D, len(group), R*A]; 0 where the time or T_sys* is missing.

    A pixel whose T_sys* is not known at all is weighted by time alone.
    """
    time = np.nan_to_num(table.tracked["exptime"][:, group])
    t_sys = table.t_sys[:, :, group].reshape(-1, len(group)).T
    unknown = ~np.isfinite(t_sys).any(axis=0)
    noise = np.where(unknown, 1.0, t_sys) ** -2.0
    return np.asarray(time[:, :, None] * np.nan_to_num(noise)[None])


def _mean_numbers(
    table: ScanTable, group: list[int], weights: F64, r: int, a: int
) -> dict[str, Any]:
    """Numbers that belong to an average: exptime summed, the rest weighted as the spectrum; [D, n] weights.

    T_sys* is the one that gives the noise of the average with the summed time:
    sum(t) / T^2 = sum(t_i / T_i^2).
    """
    used = weights > 0
    mean: dict[str, Any] = {}
    for name in TRACKED:
        values = table.tracked[name][:, group]
        if name.startswith("offset"):
            pixel = table.pixel_lon if name.endswith("lon") else table.pixel_lat
            values = values + pixel[r, a, group]
        picked = values[used]
        if name == "exptime":
            mean[name] = float(picked.sum())
        elif name == "azimuth":
            turn = np.average(np.exp(1j * picked), weights=weights[used])
            mean[name] = float(np.angle(turn)) % (2 * np.pi)
        else:
            mean[name] = float(np.average(picked, weights=weights[used]))
    t_sys = np.broadcast_to(table.t_sys[r, a, group], weights.shape)[used]
    times = table.tracked["exptime"][:, group][used]
    mean["t_sys"] = float(np.sqrt(times.sum() / (times / t_sys**2).sum()))
    mean["pwv"] = float(np.mean([table.pwv(r, a, s) for s in group]))
    return mean
