"""The options of the sky on arrays that take nothing but the array API: as a device would."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from fakes.strict_backend import strict_backend, to_numpy
from oracle.scene import F_EFF, RESOLUTION, T_ATM, Scene

from gpucal import CalibrationConfig, Scan, calibrate_scan

from .test_against_oracle import as_group, emission_of, make_table, opacity_of

CLIMB = np.deg2rad(30.0 + np.linspace(-1.0, 1.0, 4))[:, None]


def scan_of(modes: list[str], *, layered: bool) -> tuple[Scan, Any]:
    """A climbing scan with a SKY beside its loads, and a table with a line of ozone."""
    table = make_table(RESOLUTION / 3.0, layered=layered)
    line = 0.4 / (1.0 + ((table.freq_hz - 461.1e9) / 40e6) ** 2)
    table = replace(table, c_o3=0.002 + line)
    scene = Scene(modes, shape=(32, 4, 2, 2))
    scene.opacity = opacity_of(table, scene)
    scene.emission = emission_of(table, scene) if layered else None
    elevation = np.tile(np.deg2rad(31.0), (4, len(modes)))
    ons = [i for i, m in enumerate(modes) if m.endswith("ON") or m.startswith("NOD")]
    elevation[:, ons] = CLIMB
    source = as_group(scene.group(scene.modes, 100.0, elevation))
    cal = as_group(scene.group(["HOT", "COLD", "SKY"], 0.0, 0.6))
    attrs = {"f_eff": F_EFF, "gain_image": 0.8}
    return Scan(7, "", attrs, {}, source, cal), table


EVERYTHING: dict[str, Any] = {
    "scale_off_airmass": True,
    "fit_sky": "both",
    "ozone": "fit",
    "t_cab": "hot",
    "hot_coupling": 0.97,
    "cold_coupling": 0.98,
}


@pytest.mark.parametrize(
    ("modes", "layered", "options"),
    [
        (["OFF", "ON", "OFF"], True, EVERYTHING),
        (["OFF", "ON", "OFF"], False, {**EVERYTHING, "reference": "per-dump", "dtype": "f32"}),
        (["NOD-1", "NOD-2"], False, {**EVERYTHING, "pwv_scope": "per-pixel"}),
        (["OFF", "ON"], False, {"cal_scheme": "vane", "pwv": 0.7, "scale_off_airmass": True}),
        (["OFF", "ON"], True, {"cal_scheme": "vane-channel", "pwv": 0.7, "hot_coupling": 0.9}),
    ],
)
def test_strict_arrays_give_the_same(
    modes: list[str], layered: bool, options: dict[str, Any]
) -> None:
    scan, table = scan_of(modes, layered=layered)
    air: dict[str, Any] = {} if layered else {"t_atm": T_ATM}
    config = CalibrationConfig(workers=1, **air, **options)
    ours = calibrate_scan(scan, config, table=table)
    theirs = calibrate_scan(scan, config, table=table, backend=strict_backend())
    assert np.isfinite(ours.spectra).all()
    assert np.array_equal(to_numpy(theirs.flags), ours.flags)
    near = 1e-4 if config.dtype == "f32" else 1e-8
    assert to_numpy(theirs.spectra) == pytest.approx(ours.spectra, abs=near)
    seen = [[w["pwv_mm"] for w in found.quality["pwv_seen"]] for found in (theirs, ours)]
    assert seen[0] == pytest.approx(seen[1])
