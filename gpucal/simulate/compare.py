"""Compare a calibrated store with the truth of the simulated night."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gpucal.axes import BLANKING, Flag
from gpucal.errors import L1Error
from gpucal.simulate.truth import Truth, load_truth

F64 = npt.NDArray[np.float64]

MOVED_SAMPLES = frozenset({"nod", "fsw", "wsw-chopped"})
"""Kinds whose L1 samples are not those of the ON subscan one by one: fills are not compared."""

DRIFT = 0.002
"""What the gain of a simulated receiver drifts between its loads and a scan, as a fraction; 0 with loads of its own."""

LINE_IN_REFERENCE = 0.002
"""By which fraction the line in the reference of a frequency-switched scan moves the fitted PWV."""


@dataclass(frozen=True)
class Deviation:
    """Deviation of L1 from the truth for one quantity of one scan and band, over ``count`` values.

    largest and rms in ``unit``; for flags ``largest`` is the number of disagreements and rms is 0. expected: the
    rms that the noise of the night explains, in ``unit``; sigmas: the largest deviation over what is expected of
    that very value. Both NaN where nothing is known, 0 without noise.
    """

    scan: int
    band: str
    quantity: str
    unit: str
    largest: float
    rms: float
    count: int
    expected: float = math.nan
    sigmas: float = math.nan


def compare_to_truth(
    l1_path: str | Path,
    truth_path: str | Path,
    *,
    scheme: str | None = None,
    folded: bool | None = None,
) -> list[Deviation]:
    """Compare every scan of an L1 store that is in the truth file.

    Channels that are bad in the truth or blanked in L1 are left out of the numbers; disagreements
    are counted under "bad channels". scheme "vane": compare with what that approximation returns;
    folded: frequency-switched spectra are folded (both default to what L1's attributes say).
    Raises L1Error when no scan is in both.
    """
    import zarr

    truths = load_truth(truth_path)
    root = zarr.open_group(str(l1_path), mode="r", use_consolidated=False)
    rows: list[Deviation] = []
    for scan, band in sorted(truths.entries):
        place = f"scan_{scan:06d}" + (f"/{band}" if band else "")
        if place not in root:
            continue
        group = root[place]
        attrs = {**dict(root[f"scan_{scan:06d}"].attrs), **dict(group.attrs)}
        chosen = scheme or str(_find(attrs, "cal_scheme") or "")
        fold = folded if folded is not None else _find(attrs, "folded", "fold") is not False
        loads = _find(attrs, "load_scans")
        drift = 0.0 if loads in (None, scan, [scan]) else DRIFT
        rows += _compare_scan(group, truths[scan, band], chosen, fold, drift)
    if not rows:
        raise L1Error(
            f"{l1_path} and {truth_path} have no scan in common.",
            hint="Calibrate the night that was simulated together with this truth file.",
        )
    return rows


def _find(attrs: Mapping[str, Any], *names: str) -> Any:
    """The first of ``names`` in the attributes or in a mapping inside them, else None."""
    for name in names:
        if name in attrs:
            return attrs[name]
    for value in attrs.values():
        if isinstance(value, Mapping):
            found = _find(value, *names)
            if found is not None:
                return found
    return None


def _compare_scan(
    group: Any, truth: Truth, scheme: str, fold: bool, drift: float
) -> list[Deviation]:
    """drift: of the gain since the loads, as a fraction; it adds to the expected errors."""
    rows = [_deviation(truth, *item) for item in _receivers(group, truth, drift)]
    rows += [_deviation(truth, *item) for item in _atmosphere(group, truth, drift)]
    return [*rows, *_per_subscan(group, truth, (scheme, fold, drift))]


def _deviation(
    truth: Truth, quantity: str, unit: str, difference: F64, sigma: F64 | None = None
) -> Deviation:
    sums = _Sums()
    sums.add(difference, sigma)
    return sums.row(truth, quantity, unit)


LINE_IN_REFERENCE = 1e-3
"""Part of the PWV by which a line of some kelvin in the reference phase of a switched frequency moves it."""


def _receivers(
    group: Any, truth: Truth, drift: float
) -> Iterator[tuple[str, str, F64, F64 | None]]:
    """(quantity, unit, L1 - truth, expected error) of T_rec and gamma, NaN in bad channels."""
    if truth.vane_tsys.size:
        return  # a vane measures neither
    for name in ("t_rec", "gamma"):
        if name in group:
            value = np.where(truth.bad, np.nan, group[name][...])
            sigma = None
            if name == "t_rec" and truth.t_rec_error.size:
                sigma = np.hypot(truth.t_rec_error, drift * truth.t_rec)
            yield name, "K", value - getattr(truth, name), sigma


def _atmosphere(
    group: Any, truth: Truth, drift: float
) -> Iterator[tuple[str, str, F64, F64 | None]]:
    """(quantity, unit, L1 - truth, expected error) of PWV and zenith opacities, in the shape that L1 has them."""
    if "pwv" in group:
        pwv = np.asarray(group["pwv"][...])
        mine = truth.pwv if pwv.ndim == 1 and pwv.shape == truth.pwv.shape else truth.pwv_mm
        # the inputs are exact here; stores of earlier versions have one error
        name = next((n for n in ("pwv_error_noise", "pwv_error") if n in group), "")
        error = np.asarray(group[name][...]) if name else None
        sigma = None if error is None or error.shape != pwv.shape else np.atleast_1d(error)
        if sigma is not None:  # one value stands for the drift of the water over the scan
            sigma = np.hypot(sigma, np.max(np.abs(truth.pwv - truth.pwv_mm)))
            if truth.kind == "fsw":
                sigma = np.hypot(sigma, LINE_IN_REFERENCE * truth.pwv_mm)
        if truth.noise.size and not truth.noise.any():
            sigma = np.zeros(np.atleast_1d(pwv).shape)
        if drift:
            sigma = None  # what it does to the water depends on how much of the sky is water
        yield "pwv", "mm", np.atleast_1d(pwv - mine), sigma
    for name in ("tau_signal", "tau_image"):
        mine = getattr(truth, name)
        if name in group and np.isfinite(mine).any():
            value = np.asarray(group[name][...])
            yield (
                name,
                "Np",
                value.reshape(value.shape[0], -1) - mine[:, : max(1, value[0].size)],
                None,
            )


class _Sums:
    """Largest and mean square deviation, gathered subscan by subscan."""

    def __init__(self) -> None:
        self.largest, self.square, self.count = 0.0, 0.0, 0
        self.variance, self.sigmas = 0.0, 0.0

    def add(self, difference: F64, sigma: F64 | None = None) -> None:
        """sigma: what is expected of each value, broadcast; None = not known."""
        here = np.isfinite(difference)
        good = np.abs(difference[here])
        if not good.size:
            return
        self.largest = max(self.largest, float(np.max(good)))
        self.square += float(np.sum(good**2))
        self.count += good.size
        expected = np.broadcast_to(math.nan if sigma is None else sigma, difference.shape)[here]
        self.variance += float(np.sum(expected**2))
        over = np.divide(good, expected, out=np.zeros_like(good), where=expected > 0)
        self.sigmas = max(self.sigmas, float(np.max(over)))

    def row(self, truth: Truth, quantity: str, unit: str = "K") -> Deviation:
        place = (truth.scan, truth.band, quantity, unit)
        if not self.count:
            return Deviation(*place, math.nan, math.nan, 0)
        rms, expected = math.sqrt(self.square / self.count), math.sqrt(self.variance / self.count)
        sigmas = self.sigmas if expected == expected else math.nan
        return Deviation(*place, self.largest, rms, self.count, expected, sigmas)


def _per_subscan(group: Any, truth: Truth, how: tuple[str, bool, float]) -> list[Deviation]:
    """Spectra, T_sys and flags, one ON subscan in memory at a time; how: scheme, fold, drift."""
    scheme, fold, drift = how
    spectra, flags = group["spectra"], group["flags"]
    line, t_sys = _Sums(), _Sums()
    name = "t_sys_star" if truth.vane_tsys.size else "t_sys"
    bad_mismatch, fill_mismatch = 0, 0
    for s, subscan in enumerate(np.asarray(group["on_index"][...]).tolist()):
        kelvin = np.asarray(spectra[..., s], dtype=np.float64)
        flag = np.asarray(flags[..., s])
        expected = _expected(truth, subscan, scheme, fold)
        sigma = _expected_noise(truth, subscan)
        if kelvin.shape[1] != expected.shape[1]:  # dumps were averaged over the chop cycle
            if sigma is not None:  # half of them in each phase
                sigma = sigma * 2.0 * math.sqrt(kelvin.shape[1] / (expected.shape[1] + 1.0))
            expected = np.mean(expected, axis=1, keepdims=True)
        if sigma is not None:
            sigma = np.hypot(sigma, drift * np.abs(np.nan_to_num(expected)))
            sigma = np.hypot(sigma, 0.1 * drift * truth.t_sys(subscan)[:, None])  # the reference
        blank = ((flag & int(BLANKING)) != 0) | truth.bad[:, None]
        line.add(np.where(blank, np.nan, kelvin - expected), sigma)
        if name in group and (not truth.vane_tsys.size or scheme == "vane"):
            mine = truth.t_sys(subscan)
            if truth.vane_tsys.size:  # of both a vane measures this one
                mine = truth.vane_tsys[:, truth.position(subscan)]
            error = _expected_t_sys(truth, subscan, drift)
            t_sys.add(np.where(truth.bad, np.nan, group[name][..., s] - mine), error)
        flagged = ((flag & int(Flag.BAD_CHANNEL)) != 0).any(axis=1)
        bad_mismatch += int(np.count_nonzero(flagged != truth.bad))
        if truth.kind not in MOVED_SAMPLES:
            fill_mismatch += _missing_fills(flag, truth, subscan)
    rows = [line.row(truth, "spectra")]
    if t_sys.count:
        rows.append(t_sys.row(truth, name))
    n = int(np.prod(flags.shape))
    if truth.kind != "fsw" or not fold:  # flags travel with the fold
        rows.append(_count(truth, "bad channels", bad_mismatch, n))
    if truth.kind not in MOVED_SAMPLES:
        rows.append(_count(truth, "fill values", fill_mismatch, n))
    return rows


def _expected(truth: Truth, subscan: int, scheme: str, fold: bool) -> F64:
    """T_A* that L1 should hold, f64 [C,D,R,A] K; with the bias of the scheme "vane" where that was used."""
    if truth.kind == "fsw" and fold:
        return truth.folded(subscan, scheme=scheme)
    return truth.t_a_star(subscan, scheme=scheme)


def _expected_noise(truth: Truth, subscan: int) -> F64 | None:
    """sigma of T_A* in a dump, f64 [C,1,R,A] K; None where the truth file does not tell."""
    if not truth.noise.size:
        return None
    return np.asarray(truth.noise[:, truth.position(subscan)] * truth.t_sys(subscan))[:, None]


def _expected_t_sys(truth: Truth, subscan: int, gain: float) -> F64 | None:
    """sigma of T_sys (DSB), f64 [C,R,A] K: that of T_rec, and the sky under a drift of the water and of the gain.

    The sky is at most proportional to the water. None with a vane.
    """
    if not truth.t_rec_error.size:
        return None
    s = truth.position(subscan)
    drift = abs(float(truth.pwv[s]) - truth.pwv_mm) / truth.pwv_mm if truth.noise.any() else 0.0
    return np.asarray(
        np.hypot(truth.t_rec_error, truth.sky[:, s] * drift + gain * truth.t_sys(subscan))
    )


def _missing_fills(flag: npt.NDArray[Any], truth: Truth, subscan: int) -> int:
    """Lost samples of an ON subscan that carry no FILL_VALUE in L1."""
    here = truth.fills[truth.fills[:, 4] == subscan]
    found = flag[here[:, 0], here[:, 1], here[:, 2], here[:, 3]] & int(Flag.FILL_VALUE)
    return int(np.count_nonzero(found == 0))


def _count(truth: Truth, quantity: str, mismatches: int, n: int) -> Deviation:
    """A row that counts disagreements among ``n`` values, given as its largest deviation."""
    return Deviation(truth.scan, truth.band, quantity, "", float(mismatches), 0.0, n)


def format_table(rows: Sequence[Deviation]) -> str:
    """The rows as a plain text table."""
    lines = [f"{'scan':>6} {'band':<8} {'quantity':<14}{'largest':>12}{'rms':>12} unit      values"]
    lines += [
        f"{r.scan:>6} {r.band:<8} {r.quantity:<14}{r.largest:>12.4g}{r.rms:>12.4g} "
        f"{r.unit:<5}{r.count:>11}"
        for r in rows
    ]
    return "\n".join(lines)
