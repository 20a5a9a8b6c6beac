"""Raw counts of one scan in one band: the forward model of the physics page, sections 1 to 9."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gpucal.errors import ConfigError
from gpucal.io.l0.schema import GroupName, fill_value
from gpucal.physics.radiometry import airmass
from gpucal.simulate.receiver import DEAD, DEAD_COUNTS, BandModel
from gpucal.simulate.schedule import ScanPlan, SubscanPlan
from gpucal.simulate.setup import CONTINUUM_KINDS
from gpucal.simulate.sky import Conditions, line_spectrum, source_map

F64 = npt.NDArray[np.float64]


NOISE_BLOCK = 256
"""Channels that share one noise generator; part of the result, whatever the order of generation."""

BRACKETED = frozenset({"ON", "OTF-ON"})
COUNT_DTYPES: dict[str, np.dtype[Any]] = {
    "f64": np.dtype(np.float64),
    "f32": np.dtype(np.float32),
    "i32": np.dtype(np.int32),
    "u32": np.dtype(np.uint32),
}


@dataclass(frozen=True)
class Recording:
    """Recording of counts: dtype, noise and seed.

    dtype: "f64" (exact), "f32", "i32" or "u32" (rounded); noise: that of the radiometer equation, or none;
    seed: of all that is random.
    """

    dtype: str = "i32"
    noise: bool = True
    seed: int = 1

    def __post_init__(self) -> None:
        if self.dtype not in COUNT_DTYPES:
            raise ConfigError(f"dtype is {self.dtype!r}, expected {', '.join(COUNT_DTYPES)}.")
        if self.seed < 0:
            raise ConfigError(f"seed is {self.seed}, expected at least 0.")


@dataclass(frozen=True, eq=False)
class ScanCounts:
    """Maker of the counts of one scan in band number ``index``, subscan by subscan, in any order.

    counts = G(t,c) (T_rec + J_load)                                    HOT, COLD
    counts = G(t,c) (T_rec + J_sky + sum_k g_k f_eff t_k T_A*(nu_k) m)  sky, m = map of the source
    """

    model: BandModel
    index: int
    plan: ScanPlan
    recording: Recording

    def __post_init__(self) -> None:
        if self.recording.dtype == "u32" and self.model.setup.fill_fraction > 0:
            raise ConfigError(
                "u32 counts have no fill value, but fill_fraction is "
                f"{self.model.setup.fill_fraction}.",
                hint="Set fill_fraction to 0, or choose another dtype.",
            )

    @property
    def conditions(self) -> Conditions:
        return Conditions(self.model.setup, self.plan.mjd0)

    @property
    def dtype(self) -> np.dtype[Any]:
        return COUNT_DTYPES[self.recording.dtype]

    def shape(self, group: GroupName) -> tuple[int, int, int, int, int]:
        """(C, D, R, A, S) of a group."""
        c, r, a = self.model.shape
        plans = self.plan.group(group)
        return (c, plans[0].dumps, r, a, len(plans))

    # conditions of a subscan

    def elevation(self, sub: SubscanPlan) -> F64:
        """Elevation of each dump, f64 [D], rad; one value unless the sky drifts freely."""
        if not math.isnan(sub.elevation):
            return np.full(sub.dumps, sub.elevation)
        drift = self.model.setup.sky_drift
        if drift == "free":
            return self.conditions.elevation(sub.dump_mjd())
        at = self.plan.mid if drift == "none" else sub.sky_mjd
        return np.full(sub.dumps, self.conditions.elevation(at))

    def pwv(self, sub: SubscanPlan) -> float:
        """PWV over a subscan, mm: an ON between OFFs has that of its nearest OFF, unless free."""
        drift = self.model.setup.sky_drift
        if drift == "none":
            return self.conditions.pwv(self.plan.mid)
        if drift != "free" and sub.mode in BRACKETED:
            offs = [p for p in self.plan.source if p.mode not in BRACKETED]
            sub = min(offs, key=lambda p: abs(p.mjd - sub.mjd))
        return self.conditions.pwv(sub.sky_mjd)

    def sky(self, sub: SubscanPlan) -> F64:
        """Sky at the receiver's input without the source, f64 [C, D|1, R, P], K."""
        drift = self.model.setup.sky_drift
        if drift == "free":
            throw = self.throw(sub)
            per_dump = [
                self.model.sky(self.conditions.pwv(float(t)), float(airmass(el)), throw)
                for t, el in zip(sub.dump_mjd(), self.elevation(sub), strict=True)
            ]
            return np.stack(per_dump, axis=1)
        if drift == "none" or sub.mode not in BRACKETED:
            return self._plain_sky(sub)
        return self._bracketed_sky(sub)

    def _plain_sky(self, sub: SubscanPlan) -> F64:
        """Sky of a subscan under one elevation and PWV, f64 [C,1,R,P], K."""
        a = float(airmass(self.elevation(sub)[0]))
        return self.model.sky(self.pwv(sub), a)[:, None]

    def _bracketed_sky(self, sub: SubscanPlan) -> F64:
        """Sky of an ON as the line in time through the skies of its two OFFs, f64 [C,D|1,R,P], K."""
        offs = [p for p in self.plan.source if p.mode not in BRACKETED]
        one = max((p for p in offs if p.mjd < sub.mjd), key=lambda p: p.mjd)
        two = min((p for p in offs if p.mjd > sub.mjd), key=lambda p: p.mjd)
        dumps = self.model.setup.sky_drift == "linear-dump"
        t = sub.dump_mjd() if dumps else np.array([sub.mjd])
        w = ((t - one.mjd) / (two.mjd - one.mjd))[:, None, None]
        return (1.0 - w) * self._plain_sky(one) + w * self._plain_sky(two)

    # the source

    def throw(self, sub: SubscanPlan) -> float:
        """Frequency throw of this phase, Hz; 0 unless frequency-switched."""
        return self.model.band.throws[sub.phase] if sub.mode.startswith("FSW") else 0.0

    def sidebands(self, sub: SubscanPlan, throw: float) -> tuple[F64, F64]:
        """t_sig, t_img f64 [C, D|1, R] over a subscan, of channels moved by ``throw`` Hz."""
        free = self.model.setup.sky_drift == "free"
        el = self.elevation(sub) if free else self.elevation(sub)[:1]
        mjds = sub.dump_mjd() if free else [None]
        pairs = []
        for at, e in zip(mjds, el, strict=True):
            pwv = self.pwv(sub) if at is None else self.conditions.pwv(float(at))
            pairs.append(self.model.transmission(pwv, float(airmass(e)), throw))
        return np.stack([p[0] for p in pairs], axis=1), np.stack([p[1] for p in pairs], axis=1)

    def footprint(self, sub: SubscanPlan) -> F64:
        """Brightness of the source in each pixel relative to its peak, f64 [D,R,A]."""
        setup = self.model.setup
        if self.plan.kind in CONTINUUM_KINDS:
            return sub.gain * self._point(sub)
        if self.plan.kind == "nod":
            r, a = setup.nod_beams[sub.phase]
            beam = np.zeros((sub.dumps, setup.receivers, setup.pixels))
            beam[:, r, a] = 1.0
            return beam
        lon, lat = setup.pixel_offsets()
        return source_map(
            sub.lon[:, None, None] + lon, sub.lat[:, None, None] + lat, setup.source_fwhm_deg
        )

    def _point(self, sub: SubscanPlan) -> F64:
        """Response to a point, f64 [D,R,A]: off by the pointing error, which a focus scan has corrected."""
        setup = self.model.setup
        beam = setup.beam_fwhm_deg
        lon, lat = setup.pixel_offsets()
        if self.plan.kind == "pointing":
            lon, lat = (
                x - beam * o for x, o in zip((lon, lat), setup.procedures.offset, strict=True)
            )
        return source_map(sub.lon[:, None, None] + lon, sub.lat[:, None, None] + lat, beam)

    def _brightness(self, freq_hz: F64) -> F64:
        """T_A* of the source's peak at any sky frequency, K, same shape."""
        if self.plan.kind in CONTINUUM_KINDS:
            return np.full(np.shape(freq_hz), self.model.setup.procedures.peak_k)
        return line_spectrum(self.model.band.lines, freq_hz)

    def peak_input(self, sub: SubscanPlan) -> F64:
        """Contribution of the peak of the source at the receiver's input, f64 [C, D|1, R, P], K."""
        throw = self.throw(sub)
        seen = self.seen(sub, throw, throw)
        return np.asarray(self.model.setup.f_eff * self.model.g_sig[:, None] * seen)

    def seen(self, sub: SubscanPlan, throw_sig: float, throw_img: float) -> F64:
        """t_s T_A*(nu_s) + (g_i/g_s) t_i T_A*(nu_i) at the source's peak, f64 [C, D|1, R, P], K.

        The signal and image frequencies are moved by ``throw_sig`` and ``throw_img`` Hz.
        """
        m = self.model
        t_sig = self.sidebands(sub, throw_sig)[0]
        t_img = self.sidebands(sub, throw_img)[1]
        sig = self._brightness(m.nu_sig + throw_sig)[:, None] * t_sig
        img = self._brightness(m.nu_img + throw_img)[:, None] * t_img
        return np.asarray(sig[..., None] + (m.g_img / m.g_sig)[:, None] * img[..., None])

    # counts

    def subscan(self, group: GroupName, number: int) -> npt.NDArray[Any]:
        """Counts of one subscan [C,D,R,A] in the recording's dtype."""
        sub = self.plan.group(group)[number]
        c, _, r, a = self.shape(group)[:4]
        out = np.empty((c, sub.dumps, r, a), dtype=self.dtype)
        if sub.mode in ("HOT", "COLD"):
            base = (self.model.j_hot if sub.mode == "HOT" else self.model.j_cold)[:, None]
        else:
            base = self.sky(sub)
        peak = self.peak_input(sub) if sub.on_source.any() else None
        weight = self.footprint(sub) * sub.on_source[:, None, None]
        drift = self.conditions.gain(self.model.band, sub.dump_mjd())[:, None, None]
        for block, c0 in enumerate(range(0, c, NOISE_BLOCK)):
            part = slice(c0, min(c0 + NOISE_BLOCK, c))
            kelvin = self.model.t_rec[part, None] + base[part]
            if peak is not None:
                kelvin = kelvin + peak[part] * weight
            counts = self.model.gain[part, None] * drift * kelvin
            counts = self._with_noise(counts, sub, (group, number, block))
            counts = np.where(self.model.bad[part, None] == DEAD, DEAD_COUNTS, counts)
            out[part] = self._recorded(counts)
            lost = self.fills(group, number, block)
            if lost.size:
                out[part].reshape(-1)[lost] = fill_value(self.dtype)
        return out

    def _with_noise(self, counts: F64, sub: SubscanPlan, key: tuple[GroupName, int, int]) -> F64:
        """Add sigma = C / sqrt(dnu t)."""
        if not self.recording.noise:
            return counts
        relative = 1.0 / np.sqrt(abs(self.model.band.freq_res) * sub.exptime)
        return np.asarray(
            counts * (1.0 + relative * self._rng(key, 0).standard_normal(counts.shape))
        )

    def _recorded(self, counts: F64) -> npt.NDArray[Any]:
        """Counts rounded and limited to the dtype."""
        if self.dtype.kind == "f":
            return counts.astype(self.dtype)
        limits = np.iinfo(self.dtype)
        low = max(0, limits.min + 1)  # never the fill value
        return np.clip(np.rint(counts), low, limits.max).astype(self.dtype)

    def fills(self, group: GroupName, number: int, block: int) -> npt.NDArray[np.int64]:
        """Samples that were lost: sorted flat indices into [c,D,R,A] of a block of channels."""
        fraction = self.model.setup.fill_fraction
        c, d, r, a, _ = self.shape(group)
        if group == "calibration" or fraction <= 0:
            return np.empty(0, dtype=np.int64)
        size = min(NOISE_BLOCK, c - block * NOISE_BLOCK) * d * r * a
        rng = self._rng((group, number, block), 1)
        return np.unique(rng.integers(0, size, size=rng.binomial(size, fraction)))

    def _rng(self, key: tuple[GroupName, int, int], purpose: int) -> np.random.Generator:
        """Random numbers of one block, the same in whatever order blocks are made; purpose: noise or losses."""
        group, number, block = key
        calibration = int(group == "calibration")
        words = [self.plan.number, self.index, calibration, number, block, purpose]
        return np.random.default_rng([self.recording.seed, *words])
