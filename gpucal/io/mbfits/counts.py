"""How spectra lie in a row of DATA, and the counts of one subscan.

Shapes use C channels, D dumps, R receivers, A array pixels. Source: docs/reference/mbfits.md, counts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gpucal.errors import ImportFormatError
from gpucal.io.fits.units import Unit
from gpucal.io.incoming.assumptions import Assumptions
from gpucal.io.mbfits.dataset import BLANK, Dataset
from gpucal.io.mbfits.dumps import Dumps
from gpucal.io.mbfits.feeds import Feeds

PIECE_BYTES = 32 << 20
"""Of counts that are in memory beside those of the subscan."""
NEW_ORDER = "2006-05-05"
"""From this day on the channels of a spectrum follow each other in DATA; before, the feeds of a channel did."""


@dataclass(frozen=True)
class Layout:
    """Channels, spectra (NUSEFEED) in a row, whether the channels of a spectrum follow each other, and the type."""

    channels: int
    width: int
    channel_fastest: bool
    dtype: str


def layout_of(
    dataset: Dataset, units: Mapping[int, Unit], assumed: Assumptions
) -> tuple[Layout, dict[int, ImportFormatError]]:
    """The layout that most subscans of a band have, and errors of subscans whose layout is another or impossible.

    units: tables of counts by subscan. Raises the first of the errors when there is no layout.
    """
    found: dict[int, Layout] = {}
    errors: dict[int, ImportFormatError] = {}
    for number, unit in units.items():
        try:
            found[number] = _layout(dataset, unit, assumed)
        except ImportFormatError as error:
            error.subscan = number
            errors[number] = error
    if not found:
        raise next(iter(errors.values()))
    layouts = list(found.values())
    usual = max(layouts, key=layouts.count)
    for number, layout in found.items():
        if layout != usual:
            errors[number] = ImportFormatError(
                f"{units[number].place} has {layout.width} spectra of {layout.channels} channels in a row, the other "
                f"subscans have {usual.width} of {usual.channels}.",
                subscan=number,
            )
    return usual, errors


def _layout(dataset: Dataset, unit: Unit, assumed: Assumptions) -> Layout:
    name = unit.has("DATA")
    if name is None:
        raise ImportFormatError(
            f"{unit.place} has no column DATA, but {', '.join(unit.columns) or 'none'}."
        )
    form = unit.dtype[name]
    if form.base.kind not in "fiu":
        raise ImportFormatError(
            f"{unit.place}: DATA is of the format {unit.text(f'TFORM{unit.columns.index(name) + 1}')!r}, expected "
            "numbers in rows of one length."
        )
    n = unit.columns.index(name) + 1
    if (unit.number(f"TSCAL{n}", 1.0), unit.number(f"TZERO{n}", 0.0)) != (1.0, 0.0):
        raise ImportFormatError(
            f"{unit.place}: DATA is scaled (TSCAL{n}, TZERO{n}), expected counts as they are."
        )
    total = int(np.prod(form.shape, dtype=np.int64)) if form.shape else 1
    channels = int(unit.number("CHANNELS"))
    width = int(unit.number("NUSEFEED", total // channels if channels > 0 else 0))
    if channels < 1 or width < 1 or channels * width != total:
        raise ImportFormatError(
            f"{unit.place}: a row of DATA holds {total} numbers, expected CHANNELS x NUSEFEED = {channels} x {width}."
        )
    fastest = _channel_fastest(dataset, unit, n, channels, width, assumed)
    return Layout(channels, width, fastest, "f4" if form.base == np.dtype(">f4") else "f8")


def _channel_fastest(
    dataset: Dataset, unit: Unit, n: int, channels: int, width: int, assumed: Assumptions
) -> bool:
    """Whether the channels of a spectrum follow each other: as TDIM says, else by the day of the observation."""
    if width == 1 or channels == 1:
        return True
    match = re.fullmatch(r"\(\s*(\d+)\s*,\s*(\d+)\s*\)", unit.text(f"TDIM{n}"))
    if match is not None and channels != width:
        first, second = int(match[1]), int(match[2])
        if (first, second) == (channels, width):
            return True
        if (first, second) == (width, channels):
            return False
        raise ImportFormatError(
            f"{unit.place}: DATA has the axes {unit.text(f'TDIM{n}')} (TDIM{n}), expected ({channels},{width})."
        )
    day = dataset.text("DATE-OBS")[:10]
    new = day >= NEW_ORDER
    why = f"TDIM does not tell, and it was observed on {day}"
    order = assumed.take("data_order", "channel" if new else "feed", why)
    return bool(order == "channel")


def counts_of(
    dataset: Dataset, unit: Unit, layout: Layout, feeds: Feeds, dumps: Dumps, deep: int, sums: bool
) -> npt.NDArray[Any]:
    """Counts [C,D,R,A] of one subscan, NaN in the dumps up to ``deep`` that it does not have.

    sums: DATA are sums over a dump and are divided by its length. -999 is blank.
    """
    n_receivers, n_pixels = feeds.places.shape
    out = np.full((layout.channels, deep, n_receivers, n_pixels), np.nan, layout.dtype)
    name = unit.has("DATA")
    step = max(1, PIECE_BYTES // (8 * layout.channels * layout.width))
    try:
        with unit.mapped() as table:
            data = table[name].reshape(unit.rows, -1)
            for begin in range(0, dumps.n, step):
                some = slice(begin, min(begin + step, dumps.n))
                block = np.array(data[dumps.rows[some]], dtype=layout.dtype)
                block[block == BLANK] = np.nan
                if sums:
                    block /= dumps.length[some, None]
                for (r, a), place in np.ndenumerate(feeds.places):
                    if layout.channel_fastest:
                        columns = slice(place * layout.channels, (place + 1) * layout.channels)
                    else:
                        columns = slice(place, None, layout.width)
                    out[:, some, r, a] = block[:, columns].T
    finally:
        dataset.rest(unit)
    return out
