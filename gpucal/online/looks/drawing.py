"""The picture of a look, with the numbers an observer asks for first."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from gpucal.online.looks.look import BandLook, Look


def look_title(look: Look) -> str:
    """Scan, subscans, source, line and what kind of look it is."""
    subscans = ", ".join(str(s) for s in look.subscans[:8]) + (
        "..." if len(look.subscans) > 8 else ""
    )
    modes = "/".join(dict.fromkeys(m for band in look.bands for m in band.modes))
    plural = "s" if len(look.subscans) > 1 else ""
    parts = [f"scan {look.scan} subscan{plural} {subscans}", modes, look.source, look.line]
    return "   ".join(part for part in parts if part)


def draw_look(look: Look, path: Path) -> None:
    """Draw the bands of a look, each with its numbers above."""
    from gpucal.plot.look import LookPanel, plot_look

    panels = [
        LookPanel(
            label=band.band,
            unit=band.unit,
            frequency=band.frequency,
            spectrum=band.spectrum,
            continuum=band.continuum,
            lon=band.lon,
            lat=band.lat,
            note="   ".join(_notes(band)),
        )
        for band in look.bands
    ]
    plot_look(panels, path, look_title(look))


def _notes(band: BandLook) -> list[str]:
    """T_sys, T_rec, PWV and noise of a band, as far as they are known; medians over its pixels."""
    known = np.isfinite(band.t_sys).any()
    system = (
        ("$T_\\mathrm{sys}$", band.t_sys) if known else ("$T_\\mathrm{sys}^*$", band.t_sys_star)
    )
    numbers = [(*system, "K"), ("$T_\\mathrm{rec}$", band.t_rec, "K")]
    notes = [
        f"{name} {np.nanmedian(values):.0f} {unit}"
        for name, values, unit in numbers
        if np.isfinite(values).any()
    ]
    if np.isfinite(band.pwv):
        notes.append(f"PWV {band.pwv:.2f} mm")
    if np.isfinite(band.rms).any():
        notes.append(f"rms {np.nanmedian(band.rms):.3g} K per channel")
    return notes
