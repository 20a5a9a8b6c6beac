"""The feeds of a frontend and backend (FEBEPAR-MBFITS): which are in DATA, where they look, their efficiencies.

Shapes use R receivers (polarisations), A array pixels, S subscans. Source: docs/reference/mbfits.md, feeds.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gpucal.errors import GpucalWarning, ImportFormatError
from gpucal.io.fits.units import Unit
from gpucal.io.incoming.assumptions import Assumptions
from gpucal.io.mbfits.dataset import Dataset, Key, known

F64 = npt.NDArray[np.float64]
ARCSEC = 3600.0
TURNS_DEG = 0.5
"""A frame that turns by more within a subscan is told of."""
ROTATIONS = ("rotangle+dewang", "rotangle", "dewang", "none")
LIKELY_F_EFF = (0.3, 1.0)
LIKELY_GAIN = (0.0, 2.0)


@dataclass(frozen=True, eq=False)
class Feeds:
    """The feeds of one band.

    pixels    numbers of the feeds [A]; places i64 [R, A]: where each lies among the NUSEFEED of a row of DATA
    offsets   f64 [A, 2]  deg, from the position of the telescope, in the frame of the array
    f_eff     None where it is not known; gain_image: None, a number, or f64 [R, A]
    polarisations  POLTY of the receivers [R] of the first pixel
    """

    febe: str
    pixels: tuple[int, ...]
    places: npt.NDArray[np.int64]
    offsets: F64
    f_eff: float | None
    gain_image: float | list[list[float]] | None
    polarisations: tuple[str, ...]

    @property
    def is_array(self) -> bool:
        """Whether a feed looks elsewhere than the telescope points, so that the angle of the frame matters."""
        return bool(np.abs(self.offsets).max() * ARCSEC > 0.01)


def feeds_of(dataset: Dataset, key: Key, width: int, assumed: Assumptions) -> Feeds:
    """The feeds of a FEBE and baseband whose rows of DATA hold ``width`` spectra; ImportFormatError in doubt."""
    febe, baseband = key
    unit = dataset.febes[febe]
    if not unit.rows:
        raise ImportFormatError(f"{unit.place} has no row, expected the feeds of {febe}.")
    bands = _bands(unit)
    used = _used(unit, baseband, bands, width)
    sections = _of_band(unit, "BESECTS", baseband, bands, width)
    dataset.rest(unit)
    pixels = tuple(dict.fromkeys(used))
    counts = {p: used.count(p) for p in pixels}
    if len(set(counts.values())) != 1:
        said = ", ".join(f"{n} of feed {p}" for p, n in counts.items())
        raise ImportFormatError(
            f"{unit.place}: the feeds in use (USEFEED) of baseband {baseband} are {said}, expected as many of each."
        )
    receivers = counts[pixels[0]]
    places = _places(used, pixels, sections)
    if receivers > 1:
        what = "polarisations of one feed (R)"
        assumed.note(f"spectra of one feed in {febe}", what, "USEFEED names a feed several times")
    offsets = _offsets(unit, pixels, assumed, febe)
    words = _polarisations(unit, used)
    polarisations = tuple(words[int(k)] for k in places[:, 0])
    f_eff = _f_eff(unit, baseband, bands, used, assumed, febe)
    gain = _gain(unit, baseband, bands, used, places, assumed, febe)
    return Feeds(febe, pixels, places, offsets, f_eff, gain, polarisations)


def _places(
    used: Sequence[int], pixels: Sequence[int], sections: Sequence[int] | None
) -> npt.NDArray[np.int64]:
    """Place in a row of each polarisation of each pixel [R, A]: in the order of the backend's sections."""
    columns = []
    for pixel in pixels:
        mine = [k for k, feed in enumerate(used) if feed == pixel]
        if sections is not None and len({sections[k] for k in mine}) == len(mine):
            mine.sort(key=lambda k: sections[k])
        columns.append(mine)
    return np.array(columns, dtype=np.int64).T


def _bands(unit: Unit) -> list[int]:
    """USEBAND: the basebands in use, in the order of the other columns."""
    if unit.has("USEBAND") is None:
        return list(range(1, int(unit.number("NUSEBAND", 1.0)) + 1))
    values = unit.varying("USEBAND")[0]
    return [int(v) for v in values if known(float(v))]


