"""The frequency axis of a band in one subscan (ARRAYDATA-MBFITS): signal and image on the sky.

Axis descriptions of the column DATA have a letter: S sky and signal, J sky and image, F rest frame and signal.
Source: docs/reference/mbfits.md, frequencies.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np

from gpucal.errors import GpucalWarning, ImportFormatError
from gpucal.io.fits.units import Unit
from gpucal.io.incoming.assumptions import Assumptions
from gpucal.io.mbfits.dataset import Dataset, known

UNITS = {"HZ": 1.0, "KHZ": 1e3, "MHZ": 1e6, "GHZ": 1e9}
LOWEST, HIGHEST = 1e8, 2e13
"""Hz: what a sky frequency may be."""
SAME_STEP = 1e-4
SAME_SEPARATION = 1e-2


@dataclass(frozen=True)
class SkyAxis:
    """nu(c) = signal + (c - reference) step, Hz, channels c from 0; image: that of the reference channel, or None.

    doppler: nu_sky / nu_rest, NaN where the rest axis is not told; rest: RESTFREQ, Hz
    """

    signal: float
    step: float
    reference: float
    image: float | None
    doppler: float
    rest: float
    sideband: str


@dataclass(frozen=True)
class _Axis:
    """Reference pixel (from 1), value there and step, Hz."""

    pixel: float
    value: float
    step: float

    def at(self, pixel: float) -> float:
        return self.value + (pixel - self.pixel) * self.step


def axis_of(dataset: Dataset, unit: Unit, assumed: Assumptions) -> SkyAxis:
    """The axis of a table of counts; ImportFormatError where it has none or contradicts itself."""
    sky, rest = _axis(unit, "S"), _axis(unit, "F")
    if sky is None:
        sky = _from_rest(unit, rest, assumed)
    image_axis = _axis(unit, "J")
    sideband = unit.text("SIDEBAND").upper()
    image = _image(dataset, unit, sky, image_axis, sideband, assumed)
    doppler = float("nan")
    if rest is not None:
        doppler = sky.value / rest.at(sky.pixel)
        if not 0.05 < doppler < 1.2:
            raise ImportFormatError(
                f"{unit.place}: the sky frequency of channel {sky.pixel:g} is {sky.value:g} Hz (1CRVL2S), its rest "
                f"frequency {rest.at(sky.pixel):g} Hz (1CRVL2F), expected about the same."
            )
    line = unit.number("RESTFREQ", np.nan)
    return SkyAxis(sky.value, sky.step, sky.pixel - 1.0, image, doppler, line, sideband)


def _axis(unit: Unit, letter: str) -> _Axis | None:
    """A description of the axis; None where it is not there, or filled with zeros. ImportFormatError for a bad one."""
    names = [f"1CRPX2{letter}", f"1CRVL2{letter}", f"11CD2{letter}"]
    numbers = [unit.number(n, np.nan) for n in names]
    pixel, value, step = numbers
    if not (known(value) and known(step)) or value == 0.0 or step == 0.0:
        return None
    if not known(pixel):
        raise ImportFormatError(f"{unit.place} has {names[1]}, but no {names[0]}.")
    word = unit.text(f"1CUNI2{letter}", "Hz").upper() or "HZ"
    if word not in UNITS:
        raise ImportFormatError(
            f"{unit.place}: the unit of its axis {letter} is {word!r} (1CUNI2{letter}), expected Hz."
        )
    value, step = value * UNITS[word], step * UNITS[word]
    if not LOWEST < value < HIGHEST:
        raise ImportFormatError(
            f"{unit.place}: {names[1]} is {value:g} Hz, expected {LOWEST:g} to {HIGHEST:g} Hz."
        )
    return _Axis(pixel, value, step)


def _from_rest(unit: Unit, rest: _Axis | None, assumed: Assumptions) -> _Axis:
    """The sky axis from the rest axis and the Doppler factor of a profile; ImportFormatError without either."""
    why = "the counts have no axis on the sky (1CRVL2S)"
    given = assumed.set_or_noted("doppler_factor", "not known", why)
    if rest is None or given is None:
        what = "no axis" if rest is None else "an axis of the rest frame (1CRVL2F) alone"
        hint = "Is it a bolometer or continuum backend?" if rest is None else ""
        raise ImportFormatError(
            f"{unit.place} has {what}, expected the axis on the sky (1CRPX2S, 1CRVL2S, 11CD2S).",
            hint=hint or "Set doppler_factor in a --profile (sky over rest frequency).",
        )
    factor = float(given)
    return _Axis(rest.pixel, rest.value * factor, rest.step * factor)


def _image(
    dataset: Dataset,
    unit: Unit,
    sky: _Axis,
    image: _Axis | None,
    sideband: str,
    assumed: Assumptions,
) -> float | None:
    """The image of the reference channel: from axis J, else from SIDEBAND and SBSEP; None where neither is there."""
    separation = abs(unit.number("SBSEP", np.nan))
    if image is None:
        if sideband[:3] not in ("USB", "LSB") or not known(separation) or not separation:
            return None
        assumed.note("image frequency", "from SIDEBAND and SBSEP", "there is no axis J")
        return sky.value - separation if sideband.startswith("USB") else sky.value + separation
    found = image.at(sky.pixel)
    if abs(image.step + sky.step) > SAME_STEP * abs(sky.step):
        _warn(
            dataset,
            f"{unit.place}: the image axis has channels of {image.step:g} Hz (11CD2J), expected {-sky.step:g} Hz: it "
            "is taken to run backwards from its reference channel.",
        )
        found = image.value + (image.pixel - sky.pixel) * sky.step
    if sideband[:3] in ("USB", "LSB") and (found < sky.value) != sideband.startswith("USB"):
        _warn(
            dataset,
            f"{unit.place}: SIDEBAND is {sideband}, but its image is at {found / 1e9:.6f} GHz and its signal at "
            f"{sky.value / 1e9:.6f} GHz (axes J and S), which are taken.",
        )
    apart = abs(found - sky.value)
    if known(separation) and separation and abs(apart / separation - 1.0) > SAME_SEPARATION:
        # SBSEP may be that of the sidebands' middles: only what is far off is told of
        reach = abs(unit.number("CHANNELS", 1.0) * sky.step) * 2.0
        if abs(apart - separation) > reach:
            _warn(
                dataset,
                f"{unit.place}: signal and image are {apart / 1e9:.6f} GHz apart (axes S and J), SBSEP is "
                f"{separation / 1e9:.6f} GHz; the axes are taken.",
            )
    return found


def _warn(dataset: Dataset, text: str) -> None:
    if text not in dataset.warned:
        dataset.warned.add(text)
        warnings.warn(text, GpucalWarning, stacklevel=2)
