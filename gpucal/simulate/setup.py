"""Setup of a simulated instrument: frozen values, edited with ``dataclasses.replace``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from gpucal.errors import ConfigError

F64 = npt.NDArray[np.float64]

Kind = Literal[
    "load",
    "tp",
    "otf",
    "otf-chopped",
    "nod",
    "fsw",
    "wsw",
    "wsw-chopped",
    "pointing",
    "focus",
    "skydip",
]
PROCEDURES: tuple[Kind, ...] = ("pointing", "focus", "skydip")
CONTINUUM_KINDS = frozenset({"pointing", "focus"})
"""Kinds of scan whose source is a point without lines, equally bright at all frequencies."""
SkyDrift = Literal["none", "linear", "linear-dump", "free"]
Sky = Literal["isothermal", "layered"]
SKIES: tuple[Sky, ...] = ("isothermal", "layered")


@dataclass(frozen=True)
class Site:
    """Place of the telescope: degrees, degrees, metres."""

    lat_deg: float
    lon_deg: float
    alt_m: float


@dataclass(frozen=True)
class Line:
    """A Gaussian line of the source: sky frequency and FWHM in Hz, peak T_A* in K."""

    freq_hz: float
    fwhm_hz: float
    peak_k: float


@dataclass(frozen=True)
class Weather:
    """The sky of a night.

    pwv_mm at the start; it changes by ``pwv_drift_per_h`` (fraction per hour). t_amb K at the ground, that of
    all air in an isothermal sky; p_amb Torr. The elevation swings about ``elevation_deg`` by
    ``elevation_swing_deg`` within a day.
    """

    pwv_mm: float
    pwv_drift_per_h: float = 0.02
    t_amb: float = 280.0
    p_amb: float = 550.0
    elevation_deg: float = 50.0
    elevation_swing_deg: float = 15.0


@dataclass(frozen=True)
class Opacity:
    """Zenith opacity in the middle of a band: Np/mm, Np, Np. A layered sky works out that of water itself."""

    water_per_mm: float
    dry: float
    ozone_peak: float


@dataclass(frozen=True, eq=False)
class Receiver:
    """One band's receivers.

    t_rec K (DSB), t_rec_slope its rise towards the band edges and t_rec_ripple the standing wave
    in it (both as fractions); gain_drift_per_h fraction per hour; gain_image r = g_i/g_s, scalar, [R,A] or
    [C,R,A]; bad_per_pixel channels that are dead, weak or far too warm.
    """

    t_rec: float
    t_rec_slope: float = 0.1
    t_rec_ripple: float = 0.03
    gain_drift_per_h: float = 0.005
    counts_per_kelvin: float = 1e6 / 300.0
    gain_image: float | F64 = 1.0
    bad_per_pixel: int = 3


@dataclass(frozen=True, eq=False)
class BandSetup:
    """One backend band.

    name "" (only band) or "band_1"; signal_freq and image_freq [R] Hz at the reference channel;
    bandwidth_hz over all channels, negative when the frequency falls with the channel; lines of the
    source (those in the image band come in through the image sideband); throw_hz between the two
    phases of frequency switching.
    """

    name: str
    signal_freq: tuple[float, ...]
    image_freq: tuple[float, ...]
    bandwidth_hz: float
    channels: int
    opacity: Opacity
    receiver: Receiver
    lines: tuple[Line, ...] = ()
    throw_hz: float = 0.0

    @property
    def freq_res(self) -> float:
        """Frequency step per channel, Hz, signed."""
        return self.bandwidth_hz / self.channels

    @property
    def ref_channel(self) -> float:
        """0-based channel that holds signal_freq."""
        return float(self.channels // 2)

    @property
    def throws(self) -> tuple[float, float]:
        """Frequency throw of FSW-SIG and FSW-REF, Hz."""
        return (0.5 * self.throw_hz, -0.5 * self.throw_hz)


@dataclass(frozen=True)
class Timing:
    """Timing of a scan.

    In order: dumps per subscan, s per dump, ON subscans per scan, ONs between two OFFs, dumps of a load subscan,
    s between subscans.
    """

    dumps: int = 12
    exptime: float = 1.0
    n_on: int = 6
    on_per_off: int = 2
    cal_dumps: int = 8
    gap_s: float = 2.0


@dataclass(frozen=True)
class Loads:
    """Load temperatures in K; a vane has no cold load.

    separate: load scans of their own, one before each ``every`` science scans and one at the end;
    otherwise each scan holds its loads.
    """

    t_hot: float = 290.0
    t_cold: float = 80.0
    vane: bool = False
    separate: bool = False
    every: int = 3


@dataclass(frozen=True)
class Procedures:
    """What pointing, focus and skydip scans are to find, and how they are taken.

    scans which of them come before the science scans of a night, in this order.
    offset where the source is seen, azimuth and elevation, in beam widths; peak_k its T_A* in the middle of the
    beam at best focus. best_focus in wavelengths; the gain falls as 1 - ((z - best_focus)/focus_depth)^2.
    drift_dumps dumps per drift, which reaches ``reach`` beam widths to both sides; focus_positions in
    wavelengths; airmasses of the skydip, which goes up and down again.
    """

    scans: tuple[Kind, ...] = ()
    offset: tuple[float, float] = (0.21, -0.14)
    peak_k: float = 12.0
    best_focus: float = 0.12
    focus_depth: float = 1.2
    drift_dumps: int = 41
    reach: float = 3.0
    focus_positions: tuple[float, ...] = (-0.6, -0.4, -0.2, 0.0, 0.2, 0.4, 0.6)
    airmasses: tuple[float, ...] = (1.05, 1.25, 1.5, 1.8, 2.2, 2.7, 3.2)

    def __post_init__(self) -> None:
        for kind in self.scans:
            if kind not in PROCEDURES:
                raise ConfigError(f"procedure is {kind!r}, expected {', '.join(PROCEDURES)}.")


@dataclass(frozen=True, eq=False)
class InstrumentSetup:
    """A telescope with its array receiver, the sky over it and the scans it makes.

    sky: "isothermal" (all air at t_amb, opacities made up) or "layered" (levels of air that cool with height,
    water computed line by line, radiative transfer through them; up to 1 THz).

    sky_drift: "none" one elevation and PWV per scan; "linear" they change from subscan to subscan,
    and the sky under an ON subscan is the linear interpolation in time between the OFFs around it
    (what the default reference assumes); "linear-dump" the same for every dump (reference
    per-dump); "free" elevation and PWV of every dump's own time, as on a real sky. Paired phases
    (chopped, nod, frequency or wobbler switch) always see one sky, but in "free".
    """

    name: str
    telescope: str
    site: Site
    bands: tuple[BandSetup, ...]
    receivers: int
    pixels: int
    pixel_spacing_deg: float
    weather: Weather
    line: str = ""
    timing: Timing = field(default_factory=Timing)
    loads: Loads = field(default_factory=Loads)
    f_eff: float = 0.95
    kinds: tuple[Kind, ...] = ("tp",)
    sky_drift: SkyDrift = "linear"
    fill_fraction: float = 1e-5
    procedures: Procedures = field(default_factory=Procedures)
    sky: Sky = "isothermal"

    def __post_init__(self) -> None:
        if self.sky not in SKIES:
            raise ConfigError(f"sky is {self.sky!r}, expected {' or '.join(SKIES)}.")
        for band in self.bands:
            if len(band.signal_freq) != self.receivers or len(band.image_freq) != self.receivers:
                raise ConfigError(
                    f"{self.name}: {len(band.signal_freq)} signal and {len(band.image_freq)} image "
                    f"frequencies, expected one per receiver, {self.receivers}."
                )
            if band.channels < 16:
                raise ConfigError(f"{self.name}: {band.channels} channels, expected at least 16.")
        if "skydip" in self.procedures.scans:
            self.require_cold_load()
        t = self.timing
        if min(t.dumps, t.n_on, t.on_per_off, t.cal_dumps, self.loads.every) < 1 or t.exptime <= 0:
            raise ConfigError(f"{self.name}: {t} holds a value that is not positive.")

    def require_cold_load(self) -> None:
        """Raise ConfigError where a skydip is not possible."""
        if self.loads.vane:
            raise ConfigError(
                f"{self.name} has a vane and no cold load, a skydip needs both.",
                hint="Choose pointing and focus, or an instrument with a cold load.",
            )

    @property
    def source_fwhm_deg(self) -> float:
        """Full width of the source, a Gaussian in longitude and latitude."""
        return 1.5 * self.pixel_spacing_deg

    @property
    def beam_fwhm_deg(self) -> float:
        """Full width of the telescope's beam, in which a point is seen."""
        return 0.5 * self.pixel_spacing_deg

    @property
    def wavelength_mm(self) -> float:
        """Wavelength of the first band."""
        return 299792458.0 / self.bands[0].signal_freq[0] * 1e3

    @property
    def nod_beams(self) -> list[list[int]]:
        """The [receiver, pixel] on the source in NOD-1 and in NOD-2."""
        return [[0, 0], [0, self.pixels - 1]]

    def pixel_offsets(self) -> tuple[F64, F64]:
        """Longitude and latitude offset of each pixel, f64 [R,A], deg.

        A square grid, pixel 0 in its lower left corner, shifted so that its middle pixel is on the axis.
        """
        side = int(np.ceil(np.sqrt(self.pixels)))
        index = np.arange(self.pixels)
        middle = self.pixels // 2
        lon = (index % side - middle % side) * self.pixel_spacing_deg
        lat = (index // side - middle // side) * self.pixel_spacing_deg
        shape = (self.receivers, self.pixels)
        return np.broadcast_to(lon, shape).copy(), np.broadcast_to(lat, shape).copy()
