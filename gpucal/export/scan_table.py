"""Everything about the spectra of one band of an L1 scan except the spectra themselves."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from gpucal.errors import ConfigError, L1Error
from gpucal.export.blocks import BUDGET_BYTES, pixel_medians
from gpucal.export.frames import NAN, Pointing, ScanFrame, Site, number, scan_frame
from gpucal.io.l1.reader import L1Scan
from gpucal.io.l1.rounded import rounding_step
from gpucal.io.l1.stored_t_sys import StoredTSys

F64 = npt.NDArray[np.float64]
Scale = Literal["ta", "tmb"]
TRACKED = ("mjd", "exptime", "azimuth", "elevation", "offset_lon", "offset_lat", "site_velocity")
"""What changes from dump to dump, f64 [D, S] each."""


@dataclass(frozen=True, eq=False)
class Axis:
    """Frequency axes of the receivers, f64 [R], Hz, at channel ``ref``."""

    ref: int
    frequency: F64
    step: F64
    image: F64


class ScanTable:
    """The small numbers of one band: per scan, per receiver, per pixel, per dump.

    header   keyword arguments of ``Spectrum`` that hold for the whole band
    factor   what T_A* is multiplied with: 1, or f_eff/b_eff for T_mb
    tracked  name -> f64 [D, S], for the names in ``TRACKED``
    t_sys    f64 [R, A, S]  K, T_sys*, median over channels, on the scale of the spectra
    on_index [S]  the subscan in L0
    """

    def __init__(
        self,
        scan: L1Scan,
        root: Mapping[str, Any],
        scale: Scale = "ta",
        b_eff: float | None = None,
        budget: int = BUDGET_BYTES,
    ) -> None:
        self.shape: tuple[int, ...] = scan["spectra"].shape
        self._scan = scan
        self.site = _site(root)
        self.axis = self._axis()
        self.on_index = (
            np.asarray(scan["on_index"][...]) if "on_index" in scan else np.arange(self.shape[4])
        )
        self.pointing = Pointing(
            *(self._per_dump(name) for name in ("mjd", "azimuth", "elevation")),
            *(self._per_dump(name, 0.0) for name in ("otf_lon", "otf_lat")),
        )
        self.frame: ScanFrame = scan_frame(scan.attrs, self.site, self.pointing)
        self.header, self.factor = self._header(root, scale, b_eff)
        self.tracked = {
            "mjd": self.pointing.mjd,
            "exptime": self._per_dump("exptime"),
            "azimuth": self.pointing.azimuth,
            "elevation": self.pointing.elevation,
            "offset_lon": self.frame.offset_lon,
            "offset_lat": self.frame.offset_lat,
            "site_velocity": self.frame.site_velocity,
        }
        self.pixel_lon, self.pixel_lat = self.frame.turned(
            self._per_pixel("pixel_offset_lon"), self._per_pixel("pixel_offset_lat")
        )
        self.t_sys = self.factor * self._t_sys_star(budget)
        self._t_rec = (
            pixel_medians(scan["t_rec"], None, None, budget)
            if "t_rec" in scan
            else np.full(self.shape[2:4], NAN)
        )
        self._tau = {name: self._middle(name) for name in ("tau_signal", "tau_image")}
        self._pwv = self._pwv_per_output()

    def of_pixel(self, receiver: int, pixel: int) -> dict[str, Any]:
        """Keyword arguments of ``Spectrum`` that hold for a receiver and a pixel."""
        axis = self.axis
        return {
            **self.header,
            "receiver": receiver,
            "pixel": pixel,
            "frequency": float(axis.frequency[receiver]),
            "frequency_step": float(axis.step[receiver]),
            "image_frequency": float(axis.image[receiver]),
            "ref_channel": float(axis.ref),
            "t_rec": float(self._t_rec[receiver, pixel]),
            **{name: float(values[receiver]) for name, values in self._tau.items()},
        }

    def pwv(self, receiver: int, pixel: int, subscan: int | slice) -> float:
        """PWV in mm of a pixel in a subscan, or its mean over several."""
        return float(self._pwv[receiver, pixel, subscan].mean())

    def _small(self, name: str) -> F64:
        """A small array of the scan, f64."""
        return np.asarray(self._scan[name][...], dtype=np.float64)

    def _per_dump(self, name: str, missing: float = NAN) -> F64:
        """An array [D, S] or [S] as f64 [D, S]."""
        size = (self.shape[1], self.shape[4])
        if name not in self._scan:
            return np.full(size, missing)
        return np.array(np.broadcast_to(self._small(name), size))

    def _per_pixel(self, name: str) -> F64:
        """Pixel offsets f64 [R, A, S], deg; 0 where the store has none."""
        size = self.shape[2:]
        if name not in self._scan:
            return np.zeros(size)
        values = self._small(name)
        return np.array(np.broadcast_to(values[..., None] if values.ndim == 2 else values, size))

    def _per_receiver(self, name: str) -> F64:
        """An axis array [C] or [C, R] as f64 [C, R]."""
        values = self._small(name)
        return np.array(np.broadcast_to(values.reshape(self.shape[0], -1), self._channel_shape()))

    def _channel_shape(self) -> tuple[int, int]:
        """(C, R)"""
        return self.shape[0], self.shape[2]

    def _axis(self) -> Axis:
        """The linear axes; raises L1Error where a channel deviates by 0.5 Hz or more, which no format can hold."""
        signal = self._per_receiver("frequency")
        n = signal.shape[0]
        if n < 2:
            raise self._error(f"it has {n} channel, expected at least two.")
        ref = n // 2
        step = (signal[-1] - signal[0]) / (n - 1)
        straight = signal[ref] + (np.arange(n)[:, None] - ref) * step
        off = float(np.max(np.abs(signal - straight)))
        if not off < 0.5:
            raise self._error(
                f"its frequency axis deviates by {off:.3g} Hz from a straight line, expected less "
                "than 0.5 Hz."
            )
        image = np.full(step.shape, NAN)
        # g_s = 1: the receiver sees no image, whatever frequency the store gives it
        if "image_frequency" in self._scan and number(self._scan.attrs.get("gain_signal")) != 1.0:
            image = self._per_receiver("image_frequency")[ref]
        return Axis(ref, signal[ref], step, image)

    def _header(
        self, root: Mapping[str, Any], scale: Scale, b_eff: float | None
    ) -> tuple[dict[str, Any], float]:
        """Fields of ``Spectrum`` that hold for the whole band, and the factor from T_A* to ``scale``."""
        attrs, frame = self._scan.attrs, self.frame
        met = attrs.get("scan_metadata") or {}
        f_eff = number(attrs.get("forward_efficiency", attrs.get("f_eff")))
        beam = number(attrs.get("b_eff")) if b_eff is None else b_eff
        factor = 1.0
        if scale == "tmb":
            factor = f_eff / beam
            if not (math.isfinite(factor) and factor > 0):
                said = ", ".join(
                    f"{name} is {value:g}" if math.isfinite(value) else f"{name} is not known"
                    for name, value in (("f_eff", f_eff), ("b_eff", beam))
                )
                raise ConfigError(
                    f"T_mb needs two efficiencies: {said}.",
                    hint="Give the main-beam efficiency with --b-eff.",
                    scan=self._scan.number,
                    band=self._scan.band,
                )
        gain_signal = number(attrs.get("gain_signal"))
        step = rounding_step(self._scan["spectra"].attrs)
        header = {
            "scale": scale,
            "source": str(attrs.get("source") or ""),
            "line": str(attrs.get("line") or ""),
            "telescope": str(root.get("telescope") or ""),
            "instrument": str(root.get("instrument") or ""),
            "project": str(attrs.get("project") or ""),
            "observer": str(met.get("OBSERVER") or attrs.get("observer") or ""),
            "procedure": str(attrs.get("mode") or ""),
            "band": self._scan.band,
            "scan": self._scan.number,
            "rest_frequency": number(attrs.get("rest_freq_hz")),
            "velocity": frame.velocity,
            "velocity_frame": frame.frame,
            "ra": frame.ra,
            "dec": frame.dec,
            "site_lat": self.site.lat_deg,
            "site_lon": self.site.lon_deg,
            "site_alt": self.site.alt_m,
            "f_eff": f_eff,
            "b_eff": beam,
            "gain_image": 1.0 / gain_signal - 1.0 if gain_signal > 0 else NAN,
            "t_hot": _mean(attrs.get("t_hot_k")),
            "t_cold": _mean(attrs.get("t_cold_k")),
            "tamb": number(met.get("TAMBIENT")),
            "pamb": number(met.get("PRESSURE")),
            "rounding": NAN if step is None else factor * step,
        }
        return header, factor

    def _t_sys_star(self, budget: int) -> F64:
        """T_sys* f64 [R, A, S], K.

        The median over channels, so that the weights of an average do not depend on the channel:
        weights that follow the noisy T_sys(nu) would shape the baseline and scale lines wrongly.
        """
        _, _, r, a, s = self.shape
        out = np.full((r, a, s), NAN)
        stored = StoredTSys(self._scan)
        for subscan in range(s if stored.known else 0):
            array, factor = stored.star_source(subscan)
            out[:, :, subscan] = pixel_medians(array, subscan, factor, budget)
        return out

    def _middle(self, name: str) -> F64:
        """Value at the middle channel for each receiver [R]; NaN where the scan has none."""
        if name not in self._scan:
            return np.full(self.shape[2], NAN)
        return np.asarray(self._per_receiver(name)[self.axis.ref])

    def _pwv_per_output(self) -> F64:
        """PWV f64 [R, A, S], from 0-d, [R, A] or [S]."""
        size = self.shape[2:]
        if "pwv" not in self._scan:
            return np.full(size, NAN)
        values = self._small("pwv")
        return np.array(np.broadcast_to(values[..., None] if values.ndim == 2 else values, size))

    def _error(self, text: str) -> L1Error:
        return L1Error(
            text, hint="Calibrate it again.", scan=self._scan.number, band=self._scan.band
        )


def _site(root: Mapping[str, Any]) -> Site:
    found = root.get("site") or {}
    return Site(*(number(found.get(name)) for name in ("lat_deg", "lon_deg", "alt_m")))


def _mean(values: Any) -> float:
    """Mean of a number or a list of numbers; NaN when there is none."""
    listed = values if isinstance(values, list) else [values]
    good = [x for x in map(number, listed) if math.isfinite(x)]
    return sum(good) / len(good) if good else NAN
