"""What the reduction of a pointing, focus or skydip must find; from the setup, without any fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from gpucal.simulate.counts import ScanCounts
from gpucal.simulate.receiver import GOOD
from gpucal.simulate.setup import InstrumentSetup, Kind

F64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ProcedureTruth:
    """What one band of a procedure must give.

    values of a pointing: az_arcsec, el_arcsec where the source is seen, fwhm_arcsec, peak_k T_A* in the middle of
    the beam, what the image sideband adds included; of a focus: z_mm; of a skydip: f_eff, pwv_mm, tau Np, the mean
    zenith opacity of both sidebands with their gains, tau_low and tau_high Np. Channels differ in opacity, and the
    sum of their skies is not quite that of one opacity: a fit of one tau lies between tau_low and tau_high.
    """

    scan: int
    band: str
    kind: str
    values: Mapping[str, float]

    def record(self) -> dict[str, Any]:
        """The truth as JSON."""
        return asdict(self)

    def text(self) -> str:
        """The truth in words."""
        place = f"scan {self.scan}" + (f" {self.band}" if self.band else "")
        units = {"arcsec": "arcsec", "mm": "mm", "k": "K"}
        parts = []
        for name, value in self.values.items():
            stem, _, unit = name.rpartition("_")
            known = stem and unit in units
            parts.append(f"{stem if known else name} {value:.5g} {units[unit] if known else ''}")
        return f"{place} {self.kind}: {', '.join(part.strip() for part in parts)}"


def rehearsal(setup: InstrumentSetup, scans: Sequence[Kind], seed: int) -> InstrumentSetup:
    """The setup with these procedures before the science scans, and with a pointing error and a best focus
    drawn from ``seed``, so that nobody knows them."""
    rng = np.random.default_rng([seed, 0xF0C])
    az, el = rng.uniform(-0.35, 0.35, 2)
    focus = float(rng.uniform(-0.2, 0.2))
    drawn = replace(
        setup.procedures, scans=tuple(scans), offset=(float(az), float(el)), best_focus=focus
    )
    return replace(setup, procedures=drawn)


def procedure_truth(counts: ScanCounts) -> ProcedureTruth | None:
    """The truth of one band of a pointing, focus or skydip; None for scans of other kinds."""
    makers = {"pointing": _pointing, "focus": _focus, "skydip": _skydip}
    plan = counts.plan
    if plan.kind not in makers:
        return None
    return ProcedureTruth(plan.number, counts.model.band.name, plan.kind, makers[plan.kind](counts))


def _pointing(counts: ScanCounts) -> dict[str, float]:
    """Offset and width from the setup; the peak is the mean over good channels of what the pixels see."""
    setup = counts.model.setup
    beam = 3600.0 * setup.beam_fwhm_deg
    az, el = setup.procedures.offset
    sub = next(s for s in counts.plan.source if s.on_source.any())
    own = counts.sidebands(sub, 0.0)[0][..., None]
    seen = np.mean(counts.seen(sub, 0.0, 0.0) / own, axis=1)  # [C,R,P]
    peak = float(np.mean(np.broadcast_to(seen, counts.model.shape)[counts.model.bad == GOOD]))
    return {"az_arcsec": az * beam, "el_arcsec": el * beam, "fwhm_arcsec": beam, "peak_k": peak}


def _focus(counts: ScanCounts) -> dict[str, float]:
    setup = counts.model.setup
    return {"z_mm": setup.procedures.best_focus * setup.wavelength_mm}


def _skydip(counts: ScanCounts) -> dict[str, float]:
    """Opacities from the transmission of both sidebands, mean over good channels and pixels."""
    m, plan = counts.model, counts.plan
    pwv = counts.pwv(plan.calibration[len(plan.calibration) // 2])
    lowest = max(m.setup.procedures.airmasses)
    tau_sig, tau_img = (x[:, :, None] for x in m.zenith_tau(pwv))
    mean = _over_sidebands(counts, tau_sig, tau_img)
    effective = [
        -np.log(_over_sidebands(counts, np.exp(-a * tau_sig), np.exp(-a * tau_img))) / a
        for a in (0.0 + min(m.setup.procedures.airmasses), lowest)
    ]
    # The slope of the logarithm at the lowest elevation is the least that any fit can give.
    slant = np.exp(-lowest * tau_sig), np.exp(-lowest * tau_img)
    least = _over_sidebands(counts, tau_sig * slant[0], tau_img * slant[1])
    least = least / _over_sidebands(counts, *slant)
    return {
        "f_eff": m.setup.f_eff,
        "pwv_mm": pwv,
        "tau": mean,
        "tau_low": float(min(least, *effective)),
        "tau_high": float(max(mean, *effective)),
    }


def _over_sidebands(counts: ScanCounts, signal: F64, image: F64) -> float:
    """Mean of [C,R,1] values over good channels, pixels and both sidebands with their gains."""
    m = counts.model
    value = np.broadcast_to(m.g_sig * signal + m.g_img * image, m.shape)
    return float(np.mean(value[m.bad == GOOD]))
