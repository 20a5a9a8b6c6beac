"""Rebuild the packaged atmosphere tables: build_atm_table.py [SITE ...] (needs pyrtlib)."""

from __future__ import annotations

import sys
from pathlib import Path

from gpucal.io.atmosphere.build import SITES, build_table
from gpucal.io.atmosphere.tables import save_table

DATA = Path(__file__).resolve().parent.parent / "gpucal" / "data"


def main(names: list[str]) -> None:
    """Build the named sites, or all of them, into gpucal/data."""
    for name in names or list(SITES):
        if name not in SITES:
            raise SystemExit(f"site {name!r} is not known; known: {', '.join(SITES)}")
        table = build_table(
            SITES[name], progress=lambda text, name=name: print(name, text, flush=True)
        )
        save_table(DATA / f"{name}.npz", table)
        print(name, table.freq_hz.size, "knots written")


if __name__ == "__main__":
    main(sys.argv[1:])
