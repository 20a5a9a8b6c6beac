"""The receivers of a band: bandpass, T_rec, sideband gains, loads and bad channels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar, cast

import numpy as np
import numpy.typing as npt

from gpucal.physics.atm import AtmosphereTable, ChannelOpacity
from gpucal.physics.radiometry import T_BACKGROUND, radiation_temperature, sideband_gains
from gpucal.simulate.air.sky import LayeredChannels, LayeredSky
from gpucal.simulate.setup import BandSetup, InstrumentSetup
from gpucal.simulate.sky import band_axes

F64 = npt.NDArray[np.float64]

T = TypeVar("T")

GOOD, DEAD, WEAK, WARM = 0, 1, 2, 3
DEAD_COUNTS = 17.0
WEAK_GAIN = 0.002
WARM_TREC_K = 60000.0


@dataclass(frozen=True, eq=False)
class BandModel:
    """Model of one band with its true values. P = 1 where pixels share a value, else A; Q likewise for receivers.

    nu_sig, nu_img  f64 [C,R]    Hz
    gain            f64 [C,R,A]  counts/K, bandpass included
    t_rec           f64 [C,R,A]  K
    g_sig, g_img    f64 [C|1,Q,P] sideband gains
    j_hot, j_cold   f64 [C,R,P]  K; j_cold is NaN with a vane
    bad             u8 [C,R,A]   0 good, 1 dead, 2 weak, 3 far too warm
    air             the layers of the sky; None: all air is at t_amb
    """

    setup: InstrumentSetup
    band: BandSetup
    table: AtmosphereTable
    nu_sig: F64
    nu_img: F64
    gain: F64
    t_rec: F64
    g_sig: F64
    g_img: F64
    j_hot: F64
    j_cold: F64
    bad: npt.NDArray[np.uint8]
    air: LayeredSky | None = None
    _cache: dict[float, tuple[list[ChannelOpacity], list[ChannelOpacity]]] = field(
        default_factory=dict, repr=False
    )
    _layers: dict[float, tuple[list[LayeredChannels], list[LayeredChannels]]] = field(
        default_factory=dict, repr=False
    )

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, R, A)."""
        return cast(tuple[int, int, int], self.gain.shape)

    def transmission(self, pwv: float, airmass: float, throw: float = 0.0) -> tuple[F64, F64]:
        """t_sig, t_img [C,R] of channels moved by ``throw`` Hz; physics equation (5.3)."""
        sig, img = self._opacities(throw)
        return tuple(  # type: ignore[return-value]
            np.stack([o.transmission(pwv, airmass) for o in side], axis=1) for side in (sig, img)
        )

    def zenith_tau(self, pwv: float) -> tuple[F64, F64]:
        """tau_signal, tau_image [C,R], Np."""
        sig, img = self._opacities(0.0)
        return tuple(  # type: ignore[return-value]
            np.stack([o.zenith_tau(pwv) for o in side], axis=1) for side in (sig, img)
        )

    def emission(self, pwv: float, airmass: float, throw: float = 0.0) -> tuple[F64, F64]:
        """J of the air alone, f64 [C,R] K, in signal and image sideband of channels moved by ``throw`` Hz."""
        if self.air is not None:
            sides = self._seen_layers(throw, self.air)
            return tuple(  # type: ignore[return-value]
                np.stack([one.emission(pwv, airmass) for one in side], axis=1) for side in sides
            )
        t_amb = float(np.float32(self.setup.weather.t_amb))
        t_sig, t_img = self.transmission(pwv, airmass, throw)
        return (
            np.asarray(radiation_temperature(self.nu_sig + throw, t_amb) * (1.0 - t_sig)),
            np.asarray(radiation_temperature(self.nu_img + throw, t_amb) * (1.0 - t_img)),
        )

    def _opacities(self, throw: float) -> tuple[list[ChannelOpacity], list[ChannelOpacity]]:
        """Opacity of signal and image sideband, one per receiver; kept for each throw (Hz)."""
        if throw not in self._cache:
            width = abs(self.band.freq_res)
            self._cache[throw] = self._each_receiver(
                throw, lambda nu: self.table.channel_opacity(nu, width)
            )
        return self._cache[throw]

    def _seen_layers(
        self, throw: float, air: LayeredSky
    ) -> tuple[list[LayeredChannels], list[LayeredChannels]]:
        """The layers in signal and image sideband, one per receiver; kept for each throw (Hz)."""
        if throw not in self._layers:
            self._layers[throw] = self._each_receiver(throw, air.channels)
        return self._layers[throw]

    def _each_receiver(self, throw: float, make: Callable[[F64], T]) -> tuple[list[T], list[T]]:
        """What ``make`` gives for the channels f64 [C] of each receiver, in both sidebands."""
        sides: list[list[T]] = []
        for nu in (self.nu_sig, self.nu_img):
            made: list[T] = []
            for r in range(nu.shape[1]):
                # receivers at one frequency share the work
                same = r > 0 and np.array_equal(nu[:, r], nu[:, r - 1])
                made.append(made[-1] if same else make(nu[:, r] + throw))
            sides.append(made)
        return sides[0], sides[1]

    def sky(self, pwv: float, airmass: float, throw: float = 0.0) -> F64:
        """Sky at the receiver's input, f64 [C,R,P], K; physics equation (5.4) without J_hot:

        sum_k g_k {f_eff [J_air,k + J(nu_k,T_bg) t_k] + (1-f_eff) J(nu_k,T_amb)}, with J_air = J(nu_k,T_amb) (1-t_k)
        unless the air is layered.
        """
        f_eff = self.setup.f_eff
        t_amb = float(np.float32(self.setup.weather.t_amb))
        total: F64 | float = 0.0
        sides = zip(
            (self.nu_sig, self.nu_img),
            self.transmission(pwv, airmass, throw),
            self.emission(pwv, airmass, throw),
            (self.g_sig, self.g_img),
            strict=True,
        )
        for nu, t, air, gain in sides:
            ambient = radiation_temperature(nu + throw, t_amb)
            background = radiation_temperature(nu + throw, T_BACKGROUND)
            k = f_eff * (air + background * t) + (1.0 - f_eff) * ambient
            total = total + gain * k[:, :, None]
        return np.asarray(total)


