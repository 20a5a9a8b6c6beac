"""What calibration makes of a layered sky: the table of the physics page, as Markdown.

    PYTHONPATH=tests python scripts/layered_sky_table.py          needs pyrtlib; takes a minute

Noise-free nights of the tests' own radiative transfer are calibrated twice: with one temperature for all air, that of
the ground (--t-atm), and as gpucal does it by itself.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from builders.layered.night import NIGHTS, LayeredNight, afgl_night, errors_of

from gpucal import calibrate_store

AIRMASSES = (1.15, 2.37)


def calibrated(night: LayeredNight, table: str, name: str, options: dict[str, Any]) -> Path:
    """Calibrate ``night`` into a store of this name beside it."""
    out = night.path.with_suffix(f".{name}.zarr")
    report = calibrate_store(night.path, out, {"atmosphere": table, **options})
    if report.failures:
        raise SystemExit(repr(report))
    return out


def main() -> None:
    """Print one line for each night and frequency."""
    pairs = " / ".join(f"{a:g}" for a in AIRMASSES)
    print(f"| site, PWV | GHz | T_A* before, % at A = {pairs} | after | PWV before, % | after |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for place, ghz, pwv in NIGHTS:
            path = Path(folder) / f"{place.telescope}_{pwv:g}mm.zarr"
            night = afgl_night(path, place, ghz, pwv, AIRMASSES)
            t_ground = float(np.float32(night.setup.weather.t_amb))
            stores = [
                calibrated(night, place.table, "before", {"t_atm": t_ground}),
                calibrated(night, place.table, "after", {}),
            ]
            for number, at in enumerate(ghz, 1):
                errors = [
                    [errors_of(s, night, n + 1, f"band_{number}") for n in range(len(AIRMASSES))]
                    for s in stores
                ]
                kelvin = [" / ".join(f"{100 * e.worst:+.2f}" for e in pair) for pair in errors]
                water = [" / ".join(f"{100 * e.pwv:+.1f}" for e in pair) for pair in errors]
                print(
                    f"| {place.telescope}, {pwv:g} mm | {at:g} | {kelvin[0]} | {kelvin[1]} "
                    f"| {water[0]} | {water[1]} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
