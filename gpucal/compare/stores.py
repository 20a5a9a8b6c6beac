"""Compare two calibrated stores, scan by scan."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from gpucal.compare.bands import compare_bands
from gpucal.compare.products import BandComparison, StoreComparison
from gpucal.errors import GpucalError, L1Error
from gpucal.io.l1.reader import L1, L1Scan, open_l1

Progress = Callable[[str], None]


def compare_stores(
    old: str | Path | L1,
    new: str | Path | L1,
    *,
    scans: Collection[int] | None = None,
    progress: Progress | None = None,
) -> StoreComparison:
    """Compare two calibrations of the same scans: T_A*, temperatures, water, flags, axes, settings.

    old, new: calibrated stores, or their paths; scans: numbers, None for all; ``progress`` is called with the name of
    each scan. Spectra are read block by block: memory holds a block of each store, and T_sys of one subscan. A scan
    that cannot be read, or whose axes do not fit, is in the result with its problem. Raises L1Error when a path
    holds no calibrated store, or when they have no scan in common.
    """
    first, second = (store if isinstance(store, L1) else open_l1(store) for store in (old, new))
    here, there = (_chosen(store, scans) for store in (first, second))
    common = sorted(here & there)
    if not common:
        raise L1Error(
            f"{first.path} and {second.path} have no scan in common.",
            hint="Give two stores that were calibrated from the same raw data, and scans that both have.",
        )
    bands: list[BandComparison] = []
    only: tuple[list[str], list[str]] = ([str(n) for n in sorted(here - there)], [])
    only[1].extend(str(n) for n in sorted(there - here))
    for number in common:
        if progress is not None:
            progress(f"scan {number}")
        bands += _compare_scan(first, second, number, only)
    return StoreComparison(
        str(first.path), str(second.path), tuple(bands), tuple(only[0]), tuple(only[1])
    )


def _chosen(store: L1, scans: Collection[int] | None) -> set[int]:
    return {n for n in store.scans() if scans is None or n in scans}


def _compare_scan(
    old: L1, new: L1, number: int, only: tuple[list[str], list[str]]
) -> Iterator[BandComparison]:
    """The bands of one scan; one that cannot be read is a problem."""
    try:
        pair = [{scan.band: scan for scan in _bands(store.scan(number))} for store in (old, new)]
    except (GpucalError, OSError, ValueError, KeyError) as error:
        yield BandComparison(number, "", problems=(_words(error),))
        return
    here, there = pair
    only[0].extend(f"{number}/{band}".rstrip("/") for band in sorted(here.keys() - there.keys()))
    only[1].extend(f"{number}/{band}".rstrip("/") for band in sorted(there.keys() - here.keys()))
    for band in sorted(here.keys() & there.keys()):
        try:
            yield compare_bands(here[band], there[band])
        except (GpucalError, OSError, ValueError, KeyError) as error:
            yield BandComparison(number, band, problems=(_words(error),))


def _bands(scan: L1Scan) -> list[L1Scan]:
    return [scan.band_scan(band) for band in scan.bands] or [scan]


def _words(error: Exception) -> str:
    """What is wrong, as one sentence."""
    text = error.message if isinstance(error, GpucalError) else str(error)
    return f"{' '.join(text.split()).rstrip('.')}."
