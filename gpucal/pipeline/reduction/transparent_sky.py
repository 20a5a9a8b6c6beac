"""A transparent sky where the store has no atmosphere table: allowed in reductions alone.

Offsets and focus do not need T_A*: where the store says nothing that a packaged table fits, the transmission is taken
as 1, and a warning says so. It is refused where T_A* itself is the result, and where the user chose the atmosphere.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from gpucal.config import CalibrationConfig
from gpucal.errors import AtmosphereError, TableError
from gpucal.io.atmosphere.choice import atmosphere_for
from gpucal.physics.atm import AtmosphereTable
from gpucal.scan import Scan

T = TypeVar("T")


def with_atmosphere_or_without(
    solve: Callable[[AtmosphereTable | None, CalibrationConfig], T],
    config: CalibrationConfig,
    scan: Scan,
    *,
    exact: bool,
    warn: Callable[[str], None],
) -> T:
    """Call ``solve`` with the atmosphere of the store, or without one where that fails and only offsets are wanted.

    exact: T_A* itself is the result. Raises TableError or AtmosphereError where doing without is refused.
    """
    try:
        return solve(atmosphere_for(config, scan.store_attrs, scan.path), config)
    except (TableError, AtmosphereError) as error:
        chosen_by_user = config.atmosphere != "auto" or config.tau is not None
        if exact or chosen_by_user:
            raise
        warn(f"the atmosphere is not corrected for (tau = 0): {error.message}")
        return solve(None, _transparent(config))


def _transparent(config: CalibrationConfig) -> CalibrationConfig:
    """The configuration with a transmission of 1."""
    return config.model_copy(update={"atmosphere": "none", "tau": 0.0, "pwv": "fit"})
