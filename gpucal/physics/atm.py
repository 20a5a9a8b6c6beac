"""Zenith opacity of the atmosphere from a table of coefficients; physics section 5.

tau_k = b_k P + q_k P^2 + c_k and t_k = exp(-A tau_k) with the precipitable water P in mm, the airmass A
and c_k = c_dry + s c_O3 + c_minor. A table may hold the emission of a layered sky too. Nothing here reads a
file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from array_api_compat import array_namespace

from gpucal.errors import TableError
from gpucal.physics.emission import departure

Array = Any
F64 = npt.NDArray[np.float64]

STEPS_PER_POINT = 2.0
"""A channel up to this many table steps wide is read at its centre only (formats page)."""

MAX_POINTS = 33
"""Most points inside one channel. The fit holds b, q and c of every point of every channel and both
sidebands, so its memory and time grow with it. A point stands for the mean opacity of its part of the
channel, so a line narrower than that part is diluted, not missed."""

EMISSION = ("e_b", "e_q", "e_c", "e_o3")
"""Columns of the emission of a layered sky."""

SLOPED = ("b", "q", "c_dry", *EMISSION)
"""Columns that change with the temperature of the air, in the order of the table's slopes."""

GRID_POINTS = 100
GRID_WIDENING = 2.0
DEFAULT_PWV_RANGE_MM = (0.001, 20.0)


@dataclass(frozen=True, eq=False)
class ChannelOpacity:
    """Opacity coefficients of J points inside each of C channels.

    b       [J, C] f64  Np/mm
    q       [J, C] f64  Np/mm^2
    c       [J, C] f64  Np: dry air, ozone and minor gases
    emission [5, J, C] f64: c_o3, e_b, e_q, e_c, e_o3 of ``physics.emission``; None: an isothermal sky
    Arrays of any array-API namespace; all results are in the same one.
    """

    b: Array
    q: Array
    c: Array
    emission: Array | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """(J, C)."""
        return (int(self.b.shape[0]), int(self.b.shape[1]))

    def transmission(self, pwv: Array | float, airmass: Array | float) -> Array:
        """t(P, A) = mean_j exp(-A (b_j P + q_j P^2 + c_j)); physics equations (5.2) and (5.3).

        ``pwv`` (mm) and ``airmass`` are scalars or broadcast against [C]. Returns f64 [C].
        """
        xp = array_namespace(self.b)
        return xp.mean(xp.exp(-(airmass * self._tau(pwv))), axis=0)

    def zenith_tau(self, pwv: Array | float) -> Array:
        """Zenith opacity -ln t(P, 1), Np, f64 [C]; finite also where the sky is opaque."""
        xp = array_namespace(self.b)
        tau = self._tau(pwv)
        least = xp.min(tau, axis=0)
        return least - xp.log(xp.mean(xp.exp(least[None, :] - tau), axis=0))

    def departure(self, pwv: float, airmass: float) -> Array:
        """E(P, A) = mean_j E_j, f64 [C]: how much less than an isothermal sky this one emits; equation (5.16)."""
        xp = array_namespace(self.b)
        if self.emission is None:
            return xp.zeros_like(self.b[0, :])
        columns = xp.stack([self.b, self.q, self.c])
        return xp.mean(departure(columns, self.emission, pwv, airmass).value, axis=0)

    def _tau(self, pwv: Array | float) -> Array:
        """Zenith opacity at every point, Np, f64 [J,C]; equation (5.2)."""
        return (self.b + self.q * pwv) * pwv + self.c


def flat_opacity(tau: float, n: int) -> ChannelOpacity:
    """The opacity ``tau`` (Np, zenith) in ``n`` channels, whatever the PWV: [1, n], b = q = 0.

    Serves ``--atmosphere none --tau NP``. Raises TableError when tau is negative or not finite.
    """
    if not (np.isfinite(tau) and tau >= 0):
        raise TableError(
            f"zenith opacity is {tau}, expected a finite value of at least 0 Np.",
            hint="Give --tau in Np.",
        )
    zero = np.zeros((1, n))
    return ChannelOpacity(b=zero, q=zero, c=np.full((1, n), float(tau)))


