"""Offsets of the pixels of HERA: nine in a square, turned by the derotator. They are not in the files.

Source: docs/reference/imbfits.md, pixels.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from gpucal.errors import GpucalWarning, ImportFormatError
from gpucal.io.fits.units import Unit
from gpucal.io.imbfits.file import ImbFile, SubscanTables
from gpucal.io.incoming.assumptions import Assumptions

F64 = npt.NDArray[np.float64]
DAY_S = 86400.0
SPACING_ARCSEC = 24.0
LONGEST_GAP_S = 5.0
AGREES_DEG = 0.5


def is_array(receiver: str) -> bool:
    """Whether a receiver is one of HERA, whose pixels look at different places."""
    return receiver.upper().startswith("HERA")


def unturned(pixels: Sequence[int], receiver: str, assumed: Assumptions) -> F64:
    """Offsets [A, 2] of some pixels before they are turned, deg: by the profile, else a square, row by row.

    Raises ImportFormatError for pixels that the offsets do not have.
    """
    grid = [[SPACING_ARCSEC * (n % 3 - 1), SPACING_ARCSEC * (1 - n // 3)] for n in range(9)]
    why = "not in the file: 24 arcsec apart, pixel 1 at (-24, 24), row by row, 5 in the middle"
    given = np.array(assumed.take("pixel_offsets", grid, why, receiver=receiver), np.float64)
    wrong = [p for p in pixels if not 1 <= p <= len(given)]
    if wrong:
        raise ImportFormatError(
            f"pixel {wrong[0]} of {receiver} has no offset, expected pixels 1..{len(given)} (PIXEL).",
            hint="Set pixel_offsets in a --profile.",
        )
    return np.asarray(given[np.array(pixels) - 1] / 3600.0)


def turned(offsets: F64, angle_deg: float, sense: int) -> F64:
    """Offsets [A, 2] on the sky, turned by the angle from the first axis to the second."""
    a = sense * np.deg2rad(angle_deg)
    x, y = offsets[:, 0], offsets[:, 1]
    return np.stack([x * np.cos(a) - y * np.sin(a), x * np.sin(a) + y * np.cos(a)], axis=1)


def sky_angle(file: ImbFile, tables: SubscanTables, mjd: F64, assumed: Assumptions) -> float:
    """Angle of the array on the sky in the middle of the dumps at ``mjd`` [D], deg.

    Column sAct of the derotator, interpolated; else DEWANG where the derotator follows the sky. Warns where samples
    are far off, differ from DEWANG or where the angle changes within the subscan.
    """
    mode = file.frontend.text("DEWRTMOD").lower()
    told = file.frontend.number("DEWANG", np.nan)
    unit = tables.derotator
    if unit is not None and unit.rows:
        return _from_table(file, tables, unit, mjd, (mode, told), assumed)
    if mode == "sky" and np.isfinite(told):
        assumed.note("angle of the array", "DEWANG", "the file has no table of the derotator")
        return told
    _warn(
        file,
        tables,
        f"has no table of the derotator, whose mode is {mode or 'not told'}: the offsets of its pixels are not turned",
    )
    return 0.0


def _from_table(
    file: ImbFile,
    tables: SubscanTables,
    unit: Unit,
    mjd: F64,
    header: tuple[str, float],
    assumed: Assumptions,
) -> float:
    when, angle = unit.numbers("MJD"), unit.numbers("SACT")
    good = np.isfinite(when) & np.isfinite(angle) & (when > 0)
    if not good.any():
        raise ImportFormatError(
            f"{unit.place} holds no sample of the derotator.", subscan=tables.number
        )
    order = np.argsort(when[good])
    when, angle = when[good][order], angle[good][order]
    smooth = np.rad2deg(np.unwrap(np.deg2rad(angle)))
    at = np.interp(mjd, when, smooth)
    assumed.note("angle of the array", "sAct, deg", "the unit and the sense were inferred")
    far = float(np.abs(when[:, None] - mjd[None, :]).min(axis=0).max()) * DAY_S
    mode, told = header
    if far > LONGEST_GAP_S:
        _warn(file, tables, f"has dumps {far:.0f} s from the nearest sample of the derotator")
    off = abs((at.mean() - told + 180.0) % 360.0 - 180.0) if mode == "sky" else 0.0
    if off > AGREES_DEG:
        _warn(
            file,
            tables,
            f"has the derotator at {at.mean():.2f} deg (sAct), {off:.2f} deg from DEWANG {told:g}",
        )
    if float(np.ptp(at)) > AGREES_DEG:
        _warn(file, tables, f"has the array turning by {np.ptp(at):.2f} deg: its middle is taken")
    return float(np.interp(mjd.mean(), when, smooth))


def _warn(file: ImbFile, tables: SubscanTables, text: str) -> None:
    said = f"scan {file.number}: subscan {tables.number} of {file.path.name} {text}."
    if said not in file.warned:
        file.warned.add(said)
        warnings.warn(said, GpucalWarning, stacklevel=4)
