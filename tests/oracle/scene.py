"""A small scan made by hand with known truth, for the oracle and for tests against it.

Counts = G(t) (T_rec + T_in): the forward form of physics sections 4 to 6, plain Python. Axes
[C, D, R, A, S].
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from oracle import sky

SECOND = 1.0 / 86400.0
T_HOT, T_COLD, T_AMB, T_ATM, F_EFF = 293.0, 77.0, 275.0, 262.0, 0.95
SIGNAL, IMAGE, RESOLUTION = 461.0e9, 449.0e9, 20.0e6


def opacity_table(channels: int, receivers: int, points: int = 1) -> Any:
    """[3,2,J,C,R]: b, q, c that change smoothly with the channel."""
    table = np.empty((3, 2, points, channels, receivers))
    for k, j, c, r in np.ndindex(2, points, channels, receivers):
        x = (c + (j + 0.5) / points) / channels + 0.1 * r
        table[0, k, j, c, r] = (0.62 - 0.2 * k) * (1.0 + 0.4 * math.sin(5.0 * x))
        table[1, k, j, c, r] = 0.004 * (1.0 + x)
        table[2, k, j, c, r] = 0.05 + 0.02 * math.cos(4.0 * x) + 0.03 * k
    return table


class Scene:
    """What is true: sideband ratio, receiver temperatures, PWV, line, gain drift."""

    def __init__(
        self,
        modes: list[str],
        *,
        shape: tuple[int, int, int, int] = (32, 3, 1, 2),
        gain_image: float = 0.8,
        pwv: float = 0.7,
        line: float = 5.0,
        drift: float = 0.0,
        points: int = 1,
    ) -> None:
        self.modes, self.shape, self.gain_image = modes, shape, gain_image
        self.pwv, self.line, self.drift = pwv, line, drift
        self.opacity = opacity_table(shape[0], shape[2], points)
        self.emission: Any = None  # [5,2,J,C,R]: a layered sky over ground at T_AMB
        self.dump, self.start = 1.0, 60000.0
        self.gap = 40.0

    def parameters(self) -> dict[str, Any]:
        """Keyword arguments for the oracle."""
        return {
            "opacity": self.opacity,
            "f_eff": F_EFF,
            "gain_image": self.gain_image,
            "t_amb": T_AMB,
            "t_atm": T_ATM if self.emission is None else None,
            "emission": self.emission,
            "pwv_range": (0.1, 3.0),
        }

    def t_rec(self, c: int, r: int, a: int) -> float:
        """Receiver temperature, K."""
        return 110.0 + 0.4 * c + 15.0 * a + 7.0 * r

    def gain(self, seconds: float, c: int, r: int, a: int) -> float:
        """Counts per K."""
        return (900.0 + 3.0 * c + 40.0 * a + 25.0 * r) * (1.0 + self.drift * seconds)

    def is_line(self, c: int) -> bool:
        """The line covers the four middle channels."""
        return abs(c - self.shape[0] // 2 + 0.5) < 2.0

    def channel(self, c: int, r: int, a: int) -> sky.SkyChannel:
        """The sky channel of (c, r, a)."""
        nu = (
            sky.signal_frequency(c, SIGNAL + 1e9 * r, RESOLUTION, 16.0),
            sky.image_frequency(c, IMAGE + 1e9 * r, RESOLUTION, 16.0),
        )
        points = self.opacity.shape[2]
        bqc = tuple(
            [tuple(float(self.opacity[i, k, j, c, r]) for i in range(3)) for j in range(points)]
            for k in (0, 1)
        )
        return sky.sky_channel(
            nu,
            sky.gains(self.gain_image),
            {"t_atm": T_ATM if self.emission is None else T_AMB, "t_amb": T_AMB},
            f_eff=F_EFF,
            bqc=bqc,
            layers=sky.layers_of(self.emission, c, r),
        )

    def load(self, c: int, r: int, a: int, temperature: float) -> float:
        """Double-sideband radiation temperature of a load, K."""
        ch = self.channel(c, r, a)
        return float(sum(ch["gain"][k] * sky.radiation(ch["nu"][k], temperature) for k in (0, 1)))

    def input_temperature(self, mode: str, index: tuple[int, int, int], elevation: float) -> float:
        """Temperature at the receiver input, K."""
        if mode in ("HOT", "COLD"):
            return self.load(*index, T_HOT if mode == "HOT" else T_COLD)
        ch, air = self.channel(*index), sky.airmass(elevation)
        value = sky.sky_temperature(ch, self.pwv, air)
        if mode.endswith("-ON") or mode in ("ON", "FSW-SIG", "NOD-1"):
            t_sig = sky.transmission(ch["bqc"][0], self.pwv, air)
            line = self.line if self.is_line(index[0]) else 0.0
            value += ch["gain"][0] * F_EFF * t_sig * line
        return value

    def group(self, modes: list[str], start: float, elevation: Any = 0.9) -> dict[str, Any]:
        """A group of subscans that begins ``start`` seconds after the scene's zero.

        elevation: rad, one for all, one per subscan [S], or [D, S].
        """
        n, dumps, receivers, pixels = self.shape
        s = len(modes)
        times = np.empty((dumps, s))
        seen_at = np.array(np.broadcast_to(elevation, (dumps, s)), dtype=np.float64)
        counts = np.empty((n, dumps, receivers, pixels, s))
        for d, i in np.ndindex(dumps, s):
            times[d, i] = start + i * self.gap + (d + 0.5) * self.dump
        for c, d, r, a, i in np.ndindex(counts.shape):
            t_in = self.input_temperature(modes[i], (c, r, a), float(seen_at[d, i]))
            total = self.t_rec(c, r, a) + t_in
            counts[c, d, r, a, i] = self.gain(float(times[d, i]), c, r, a) * total
        return {
            "counts": counts,
            "sobsmode": list(modes),
            "mjd": self.start + times * SECOND,
            "exptime": np.full((dumps, s), self.dump),
            "elevation": seen_at,
            "signal_freq": np.asarray([SIGNAL + 1e9 * r for r in range(receivers)]),
            "image_freq": np.asarray([IMAGE + 1e9 * r for r in range(receivers)]),
            "freq_res": np.full(receivers, RESOLUTION),
            "ref_channel": np.full(receivers, 16.0),
            "t_hot": np.full(receivers, T_HOT),
            "t_cold": np.full(receivers, T_COLD),
        }

    def source(self) -> dict[str, Any]:
        """The source group."""
        return self.group(self.modes, 100.0)

    def cal(self, start: float = 0.0) -> dict[str, Any]:
        """A load scan, HOT then COLD."""
        return self.group(["HOT", "COLD"], start)
