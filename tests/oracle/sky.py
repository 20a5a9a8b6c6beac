"""Independent oracle, part 1: radiation, sidebands, atmosphere, PWV (physics sections 1-3, 5).

Plain Python floats and loops, slow on purpose; imports nothing of the package. A sky channel is
a dict, one per (channel, receiver, pixel), see ``sky_channel``; index 0 of every pair is the
signal sideband and index 1 the image sideband.
"""

from __future__ import annotations

import math
from typing import Any

PLANCK = 6.62607015e-34
BOLTZMANN = 1.380649e-23
T_BG = 2.725
LOW_TRANSMISSION = 0.02

SkyChannel = dict[str, Any]


def signal_frequency(c: int, signal_freq: float, freq_res: float, ref_channel: float) -> float:
    """Section 1, Hz."""
    return signal_freq + (c - ref_channel) * freq_res


def image_frequency(c: int, image_freq: float, freq_res: float, ref_channel: float) -> float:
    """Section 1, Hz."""
    return image_freq - (c - ref_channel) * freq_res


def radiation(nu: float, temperature: float, h_over_k: float = PLANCK / BOLTZMANN) -> float:
    """Section 2: J(nu, T), K."""
    if not temperature > 0:
        raise ValueError("T must be positive")
    x = h_over_k * nu
    return x / math.expm1(x / temperature)


def gains(gain_image: float) -> tuple[float, float]:
    """Section 3: (g_s, g_i) from r = g_i / g_s."""
    if not math.isfinite(gain_image) or gain_image < 0:
        raise ValueError("gain_image must be finite and not negative")
    return 1.0 / (1.0 + gain_image), gain_image / (1.0 + gain_image)


def airmass(elevation: float, kind: str = "plane") -> float:
    """Section 5: 1/sin(el), or Rohlfs & Wilson, Tools of Radio Astronomy, in sec z."""
    sec_z = 1.0 / math.sin(elevation)
    if kind == "plane":
        return sec_z
    return -0.0045 + 1.00672 * sec_z - 0.002234 * sec_z**2 - 0.0006247 * sec_z**3


def opacities(bqc: list[tuple[float, float, float]], pwv: float) -> list[float]:
    """Section 5: zenith opacity b P + q P^2 + c at each point j inside a channel, Np."""
    return [b * pwv + q * pwv**2 + c for b, q, c in bqc]


def transmission(bqc: list[tuple[float, float, float]], pwv: float, air: float) -> float:
    """Section 5: exp(-A tau), averaged over the points inside the channel."""
    taus = opacities(bqc, pwv)
    return math.fsum(math.exp(-air * tau) for tau in taus) / len(taus)


def zenith_opacity(bqc: list[tuple[float, float, float]], pwv: float) -> float:
    """Opacity of the whole channel towards the zenith, Np."""
    return -math.log(transmission(bqc, pwv, 1.0))


def lapse_curve(y: float) -> float:
    """Section 5: g(y) = exp(-y) (Ei(y) - ln y - gamma) / y, from the series of Ei: no term has another sign."""
    if y > 600.0:
        raise ValueError("the series is for y up to 600")
    term, terms, n = math.exp(-y), [], 1
    while n < y + 40 or term > 1e-20:
        terms.append(term / n)
        n += 1
        term *= y / n
    return math.fsum(terms)


def lapse_slope(y: float) -> float:
    """dg/dy = -g (1 + 1/y) + (1 - exp(-y))/y^2; near zero from the series of g."""
    if y < 0.3:
        # g = exp(-y) s(y), s = sum_n y^(n-1)/(n n!)
        s, ds = 0.0, 0.0
        for n in range(1, 25):
            s += y ** (n - 1) / (n * math.factorial(n))
            ds += (n - 1) * y ** (n - 2) / (n * math.factorial(n)) if n > 1 else 0.0
        return math.exp(-y) * (ds - s)
    return -lapse_curve(y) * (1.0 + 1.0 / y) - math.expm1(-y) / y**2


Layers = list[tuple[float, float, float, float, float]]
"""c_o3, e_b, e_q, e_c, e_o3 of each point inside a channel."""


