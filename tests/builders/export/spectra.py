"""Spectra with known numbers, as the writers take them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from gpucal import Spectrum

LIGHT = 299792458.0


def make_spectrum(n: int = 300, seed: int = 1, **changes: Any) -> Spectrum:
    """A spectrum whose axis runs down, with a blank channel and a fractional reference."""
    values = np.random.default_rng(seed).normal(1.0, 3.0, n)
    values[7] = np.nan
    plain = Spectrum(
        values=values,
        frequency=460.7654321e9,
        frequency_step=-976562.5,
        ref_channel=n / 2 - 0.25,
        rest_frequency=461.0407682e9,
        image_frequency=472.7654321e9,
        source="NGC 1333 IRAS4A",
        line="CO(4-3)",
        telescope="CCAT-FYST",
        instrument="CHAI",
        project="P-17",
        observer="N. N.",
        procedure="otf",
        band="band_2",
        scan=25650,
        subscan=3,
        dump=4,
        receiver=1,
        pixel=12,
        mjd=61000.1234567,
        exptime=2.5,
        velocity=7200.0,
        site_velocity=-21987.654,
        azimuth=2.1,
        elevation=0.7,
        ra=52.29375,
        dec=31.22525,
        offset_lon=0.01,
        offset_lat=-0.02,
        site_lat=-22.98571,
        site_lon=-67.74028,
        site_alt=5611.8,
        t_sys=310.5,
        t_rec=95.5,
        tau_signal=0.8,
        tau_image=1.1,
        pwv=0.61,
        tamb=268.0,
        pamb=392.0,
        f_eff=0.95,
        b_eff=0.7,
        gain_image=0.2,
        t_hot=294.0,
        t_cold=77.0,
    )
    return replace(plain, **changes)


def lsr_frequencies(s: Spectrum) -> np.ndarray:
    """Frequency of each channel in the frame of the velocity, by the definition of site_velocity."""
    return s.frequencies * (1.0 + s.site_velocity / LIGHT)


def lsr_velocities(s: Spectrum) -> np.ndarray:
    """Radio velocity of each channel in that frame, m/s."""
    return LIGHT * (1.0 - lsr_frequencies(s) / s.rest_frequency)