@dataclass(frozen=True, eq=False)
class AtmosphereTable:
    """Coefficients of the zenith opacity on a frequency grid of N knots, checked when built.

    freq_hz        [N] f64  Hz, rising, not evenly spaced
    b, q           [N] f64  Np/mm, Np/mm^2
    c_dry, c_o3, c_minor  [N] f64  Np
    e_b, e_q, e_c, e_o3   [N] f64  1/mm, 1/mm^2, 1, 1: emission of a layered sky; all None where not known
    slope_freq_hz  [K] f64 Hz, slopes [7, K] f64: exponents n of SLOPED in (T_ground/t_ground_k)^n; or None
    band_edges_hz  [M, 2] f64 or None: the table holds inside these bands only
    attrs          model, version, site, alt_m, pwv_range_mm, credit, ... as far as they are known
    path, sha256   where it came from; "" for a table made in memory

    Raises TableError for a table that breaks one of these rules.
    """

    freq_hz: F64
    b: F64
    q: F64
    c_dry: F64
    c_o3: F64
    c_minor: F64
    band_edges_hz: F64 | None = None
    attrs: Mapping[str, Any] = field(default_factory=dict)
    path: str = ""
    sha256: str = ""
    e_b: F64 | None = None
    e_q: F64 | None = None
    e_c: F64 | None = None
    e_o3: F64 | None = None
    slope_freq_hz: F64 | None = None
    slopes: F64 | None = None

    def __post_init__(self) -> None:
        _check_columns(self)
        _check_slopes(self)
        _check_bands(self)
        _check_pwv_range(self)

    @property
    def layered(self) -> bool:
        """Whether the table knows the emission of a layered sky."""
        return self.e_b is not None

    def isothermal(self) -> AtmosphereTable:
        """The opacities alone, of an atmosphere of one temperature in any weather; a table made in memory."""
        if not self.layered and self.slopes is None:
            return self
        return replace(
            self,
            path="",
            sha256="",
            e_b=None,
            e_q=None,
            e_c=None,
            e_o3=None,
            slope_freq_hz=None,
            slopes=None,
        )

    @property
    def name(self) -> str:
        """Name of the table in messages."""
        return self.path or str(self.attrs.get("site", "")) or "in memory"

    @property
    def range_hz(self) -> tuple[float, float]:
        """Lowest and highest frequency, Hz."""
        return float(self.freq_hz[0]), float(self.freq_hz[-1])

    @property
    def pwv_range_mm(self) -> tuple[float, float] | None:
        """Range of PWV the coefficients were solved in, mm; None when the table does not say."""
        value = self.attrs.get("pwv_range_mm")
        if value is None:
            return None
        lo, hi = np.asarray(value, dtype=np.float64)
        return float(lo), float(hi)

    @property
    def bands_hz(self) -> F64:
        """First and last knot of each band, f64 [M, 2], Hz; one band without band_edges_hz."""
        if self.band_edges_hz is None:
            return np.array([self.range_hz])
        f = self.freq_hz
        first = np.searchsorted(f, self.band_edges_hz[:, 0], side="left")
        last = np.searchsorted(f, self.band_edges_hz[:, 1], side="right") - 1
        return np.stack([f[first], f[last]], axis=1)

    def channel_opacity(
        self, freq_hz: F64, width_hz: float, ozone_scale: float = 1.0
    ) -> ChannelOpacity:
        """Coefficients of the channels centred at ``freq_hz`` f64 [C], ``width_hz`` wide (Hz).

        Channels up to two local table steps wide are interpolated linearly at their centre (J = 1);
        otherwise every channel is cut into J equal parts and holds the mean coefficients of each, J odd,
        about the number of table steps in the channel that has most of them, at most MAX_POINTS.
        ``ozone_scale`` is s of physics equation (5.2).
        Returns f64 [J, C]. Raises TableError outside the table or in a gap between bands.
        """
        centre = np.asarray(freq_hz, dtype=np.float64)
        width = abs(float(width_hz))
        if centre.ndim != 1 or not np.all(np.isfinite(centre)) or not np.isfinite(width):
            raise TableError("the channel frequencies or their width are not finite numbers in Hz.")
        self._require(centre, 0.0)
        points = self._points(centre, width)
        ozone = ozone_scale * self.c_o3
        columns = [self.b, self.q, self.c_dry + ozone + self.c_minor]
        if self.layered:
            columns += [ozone, *(getattr(self, name) for name in EMISSION)]
        if points == 1:
            read = [np.interp(centre, self.freq_hz, column)[None, :] for column in columns]
        else:
            self._require(centre, 0.5 * width)
            edges = centre + width * (np.arange(points + 1) / points - 0.5)[:, None]
            read = [_part_means(self.freq_hz, column, edges) for column in columns]
        b, q, c, *emission = read
        return ChannelOpacity(b, q, c, np.stack(emission) if emission else None)

    def _points(self, centre: F64, width: float) -> int:
        """Number J of points: 1, or an odd number near the most table steps inside one channel."""
        f = self.freq_hz
        left = np.clip(np.searchsorted(f, centre, side="right") - 1, 0, f.size - 2)
        if centre.size == 0 or bool(np.all(width <= STEPS_PER_POINT * (f[left + 1] - f[left]))):
            return 1
        low = np.interp(centre - 0.5 * width, f, np.arange(f.size))
        high = np.interp(centre + 0.5 * width, f, np.arange(f.size))
        steps = int(np.ceil(np.max(high - low)))
        return min(MAX_POINTS, max(3, steps + 1 - steps % 2))

    def _require(self, centre: F64, half: float) -> None:
        """Raise TableError unless each channel, ``half`` Hz to both sides, lies inside one band."""
        if centre.size == 0:
            return
        low, high = centre - half, centre + half
        bands = self.bands_hz
        inside = np.zeros(centre.shape, dtype=bool)
        for first, last in bands:
            # one part in 1e12 forgives the rounding of a channel that ends exactly on the edge
            inside |= (low >= first * (1 - 1e-12)) & (high <= last * (1 + 1e-12))
        if bool(np.all(inside)):
            return
        bad = int(np.argmin(inside))
        raise TableError(
            f"channels from {_ghz(low.min())} to {_ghz(high.max())} GHz were asked for (first outside: "
            f"{_ghz(centre[bad])} GHz), but the atmosphere table {self.name} holds "
            + ", ".join(f"{_ghz(a)} to {_ghz(b)}" for a, b in bands)
            + " GHz.",
            hint="Give a table that covers them with --atmosphere, or --atmosphere none --tau NP.",
        )