def departures(
    bqc: list[tuple[float, float, float]], layers: Layers, pwv: float, air: float
) -> list[tuple[float, float]]:
    """Section 5: E and dE/dP of each point inside a channel of a layered sky."""
    found = []
    for (b, q, c), (c_o3, e_b, e_q, e_c, e_o3) in zip(bqc, layers, strict=True):
        y = air * (b * pwv + q * pwv**2 + c - c_o3)
        dy = air * (b + 2.0 * q * pwv)
        low = air * (e_b * pwv + e_q * pwv**2 + e_c)
        high = e_o3 * math.exp(-y) * (1.0 - math.exp(-air * c_o3))
        d_low = air * (e_b + 2.0 * e_q * pwv)
        slope = d_low * lapse_curve(y) + low * lapse_slope(y) * dy - high * dy
        found.append((low * lapse_curve(y) + high, slope))
    return found


def layers_of(table: Any, c: int, r: int) -> tuple[Layers, ...] | None:
    """The ``Layers`` of both sidebands of one channel and receiver from a table [5,2,J,C,R]; None without one."""
    if table is None:
        return None
    return tuple(
        [tuple(map(float, table[:, k, j, c, r])) for j in range(table.shape[2])]  # type: ignore[misc]
        for k in (0, 1)
    )


def departure(ch: SkyChannel, k: int, pwv: float, air: float) -> tuple[float, float]:
    """E and dE/dP of the sideband k: means over its points; 0 for an isothermal sky."""
    if not ch.get("layers"):
        return 0.0, 0.0
    found = departures(ch["bqc"][k], ch["layers"][k], pwv, air)
    return math.fsum(e for e, _ in found) / len(found), math.fsum(d for _, d in found) / len(found)


def sky_channel(
    nu: tuple[float, float], gain: tuple[float, float], temperatures: dict[str, float], **rest: Any
) -> SkyChannel:
    """One channel towards the sky: radiation temperatures from t_atm and t_amb (K).

    ``rest``: f_eff; bqc, a pair of lists of (b, q, c); layers, a pair of ``Layers``, for a layered sky (t_atm is
    then the temperature of the ground); for the fit also channel (its
    number), observed (S_obs, K), j_hot, t_rec, airmass, dnu (Hz), t_off, t_hot (s).
    """
    hk = temperatures.get("h_over_k", PLANCK / BOLTZMANN)
    return {
        "nu": nu,
        "gain": gain,
        "j_atm": tuple(radiation(x, temperatures["t_atm"], hk) for x in nu),
        "j_amb": tuple(radiation(x, temperatures["t_amb"], hk) for x in nu),
        "j_bg": tuple(radiation(x, T_BG, hk) for x in nu),
        **rest,
    }


def sky_temperature(ch: SkyChannel, pwv: float, air: float) -> float:
    """Section 5: J_sky(P) = S_mod(P) + J_hot, K, double sideband, receiver plane."""
    total = 0.0
    for k in (0, 1):
        t = transmission(ch["bqc"][k], pwv, air)
        less, _ = departure(ch, k, pwv, air)
        sky = ch["j_atm"][k] * (1.0 - t - less) + ch["j_bg"][k] * t
        total += ch["gain"][k] * (ch["f_eff"] * sky + (1.0 - ch["f_eff"]) * ch["j_amb"][k])
    return total


def _amplitude(ch: SkyChannel, k: int) -> float:
    return float(ch["gain"][k] * ch["f_eff"] * (ch["j_bg"][k] - ch["j_atm"][k]))


def slope(ch: SkyChannel, pwv: float) -> float:
    """Section 5: dS_mod/dP with dt/dP = -A (b + 2 q P) t, and dE/dP."""
    air = ch["airmass"]
    total = 0.0
    for k in (0, 1):
        terms = [
            -air * (b + 2.0 * q * pwv) * math.exp(-air * (b * pwv + q * pwv**2 + c))
            for b, q, c in ch["bqc"][k]
        ]
        total += _amplitude(ch, k) * math.fsum(terms) / len(terms)
        total -= ch["gain"][k] * ch["f_eff"] * ch["j_atm"][k] * departure(ch, k, pwv, air)[1]
    return total


def model_sigma(ch: SkyChannel, pwv: float, eps: float) -> float:
    """Section 5: eps |A sum_k amp_k tau_k t_k|, K."""
    air = ch["airmass"]
    total = 0.0
    for k in (0, 1):
        taus = opacities(ch["bqc"][k], pwv)
        total += _amplitude(ch, k) * math.fsum(x * math.exp(-air * x) for x in taus) / len(taus)
    return float(eps * abs(air * total))