def build_band(
    setup: InstrumentSetup,
    index: int,
    table: AtmosphereTable,
    seed: int,
    air: LayeredSky | None = None,
) -> BandModel:
    """Make the receivers of band number ``index``; the same seed gives the same receivers. ``air``: layered sky."""
    band = setup.bands[index]
    rng = np.random.default_rng([seed, index, 0xBA])
    nu_sig, nu_img = band_axes(band)
    g_sig, g_img = (_as_cra(g) for g in sideband_gains(band.receiver.gain_image, np))
    bad = _bad_channels(setup, band, rng)
    t_rec = _receiver_temperature(setup, band, nu_sig, rng)
    gain = band.receiver.counts_per_kelvin * _bandpass(setup, band, rng)
    t_rec = np.where(bad == WARM, WARM_TREC_K, t_rec)
    gain = np.where(bad == WEAK, WEAK_GAIN * gain, gain)

    def load(kelvin: float) -> F64:
        t = float(np.float32(kelvin))
        if t <= 0:
            return np.full(nu_sig.shape + g_sig.shape[2:], np.nan)
        sig, img = radiation_temperature(nu_sig, t), radiation_temperature(nu_img, t)
        return np.asarray(g_sig * sig[:, :, None] + g_img * img[:, :, None])

    t_cold = 0.0 if setup.loads.vane else setup.loads.t_cold
    return BandModel(
        setup,
        band,
        table,
        nu_sig,
        nu_img,
        gain,
        t_rec,
        g_sig,
        g_img,
        load(setup.loads.t_hot),
        load(t_cold),
        bad,
        air,
    )


def _as_cra(gain: F64) -> F64:
    """Scalar, [R,A] or [C,R,A] -> three axes that broadcast against [C,R,A]."""
    array = np.asarray(gain, dtype=np.float64)
    return array.reshape((1,) * (3 - array.ndim) + array.shape)


def _bandpass(setup: InstrumentSetup, band: BandSetup, rng: np.random.Generator) -> F64:
    """Shape of the gain, f64 [C,R,A]: flat top with falling edges, tilt and ripple per pixel."""
    pixels = (setup.receivers, setup.pixels)
    x = np.linspace(-1.0, 1.0, band.channels)[:, None, None]
    top = 0.25 + 0.75 * np.exp(-(np.abs(x / 0.93) ** 16))
    level = rng.uniform(0.75, 1.25, pixels)
    tilt = rng.uniform(-0.15, 0.15, pixels)
    phase = rng.uniform(0.0, 2.0 * np.pi, pixels)
    ripple = 1.0 + 0.1 * np.cos(3.0 * np.pi * x + phase)
    return np.asarray(level * top * (1.0 + tilt * x) * ripple)


def _receiver_temperature(
    setup: InstrumentSetup, band: BandSetup, nu_sig: F64, rng: np.random.Generator
) -> F64:
    """T_rec f64 [C,R,A], K: scatter over pixels, rise to the edges, standing wave."""
    pixels = (setup.receivers, setup.pixels)
    r = band.receiver
    x = np.linspace(-1.0, 1.0, band.channels)[:, None, None]
    scatter = rng.uniform(0.9, 1.15, pixels)
    phase = rng.uniform(0.0, 2.0 * np.pi, pixels)
    period = abs(band.bandwidth_hz) / 7.3
    wave = np.cos(2.0 * np.pi * (nu_sig - nu_sig.mean())[:, :, None] / period + phase)
    return np.asarray(r.t_rec * scatter * (1.0 + r.t_rec_slope * x * x + r.t_rec_ripple * wave))


def _bad_channels(
    setup: InstrumentSetup, band: BandSetup, rng: np.random.Generator
) -> npt.NDArray[np.uint8]:
    """Kind of defect of each channel, u8 [C,R,A]; dead, weak and warm ones in turn."""
    bad = np.zeros((band.channels, setup.receivers, setup.pixels), dtype=np.uint8)
    for r in range(setup.receivers):
        for a in range(setup.pixels):
            where = rng.choice(band.channels, size=band.receiver.bad_per_pixel, replace=False)
            bad[where, r, a] = DEAD + np.arange(len(where)) % 3
    return bad