def pwv_grid(table: AtmosphereTable | None) -> F64:
    """Trial PWV of the fit, f64 [100], mm, logarithmic; physics section 5.

    Spans the table's pwv_range_mm widened by 2 at both ends, or 0.001..20 mm when it gives none.
    """
    span = table.pwv_range_mm if table is not None else None
    if span is None:
        return np.geomspace(*DEFAULT_PWV_RANGE_MM, GRID_POINTS)
    return np.geomspace(span[0] / GRID_WIDENING, span[1] * GRID_WIDENING, GRID_POINTS)


def _part_means(freq_hz: F64, column: F64, edges: F64) -> F64:
    """Mean of the piecewise linear ``column`` between successive ``edges`` [J+1, C]: f64 [J, C]."""
    step = np.diff(freq_hz)
    area = np.concatenate([[0.0], np.cumsum(0.5 * (column[1:] + column[:-1]) * step)])
    left = np.clip(np.searchsorted(freq_hz, edges, side="right") - 1, 0, step.size - 1)
    value = np.interp(edges, freq_hz, column)
    integral = area[left] + 0.5 * (column[left] + value) * (edges - freq_hz[left])
    return np.asarray(np.diff(integral, axis=0) / np.diff(edges, axis=0), dtype=np.float64)


def _ghz(hz: float) -> str:
    """A frequency for messages, in GHz with ten significant digits."""
    return f"{hz / 1e9:.10g}"