def noise_variance(ch: SkyChannel) -> float:
    """Section 5: radiometer noise of S_obs, K^2, with J_sky = S_obs + J_hot as measured."""
    j_sky = ch["observed"] + ch["j_hot"]
    off = (ch["t_rec"] + j_sky) ** 2 / (abs(ch["dnu"]) * ch["t_off"])
    hot = (ch["t_rec"] + ch["j_hot"]) ** 2 / (abs(ch["dnu"]) * ch["t_hot"])
    return float(off + hot)


def weight(ch: SkyChannel, pwv: float, eps: float) -> float:
    """Section 5: 1/sigma^2, or 0 where both sidebands are opaque."""
    if all(transmission(b, pwv, ch["airmass"]) < LOW_TRANSMISSION for b in ch["bqc"]):
        return 0.0
    return 1.0 / (noise_variance(ch) + model_sigma(ch, pwv, eps) ** 2)


def _residual(ch: SkyChannel, pwv: float) -> float:
    return float(ch["observed"] - (sky_temperature(ch, pwv, ch["airmass"]) - ch["j_hot"]))


def chi_square(channels: list[SkyChannel], weights: list[float], pwv: float) -> float:
    """Section 5: sum of w (S_obs - S_mod)^2."""
    return math.fsum(
        w * _residual(ch, pwv) ** 2 for ch, w in zip(channels, weights, strict=True) if w > 0
    )


def _gradient(channels: list[SkyChannel], weights: list[float], pwv: float) -> float:
    return math.fsum(
        -2.0 * w * _residual(ch, pwv) * slope(ch, pwv)
        for ch, w in zip(channels, weights, strict=True)
        if w > 0
    )


def _bisect(channels: list[SkyChannel], weights: list[float], lo: float, hi: float) -> float:
    """Zero of the gradient between ``lo`` and ``hi``; an end when there is none between them."""
    if _gradient(channels, weights, lo) >= 0:
        return lo
    if _gradient(channels, weights, hi) <= 0:
        return hi
    while hi - lo > 1e-14 * hi:
        mid = 0.5 * (lo + hi)
        if mid in (lo, hi):
            break
        if _gradient(channels, weights, mid) < 0:
            lo = mid
        else:
            hi = mid
    return 0.5 * (lo + hi)


def fit_pwv(
    channels: list[SkyChannel], pwv_range: tuple[float, float], eps: float = 0.05
) -> dict[str, float]:
    """Section 5: PWV by a grid and bisection, repeated until the weights stand still.

    ``channels`` are the good ones. Returns pwv, error (mm), chi2_dof, n_channels, poor (0 or 1).
    """
    lowest, highest = 0.5 * pwv_range[0], 2.0 * pwv_range[1]
    grid = [lowest * (highest / lowest) ** (i / 99.0) for i in range(100)]
    flat = [1.0 / noise_variance(ch) for ch in channels]
    best = min(range(100), key=lambda i: chi_square(channels, flat, grid[i]))
    pwv = grid[best]
    for _ in range(100):
        weights = [weight(ch, pwv, eps) for ch in channels]
        # a bracket around the present value that grows until the slope changes sign
        lo, hi = pwv, pwv
        for _ in range(400):
            down = lo > lowest and _gradient(channels, weights, lo) > 0
            up = hi < highest and _gradient(channels, weights, hi) < 0
            if not down and not up:
                break
            lo = max(lowest, lo / 1.1) if down else lo
            hi = min(highest, hi * 1.1) if up else hi
        new = _bisect(channels, weights, lo, hi)
        moved, pwv = abs(new - pwv), new
        if moved < 1e-12 * (1.0 + pwv):
            break
    used = [(ch, w) for ch, w in zip(channels, weights, strict=True) if w > 0]
    information = math.fsum(w * slope(ch, pwv) ** 2 for ch, w in used)
    n_channels = len({ch["channel"] for ch, _ in used})
    at_edge = pwv <= lowest * (1 + 1e-9) or pwv >= highest * (1 - 1e-9)
    return {
        "pwv": pwv,
        "error": 1.0 / math.sqrt(information) if information > 0 else math.inf,
        "chi2_dof": chi_square(channels, weights, pwv) / max(len(used) - 1, 1),
        "n_channels": float(n_channels),
        "poor": float(at_edge or n_channels < 16),
    }
