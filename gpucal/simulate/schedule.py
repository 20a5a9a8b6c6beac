"""Schedule of a scan: its subscans, when they are taken and where the telescope points."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from gpucal.errors import ConfigError
from gpucal.simulate.setup import InstrumentSetup, Kind

F64 = npt.NDArray[np.float64]
DAY_S = 86400.0


@dataclass(frozen=True, eq=False)
class SubscanPlan:
    """One subscan.

    mode      sobsmode
    mjd       MJD UTC of its middle
    exptime   s per dump, exact in float32
    sky_mjd   the time whose sky it sees (that of its pair for switched modes)
    on_source u8 [D]  1 where the telescope looks at the source
    lon, lat  f64 [D] deg, pointing relative to the source
    chop      u8 [D] chop phase, or None
    phase     0, 1: which throw (frequency switch) or beam (nod); -1 none
    elevation rad, NaN: that of the night; focus_mm position of the focus; gain that of the telescope there
    """

    mode: str
    mjd: float
    exptime: float
    sky_mjd: float
    on_source: npt.NDArray[np.uint8]
    lon: F64
    lat: F64
    chop: npt.NDArray[np.uint8] | None = None
    phase: int = -1
    elevation: float = math.nan
    focus_mm: float = 0.0
    gain: float = 1.0

    @property
    def dumps(self) -> int:
        return len(self.on_source)

    def dump_mjd(self) -> F64:
        """MJD of each dump, f64 [D]: mjd + (d - (D-1)/2) exptime."""
        d = np.arange(self.dumps) - 0.5 * (self.dumps - 1)
        return np.asarray(self.mjd + d * self.exptime / DAY_S)


@dataclass(frozen=True, eq=False)
class ScanPlan:
    """Plan of one scan of all bands. ``source`` is empty in a load scan, ``calibration`` where the loads
    are in scan ``lloadsn``. start, end: MJD.
    """

    number: int
    kind: Kind
    mjd0: float
    start: float
    end: float
    source: tuple[SubscanPlan, ...]
    calibration: tuple[SubscanPlan, ...]
    lloadsn: int = -1

    @property
    def mid(self) -> float:
        """MJD of the middle of the science part (of the loads in a load scan)."""
        parts = self.source or self.calibration
        return 0.5 * (parts[0].mjd + parts[-1].mjd)

    def group(self, name: str) -> tuple[SubscanPlan, ...]:
        """The subscans of ``source`` or ``calibration``."""
        return self.source if name == "source" else self.calibration


class _Clock:
    """Clock that places subscans one after the other."""

    def __init__(self, setup: InstrumentSetup, start: float) -> None:
        self.now = start
        self.gap = setup.timing.gap_s / DAY_S
        self.exptime = float(np.float32(setup.timing.exptime))

    def take(
        self, mode: str, dumps: int, *, on: bool, at: float | None = None, phase: int = -1
    ) -> SubscanPlan:
        """A subscan that begins now, or one at the same time as another, with its middle at ``at``."""
        length = dumps * self.exptime / DAY_S
        mid = self.now + 0.5 * length
        if at is None:
            self.now += length + self.gap
        else:
            mid = at
        return SubscanPlan(
            mode=mode,
            mjd=mid,
            exptime=self.exptime,
            sky_mjd=mid,
            on_source=np.full(dumps, int(on), dtype=np.uint8),
            lon=np.zeros(dumps),
            lat=np.zeros(dumps),
            phase=phase,
        )


def plan_scan(
    setup: InstrumentSetup,
    kind: Kind,
    number: int,
    start: float,
    *,
    mjd0: float | None = None,
    lloadsn: int = -1,
) -> ScanPlan:
    """Lay out one scan that begins at MJD ``start`` of the night that began at ``mjd0``.

    With ``lloadsn`` >= 0 the scan refers to that load scan and holds no loads itself. Raises
    ConfigError for an unknown kind.
    """
    clock = _Clock(setup, start)
    calibration: list[SubscanPlan] = []
    makers = {
        "tp": lambda: _bracketed(setup, clock, "ON", "OFF"),
        "otf": lambda: _bracketed(setup, clock, "OTF-ON", "OTF-OFF"),
        "otf-chopped": lambda: _otf_chopped(setup, clock),
        "nod": lambda: _pairs(setup, clock, "NOD-1", "NOD-2", off_on_source=True),
        "fsw": lambda: _pairs(setup, clock, "FSW-SIG", "FSW-REF", off_on_source=True),
        "wsw": lambda: _pairs(setup, clock, "WSW-ON", "WSW-OFF", off_on_source=False),
        "wsw-chopped": lambda: _wobbler(setup, clock),
        "pointing": lambda: _cross(setup, clock),
        "focus": lambda: _focus_series(setup, clock),
    }
    if kind == "skydip":
        calibration = [*_loads(setup, clock), *_tip(setup, clock)]
    elif kind == "load" or lloadsn < 0:
        calibration = _loads(setup, clock)
    if kind not in ("load", "skydip", *makers):
        raise ConfigError(f"kind of scan is {kind!r}, expected load, skydip, {', '.join(makers)}.")
    source = tuple(makers[kind]()) if kind in makers else ()
    return ScanPlan(
        number,
        kind,
        start if mjd0 is None else mjd0,
        start,
        clock.now,
        source,
        tuple(calibration),
        lloadsn if source else -1,
    )


def _loads(setup: InstrumentSetup, clock: _Clock) -> list[SubscanPlan]:
    modes = ("HOT", "SKY") if setup.loads.vane else ("HOT", "COLD")
    return [clock.take(mode, setup.timing.cal_dumps, on=False) for mode in modes]


def _row(setup: InstrumentSetup, plan: SubscanPlan, index: int, rows: int) -> SubscanPlan:
    """Point an OTF row: along longitude, every second one backwards, rows along latitude."""
    reach = 2.0 * setup.source_fwhm_deg
    lon = np.linspace(-reach, reach, plan.dumps) if plan.dumps > 1 else np.zeros(1)
    lat = (index + 0.5) / rows * 2.0 * reach - reach
    return replace(plan, lon=lon if index % 2 == 0 else -lon, lat=np.full(plan.dumps, 0.5 * lat))


def _bracketed(
    setup: InstrumentSetup, clock: _Clock, on_mode: str, off_mode: str
) -> Iterator[SubscanPlan]:
    """OFF ON.. OFF ON.. OFF: total power and OTF."""
    t = setup.timing
    for index in range(t.n_on):
        if index % t.on_per_off == 0:
            yield clock.take(off_mode, t.dumps, on=False)
        plan = clock.take(on_mode, t.dumps, on=True)
        yield _row(setup, plan, index, t.n_on) if on_mode == "OTF-ON" else plan
    yield clock.take(off_mode, t.dumps, on=False)


def _otf_chopped(setup: InstrumentSetup, clock: _Clock) -> Iterator[SubscanPlan]:
    """Each row in beam A, then in beam B; the chopped OFF is taken at the same time as its ON."""
    t = setup.timing
    rows = max(1, t.n_on // 2)
    for index in range(rows):
        for beam in "AB":
            plan = clock.take(f"OTFSW{beam}-ON", t.dumps, on=True)
            yield _row(setup, plan, index, rows)
            yield clock.take(f"OTFSW{beam}-OFF", t.dumps, on=False, at=plan.mjd)


def _pairs(
    setup: InstrumentSetup, clock: _Clock, first: str, second: str, *, off_on_source: bool
) -> Iterator[SubscanPlan]:
    """Two positions or phases in turn; the second sees the sky of the first."""
    t = setup.timing
    for _ in range(t.n_on):
        one = clock.take(first, t.dumps, on=True, phase=0)
        yield one
        two = clock.take(second, t.dumps, on=off_on_source, phase=1)
        yield replace(two, sky_mjd=one.mjd)


def _wobbler(setup: InstrumentSetup, clock: _Clock) -> Iterator[SubscanPlan]:
    """Nod positions A (source in chop phase 0) and B (source in phase 1), phases dump by dump."""
    t = setup.timing
    if t.dumps % 2:
        raise ConfigError(
            f"{setup.name}: {t.dumps} dumps in a subscan, expected an even number for a chopped "
            "wobbler scan."
        )
    chop = (np.arange(t.dumps) % 2).astype(np.uint8)
    for plan in _pairs(setup, clock, "WSW-ON", "WSW-OFF", off_on_source=True):
        source_phase = 0 if plan.mode == "WSW-ON" else 1
        on = (chop == source_phase).astype(np.uint8)
        yield replace(plan, chop=chop, on_source=on, phase=-1)


def _cross(setup: InstrumentSetup, clock: _Clock) -> Iterator[SubscanPlan]:
    """OFF, drifts to and fro along azimuth and along elevation, OFF."""
    p = setup.procedures
    along = p.reach * setup.beam_fwhm_deg * np.linspace(-1.0, 1.0, p.drift_dumps)
    still = np.zeros(p.drift_dumps)
    yield clock.take("OTF-OFF", p.drift_dumps, on=False)
    for lon, lat in ((along, still), (-along, still), (still, along), (still, -along)):
        yield replace(clock.take("OTF-ON", p.drift_dumps, on=True), lon=lon, lat=lat)
    yield clock.take("OTF-OFF", p.drift_dumps, on=False)


def _focus_series(setup: InstrumentSetup, clock: _Clock) -> Iterator[SubscanPlan]:
    """An ON at each position of the focus, OFFs around each of them."""
    p, dumps = setup.procedures, setup.timing.dumps
    yield clock.take("OFF", dumps, on=False)
    for position in p.focus_positions:
        at = position * setup.wavelength_mm
        gain = 1.0 - ((position - p.best_focus) / p.focus_depth) ** 2
        yield replace(clock.take("ON", dumps, on=True), gain=gain, focus_mm=at)
        yield replace(clock.take("OFF", dumps, on=False), focus_mm=at)


def _tip(setup: InstrumentSetup, clock: _Clock) -> Iterator[SubscanPlan]:
    """SKY at each airmass, down and up again."""
    setup.require_cold_load()
    one_way = setup.procedures.airmasses
    for airmass in (*one_way, *reversed(one_way)):
        elevation = float(np.float32(np.arcsin(1.0 / airmass)))
        yield replace(clock.take("SKY", setup.timing.cal_dumps, on=False), elevation=elevation)


def plan_night(setup: InstrumentSetup, scans: int, *, mjd0: float) -> Iterator[ScanPlan]:
    """Yield the scans of ``setup.procedures``, then ``scans`` science scans, numbered from 1, and the load scans
    they need between them."""
    number, start, load = 1, mjd0, -1
    science = [setup.kinds[index % len(setup.kinds)] for index in range(scans)]
    for index, kind in enumerate((*setup.procedures.scans, *science)):
        if setup.loads.separate and index % setup.loads.every == 0:
            load = number
            plan = plan_scan(setup, "load", number, start, mjd0=mjd0)
            yield plan
            number, start = number + 1, plan.end + 10.0 / DAY_S
        plan = plan_scan(setup, kind, number, start, mjd0=mjd0, lloadsn=load)
        yield plan
        number, start = number + 1, plan.end + 10.0 / DAY_S
    if setup.loads.separate:
        yield plan_scan(setup, "load", number, start, mjd0=mjd0)