def _check_columns(table: AtmosphereTable) -> None:
    f = table.freq_hz
    emission = [getattr(table, name) for name in EMISSION]
    if any(e is None for e in emission) and not all(e is None for e in emission):
        raise TableError(
            f"atmosphere table {table.name} has some of the columns {', '.join(EMISSION)}, expected all or none."
        )
    for name in ("freq_hz", "b", "q", "c_dry", "c_o3", "c_minor", *EMISSION):
        column = getattr(table, name)
        if column is None:
            continue
        if column.ndim != 1 or column.dtype != np.float64:
            raise TableError(
                f"atmosphere table {table.name}: {name} is {column.dtype} with {column.ndim} "
                "dimensions, expected float64 with one."
            )
        if column.size != f.size:
            raise TableError(
                f"atmosphere table {table.name}: {name} has {column.size} values, but freq_hz has "
                f"{f.size}."
            )
        if not np.all(np.isfinite(column)):
            bad = int(np.argmin(np.isfinite(column)))
            raise TableError(
                f"atmosphere table {table.name}: {name}[{bad}] is {column[bad]}, expected a finite "
                "number."
            )
    if f.size < 2:
        raise TableError(f"atmosphere table {table.name}: {f.size} knots, expected at least 2.")
    if f[0] <= 0 or not np.all(np.diff(f) > 0):
        raise TableError(
            f"atmosphere table {table.name}: freq_hz is not positive and strictly rising.",
            hint="Sort the table by frequency and drop repeated rows.",
        )


def _check_slopes(table: AtmosphereTable) -> None:
    f, slopes = table.slope_freq_hz, table.slopes
    if f is None and slopes is None:
        return
    if f is None or slopes is None or f.ndim != 1 or slopes.shape != (len(SLOPED), f.size):
        shapes = [None if x is None else x.shape for x in (f, slopes)]
        raise TableError(
            f"atmosphere table {table.name}: slope_freq_hz and slopes have the shapes {shapes[0]} and {shapes[1]}, "
            f"expected [K] and [{len(SLOPED)}, K]."
        )
    if not (np.all(np.isfinite(slopes)) and np.all(np.isfinite(f)) and np.all(np.diff(f) > 0)):
        raise TableError(
            f"atmosphere table {table.name}: slopes are not finite, or slope_freq_hz does not rise."
        )


def _check_bands(table: AtmosphereTable) -> None:
    edges = table.band_edges_hz
    if edges is None:
        return
    if edges.ndim != 2 or edges.shape[-1] != 2 or edges.shape[0] == 0:
        raise TableError(
            f"atmosphere table {table.name}: band_edges_hz has shape {edges.shape}, expected [M, 2]."
        )
    flat = edges.ravel()
    if not np.all(np.isfinite(flat)) or not np.all(np.diff(flat) > 0):
        raise TableError(
            f"atmosphere table {table.name}: band_edges_hz does not rise from band to band."
        )
    f = table.freq_hz
    owner = np.searchsorted(flat, f, side="right")
    inside = (owner % 2 == 1) | np.isin(f, flat)
    if not np.all(inside):
        raise TableError(
            f"atmosphere table {table.name}: the knot at {_ghz(f[int(np.argmin(inside))])} GHz lies "
            "outside every band of band_edges_hz."
        )
    for lo, hi in edges:
        if np.count_nonzero((f >= lo) & (f <= hi)) < 2:
            raise TableError(
                f"atmosphere table {table.name}: the band {_ghz(lo)} to {_ghz(hi)} GHz holds fewer "
                "than 2 knots."
            )


def _check_pwv_range(table: AtmosphereTable) -> None:
    value = table.attrs.get("pwv_range_mm")
    if value is None:
        return
    try:
        span = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        span = np.empty(0)
    if span.shape != (2,) or not np.all(np.isfinite(span)) or not 0 < span[0] < span[1]:
        raise TableError(
            f"atmosphere table {table.name}: pwv_range_mm is {value!r}, expected two rising positive "
            "numbers in mm."
        )
