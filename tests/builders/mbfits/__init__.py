"""MBFITS for tests: scans as the description says (``files``), and simulated nights in them (``nights``)."""

from builders.mbfits.files import BLANK, DAY, NONSENSE, TAI_UTC, Baseband, Febe, MbScan, Sub, iso
from builders.mbfits.nights import apex, interleaved, native, of_simulated, single

__all__ = [
    "BLANK",
    "DAY",
    "NONSENSE",
    "TAI_UTC",
    "Baseband",
    "Febe",
    "MbScan",
    "Sub",
    "apex",
    "interleaved",
    "iso",
    "native",
    "of_simulated",
    "single",
]
