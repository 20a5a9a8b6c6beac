"""Independent oracle, part 3: references and the whole calibration (physics sections 6 and 7).

Written from the physics page alone (section numbers in each function), in float64 scalar loops,
slow and obvious on purpose. It imports nothing of the package; NumPy arrays are containers only.
Parts 1 and 2 are ``oracle_sky`` and ``oracle_loads``. Axes: [C, D, R, A, S].

A group (source or calibration) is a dict: counts [C,D,R,A,S]; sobsmode, S strings; mjd, exptime,
elevation [D,S] (days, s, rad); a source has signal_freq, image_freq, freq_res, ref_channel [R] (Hz,
0-based) and optionally nod_beams; a calibration has t_hot, t_cold [R] (K).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from oracle import sky
from oracle.loads import NAN, channel_frequencies, drift_corrected, mean, solve_loads, to_counts

BAD_CHANNEL, FILL_VALUE, ELEVATION_LOW = 1, 2, 32
LOW_TRANSMISSION, REFERENCE_EXTRAPOLATED, ATMOSPHERE_POOR, CAL_STALE = 256, 512, 1024, 2048

DEFAULTS: dict[str, Any] = {
    "mode": "tp",
    "f_eff": 1.0,
    "gain_image": 1.0,
    "t_amb": 280.0,
    "t_atm": None,
    "pwv": "fit",
    "pwv_scope": "full",
    "pwv_range": (0.1, 5.0),
    "airmass": "plane",
    "opacity_trust": 0.05,
    "reference": "linear",
    "clip_counts": 0.01,
    "clip_trec": 20000.0,
    "clip_tsys": 200.0,
    "line_scale": "ssb",
    "h_over_k": sky.PLANCK / sky.BOLTZMANN,
    "elevation_low": 10.0,
    "cal_stale": False,
}


# ---- section 5: the PWV of a scan


def sky_of(
    source: dict[str, Any], loads: dict[str, Any], par: dict[str, Any], index: tuple[int, int, int]
) -> sky.SkyChannel:
    """The sky channel of one (c, r, a); par["opacity"] is [3,2,J,C,R]: b, q, c of points j.

    par["emission"], where it is given, is [5,2,J,C,R]: what ``sky.Layers`` holds.
    """
    c, r, a = index
    table = par["opacity"]
    bqc = tuple(
        [tuple(float(table[i, k, j, c, r]) for i in range(3)) for j in range(table.shape[2])]
        for k in (0, 1)
    )
    temperatures = {
        "t_atm": par["t_atm"] or par["t_amb"],
        "t_amb": par["t_amb"],
        "h_over_k": par["h_over_k"],
    }
    gain = (float(loads["g_s"][c, r, a]), float(loads["g_i"][c, r, a]))
    nu = channel_frequencies(source, c, r)
    layers = sky.layers_of(par.get("emission"), c, r)
    return sky.sky_channel(nu, gain, temperatures, f_eff=par["f_eff"], bqc=bqc, layers=layers)


def fit_scope(
    source: dict[str, Any],
    cal: dict[str, Any],
    loads: dict[str, Any],
    par: dict[str, Any],
    offs: list[int],
    pixels: list[tuple[int, int]],
) -> dict[str, float]:
    """Section 5: one fit over all good channels of ``pixels`` and the OFF subscans ``offs``."""
    channels = []
    hots = [s for s, m in enumerate(cal["sobsmode"]) if m == "HOT"]
    t_hot = math.fsum(float(t) for s in hots for t in cal["exptime"][:, s])
    for s in offs:
        air = sky.airmass(mean(source["elevation"][:, s]), par["airmass"])
        t_off = math.fsum(float(t) for t in source["exptime"][:, s])
        for c, (r, a) in ((c, p) for c in range(source["counts"].shape[0]) for p in pixels):
            off = off_mean(source, c, r, a, s)
            if loads["bad"][c, r, a] or math.isnan(off):
                continue
            ch = sky_of(source, loads, par, (c, r, a))
            hot, cold = float(loads["hot"][c, r, a]), float(loads["cold"][c, r, a])
            j_hot, j_cold = float(loads["j_hot"][c, r, a]), float(loads["j_cold"][c, r, a])
            ch["observed"] = (off - hot) * (j_hot - j_cold) / (hot - cold)
            ch.update(channel=c, j_hot=j_hot, t_rec=float(loads["t_rec"][c, r, a]))
            ch.update(airmass=air, dnu=float(source["freq_res"][r]), t_off=t_off, t_hot=t_hot)
            channels.append(ch)
    return sky.fit_pwv(channels, par["pwv_range"], par["opacity_trust"])


# ---- section 7: reference


def middle(group: dict[str, Any], s: int) -> float:
    """MJD of the middle of a subscan."""
    return 0.5 * (float(group["mjd"][0, s]) + float(group["mjd"][-1, s]))


def nearest(source: dict[str, Any], s: int, candidates: list[int]) -> int:
    """Section 7: the candidate subscan nearest in time, the earlier one of two equal."""
    return min(candidates, key=lambda o: (abs(middle(source, o) - middle(source, s)), o))


def bracket(source: dict[str, Any], s: int, offs: list[int]) -> tuple[int, int]:
    """Section 7: the last OFF before and the first after; twice the same when one is missing."""
    before = [o for o in offs if middle(source, o) <= middle(source, s)]
    after = [o for o in offs if middle(source, o) > middle(source, s)]
    first = max(before, key=lambda o: middle(source, o), default=None)
    second = min(after, key=lambda o: middle(source, o), default=None)
    if first is None and second is None:
        raise ValueError("no OFF")
    return (
        first if first is not None else second,  # type: ignore[return-value]
        second if second is not None else first,
    )


def blend(one: float, two: float, w: float) -> float:
    """Section 7: (1-w) OFF_1 + w OFF_2; where one is NaN the other is taken."""
    if math.isnan(one) or math.isnan(two):
        return two if math.isnan(one) else one
    return (1.0 - w) * one + w * two


def off_mean(source: dict[str, Any], c: int, r: int, a: int, s: int) -> float:
    """Section 7: NaN-aware mean over the dumps of one subscan."""
    counts = source["counts"]
    return mean(counts[c, d, r, a, s] for d in range(counts.shape[1]))


Reference = Callable[[int, int, int, int], float]


def total_power_reference(
    source: dict[str, Any], s: int, offs: list[int], how: str
) -> tuple[Reference, bool]:
    """Section 7: the reference of ON subscan ``s`` as a function of (c, d, r, a), and bit 9."""
    first, second = bracket(source, s, offs)
    off = cache(lambda c, r, a, o: off_mean(source, c, r, a, o))
    if how == "nearest":
        chosen = nearest(source, s, offs)
        return lambda c, d, r, a: off(c, r, a, chosen), first == second
    if first == second:
        return lambda c, d, r, a: off(c, r, a, first), True
    t1, t2 = middle(source, first), middle(source, second)

    def interpolated(c: int, d: int, r: int, a: int) -> float:
        now = float(source["mjd"][d, s]) if how == "per-dump" else middle(source, s)
        pair = [off(c, r, a, o) for o in (first, second)]
        return blend(pair[0], pair[1], (now - t1) / (t2 - t1))

    return interpolated, False


def dump_reference(source: dict[str, Any], off: int) -> Reference:
    """Section 7: per-dump subtraction of subscan ``off``."""
    return lambda c, d, r, a: float(source["counts"][c, d, r, a, off])


Couple = tuple[int, int, Reference, bool, list[int]]
"""ON subscan, its OFF nearest in time, reference, bit 9, the OFFs that the reference is made of."""


def pairs(source: dict[str, Any], par: dict[str, Any]) -> list[Couple]:
    """Section 7: how each ON gets its reference, in the order of the ONs."""
    modes, out = list(source["sobsmode"]), []
    ons = [s for s, m in enumerate(modes) if m.endswith("-ON") or m in ("ON", "FSW-SIG")]
    for n, s in enumerate(ons):
        if par["mode"] == "fsw":
            off = [o for o, m in enumerate(modes) if m == "FSW-REF"][n]
            out.append((s, off, dump_reference(source, off), False, [off]))
            continue
        own = modes[s][:-2] + "OFF" if modes[s].endswith("ON") else "OFF"
        offs = [o for o, m in enumerate(modes) if m == own]
        off = nearest(source, s, offs)
        if par["mode"] in ("otf-chopped", "wsw"):
            out.append((s, off, dump_reference(source, off), False, [off]))
        else:
            reference, alone = total_power_reference(source, s, offs, par["reference"])
            used = [off] if par["reference"] == "nearest" else list(bracket(source, s, offs))
            out.append((s, off, reference, alone, used))
    return out


def nod_counts(source: dict[str, Any]) -> tuple[dict[str, Any], list[tuple[int, int]]]:
    """Section 7: n-th NOD-1 with n-th NOD-2, exchanged for the pixel of the second beam.

    Returns the source in which the counts of that pixel (all its receivers look the same way) are
    exchanged between the two positions, and the pairs of subscans.
    """
    modes = list(source["sobsmode"])
    one = [s for s, m in enumerate(modes) if m == "NOD-1"]
    two = [s for s, m in enumerate(modes) if m == "NOD-2"]
    couples = list(zip(one, two, strict=False))
    out = np.array(source["counts"], dtype=np.float64)
    a = source["nod_beams"][1][1]
    for s, o in couples:
        out[:, :, :, a, s] = source["counts"][:, :, :, a, o]
        out[:, :, :, a, o] = source["counts"][:, :, :, a, s]
    return {**source, "counts": out}, couples


def wobbler_cycles(values: list[float], phase: list[int]) -> list[float]:
    """Section 7: mean(ON) - mean(OFF) of each cycle of one subscan; phase 0 is ON, 1 OFF.

    A cycle is a run of ON dumps with the run of OFF dumps beside it, in the order of time.
    """
    runs: list[tuple[int, list[float]]] = []
    for v, p in zip(values, phase, strict=True):
        if not runs or runs[-1][0] != p:
            runs.append((p, []))
        runs[-1][1].append(v)
    out = []
    for i in range(0, len(runs) - 1, 2):
        pair = {runs[i][0]: mean(runs[i][1]), runs[i + 1][0]: mean(runs[i + 1][1])}
        out.append(pair[0] - pair[1])
    return out


def merge_beams(spectra_a: Any, spectra_b: Any, flags_a: Any, flags_b: Any) -> tuple[Any, Any]:
    """Section 7, DBS: 0.5 (A + B), n-th A with n-th B, flags OR-ed; all [C,D,R,A,S]."""
    spectra, flags = np.empty(spectra_a.shape), np.empty(flags_a.shape, dtype=np.uint16)
    for i in np.ndindex(spectra_a.shape):
        spectra[i] = 0.5 * (float(spectra_a[i]) + float(spectra_b[i]))
        flags[i] = int(flags_a[i]) | int(flags_b[i])
    return spectra, flags


# ---- section 6: the calibrated spectrum


def expected_rms(t_sys_star: float, t_on: float, offs: Any, w: float, dnu: float) -> float:
    """Section 6: rms of T_A*, K; ``offs`` = (t_1, t_2), s."""
    off = (1.0 - w) ** 2 / offs[0] + w**2 / offs[1]
    return t_sys_star * math.sqrt(1.0 / t_on + off) / math.sqrt(abs(dnu))


def t_sys_star(t_rec: float, ch: sky.SkyChannel, pwv: float, air: float) -> float:
    """Section 6: (T_rec + J_sky)/(g_s f_eff t_sig), K."""
    scale = ch["gain"][0] * ch["f_eff"] * sky.transmission(ch["bqc"][0], pwv, air)
    return float((t_rec + sky.sky_temperature(ch, pwv, air)) / scale)


def _atmospheres(
    source: dict[str, Any],
    cal: dict[str, Any],
    loads: dict[str, Any],
    par: dict[str, Any],
    couples: list[Couple],
) -> Callable[[int, int, int], tuple[float, bool]]:
    """Section 5, scopes: (PWV, poor) as a function of (n-th ON, r, a)."""
    _, _, receivers, pixels, _ = source["counts"].shape
    everything = [(r, a) for r in range(receivers) for a in range(pixels)]
    if par["pwv"] != "fit":
        return lambda n, r, a: (float(par["pwv"]), False)
    offs = sorted({off for couple in couples for off in (couple[1], *couple[4])})
    fits: dict[Any, dict[str, float]] = {}

    def solve(n: int, r: int, a: int) -> tuple[float, bool]:
        key = {"full": 0, "per-pixel": (r, a), "per-pair": couples[n][1]}[par["pwv_scope"]]
        if key not in fits:
            chosen = [couples[n][1]] if par["pwv_scope"] == "per-pair" else offs
            where = [(r, a)] if par["pwv_scope"] == "per-pixel" else everything
            fits[key] = fit_scope(source, cal, loads, par, chosen, where)
        return fits[key]["pwv"], fits[key]["poor"] > 0

    return solve


def _calibrate(
    source: dict[str, Any],
    loads: dict[str, Any],
    par: dict[str, Any],
    couples: list[Couple],
    solve: Callable[[int, int, int], tuple[float, bool]],
) -> dict[str, Any]:
    """Section 6: spectra, flags, t_sys, pwv for each ON."""
    n, dumps, receivers, pixels, _ = source["counts"].shape
    spectra = np.full((n, dumps, receivers, pixels, len(couples)), NAN)
    flags = np.zeros(spectra.shape, dtype=np.uint16)
    t_sys = np.full((n, receivers, pixels, len(couples)), NAN)
    pwv_used = np.full((receivers, pixels, len(couples)), NAN)
    for i, (s, _, reference, alone, _) in enumerate(couples):
        elevation = mean(source["elevation"][:, s])
        air = sky.airmass(elevation, par["airmass"])
        common = REFERENCE_EXTRAPOLATED if alone else 0
        common |= ELEVATION_LOW if math.degrees(elevation) < par["elevation_low"] else 0
        common |= CAL_STALE if par["cal_stale"] else 0
        for c, r, a in np.ndindex(n, receivers, pixels):
            pwv, poor = solve(i, r, a)
            pwv_used[r, a, i] = pwv
            ch = sky_of(source, loads, par, (c, r, a))
            t_sig = sky.transmission(ch["bqc"][0], pwv, air)
            span = float(loads["hot"][c, r, a] - loads["cold"][c, r, a])
            bad = bool(loads["bad"][c, r, a])
            base = common | (ATMOSPHERE_POOR if poor else 0) | (BAD_CHANNEL if bad else 0)
            base |= LOW_TRANSMISSION if t_sig < sky.LOW_TRANSMISSION else 0
            t_sys[c, r, a, i] = loads["t_rec"][c, r, a] + sky.sky_temperature(ch, pwv, air)
            for d in range(dumps):
                on, ref = float(source["counts"][c, d, r, a, s]), reference(c, d, r, a)
                lost = math.isnan(on) or (math.isnan(ref) and not bad)
                flags[c, d, r, a, i] = base | (FILL_VALUE if lost else 0)
                if not bad and not lost:
                    factor = float(loads["gamma"][c, r, a]) / span / t_sig
                    spectra[c, d, r, a, i] = (on - ref) * factor
    return {"spectra": spectra, "flags": flags, "t_sys": t_sys, "pwv": pwv_used}


def calibrate_scan_oracle(
    source: dict[str, Any],
    cal: dict[str, Any],
    later_cal: dict[str, Any] | None = None,
    gain_interpolate: int = 0,
    **parameters: Any,
) -> dict[str, Any]:
    """HOT/COLD calibration of one scan; parameters as in ``DEFAULTS``, plus opacity [3,2,J,C,R].

    ``later_cal`` with ``gain_interpolate`` 2 (ON) or 3 (ON and OFF) applies section 8. Returns
    spectra and flags [C,D,R,A,S_on], t_rec, gamma and bad [C,R,A], t_sys [C,R,A,S_on] (DSB), pwv
    [R,A,S_on], tau_signal and tau_image [C,R] (at the PWV of the first pixel and ON), on_index,
    off_index.
    """
    par = {**DEFAULTS, **parameters}
    source = {**source, "counts": to_counts(source["counts"])}
    cal = {**cal, "counts": to_counts(cal["counts"])}
    loads = solve_loads(source, cal, par)
    if gain_interpolate and later_cal is not None:
        later = {**later_cal, "counts": to_counts(later_cal["counts"])}
        which = "on" if gain_interpolate == 2 else "both"
        source, hot, cold = drift_corrected(source, (cal, later), which)
        loads = solve_loads(source, cal, par, (hot, cold))
    if par["mode"] == "nod":
        source, two = nod_counts(source)
        couples = [
            (s, o, total_power_reference(source, s, [o], "nearest")[0], False, [o]) for s, o in two
        ]
    else:
        couples = pairs(source, par)
    solve = _atmospheres(source, cal, loads, par, couples)
    out = _calibrate(source, loads, par, couples, solve)
    n, _, receivers, _, _ = source["counts"].shape
    for k, name in enumerate(("tau_signal", "tau_image")):
        out[name] = np.empty((n, receivers))
        for c, r in np.ndindex(n, receivers):
            bqc = sky_of(source, loads, par, (c, r, 0))["bqc"][k]
            out[name][c, r] = sky.zenith_opacity(bqc, float(out["pwv"][0, 0, 0]))
    for name in ("t_rec", "gamma", "bad"):
        out[name] = loads[name]
    out["on_index"] = [p[0] for p in couples]
    out["off_index"] = [p[1] for p in couples]
    return out
