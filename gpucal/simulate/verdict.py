"""A few lines on how a calibrated night compares with its truth: the worst errors over those that noise explains."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from gpucal.simulate.compare import Deviation

RMS_ALLOWED, WORST_ALLOWED = 1.25, 1.6
"""Error over what is expected, up to which the calibration counts as right: rms, and the worst single value."""
WITHOUT_NOISE = 0.05
"""K, mm: rms error of a night without noise; counts are rounded, and the gain drifts between HOT and COLD."""
NAMES = {"spectra": "T_A*", "t_rec": "T_rec", "t_sys": "T_sys", "pwv": "PWV"}


@dataclass(frozen=True)
class Verdict:
    """One quantity over all scans and bands.

    rms, expected in ``unit``; worst: the largest deviation in sigma; likely: the largest that Gaussian noise
    gives in so many values, sqrt(2 ln n) sigma; for flags rms is the number of disagreements. expected is NaN
    where nothing is known, 0 without noise.
    """

    quantity: str
    unit: str
    count: int
    rms: float
    expected: float
    worst: float
    likely: float

    @property
    def ratio(self) -> float:
        """The worst error over the expected one; NaN where nothing is expected."""
        return self.worst / self.likely if self.expected > 0 else math.nan

    @property
    def holds(self) -> bool:
        """Whether noise explains the errors."""
        if not self.unit:
            return self.rms == 0
        if not self.expected > 0:
            return self.expected != 0 or self.rms < WITHOUT_NOISE
        scatter = 2.0 / math.sqrt(self.count)  # of the rms of few values
        allowed = (RMS_ALLOWED + scatter) * self.expected
        return self.rms <= allowed and self.ratio <= WORST_ALLOWED


def judge(rows: Sequence[Deviation]) -> list[Verdict]:
    """One verdict per quantity, in the order in which the quantities come."""
    found = []
    for quantity in dict.fromkeys(row.quantity for row in rows):
        mine = [row for row in rows if row.quantity == quantity and row.count]
        if not mine:
            continue
        count = sum(row.count for row in mine)
        if not mine[0].unit:
            wrong = sum(row.largest for row in mine)
            found.append(Verdict(quantity, "", count, wrong, 0.0, wrong, 0.0))
            continue
        known = [row for row in mine if not math.isnan(row.expected)]
        n_known = sum(row.count for row in known)
        expected = _rms(known, "expected") if known else math.nan
        worst = max((row.sigmas for row in known), default=math.nan)
        likely = math.sqrt(2.0 * math.log(max(n_known, 3)))
        found.append(
            Verdict(quantity, mine[0].unit, count, _rms(mine, "rms"), expected, worst, likely)
        )
    return found


def _rms(rows: Sequence[Deviation], name: str) -> float:
    """The rms over all values of the rows."""
    total = sum(row.count for row in rows)
    return math.sqrt(sum(row.count * getattr(row, name) ** 2 for row in rows) / total)


def format_verdict(verdicts: Sequence[Verdict]) -> str:
    """A line per quantity of which an error is expected, and the verdict."""
    judged = [v for v in verdicts if v.unit and not math.isnan(v.expected)]
    lines = [
        f"{'':<6}{'values':>10}{'rms error':>12}{'expected':>12}      worst error, expected up to"
    ]
    for v in judged:
        worst = "-" if v.expected == 0 else f"{v.worst:.2f} sigma, {v.likely:.2f} sigma"
        name = NAMES.get(v.quantity, v.quantity)
        lines.append(f"{name:<6}{v.count:>10}{v.rms:>12.3g}{v.expected:>12.3g} {v.unit:<4} {worst}")
    wrong = {v.quantity: int(v.rms) for v in verdicts if not v.unit}
    if wrong:
        counts = ", ".join(f"{n} {quantity}" for quantity, n in wrong.items())
        lines.append(f"flags that are not those of the truth: {counts}")
    return "\n".join([*lines, _sentence(verdicts, judged)])


def _sentence(verdicts: Sequence[Verdict], judged: Sequence[Verdict]) -> str:
    """The verdict itself."""
    bad = [NAMES.get(v.quantity, v.quantity) for v in verdicts if not v.holds]
    if bad:
        return f"The calibration does NOT agree with the truth: {', '.join(bad)}."
    noisy = [v for v in judged if v.expected > 0]
    if not noisy:
        return "The calibration agrees with the truth: the night has no noise, and the errors are small."
    worst = max(noisy, key=lambda v: v.ratio)
    return (
        "The calibration agrees with the truth: the worst error is "
        f"{worst.ratio:.2f} of what noise leads to expect ({NAMES.get(worst.quantity, worst.quantity)})."
    )
