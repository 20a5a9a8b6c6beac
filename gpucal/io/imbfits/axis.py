"""From intermediate frequencies to the sky: the spectra of a backend, their chunks joined where they join.

Frequencies in Hz. Source: docs/reference/imbfits.md, frequencies.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from gpucal.errors import ImportFormatError
from gpucal.io.imbfits.chunks import BackendLayout, Chunk
from gpucal.io.imbfits.tuning import Tuning
from gpucal.io.incoming.assumptions import Assumptions

JOIN = 0.1
"""Channels that chunks may be off a common grid; farther off, each is a band."""

REFERENCES = ("first", "centre")
Place = tuple[str, str, str]
"""RECEIVER, BAND and POLAR, which the spectra of all pixels of a band share."""
Cut = tuple[int, int, int, int]
"""Index of the chunk, first channel in it, count, step."""


@dataclass(frozen=True)
class Piece:
    """Channels first .. first + count - 1 of a spectrum of DATA that become one piece of a band; step -1: backwards."""

    first: int
    count: int
    step: int = 1

    @property
    def columns(self) -> slice:
        """Where they lie, in the order of DATA."""
        return slice(self.first, self.first + self.count)


@dataclass(frozen=True, eq=False)
class Spectrum:
    """A band: one spectrum for each pixel.

    name     name of the band; receiver, band, polar, parts as the file says
    pixels   their numbers; pieces of each pixel in the order of the band's channels
    offset   Hz: IF of the band's first channel less IFCENTER, counted as the signal's frequency rises;
    spacing  Hz on the sky for each channel, signed; side +1 USB, -1 LSB of the spectrum itself
    """

    name: str
    tuning: Tuning
    band: str
    polar: str
    line: str
    part: int
    pixels: tuple[int, ...]
    pieces: tuple[tuple[Piece, ...], ...]
    offset: float
    spacing: float
    side: int

    @property
    def channels(self) -> int:
        """C."""
        return sum(p.count for p in self.pieces[0])

    def sky(self, doppler: float) -> tuple[float, float, float]:
        """Signal and image frequency of channel 0, Hz, and the width of a channel, for nu_sky = nu_rest ``doppler``.

        The local oscillator lies |IFCENTER| below (USB) or above (LSB) the tuned frequency; a spectrum of the other
        sideband mirrors at it, and so does the image.
        """
        tuned = self.tuning.rest * doppler
        side = self.tuning.side or self.side
        oscillator = tuned - side * abs(self.tuning.if_centre)
        signal = tuned + side * self.offset
        width = side * self.spacing
        if self.side != side:
            signal, width = 2 * oscillator - signal, -width
        return signal, 2 * oscillator - signal, width


def spectra_of(
    layout: BackendLayout, tunings: Sequence[Tuning], backend: str, assumed: Assumptions
) -> tuple[list[Spectrum], list[tuple[str, ImportFormatError]]]:
    """The bands, and for each one that cannot be its name and why."""
    good: list[Spectrum] = []
    lost: list[tuple[str, ImportFormatError]] = []
    sides: dict[str, set[int]] = {}
    for chunk in layout.chunks:
        sides.setdefault(chunk.receiver, set()).add(chunk.side)
    for number, of_pixel in _matched(layout.chunks):
        name = f"band_{backend}_{number}"
        try:
            _check_sides(next(iter(of_pixel.values()))[0], sides, tunings)
            good += _bands(name, of_pixel, tunings, assumed)
        except ImportFormatError as error:
            lost.append((name, error))
    return good, lost


def _check_sides(chunk: Chunk, sides: Mapping[str, set[int]], tunings: Sequence[Tuning]) -> None:
    """Raise ImportFormatError where a receiver has chunks of both sidebands, and which is tuned is not told."""
    untold = any(t.side == 0 and t.name.upper() == chunk.receiver.upper() for t in tunings)
    if untold and {1, -1} <= sides[chunk.receiver]:
        raise ImportFormatError(
            f"the chunks of {chunk.receiver} are of both sidebands (BAND), and which one is tuned is not told: there "
            "is no SIDEBAND.",
            hint='Set sideband = "LSB" or "USB" in a --profile.',
        )


def _matched(chunks: Sequence[Chunk]) -> list[tuple[int, dict[int, list[Chunk]]]]:
    """The spectra of all pixels that belong together, with the number of the band: pixel -> its chunks.

    PART numbers them where all pixels have the same ones; else they are matched in their order within the pixel, and
    counted.
    """
    spectra: dict[tuple[int, int, Place], list[Chunk]] = {}
    for c in chunks:
        place = (c.receiver, c.band, c.polar)
        spectra.setdefault((c.pixel, c.part, place), []).append(c)
    of: dict[int, set[tuple[int, Place]]] = {}
    for pixel, part, place in spectra:
        of.setdefault(pixel, set()).add((part, place))
    alike = all(parts == next(iter(of.values())) for parts in of.values())
    groups: dict[object, dict[int, list[Chunk]]] = {}
    seen: dict[tuple[int, Place], int] = {}
    for (pixel, part, place), mine in sorted(spectra.items(), key=lambda i: i[0][1]):
        nth = seen[pixel, place] = seen.get((pixel, place), 0) + 1
        groups.setdefault((part, place) if alike else (nth, place), {})[pixel] = mine
    ordered = sorted(groups.values(), key=lambda g: min(c.row for m in g.values() for c in m))
    parts = [next(iter(g.values()))[0].part for g in ordered]
    if alike and len(set(parts)) == len(parts):
        return list(zip(parts, ordered, strict=True))
    return list(enumerate(ordered, 1))


def _bands(
    name: str, of_pixel: Mapping[int, list[Chunk]], tunings: Sequence[Tuning], assumed: Assumptions
) -> list[Spectrum]:
    lead = next(iter(of_pixel.values()))
    tuning = _tuning(lead, tunings)
    _same_in_all(of_pixel)
    sign = int(
        assumed.take(
            "if_sign", 1, "the sign of the chunks' IF axis was inferred", receiver=tuning.name
        )
    )
    side = _side(lead, tuning)
    runs, reference = _joined(lead, tuning, sign, assumed)
    pixels = tuple(sorted(of_pixel))
    made = []
    for k, run in enumerate(runs):
        first, spacing, cuts = run
        pieces = tuple(_pieces(of_pixel[p], cuts) for p in pixels)
        made.append(
            Spectrum(
                name if len(runs) == 1 else f"{name}_{k + 1}",
                tuning,
                lead[0].band,
                lead[0].polar,
                lead[0].line,
                lead[0].part,
                pixels,
                pieces,
                first - tuning.if_centre,
                spacing,
                side,
            )
        )
    if len(lead) > 1:
        how = "one axis" if len(runs) == 1 else f"{len(runs)} bands"
        why = f"{len(lead)} chunks of one PART; the reference is the {reference} channel"
        assumed.note(f"chunks of {name}", how, why)
    return made


def _tuning(chunks: Sequence[Chunk], tunings: Sequence[Tuning]) -> Tuning:
    """The receiver of a spectrum: RECNAME, and LINENAME where one receiver has several rows."""
    lead = chunks[0]
    named = [t for t in tunings if t.name.upper() == lead.receiver.upper()]
    if not named:
        raise ImportFormatError(
            f"chunk {lead.row + 1} is of the receiver {lead.receiver!r}, but the receivers (IMBF-frontend) are "
            f"{', '.join(t.name for t in tunings)}."
        )
    if len(named) > 1:
        named = [t for t in named if t.line == lead.line] or named
    if any(
        (t.rest, t.side, t.if_centre) != (named[0].rest, named[0].side, named[0].if_centre)
        for t in named
    ):
        said = ", ".join(f"{t.line or '?'} at {t.rest / 1e9:g} GHz" for t in named)
        raise ImportFormatError(
            f"chunk {lead.row + 1} is of the receiver {lead.receiver}, which has {len(named)} tunings ({said}), and "
            f"its LINENAME {lead.line!r} is that of none or of several."
        )
    return named[0]


def _same_in_all(of_pixel: Mapping[int, list[Chunk]]) -> None:
    """Raise ImportFormatError unless all pixels have the same chunks."""
    shapes: dict[tuple[object, ...], int] = {}
    for pixel, chunks in of_pixel.items():
        key = tuple(
            (c.channels, c.dropped, c.used, round(c.reference), round(c.spacing, 3)) for c in chunks
        )
        shapes.setdefault(key, pixel)
    if len(shapes) > 1:
        a, b = list(shapes.values())[:2]
        raise ImportFormatError(
            f"the chunks of pixel {b} are not those of pixel {a}: CHANS, DROPPED, USED, REFFREQ or SPACING differ."
        )


def _side(chunks: Sequence[Chunk], tuning: Tuning) -> int:
    """The sideband of a spectrum: that of BAND, else that of the receiver."""
    side = chunks[0].side or tuning.side
    if not side:
        raise ImportFormatError(
            f"the sideband of {tuning.name} is not known: there is no SIDEBAND, and BAND is {chunks[0].band!r}.",
            hint='Set sideband = "LSB" or "USB" in a --profile.',
        )
    return side


def _joined(
    chunks: Sequence[Chunk], tuning: Tuning, sign: int, assumed: Assumptions
) -> tuple[list[tuple[float, float, list[Cut]]], str]:
    """The runs of chunks that make one axis: (IF of the first channel, its step, cuts); and the reference channel.

    The reference channel is the first one, unless the chunks join with the centre alone.
    """
    why = "which channel of a chunk REFFREQ belongs to was inferred"
    runs = {ref: _runs(chunks, sign, ref) for ref in REFERENCES}
    better = len(runs["centre"]) < len(runs["first"])
    likely = "centre" if better else "first"
    if better:
        why = "with it the chunks join"
    reference = str(assumed.take("reference_channel", likely, why))
    found = runs[reference]
    middle = found[0][0]
    if np.sign(middle) != np.sign(tuning.if_centre):
        raise ImportFormatError(
            f"the IF of {chunks[0].receiver} begins at {middle / 1e6:g} MHz, but IFCENTER is "
            f"{tuning.if_centre / 1e6:g} MHz: their signs differ (IFFLIPS).",
            hint="Set if_sign = -1 in a --profile if the backend's frequencies are those before the flip.",
        )
    return found, reference


@dataclass(frozen=True)
class _Span:
    """Good channels of chunk k: IF of the lowest one, how many, and how many below it were left to another chunk."""

    low: float
    k: int
    count: int
    skipped: int = 0


def _runs(
    chunks: Sequence[Chunk], sign: int, reference: str
) -> list[tuple[float, float, list[Cut]]]:
    """Chunks in the order of IF, cut into runs in which each begins where the one before ends, to JOIN channels.

    Where two overlap each gives half of the overlap. The axis runs as the first chunk of the table does.
    """
    step = abs(chunks[0].spacing)
    spans = []
    for k, c in enumerate(chunks):
        at = 0.0 if reference == "first" else 0.5 * (c.channels - 1)
        edges = (c.dropped, c.dropped + c.used - 1)
        low = min(sign * (c.reference + (i - at) * c.spacing) for i in edges)
        spans.append(_Span(low, k, c.used))
    runs: list[list[_Span]] = []
    for span in sorted(spans, key=lambda x: x.low):
        same = abs(abs(chunks[span.k].spacing) - step) * span.count < JOIN * step
        last = runs[-1][-1] if runs else None
        if last is not None and same:
            behind = (span.low - last.low) / step - last.count
            overlap = -round(behind)
            if abs(behind + overlap) <= JOIN and 0 <= overlap < min(last.count, span.count):
                mine = overlap // 2
                runs[-1][-1] = replace(last, count=last.count - (overlap - mine))
                low = span.low + mine * step
                runs[-1].append(_Span(low, span.k, span.count - mine, mine))
                continue
        runs.append([span])
    upwards = sign * chunks[0].spacing > 0
    made = [_run(run, chunks, sign, upwards=upwards) for run in runs]
    return made if upwards else made[::-1]


def _run(
    run: Sequence[_Span], chunks: Sequence[Chunk], sign: int, *, upwards: bool
) -> tuple[float, float, list[Cut]]:
    """The axis of a run, upwards or downwards, and the channels that each chunk gives."""
    step = abs(chunks[run[0].k].spacing)
    cuts: list[Cut] = []
    for span in run:
        c = chunks[span.k]
        rises = sign * c.spacing > 0
        first = c.dropped + (span.skipped if rises else c.used - span.skipped - span.count)
        cuts.append((span.k, first, span.count, 1 if rises == upwards else -1))
    if upwards:
        return run[0].low, step, cuts
    last = run[-1]
    return last.low + (last.count - 1) * step, -step, cuts[::-1]


def _pieces(chunks: Sequence[Chunk], cuts: Sequence[Cut]) -> tuple[Piece, ...]:
    return tuple(Piece(chunks[k].first + first, count, step) for k, first, count, step in cuts)
