"""IMBFITS for tests: files as the description says (``files``), and simulated nights in them (``nights``)."""

from builders.imbfits.files import DAY, DOPPLER, NONSENSE, Night, Row, Sub, Tuned, fill, iso, table
from builders.imbfits.nights import (
    OFF_DEG,
    PLACES,
    Chunked,
    emir,
    file_of,
    hera,
    interleaved,
    native,
    single,
    subscans,
    with_traps,
)

__all__ = [
    "DAY",
    "DOPPLER",
    "NONSENSE",
    "OFF_DEG",
    "PLACES",
    "Chunked",
    "Night",
    "Row",
    "Sub",
    "Tuned",
    "emir",
    "file_of",
    "fill",
    "hera",
    "interleaved",
    "iso",
    "native",
    "single",
    "subscans",
    "table",
    "with_traps",
]
