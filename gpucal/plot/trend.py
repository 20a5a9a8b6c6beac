"""The night: water, opacity, temperatures, flags, noise and age of the loads against time."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gpucal.plot.source import F64, ScanView, frequency_axis, t_sys_name
from gpucal.plot.style import MARKERS, OKABE_ITO, T_REC, note_in, picture, say_in

MJD_EPOCH = datetime.date(1858, 11, 17)
LONG_DAYS = 2.0
"""Above this span the time axis counts days instead of hours."""
STEPS_MIN = (1, 2, 5, 10, 15, 30, 60, 120, 180, 360, 720)
"""Distances of the ticks of the time axis, minutes."""
MAX_TICKS = 9
MAX_NUMBERS = 40
"""Scan numbers that have room above the picture."""
NAN = float("nan")


class Point(NamedTuple):
    """The values of one scan and band in the picture of the night."""

    number: int
    band: str
    mjd: float
    air: str
    tau: float
    tau_error: float
    t_rec: float
    t_sys: float
    t_sys_name: str
    flagged: float
    rms: tuple[float, float, float]
    pwv_mjd: F64
    pwv: F64
    pwv_error: F64
    age: float = NAN
    pwv_noise: float = NAN


def plot_night(
    views: Sequence[ScanView],
    path: Path,
    title: str,
    ages: Mapping[tuple[int, str], float] | None = None,
) -> None:
    """Draw PWV, zenith opacity, T_rec and T_sys, flagged fraction and rms ratio per scan.

    ``ages``: minutes since the load, by scan and band; they get a panel of their own.
    """
    found = [
        _point(view, NAN if ages is None else ages.get((view.number, view.band), NAN))
        for view in views
    ]
    points = _with_tau_errors([p for p in found if np.isfinite(p.mjd)])
    names = ["PWV [mm]", "zenith opacity [Np]", "T [K]", "flagged [%]", "rms / expected"]
    names += ["load age [min]"] if ages is not None else []
    bands = sorted({p.band for p in points})
    with picture(path, (8.5, 0.8 + 1.65 * len(names)), title) as figure:
        panels = list(figure.subplots(len(names), 1, sharex=True))
        origin, scale, label = _time_axis(points)
        for number, band in enumerate(bands):
            mine = [p for p in points if p.band == band]
            style = {
                "marker": MARKERS[number % len(MARKERS)],
                "color": OKABE_ITO[number % len(OKABE_ITO)],
                "linestyle": "none",
                "markersize": 5.0,
            }
            _draw_band(panels, mine, style, band, origin=origin, scale=scale)
        for axes, name in zip(panels, names, strict=True):
            axes.set_ylabel(name)
            axes.ticklabel_format(axis="y", useOffset=False)
        panels[4].axhline(1.0, color="#777777", linewidth=0.8)
        panels[-1].set_xlabel(label)
        _mark_times(panels, points, origin, scale)
        _explain(panels, points, bands)


def _point(view: ScanView, age: float = NAN) -> Point:
    """The values of one scan for the picture of the night."""
    mjd = view.per_subscan("mjd")
    pwv, error = view.small("pwv"), view.small("pwv_error")
    noise = view.small("pwv_error_noise")  # earlier stores have one error
    noise = error if noise is None else noise
    when = np.array([_median(mjd)])
    if pwv is None:
        pwv, error = np.array([]), None
    if pwv.size and pwv.shape == (view.shape[4],):
        when, values = mjd.mean(axis=0), pwv
        errors = error if error is not None else np.full_like(values, np.nan)
    else:
        values = np.array([_median(pwv)])
        errors = np.array([NAN if error is None else _median(error)])
    ratio = view.quality("rms_ratio")
    ratio = ratio[np.isfinite(ratio)]
    spread = np.percentile(ratio, [16, 50, 84]) if ratio.size else np.full(3, np.nan)
    tau = view.small("tau_signal")
    return Point(
        number=view.number,
        band=view.band,
        mjd=_median(mjd),
        air=f"{view.attrs.get('atmosphere_sha256', '')} {_setup(view)}",
        tau_error=NAN,
        age=age,
        tau=NAN if tau is None else _median(tau),
        t_rec=_median(view.quality("t_rec_median")),
        t_sys=_median(view.quality("t_sys_median")),
        t_sys_name=t_sys_name(view),
        flagged=100.0 * _median(view.quality("flagged_fraction")),
        rms=(float(spread[0]), float(spread[1]), float(spread[2])),
        pwv_mjd=when,
        pwv=values,
        pwv_error=errors,
        pwv_noise=NAN if noise is None else _median(noise),
    )


def _with_tau_errors(points: Sequence[Point]) -> list[Point]:
    """Add the error of the opacity, |d tau / d PWV| times that of the PWV.

    The slope is that of the scans of one band, table and tuning themselves, where tau is a smooth function
    of PWV alone; without two different PWVs there is no error.
    """
    out = []
    for point in points:
        same = [p for p in points if (p.band, p.air) == (point.band, point.air)]
        pwv = np.array([_median(p.pwv) for p in same])
        tau = np.array([p.tau for p in same])
        good = np.isfinite(pwv) & np.isfinite(tau)
        error = _median(point.pwv_error)
        if good.sum() > 1 and np.ptp(pwv[good]) > 3.0 * point.pwv_noise:
            slope = float(np.polyfit(pwv[good], tau[good], 1)[0])
            point = point._replace(tau_error=abs(slope) * error)
        out.append(point)
    return out


def _setup(view: ScanView) -> int:
    """A number that is the same for scans at one frequency: steps of 0.1 % in frequency."""
    frequency = _median(frequency_axis(view))
    return round(float(np.log(frequency)) * 1e3) if frequency > 0 else 0


def _median(values: F64) -> float:
    finite = values[np.isfinite(values)]
    return float(np.median(finite)) if finite.size else NAN


def _time_axis(points: Sequence[Point]) -> tuple[float, float, str]:
    """Origin (MJD), units per day and label of the time axis."""
    times = np.concatenate([[p.mjd for p in points], *(p.pwv_mjd for p in points)])
    times = times[np.isfinite(times)]
    if times.size == 0:
        return 0.0, 1.0, "MJD"
    if np.ptp(times) > LONG_DAYS:
        return 0.0, 1.0, "MJD [d], UTC"
    day = float(np.floor(times.min()))
    date = MJD_EPOCH + datetime.timedelta(days=day)
    last = MJD_EPOCH + datetime.timedelta(days=float(np.floor(times.max())))
    until = f" to {last.isoformat()}" if last > date else ""
    return day, 24.0, f"UTC [hh:mm], {date.isoformat()}{until} (MJD {day:.0f})"


def _mark_times(panels: list[Any], points: Sequence[Point], origin: float, scale: float) -> None:
    """Ticks as hh:mm below, and the numbers of the scans above."""
    times = np.concatenate([[p.mjd for p in points], *(p.pwv_mjd for p in points)])
    x = (times[np.isfinite(times)] - origin) * scale
    if not x.size:
        return
    least = 0.05 if scale == 1.0 else 5.0 / 60.0
    margin = max(0.04 * float(np.ptp(x)), least)
    low, high = float(x.min()) - margin, float(x.max()) + margin
    panels[-1].set_xlim(low, high)
    if scale != 1.0:
        step = next((s for s in STEPS_MIN if (high - low) * 60 / s <= MAX_TICKS), STEPS_MIN[-1])
        ticks = np.arange(np.ceil(low * 60 / step), np.floor(high * 60 / step) + 1) * step / 60
        panels[-1].set_xticks(ticks, labels=[_clock(t) for t in ticks])
    place = {p.number: (p.mjd - origin) * scale for p in points}
    top = panels[0].secondary_xaxis("top")
    top.set_xticks(list(place.values()), minor=True)
    shown: list[int] = []
    for number in sorted(place, key=lambda n: place[n]):
        if not shown or place[number] - place[shown[-1]] >= (high - low) / MAX_NUMBERS:
            shown.append(number)
    top.set_xticks([place[n] for n in shown], labels=[str(n) for n in shown])
    longest = max(len(str(n)) for n in shown)
    top.tick_params(labelsize=7, rotation=90 if len(shown) * longest > 60 else 0)
    some = "" if len(shown) == len(place) else f" (numbers of {len(shown)} of {len(place)})"
    top.set_xlabel(f"scan{some}")


def _clock(hours: float) -> str:
    """Hours since midnight as hh:mm; after midnight they begin anew."""
    minutes = round(hours * 60) % 1440
    return f"{minutes // 60:02d}:{minutes % 60:02d}"


def _draw_band(
    panels: list[Any],
    points: list[Point],
    style: dict[str, Any],
    band: str,
    *,
    origin: float,
    scale: float,
) -> None:
    """Draw the scans of one band; time axis: (mjd - origin) * scale."""
    x = (np.array([p.mjd for p in points]) - origin) * scale
    water_x = (np.concatenate([p.pwv_mjd for p in points]) - origin) * scale
    water = np.concatenate([p.pwv for p in points])
    error = np.concatenate([p.pwv_error for p in points])
    known = np.isfinite(water)
    if known.any():
        bars = np.where(np.isfinite(error), error, 0.0)
        panels[0].errorbar(
            water_x[known], water[known], yerr=bars[known], capsize=2, label=band or None, **style
        )
    tau = np.array([p.tau for p in points])
    if np.isfinite(tau).any():
        bars = np.nan_to_num([p.tau_error for p in points])
        panels[1].errorbar(x, tau, yerr=bars, capsize=2, label=band or None, **style)
    prefix = f"{band} " if band else ""
    for name in dict.fromkeys(p.t_sys_name for p in points):
        mine = np.array([p.t_sys if p.t_sys_name == name else NAN for p in points])
        if np.isfinite(mine).any():
            panels[2].plot(x, mine, label=f"{prefix}{name}", **style)
    hollow = {**style, "markerfacecolor": "none"}
    t_rec = np.array([p.t_rec for p in points])
    if np.isfinite(t_rec).any():
        panels[2].plot(x, t_rec, label=f"{prefix}{T_REC}", **hollow)
    panels[3].plot(x, [p.flagged for p in points], **style)
    low, middle, high = np.array([p.rms for p in points]).T
    good = np.isfinite(middle)
    if good.any():
        bars = np.stack([middle - low, high - middle])[:, good]
        panels[4].errorbar(x[good], middle[good], yerr=bars, capsize=2, **style)
    if len(panels) > 5:
        panels[5].plot(x, [p.age for p in points], **style)


def _explain(panels: list[Any], points: Sequence[Point], bands: Sequence[str]) -> None:
    """Say in each empty panel why nothing is drawn there."""
    if not points:
        for axes in panels:
            say_in(axes, "no scan with a time")
        return
    if not any(np.isfinite(p.pwv).any() for p in points):
        say_in(panels[0], "PWV was not determined")
    for axes, values in (
        (panels[1], [p.tau for p in points]),
        (panels[2], [t for p in points for t in (p.t_sys, p.t_rec)]),
        (panels[3], [p.flagged for p in points]),
        (panels[4], [p.rms[1] for p in points]),
        *[(axes, [p.age for p in points]) for axes in panels[5:]],
    ):
        if not np.isfinite(np.array(values, dtype=np.float64)).any():
            say_in(axes, "not known")
    beside: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (1.005, 1.0)}
    if panels[2].get_legend_handles_labels()[0]:
        panels[2].legend(**beside)
    if len(bands) > 1 and panels[1].get_legend_handles_labels()[0]:
        panels[1].legend(**beside)
    note_in(panels[4], "median and 16-84 % of the pixels")
    for axes in [*panels[:3], *panels[5:]]:
        axes.margins(y=0.15)
    panels[4].margins(y=0.3)  # room for the note
    for axes in panels[5:]:
        axes.axhline(0.0, color="#777777", linewidth=0.8)
    flagged = [p.flagged for p in points if np.isfinite(p.flagged)]
    panels[3].set_ylim(0.0, 1.15 * max([*flagged, 0.5]))