def _of_band(
    unit: Unit, name: str, baseband: int, bands: Sequence[int], width: int
) -> list[int] | None:
    """The values of a column of the feeds in use that belong to a baseband; None where it does not tell."""
    if unit.has(name) is None or baseband not in bands:
        return None
    flat = [int(v) for v in unit.varying(name)[0]]
    told = unit.varying("NUSEFEED")[0] if unit.has("NUSEFEED") is not None else np.array([width])
    each = [int(n) for n in told if known(float(n)) and n > 0]
    if len(each) == 1:
        each = each * len(bands)
    k = bands.index(baseband)
    most = max(each, default=width)
    if len(each) == len(bands) and len(flat) == sum(each):
        begin = sum(each[:k])
        mine = flat[begin : begin + each[k]]
    elif len(flat) == most * len(bands):
        mine = flat[k * most : (k + 1) * most]
    else:
        mine = flat
    mine = [v for v in mine if known(float(v))]
    return mine if len(mine) == width else None


def _used(unit: Unit, baseband: int, bands: Sequence[int], width: int) -> list[int]:
    """The number of the feed of each spectrum in a row of DATA."""
    found = _of_band(unit, "USEFEED", baseband, bands, width)
    if found is not None:
        return found
    if width == 1 and unit.has("USEFEED") is None:
        return [1]
    flat = unit.varying("USEFEED")[0].tolist() if unit.has("USEFEED") else []
    raise ImportFormatError(
        f"{unit.place}: a row of DATA of baseband {baseband} holds {width} spectra, but USEFEED is {flat} for the "
        f"basebands {list(bands)} (USEBAND), expected {width} feeds of it."
    )


def _offsets(unit: Unit, pixels: Sequence[int], assumed: Assumptions, febe: str) -> F64:
    """Offsets [A, 2] of the feeds from the reference feed (REFFEED; -1: REFOFFX, REFOFFY), deg."""
    given = assumed.set_or_noted(
        "pixel_offsets", "FEEDOFFX, FEEDOFFY", "signs and frame were inferred", receiver=febe
    )
    if given is not None:
        if len(given) != len(pixels):
            raise ImportFormatError(
                f"the profile gives pixel_offsets of {len(given)} pixels, {febe} has {len(pixels)} feeds "
                f"({', '.join(map(str, pixels))})."
            )
        return np.array(given, dtype=np.float64) / ARCSEC
    x, y = _row(unit, "FEEDOFFX"), _row(unit, "FEEDOFFY")
    if x is None or y is None or len(x) != len(y):
        if len(pixels) > 1:
            raise ImportFormatError(
                f"{unit.place} has no FEEDOFFX, FEEDOFFY, expected the offsets of its {len(pixels)} feeds.",
                hint="Set pixel_offsets in a --profile.",
            )
        return np.zeros((1, 2))
    table = np.stack([x, y], axis=1)
    last = len(table)
    outside = [p for p in pixels if not 1 <= p <= last]
    if outside:
        raise ImportFormatError(
            f"{unit.place}: feed {outside[0]} is in use (USEFEED), but FEEDOFFX has {last} feeds."
        )
    reference = int(unit.varying("REFFEED")[0][0]) if unit.has("REFFEED") else 0
    origin = np.zeros(2)
    if 1 <= reference <= last:
        origin = table[reference - 1]
    elif reference == -1:
        origin = np.array([unit.number("REFOFFX", 0.0), unit.number("REFOFFY", 0.0)])
    picked = table[[p - 1 for p in pixels]]
    if not (np.isfinite(picked).all() and np.isfinite(origin).all()):
        if len(pixels) == 1:
            return np.zeros((1, 2))
        raise ImportFormatError(
            f"{unit.place}: the offsets of feeds in use (FEEDOFFX, FEEDOFFY) are blank.",
            hint="Set pixel_offsets in a --profile.",
        )
    found = picked - origin
    worst = float(np.abs(found).max())
    if worst > 5.0:
        raise ImportFormatError(
            f"{unit.place}: a feed is {worst:g} from the reference (FEEDOFFX, FEEDOFFY), expected deg of at most 5; it "
            "looks like arcsec."
        )
    return found


def _row(unit: Unit, name: str) -> F64 | None:
    """A column of the feeds, blank values as NaN; None where there is none."""
    if unit.has(name) is None:
        return None
    values = unit.varying(name)[0]
    if values.dtype.kind not in "iuf":
        raise ImportFormatError(
            f"{unit.place}: column {name} holds {values.dtype}, expected numbers."
        )
    row = values.astype(np.float64).ravel()
    return np.where([known(v) for v in row.tolist()], row, np.nan)


def _polarisations(unit: Unit, used: Sequence[int]) -> list[str]:
    """POLTY of each spectrum in a row of DATA: a letter for each feed, or for each spectrum."""
    if unit.has("POLTY") is None:
        return [""] * len(used)
    word = "".join(str(v) for v in unit.varying("POLTY")[0]).strip()
    if len(word) == len(used) and len(word) > max(used):
        return list(word)
    return [word[f - 1 : f] for f in used]


