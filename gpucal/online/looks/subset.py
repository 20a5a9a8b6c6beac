"""Some subscans of a scan as a scan of their own: what a quick look calibrates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from gpucal.scan import CountsSource, Scan, SubscanGroup


@dataclass(frozen=True, eq=False)
class ChosenCounts:
    """Counts [C, D, R, A, len(subscans)] of ``whole``; nothing is read before it is asked for."""

    whole: CountsSource
    subscans: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, int, int, int, int]:
        c, d, r, a, _ = self.whole.shape
        return (c, d, r, a, len(self.subscans))

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.whole.dtype

    @property
    def chunks(self) -> tuple[int, int, int, int, int]:
        c, d, r, a, _ = self.whole.chunks
        return (c, d, r, a, 1)

    def read(
        self, c0: int, c1: int, subscan: int, out: npt.NDArray[Any] | None = None
    ) -> npt.NDArray[Any]:
        """See ``CountsSource.read``."""
        return self.whole.read(c0, c1, self.subscans[subscan], out=out)


def choose_subscans(scan: Scan, subscans: Sequence[int]) -> Scan:
    """The scan with these subscans of ``source/`` only, in the order of time.

    Raises IndexError for one that is not there.
    """
    assert scan.source is not None
    chosen = tuple(sorted(set(subscans)))
    return replace(scan, source=_take(scan.source, chosen))


def sky_as_scan(scan: Scan) -> Scan | None:
    """The SKY of a load scan as both OFF and ON of a scan of its own, which gives T_sys and PWV."""
    group = scan.calibration
    sky = group.select("SKY") if group is not None else []
    if group is None or not sky:
        return None
    pair = replace(_take(group, (sky[0], sky[0])), sobsmode=("OFF", "ON"))
    return replace(scan, source=pair)


def _take(group: SubscanGroup, subscans: tuple[int, ...]) -> SubscanGroup:
    """A group of these subscans alone; raises IndexError for one that is not there."""
    last = group.shape[4]
    if subscans and not 0 <= subscans[0] <= subscans[-1] < last:
        raise IndexError(f"subscans {subscans} do not lie in 0..{last - 1}")
    changes: dict[str, Any] = {
        "counts": ChosenCounts(group.counts, subscans),
        "sobsmode": tuple(group.sobsmode[s] for s in subscans),
    }
    for field in fields(SubscanGroup):
        value = getattr(group, field.name)
        if isinstance(value, np.ndarray):
            # the last axis of every array is that of the subscans
            picked = np.ascontiguousarray(value[..., list(subscans)])
            picked.flags.writeable = False
            changes[field.name] = picked
    return replace(group, **changes)
