"""Frequency axes; physics section 1."""

from __future__ import annotations

from typing import Any

Array = Any


def frequency_axes(
    signal_freq: Array, image_freq: Array, freq_res: Array, ref_channel: Array, n: int, xp: Any
) -> tuple[Array, Array]:
    """Signal and image frequency of ``n`` channels, Hz; physics equations (1.1) and (1.2).

    nu_sig(c) = signal_freq + (c - ref) freq_res; nu_img(c) = image_freq - (c - ref) freq_res with c from 0 and
    ``ref_channel`` 0-based. Inputs f64 [R]; returns two f64 [n, R].
    """
    offset = (xp.arange(n, dtype=xp.float64)[:, None] - ref_channel[None, :]) * freq_res[None, :]
    return signal_freq[None, :] + offset, image_freq[None, :] - offset
