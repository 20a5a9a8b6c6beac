"""Flag rules of the configuration for a scan that is calibrated in memory, not into a store."""

from __future__ import annotations

import numpy as np

from gpucal.errors import L1Error
from gpucal.io.l1.flag_file import load_rules
from gpucal.io.l1.flag_rules import Extent, Marks
from gpucal.steps.solution import ScanSolution


def marks_of(solution: ScanSolution) -> list[Marks]:
    """What the rules of ``config.flags`` flag in this band; none without rules.

    Raises ConfigError for a file that cannot be read, L1Error for a rule that names this scan and does not fit it.
    """
    if not solution.config.flags:
        return []
    scan = solution.scan
    nu = np.asarray(solution.backend.to_host(solution.setup.nu_sig), dtype=np.float64)
    extent = Extent(solution.output_shape, nu, np.asarray(solution.pairing.on_index))
    found = []
    for rule in load_rules(solution.config.flags):
        if not rule.applies_to(scan.number, scan.band):
            continue
        wrong = rule.misfits(extent)
        other_band = bool(rule.frequencies) and not rule.band and bool(scan.band)
        if wrong and rule.scans and not other_band:
            said = f"flag rule {rule.id} ({rule.reason}): {'; '.join(wrong)}."
            raise L1Error(said, hint="Correct the rule.", scan=scan.number, band=scan.band)
        if not wrong:
            found.append(rule.marks(extent))
    return found
