"""Independent oracle, part 2: loads, gain drift and vane (physics sections 4, 8 and 9).

Plain Python floats and loops, slow on purpose; imports nothing of the package. NumPy arrays are
containers only. Axes: [C, D, R, A, S]; groups are the dicts described in ``oracle``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from oracle import sky

NAN = math.nan
INT32_MIN = -2147483648.0


def to_counts(raw: Any) -> Any:
    """Section 6: int32 minimum and non-finite input become NaN; f64, same shape."""
    out = np.empty(raw.shape)
    for index in np.ndindex(raw.shape):
        v = float(raw[index])
        fill = not math.isfinite(v) or (raw.dtype.kind == "i" and v == INT32_MIN)
        out[index] = NAN if fill else v
    return out


def mean(values: Iterable[float]) -> float:
    """NaN-aware mean, NaN when nothing is left."""
    kept = [float(v) for v in values if not math.isnan(v)]
    return math.fsum(kept) / len(kept) if kept else NAN


def median(values: Iterable[float]) -> float:
    """NaN-aware median, NaN when nothing is left."""
    kept = sorted(float(v) for v in values if not math.isnan(v))
    n = len(kept)
    if n == 0:
        return NAN
    return kept[n // 2] if n % 2 else 0.5 * (kept[n // 2 - 1] + kept[n // 2])


def median_smooth(values: list[float], width: int = 5) -> list[float]:
    """Running median; the end values are repeated beyond the edges, NaNs ignored."""
    half, last = width // 2, len(values) - 1
    return [
        median(values[min(max(c + k, 0), last)] for k in range(-half, half + 1))
        for c in range(last + 1)
    ]


def pixel_gain_image(gain_image: Any, c: int, r: int, a: int) -> float:
    """Section 3: r as scalar, [R,A] or [C,R,A]."""
    array = np.asarray(gain_image)
    index = {0: (), 2: (r, a), 3: (c, r, a)}[array.ndim]
    return float(array[index])


# ---- section 4: loads


def group_mean(group: dict[str, Any], modes: tuple[str, ...], c: int, r: int, a: int) -> float:
    """Section 4: mean over all dumps of the subscans with one of ``modes``."""
    counts = group["counts"]
    chosen = [s for s, m in enumerate(group["sobsmode"]) if m in modes]
    return mean(counts[c, d, r, a, s] for s in chosen for d in range(counts.shape[1]))


def receiver_temperature(hot: float, cold: float, j_hot: float, j_cold: float) -> float:
    """Section 4: T_rec = (J_hot - Y J_cold)/(Y - 1), K, double sideband."""
    if not (math.isfinite(hot) and math.isfinite(cold)) or cold == 0 or hot == cold:
        return NAN
    y = hot / cold
    return (j_hot - y * j_cold) / (y - 1.0)


def bad_channels(
    hot: list[float], cold: list[float], t_rec: list[float], par: dict[str, Any]
) -> list[bool]:
    """Section 4: the rules for one pixel, per channel."""
    step = [h - k for h, k in zip(hot, cold, strict=True)]
    smooth = [v for v in median_smooth(step) if not math.isnan(v)]
    least = par["clip_counts"] * max(smooth, default=NAN)
    bad = []
    for c, t in enumerate(t_rec):
        finite = math.isfinite(step[c]) and math.isfinite(t)
        good = finite and step[c] > 0 and step[c] >= least and 0 < t <= par["clip_trec"]
        bad.append(not good)
    middle = median(t for t, b in zip(t_rec, bad, strict=True) if not b)
    return [b or t > par["clip_tsys"] * middle for t, b in zip(t_rec, bad, strict=True)]


def solve_loads(
    source: dict[str, Any], cal: dict[str, Any], par: dict[str, Any], means: Any = None
) -> dict[str, Any]:
    """Section 4 for all pixels: hot, cold, j_hot, j_cold, t_rec, gamma, bad, g_s, g_i [C,R,A].

    ``means`` = (H1, K1) [C,R,A] of section 8 replaces the means of ``cal``.
    """
    n, _, receivers, pixels, _ = cal["counts"].shape
    names = ("hot", "cold", "j_hot", "j_cold", "t_rec", "gamma", "g_s", "g_i")
    out: dict[str, Any] = {name: np.full((n, receivers, pixels), NAN) for name in names}
    out["bad"] = np.ones((n, receivers, pixels), dtype=bool)
    for r in range(receivers):
        for a in range(pixels):
            for c in range(n):
                nu = channel_frequencies(source, c, r)
                g = sky.gains(pixel_gain_image(par["gain_image"], c, r, a))
                j = [
                    sum(g[k] * sky.radiation(nu[k], cal[t][r], par["h_over_k"]) for k in (0, 1))
                    for t in ("t_hot", "t_cold")
                ]
                hot = group_mean(cal, ("HOT",), c, r, a)
                cold = group_mean(cal, ("COLD", "COL"), c, r, a)
                if means is not None:
                    hot, cold = float(means[0][c, r, a]), float(means[1][c, r, a])
                line = g[0] if par["line_scale"] == "ssb" else 1.0
                gamma = (j[0] - j[1]) / (line * par["f_eff"])
                t_rec = receiver_temperature(hot, cold, j[0], j[1])
                values = (hot, cold, j[0], j[1], t_rec, gamma, g[0], g[1])
                for name, value in zip(names, values, strict=True):
                    out[name][c, r, a] = value
            column = [[float(x) for x in out[name][:, r, a]] for name in ("hot", "cold", "t_rec")]
            out["bad"][:, r, a] = bad_channels(column[0], column[1], column[2], par)
    return out


def channel_frequencies(source: dict[str, Any], c: int, r: int) -> tuple[float, float]:
    """Section 1: (signal, image), Hz."""
    res, ref = float(source["freq_res"][r]), float(source["ref_channel"][r])
    return (
        sky.signal_frequency(c, float(source["signal_freq"][r]), res, ref),
        sky.image_frequency(c, float(source["image_freq"][r]), res, ref),
    )


# ---- section 8: gain drift between two load scans


def on_line(t: float, one: tuple[float, float], two: tuple[float, float]) -> float:
    """Value at ``t`` of the line through two (time, value)."""
    (t1, v1), (t2, v2) = one, two
    return v1 + (t - t1) / (t2 - t1) * (v2 - v1)


def load_time(cal: dict[str, Any], modes: tuple[str, ...]) -> float:
    """Mean MJD of the dumps of the subscans with one of ``modes``."""
    chosen = [s for s, m in enumerate(cal["sobsmode"]) if m in modes]
    return mean(float(t) for s in chosen for t in cal["mjd"][:, s])


def drift_corrected(
    source: dict[str, Any], cals: tuple[dict[str, Any], dict[str, Any]], which: str = "both"
) -> tuple[dict[str, Any], Any, Any]:
    """Section 8: C' = K1 + (C - K(t)) (H1 - K1)/(H(t) - K(t)).

    ``which``: "on" or "both". The bracket runs from the middle of the first load scan, the epoch,
    to that of the second. Returns the source with corrected counts, and H1, K1 [C,R,A].
    """
    hot, cold = ("HOT",), ("COLD", "COL")
    n, dumps, receivers, pixels, subscans = source["counts"].shape
    out = np.array(source["counts"], dtype=np.float64)
    h1, k1 = np.empty((n, receivers, pixels)), np.empty((n, receivers, pixels))
    th, tk = [load_time(x, hot) for x in cals], [load_time(x, cold) for x in cals]
    epoch, end = (0.5 * (th[i] + tk[i]) for i in (0, 1))
    for c, r, a in np.ndindex(n, receivers, pixels):
        h = [(t, group_mean(x, hot, c, r, a)) for t, x in zip(th, cals, strict=True)]
        k = [(t, group_mean(x, cold, c, r, a)) for t, x in zip(tk, cals, strict=True)]
        h0, k0 = on_line(epoch, h[0], h[1]), on_line(epoch, k[0], k[1])
        h1[c, r, a], k1[c, r, a] = h0, k0
        for d, s in np.ndindex(dumps, subscans):
            mode = source["sobsmode"][s]
            if which == "on" and not (mode.endswith("ON") or mode in ("FSW-SIG", "NOD-1")):
                continue
            t = min(max(float(source["mjd"][d, s]), epoch), end)
            ht, kt = on_line(t, h[0], h[1]), on_line(t, k[0], k[1])
            v = float(source["counts"][c, d, r, a, s])
            out[c, d, r, a, s] = k0 + (v - kt) * (h0 - k0) / (ht - kt) if ht > kt else NAN
    return {**source, "counts": out}, h1, k1


# ---- section 9: vane


def vane_t_cal(t_warm: float, t_atm: float, tau: float, air: float) -> float:
    """Section 9, GBT Memo 302: (T_atm - T_bg) + (T_warm - T_atm) exp(A tau), K."""
    return (t_atm - sky.T_BG) + (t_warm - t_atm) * math.exp(air * tau)


def vane_t_sys(vane: list[float], off: list[float], t_cal: float) -> float:
    """Section 9: T_cal <C_off> / <C_vane - C_off> over the inner 80 % of the channels, K."""
    n = len(off)
    inner = range(int(0.1 * n), n - int(0.1 * n))
    return t_cal * mean(off[c] for c in inner) / mean(vane[c] - off[c] for c in inner)


def vane_spectrum(on: float, ref: float, t_sys: float) -> float:
    """Section 9: T_A* = T_sys* (C_on - C_ref)/C_ref, K."""
    return t_sys * (on - ref) / ref


def vane_channel_spectrum(
    counts: tuple[float, float, float, float], ch: sky.SkyChannel, j_hot: float, sky_at: Any
) -> float:
    """Section 9: T_cal' (C_on - C_ref)/(C_hot - C_sky), per channel.

    ``counts`` are ON, REF, HOT, SKY; ``sky_at`` = (PWV mm, airmass);
    T_cal' = (J_hot - J_sky) (1 + r) e^{A tau_s} / f_eff.
    """
    on, ref, hot, cold_sky = counts
    pwv, air = sky_at
    t_cal = (j_hot - sky.sky_temperature(ch, pwv, air)) / ch["gain"][0]
    t_cal /= sky.transmission(ch["bqc"][0], pwv, air) * ch["f_eff"]
    return float(t_cal * (on - ref) / (hot - cold_sky))
