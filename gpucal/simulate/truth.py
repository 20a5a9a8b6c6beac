"""Truth of a simulated scan: the values that calibration must return, and their file."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from gpucal.axes import ON_MODES
from gpucal.errors import ImportFormatError
from gpucal.physics.radiometry import T_BACKGROUND, airmass
from gpucal.simulate.counts import NOISE_BLOCK, ScanCounts
from gpucal.simulate.procedures import ProcedureTruth
from gpucal.simulate.receiver import GOOD
from gpucal.simulate.schedule import SubscanPlan

F64 = npt.NDArray[np.float64]
TRUTH_FORMAT = "gpucal-truth"
TRUTH_VERSION = 1


@dataclass(frozen=True, eq=False)
class Truth:
    """Truth of one band of one science scan.

    S = its ON subscans, in order (both nod positions of a chopped wobbler scan). T_A* is ``profile`` x
    ``amplitude``: see ``t_a_star``. P = 1 where pixels share a value.

    on_index      i32 [S]        subscan in L0
    frequency, image_frequency  f64 [C,R]  Hz
    profile       f64 [C,S,R,P]  K: T_A* of the source's peak, image lines as they leak in
    amplitude     f64 [D,S,R,A]  brightness of the source relative to its peak
    t_rec, gamma  f64 [C,R,A]    K (gamma: NaN with a vane)
    sky           f64 [C,S,R,P]  K: J_sky, so that T_sys (DSB) = t_rec + sky
    tau_signal, tau_image  f64 [C,R]  Np, zenith, at ``pwv_mm`` (image: NaN when r = 0)
    pwv_mm        f64 scalar     middle of the scan; pwv f64 [S] under each ON
    bad           bool [C,R,A]   defective channels
    fills         i64 [n,5]      lost samples (c,d,r,a,s) of the ON subscans, s as in L0
    vane_tsys     f64 [C,S,R,A]  T_sys* of the vane scheme (empty with a cold load)
    vane_ratio    f64 [C,S,R,A]  what that scheme returns over T_A* (empty with a cold load)
    folded_profile f64 [C,S,R,A] K: frequency-switched and folded (empty for other kinds)
    noise         f64 [C,S,R,P]  noise of T_A* in a dump over T_sys (DSB); 0 where none was added
    t_rec_error   f64 [C,R,A]    K: what the noise of the loads does to T_rec (empty with a vane)
    """

    scan: int
    band: str
    kind: str
    on_index: npt.NDArray[np.int32]
    frequency: F64
    image_frequency: F64
    profile: F64
    amplitude: F64
    t_rec: F64
    gamma: F64
    sky: F64
    tau_signal: F64
    tau_image: F64
    pwv_mm: float
    pwv: F64
    bad: npt.NDArray[np.bool_]
    fills: npt.NDArray[np.int64]
    vane_tsys: F64
    vane_ratio: F64
    folded_profile: F64
    noise: F64 = field(default_factory=lambda: np.empty(0))
    t_rec_error: F64 = field(default_factory=lambda: np.empty(0))

    def position(self, subscan: int) -> int:
        """Index of L0 subscan ``subscan`` among the ON subscans; KeyError when it is none."""
        where = np.flatnonzero(self.on_index == subscan)
        if where.size == 0:
            raise KeyError(f"subscan {subscan} of scan {self.scan} is not an ON subscan")
        return int(where[0])

    def t_a_star(self, subscan: int, *, scheme: str = "hot-cold") -> F64:
        """T_A* [C,D,R,A], K, of L0 subscan ``subscan``.

        Frequency-switched: the difference of the phases before folding. ``scheme`` "vane" gives
        what that approximation returns from perfect data; all others return T_A* itself.
        """
        s = self.position(subscan)
        result = self.profile[:, s][:, None] * self.amplitude[None, :, s]
        if scheme == "vane" and self.vane_ratio.size:
            result = result * self.vane_ratio[:, s][:, None]
        return np.asarray(result)

    def t_sys(self, subscan: int) -> F64:
        """T_sys (DSB) [C,R,A], K, under L0 subscan ``subscan``."""
        return np.asarray(self.t_rec + self.sky[:, self.position(subscan)])

    def folded(self, subscan: int, *, scheme: str = "hot-cold") -> F64:
        """Folded T_A* [C,D,R,A], K, of a frequency-switched subscan, on ``frequency``.

        NaN where the two phases do not overlap. Fractional shifts are perfect here. The scheme "vane"
        is followed but for the slope of its error between the line and its ghosts.
        """
        s = self.position(subscan)
        result = self.folded_profile[:, s][:, None] * self.amplitude[None, :, s]
        if scheme == "vane" and self.vane_ratio.size:
            result = result * self.vane_ratio[:, s][:, None]
        return np.asarray(result)


def make_truth(counts: ScanCounts) -> Truth:
    """Work out the truth of a science scan from the model that makes its counts."""
    m, plan = counts.model, counts.plan
    # a chopped subscan sees the source in either nod position
    on = [i for i, sub in enumerate(plan.source) if sub.mode in ON_MODES or sub.chop is not None]
    subs = [plan.source[i] for i in on]
    profile = [_profile(counts, sub) for sub in subs]
    # on a freely drifting sky the mean over the dumps stands for all of them
    sky = [np.mean(counts.sky(sub), axis=1) for sub in subs]
    folded = [_folded(counts, sub) for sub in subs] if plan.kind == "fsw" else []
    tau_signal, tau_image = m.zenith_tau(counts.conditions.pwv(plan.mid))
    if not m.g_img.any():
        tau_image = np.full_like(tau_image, np.nan)  # nothing is seen through it
    vane_tsys, vane_ratio = _vane(counts, on)
    return Truth(
        scan=plan.number,
        band=m.band.name,
        kind=plan.kind,
        on_index=np.array(on, dtype=np.int32),
        frequency=m.nu_sig,
        image_frequency=m.nu_img,
        profile=np.stack(profile, axis=1),
        amplitude=np.stack([_amplitude(counts, i) for i in on], axis=1),
        t_rec=m.t_rec,
        gamma=np.broadcast_to((m.j_hot - m.j_cold) / (m.g_sig * m.setup.f_eff), m.shape).copy(),
        sky=np.stack(sky, axis=1),
        tau_signal=tau_signal,
        tau_image=tau_image,
        pwv_mm=counts.conditions.pwv(plan.mid),
        pwv=np.array([counts.pwv(sub) for sub in subs]),
        bad=m.bad != GOOD,
        fills=_fills(counts, on),
        vane_tsys=vane_tsys,
        vane_ratio=vane_ratio,
        folded_profile=np.stack(folded, axis=1) if folded else np.empty(0),
        noise=np.stack([_noise(counts, sub) for sub in subs], axis=1),
        t_rec_error=_t_rec_error(counts),
    )


def _noise(counts: ScanCounts, sub: SubscanPlan) -> F64:
    """sigma(T_A*) / T_sys of a dump against the mean of as many dumps of an OFF, f64 [C,R,P]; physics equation (6.3).

    sqrt((1 + 1/D) / (dnu t)) / (g_s f_eff t_sig): exact for one OFF per ON of the same length, an estimate else.
    """
    m = counts.model
    t_sig = np.mean(counts.sidebands(sub, 0.0)[0], axis=1)[:, :, None]
    seen = m.g_sig * m.setup.f_eff * t_sig
    if not counts.recording.noise:
        return np.zeros_like(seen)
    rate = (1.0 + 1.0 / sub.dumps) / (abs(m.band.freq_res) * sub.exptime)
    return np.asarray(np.sqrt(rate) / seen)


def _t_rec_error(counts: ScanCounts) -> F64:
    """sigma(T_rec), f64 [C,R,A] K, of one hot and one cold load of ``cal_dumps`` dumps each.

    T_rec = (J_h C_c - J_c C_h) / (C_h - C_c), so that with sigma(C)/C = (dnu t)^-1/2 both loads contribute
    (T_rec + J_h) (T_rec + J_c) / (J_h - J_c) each.
    """
    m = counts.model
    if m.setup.loads.vane:
        return np.empty(0)
    if not counts.recording.noise:
        return np.zeros(m.shape)
    time = m.setup.timing.cal_dumps * float(np.float32(m.setup.timing.exptime))
    relative = np.sqrt(2.0 / (abs(m.band.freq_res) * time))
    return np.asarray(relative * (m.t_rec + m.j_hot) * (m.t_rec + m.j_cold) / (m.j_hot - m.j_cold))


def _profile(counts: ScanCounts, sub: SubscanPlan) -> F64:
    """T_A* of the source's peak, [C,R,P]; frequency-switched: SIG - REF, before folding.

    The factor F divides by the transmission of the unshifted channel, the line passed the air at its own
    frequency: their ratio stays in an unfolded spectrum.
    """
    own = counts.sidebands(sub, 0.0)[0][..., None]
    if not sub.mode.startswith("FSW"):
        return np.asarray(np.mean(counts.seen(sub, 0.0, 0.0) / own, axis=1))
    one, two = counts.model.band.throws
    difference = counts.seen(sub, one, one) - counts.seen(sub, two, two)
    return np.asarray(np.mean(difference / own, axis=1))


def _folded(counts: ScanCounts, sub: SubscanPlan) -> F64:
    """Folded T_A* of the source's peak, [C,R,A], with the weights 1/T_sys*^2; physics equation (7.3).

    (w_1 [tT(nu) - tT(nu-f)] + w_2 [tT(nu) - tT(nu+f)]) / (w_1 + w_2) / t(nu), f the difference of the
    throws: the ghosts stay in the spectrum. The image frequency moves the other way, so what an
    image line leaves is smeared to nu_img + 2 throw and nu_img + throw_1 + throw_2.
    """
    m = counts.model
    one, two = m.band.throws
    ghost = one + two
    first = counts.seen(sub, 0.0, 2.0 * one) - counts.seen(sub, two - one, ghost)
    second = counts.seen(sub, 0.0, 2.0 * two) - counts.seen(sub, one - two, ghost)
    own = np.mean(counts.sidebands(sub, 0.0)[0], axis=1)[:, :, None]
    t_sys = (m.t_rec + np.mean(counts.sky(sub), axis=1)) / (m.g_sig * own)
    weights = []
    for throw in (one, two):
        channel = np.arange(m.shape[0]) - int(np.floor(throw / m.band.freq_res + 0.5))
        inside = (channel >= 0) & (channel < m.shape[0])
        weight = t_sys[np.clip(channel, 0, m.shape[0] - 1)] ** -2.0
        weights.append(np.where(inside[:, None, None], weight, np.nan))
    total = weights[0] * np.mean(first, axis=1) + weights[1] * np.mean(second, axis=1)
    return np.asarray(total / (weights[0] + weights[1]) / own)


def _amplitude(counts: ScanCounts, number: int) -> F64:
    """Brightness of the source relative to its peak, [D,R,A]; when nodding positive in both positions."""
    sub = counts.plan.source[number]
    beam = counts.footprint(sub)
    if counts.plan.kind == "nod":
        beam = np.maximum(beam, counts.footprint(counts.plan.source[number + 1]))
    return beam


def _fills(counts: ScanCounts, on: list[int]) -> npt.NDArray[np.int64]:
    """Lost samples of the ON subscans, i64 [n,5]: c, d, r, a, s, with s as in L0."""
    c, *rest = counts.shape("source")[:4]
    rows = [np.empty((0, 5), dtype=np.int64)]
    for s in on:
        for block, c0 in enumerate(range(0, c, NOISE_BLOCK)):
            flat = counts.fills("source", s, block)
            place = np.unravel_index(flat, (min(NOISE_BLOCK, c - c0), *rest))
            row = np.stack([*place, np.full(flat.shape, s)], axis=1)
            row[:, 0] += c0
            rows.append(row)
    return np.concatenate(rows)


def _vane(counts: ScanCounts, on: list[int]) -> tuple[F64, F64]:
    """T_sys* of the vane scheme and its T_A* over the true one, f64 [C,S,R,A]; physics equations (9.1) to (9.3).

    T_cal = (T_atm-T_bg) + (T_warm-T_atm) exp(A tau); T_sys* = T_cal <C_off>/<C_vane-C_off>, means over
    the inner 80 % of the channels, good ones only; tau is its mean over them too. The reference of a
    frequency-switched scan holds the line.
    """
    m, plan = counts.model, counts.plan
    if not m.setup.loads.vane:
        return np.empty(0), np.empty(0)
    t_atm = float(np.float32(m.setup.weather.t_amb))
    t_warm = float(np.float32(m.setup.loads.t_hot))
    inner = slice(m.shape[0] // 10, m.shape[0] - m.shape[0] // 10)
    good = np.where(m.bad == GOOD, 1.0, np.nan)[inner]
    t_sys, ratios = [], []
    for number in on:
        sub = plan.source[number]
        sky = np.mean(counts.sky(sub), axis=1)
        if plan.kind == "fsw":
            line = counts.peak_input(plan.source[number + 1])
            sky = sky + np.mean(line * counts.footprint(sub), axis=1)
        t_sig = np.mean(counts.sidebands(sub, 0.0)[0], axis=1)[:, :, None]
        tau = np.mean(m.zenith_tau(counts.pwv(sub))[0][inner], axis=0)[:, None]
        slant = float(np.mean(airmass(counts.elevation(sub)))) * tau
        t_cal = (t_atm - T_BACKGROUND) + (t_warm - t_atm) * np.exp(slant)
        off = np.nanmean((m.gain * (m.t_rec + sky))[inner] * good, axis=0)
        step = np.nanmean((m.gain * (m.j_hot - sky))[inner] * good, axis=0)
        t_sys.append(np.broadcast_to(t_cal * off / step, m.shape))
        ratios.append(t_sys[-1] * m.g_sig * m.setup.f_eff * t_sig / (m.t_rec + sky))
    return np.stack(t_sys, axis=1), np.stack(ratios, axis=1)


SHARED = ("frequency", "image_frequency", "t_rec", "gamma", "bad")
"""Arrays that hold for the whole night and are written once per band."""


class TruthWriter:
    """Writer of truths, one by one, into an .npz file; a context manager.

    Entries: ``band/NAME`` (shared arrays) and ``SCAN/band/NAME``; ``index`` is a JSON text.
    """

    def __init__(self, path: str | Path) -> None:
        self._zip = zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1)
        self._seen: set[str] = set()
        self._scans: list[dict[str, Any]] = []
        self._procedures: list[dict[str, Any]] = []

    def __enter__(self) -> TruthWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        index: dict[str, Any] = {
            "format": TRUTH_FORMAT,
            "version": TRUTH_VERSION,
            "scans": self._scans,
        }
        index["procedures"] = self._procedures
        self._put("index", np.array(json.dumps(index)))
        self._zip.close()

    def add(self, truth: Truth) -> None:
        """Append one band of one scan."""
        entry = {"scan": truth.scan, "band": truth.band, "kind": truth.kind}
        self._scans.append({**entry, "pwv_mm": truth.pwv_mm})
        for name, value in _arrays(truth):
            key = _key(truth.scan, truth.band, name)
            if key not in self._seen:
                self._seen.add(key)
                self._put(key, value)

    def add_procedure(self, truth: ProcedureTruth | None) -> None:
        """Append what a pointing, focus or skydip must find in one band; None: the scan is none of them."""
        if truth is not None:
            self._procedures.append(truth.record())

    def _put(self, key: str, value: npt.NDArray[Any]) -> None:
        with self._zip.open(f"{key}.npy", "w", force_zip64=True) as file:
            np.lib.format.write_array(file, value, allow_pickle=False)


def _arrays(truth: Truth) -> Iterator[tuple[str, npt.NDArray[Any]]]:
    for item in fields(truth):
        value = getattr(truth, item.name)
        if isinstance(value, np.ndarray):
            yield item.name, value


def _key(scan: int, band: str, name: str) -> str:
    """Name of an array in the file; a shared one stands there once for all scans."""
    place = band or "band"
    return f"{place}/{name}" if name in SHARED else f"{scan}/{place}/{name}"


@dataclass(frozen=True, eq=False)
class TruthFile:
    """An opened truth file: ``truths[scan, band]``; band is "" where a scan has only one.

    ``procedures[scan, band]``: what a pointing, focus or skydip must find.
    """

    path: Path
    entries: Mapping[tuple[int, str], Mapping[str, Any]]
    procedures: Mapping[tuple[int, str], ProcedureTruth] = field(default_factory=dict)

    def __getitem__(self, key: tuple[int, str]) -> Truth:
        scan, band = key
        entry = self.entries[key]
        with np.load(self.path, allow_pickle=False) as stored:
            names = [f.name for f in fields(Truth)]
            arrays = {
                n: stored[_key(scan, band, n)] for n in names if _key(scan, band, n) in stored
            }
        return Truth(scan=scan, band=band, kind=entry["kind"], pwv_mm=entry["pwv_mm"], **arrays)

    def __contains__(self, key: tuple[int, str]) -> bool:
        return key in self.entries


def load_truth(path: str | Path) -> TruthFile:
    """Open a truth file written by ``gpucal simulate --truth``.

    Raises ImportFormatError when the file is not one.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            index = json.loads(str(stored["index"]))
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise ImportFormatError(
            f"{path} is not a truth file.", hint="Make one with gpucal simulate --truth."
        ) from error
    if index.get("format") != TRUTH_FORMAT or index.get("version") != TRUTH_VERSION:
        raise ImportFormatError(
            f"{path} has format {index.get('format')} {index.get('version')}, expected "
            f"{TRUTH_FORMAT} {TRUTH_VERSION}."
        )
    entries = {(e["scan"], e["band"]): e for e in index["scans"]}
    found = [ProcedureTruth(**record) for record in index.get("procedures", ())]
    return TruthFile(Path(path), entries, {(t.scan, t.band): t for t in found})
