"""Axis order, flag bits and fill values: the only place that states them.

Sources: the store layout (formats) and the flag list of the physics page, section 6.
"""

from __future__ import annotations

from enum import IntFlag

import numpy as np

AXES = ("channel", "dump", "receiver", "array", "subscan")
"""Order of the raw counts and of the calibrated spectra: [C, D, R, A, S]."""

FILL_INT32 = int(np.iinfo(np.int32).min)
"""Raw int32 value that means "no data"."""

FEWEST_CHANNELS = 4
"""A block of fewer channels does not show that a dump is zero throughout, which means no data."""


class Flag(IntFlag):
    """Bits of the L1 ``flags`` array (uint16)."""

    BAD_CHANNEL = 1 << 0
    FILL_VALUE = 1 << 1
    SPIKE = 1 << 2
    RFI = 1 << 3
    TSYS_OUTLIER = 1 << 4
    ELEVATION_LOW = 1 << 5
    ML_FLAGGED = 1 << 6
    MANUAL = 1 << 7
    LOW_TRANSMISSION = 1 << 8
    REFERENCE_EXTRAPOLATED = 1 << 9
    ATMOSPHERE_POOR = 1 << 10
    CAL_STALE = 1 << 11


FLAG_DTYPE = np.dtype(np.uint16)

BLANKING = Flag.BAD_CHANNEL | Flag.FILL_VALUE
"""Samples with one of these bits hold NaN in ``spectra``."""

UNUSABLE = BLANKING | Flag.SPIKE | Flag.RFI | Flag.ML_FLAGGED | Flag.MANUAL
"""Samples with one of these bits are left out by all that reads L1; the other bits are remarks."""

ON_MODES = frozenset({"ON", "OTF-ON", "OTFSWA-ON", "OTFSWB-ON", "FSW-SIG", "WSW-ON", "NOD-1"})
OFF_MODES = frozenset({"OFF", "OTF-OFF", "OTFSWA-OFF", "OTFSWB-OFF", "FSW-REF", "WSW-OFF", "NOD-2"})
SOURCE_MODES = ON_MODES | OFF_MODES
CAL_MODES = frozenset({"HOT", "COLD", "SKY", "ZERO"})
CAL_ALIASES = {"COL": "COLD"}