def _table(
    unit: Unit, name: str, baseband: int, bands: Sequence[int], used: Sequence[int]
) -> list[float]:
    """Values of a column [feeds x bands] for each spectrum of a row; NaN where they are not known.

    Feeds run faster, unless TDIM says otherwise.
    """
    row = _row(unit, name)
    if row is None or baseband not in bands:
        return [float("nan")] * len(used)
    n_bands, k = len(bands), bands.index(baseband)
    if row.size == 1:
        return [float(row[0])] * len(used)
    if row.size % n_bands:
        return [float("nan")] * len(used)
    feeds = row.size // n_bands
    n = unit.columns.index(unit.has(name) or name) + 1
    swapped = unit.text(f"TDIM{n}").replace(" ", "") == f"({n_bands},{feeds})" and n_bands != feeds
    table = row.reshape(feeds, n_bands)[:, k] if swapped else row.reshape(n_bands, feeds)[k]
    return [float(table[f - 1]) if 1 <= f <= feeds else float("nan") for f in used]


def _f_eff(
    unit: Unit,
    baseband: int,
    bands: Sequence[int],
    used: Sequence[int],
    assumed: Assumptions,
    febe: str,
) -> float | None:
    """ETAFSS, or what a profile gives; feeds that differ get their mean."""
    values = _table(unit, "ETAFSS", baseband, bands, used)
    low, high = LIKELY_F_EFF
    good = [v for v in values if low <= v <= high]
    told = float(np.mean(good)) if good else None
    said = "not known" if told is None else f"{told:.6g}"
    why = f"ETAFSS is {_short(values)}"
    given = assumed.set_or_noted("f_eff", said, why, receiver=febe)
    return told if given is None else float(given)


def _gain(
    unit: Unit,
    baseband: int,
    bands: Sequence[int],
    used: Sequence[int],
    places: npt.NDArray[np.int64],
    assumed: Assumptions,
    febe: str,
) -> float | list[list[float]] | None:
    """GAINIMAG, or what a profile gives: a number where it is that of all spectra, else [R, A]."""
    values = _table(unit, "GAINIMAG", baseband, bands, used)
    low, high = LIKELY_GAIN
    good = all(low <= v <= high for v in values)
    why = f"GAINIMAG is {_short(values)}"
    given = assumed.set_or_noted(
        "gain_image", "GAINIMAG" if good else "not known", why, receiver=febe
    )
    if given is not None:
        return float(given)
    if not good:
        return None
    if len(set(values)) == 1:
        return values[0]
    return [[values[k] for k in row] for row in places.tolist()]


def _short(values: Sequence[float]) -> str:
    told = sorted({f"{v:g}" for v in values})
    return ", ".join(told[:4]) + (" ..." if len(told) > 4 else "")


def turned(
    feeds: Feeds,
    angles: F64,
    dewar: float,
    place: str,
    dataset: Dataset,
    assumed: Assumptions,
) -> F64:
    """Offsets [A, 2] on the sky, turned by ROTANGLE (of each dump, deg) and DEWANG from longitude to latitude."""
    if not feeds.is_array:
        return feeds.offsets
    why = "which angles turn the array, and how, was inferred"
    which = str(assumed.take("rotation", ROTATIONS[0], why, receiver=feeds.febe))
    sense = int(assumed.take("rotation_sign", 1, why, receiver=feeds.febe))
    total = 0.0
    if "rotangle" in which:
        good = angles[np.isfinite(angles)]
        if not good.size:
            assumed.note("ROTANGLE", 0.0, "it is blank")
        else:
            turns = np.unwrap(np.deg2rad(good))
            total += float(np.rad2deg(turns.mean()))
            spread = float(np.rad2deg(np.ptp(turns)))
            if spread > TURNS_DEG:
                _warn_once(
                    dataset,
                    f"{place}: the array turned by {spread:.1f} deg (ROTANGLE); its pixels have the mean positions.",
                )
    if "dewang" in which:
        total += dewar if known(dewar) else 0.0
    angle = np.deg2rad(sense * total)
    c, s = np.cos(angle), np.sin(angle)
    x, y = feeds.offsets.T
    return np.stack([c * x - s * y, s * x + c * y], axis=1)


def _warn_once(dataset: Dataset, text: str) -> None:
    if text not in dataset.warned:
        dataset.warned.add(text)
        warnings.warn(text, GpucalWarning, stacklevel=2)
