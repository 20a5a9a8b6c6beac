"""Monte Carlo of the error budget: the recorded inputs are off at random, the counts are not.

Nothing of the budget's own code is used: each draw is a calibration of the same noise-free scan with other options,
another recorded ambient temperature or another table.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from builders.truth_setup import calibrated, simulate_scan, steady
from gpucal import CalibratedScan, CalibrationConfig
from gpucal.simulate.setup import Line

COLUMNS = ("b", "q", "c_dry", "c_o3", "c_minor", "e_b", "e_q", "e_c")
"""What grows with the absorption; the last three are those of a layered table."""


@dataclass(frozen=True)
class Draws:
    """Scatter of the PWV (mm) and of the scale of T_A* (fraction, median over channels) for one source, and the row
    of the budget for it."""

    source: str
    pwv: float
    t_a_star: float
    row: dict[str, Any]

    @property
    def ratios(self) -> tuple[float, float]:
        """Scatter over budget, of PWV and T_A*; NaN where the budget says that there is none."""
        found = []
        for scatter, said in (
            (self.pwv, self.row["pwv_mm"]),
            (self.t_a_star, self.row["t_a_star"]),
        ):
            found.append(scatter / said if said and np.isfinite(said) else float("nan"))
        return found[0], found[1]


@dataclass(frozen=True)
class Case:
    """An instrument without noise, and the options that do not change."""

    simulated: Any
    options: dict[str, Any]

    @property
    def base(self) -> CalibratedScan:
        return calibrated(self.simulated, CalibrationConfig(**self.options))

    def budget(self) -> dict[str, dict[str, Any]]:
        return {row["source"]: row for row in self.base.quality["error_budget"]}


def case(name: str, *, gain_image: float | None = None, channels: int = 64, **options: Any) -> Case:
    """A small noise-free scan of a preset, its water fitted unless ``options`` give it."""
    setup = steady(name)
    bands = tuple(
        replace(
            b,
            channels=channels,
            # in all channels, and not in the image: T_A* is then F times the same counts
            lines=(Line(b.signal_freq[0], abs(b.bandwidth_hz), 5.0),),
            receiver=b.receiver
            if gain_image is None
            else replace(b.receiver, gain_image=gain_image),
        )
        for b in setup.bands[:1]
    )
    timing = replace(setup.timing, dumps=2, n_on=2)
    small = replace(setup, bands=bands, pixels=2, fill_fraction=0.0, timing=timing)
    simulated = simulate_scan(small, "tp", 7)
    if simulated.truths[0].vane_tsys.size:
        options = {"pwv": simulated.truths[0].pwv_mm, **options}
    return Case(simulated, options)


def steps(n: int, seed: int) -> np.ndarray:
    """``n`` Gaussian numbers; few of them are made to have mean 0 and scatter 1 exactly."""
    drawn = np.random.default_rng(seed).normal(size=n)
    if n < 50:
        drawn -= drawn.mean()
        drawn /= drawn.std()
    return drawn


def moved(of: Case, **offsets: float) -> CalibratedScan:
    """The scan calibrated with inputs that are off: by so many kelvin, or fractions."""
    scan, truth_config = of.simulated.scans[0], of.options
    simulated, options = of.simulated, dict(of.options)
    loads = scan.calibration
    for source, offset in offsets.items():
        if source == "t_hot":
            options["t_hot"] = float(np.mean(loads.thot)) + offset
        elif source == "t_cold":
            options["t_cold"] = float(np.mean(loads.tcold)) + offset
        elif source == "f_eff":
            options["f_eff"] = min(float(scan.attrs["f_eff"]) - abs(offset), 1.0)
        elif source == "g_image":
            ratio = float(scan.attrs["gain_image"])
            g_image = ratio / (1.0 + ratio) + offset
            options["gain_image"] = g_image / (1.0 - g_image)
        elif source == "t_amb":
            source_group = replace(scan.source, tamb=scan.source.tamb + offset)
            simulated = replace(simulated, scans=(replace(scan, source=source_group),))
            if "t_atm" in options:
                options["t_atm"] = truth_config["t_atm"] + offset
        elif source == "opacity":
            table = of.simulated.table
            known = [name for name in COLUMNS if getattr(table, name) is not None]
            scaled = {name: getattr(table, name) * (1.0 + offset) for name in known}
            simulated = replace(simulated, table=replace(table, **scaled))
        elif source == "pwv":
            options["pwv"] = truth_config["pwv"] * (1.0 + offset)
    return calibrated(simulated, CalibrationConfig(**options))


def scatter(of: Case, base: CalibratedScan, results: list[CalibratedScan]) -> tuple[float, float]:
    """Scatter of the PWV, mm, and of the scale of T_A*: per channel, then the median over channels and pixels."""
    pwv = np.array([float(np.mean(r.solution.atmosphere.pwv)) for r in results])
    was = np.asarray(base.spectra)[:, 0]
    with np.errstate(all="ignore"):
        scale = np.stack([np.asarray(r.spectra)[:, 0] / was for r in results])
        seen = np.abs(was) > 1e-3 * np.nanmax(np.abs(was))
        rms = np.sqrt(np.mean((scale - 1.0) ** 2, axis=0))
    fitted = float(np.sqrt(np.mean((pwv - np.mean(base.solution.atmosphere.pwv)) ** 2)))
    return fitted, float(np.nanmedian(np.where(seen, rms, np.nan)))


def one_by_one(of: Case, n: int, seed: int = 5) -> list[Draws]:
    """Each source of the budget by itself, ``n`` draws of each."""
    base, budget = of.base, of.budget()
    found = []
    for k, (source, row) in enumerate(budget.items()):
        if source == "noise" or not row["t_a_star"]:
            continue
        drawn = [moved(of, **{source: row["sigma"] * x}) for x in steps(n, seed + k)]
        found.append(Draws(source, *scatter(of, base, drawn), row))
    return found


def all_together(of: Case, n: int, seed: int = 9) -> Draws:
    """All sources at once."""
    base, budget = of.base, of.budget()
    used = {s: row["sigma"] for s, row in budget.items() if s != "noise" and row["t_a_star"]}
    each = {s: steps(n, seed + k) for k, s in enumerate(used)}
    drawn = [moved(of, **{s: used[s] * float(each[s][i]) for s in used}) for i in range(n)]
    quality = base.quality
    row = {"pwv_mm": quality["pwv_error_systematic"], "t_a_star": quality["t_a_star_error"]}
    return Draws("together", *scatter(of, base, drawn), row)
