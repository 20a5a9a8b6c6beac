"""Emission columns of a table: fitted to levels, and imported from am."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.integrate import cumulative_simpson, simpson

from gpucal import AtmosphereTable, ImportFormatError, load_table, save_table
from gpucal.io.atmosphere.am import import_am
from gpucal.io.atmosphere.emission import LevelAbsorption, emission_columns
from gpucal.physics.atm import EMISSION

F64 = NDArray[np.float64]
PLANCK_K = 6.62607015e-34 / 1.380649e-23


def radiation(nu: F64, kelvin: F64 | float) -> F64:
    return np.asarray(PLANCK_K * nu / np.expm1(PLANCK_K * nu / kelvin))


# ---- levels

FREQ = np.array([110e9, 230e9, 461e9, 809e9])
B, DRY = np.array([0.01, 0.05, 0.65, 1.3]), np.array([0.06, 0.01, 0.04, 0.09])
OZONE = np.array([3e-5, 2e-3, 0.05, 0.4])
PWV = np.array([0.2, 0.7, 2.4])
Z = np.concatenate([np.arange(0, 12, 0.5), np.arange(12, 25, 1.0), np.arange(25, 60.1, 2.5)])


def temperature(z: F64) -> F64:
    """Falls by 6.5 K/km to 12 km, rises above 20 km."""
    return np.asarray(np.interp(z, [0, 12, 20, 48, 60], [270, 192, 200, 265, 250]))


def absorption(z: F64, scale_km: float) -> F64:
    """Np/km that add up to 1."""
    return np.asarray(np.exp(-z / scale_km) / (scale_km * (1 - np.exp(-60 / scale_km))))


def ozone_layer(z: F64) -> F64:
    shape = np.exp(-(((z - 22.0) / 6.0) ** 2)) + 1e-12
    return np.asarray(shape / simpson(shape, x=z))


def exact(nu: float, parts: list[tuple[F64, float]], z: F64, airmass: float) -> tuple[float, float]:
    """t and D = (1 - t) - J_em/J_g by Simpson's rule over fine levels; no code of the package."""
    k = sum(values * amount for values, amount in parts)
    above = cumulative_simpson(k, x=z, initial=0.0)
    less = 1.0 - radiation(np.array(nu), temperature(z)) / radiation(np.array(nu), 270.0)
    t = float(np.exp(-airmass * above[-1]))
    return t, float(simpson(airmass * k * less * np.exp(-airmass * above), x=z))


def columns_of_levels() -> F64:
    water, dry = absorption(Z, 2.0), absorption(Z, 4.2)
    ozone = np.maximum(np.interp(Z, fine := np.linspace(0, 60, 4001), ozone_layer(fine)), 1e-20)
    levels = LevelAbsorption(
        np.outer(DRY, dry),
        np.stack([np.outer(DRY, dry) + np.outer(B * p, water) for p in PWV]),
        np.outer(OZONE, ozone),
        np.zeros((FREQ.size, Z.size)),
    )
    return emission_columns(FREQ, Z, temperature(Z), levels, PWV)


def test_columns_reproduce_what_the_levels_emit() -> None:
    table = AtmosphereTable(
        FREQ, B, 0 * B, DRY, OZONE, 0 * B, **dict(zip(EMISSION, columns_of_levels(), strict=True))
    )
    fine = np.linspace(0, 60, 60001)
    water, dry, ozone = absorption(fine, 2.0), absorption(fine, 4.2), ozone_layer(fine)
    for airmass in (1.0, 1.15, 1.7, 2.4):
        for pwv in (0.25, 0.5, 1.2):
            with_ozone = table.channel_opacity(FREQ, 1.0).departure(pwv, airmass)
            without = table.channel_opacity(FREQ, 1.0, ozone_scale=0.0).departure(pwv, airmass)
            for i, nu in enumerate(FREQ):
                parts = [(dry, DRY[i]), (water, B[i] * pwv)]
                t, want = exact(nu, parts, fine, airmass)
                if t < 0.1:
                    continue
                # of the transmission: so much is T_A* off
                assert abs(without[i] - want) < 1e-3 * t, (airmass, pwv, nu)
                t, want = exact(nu, [*parts, (ozone, OZONE[i])], fine, airmass)
                assert abs(with_ozone[i] - want) < 4e-3 * t, (airmass, pwv, nu)


def test_thin_limits() -> None:
    e_b, _, e_c, e_o3 = columns_of_levels()
    fine = np.linspace(0, 60, 60001)
    for i, nu in enumerate(FREQ[:2]):
        less = 1.0 - radiation(np.array(nu), temperature(fine)) / radiation(np.array(nu), 270.0)
        means = [
            float(simpson(w * less, x=fine))
            for w in (absorption(fine, 2.0), absorption(fine, 4.2), ozone_layer(fine))
        ]
        assert e_b[i] / B[i] == pytest.approx(means[0], rel=0.01)
        assert e_c[i] / DRY[i] == pytest.approx(means[1], rel=0.01)
        assert e_o3[i] == pytest.approx(means[2], rel=0.01)


@pytest.mark.parametrize("ending", [".npz", ".zarr"])
def test_round_trip(tmp_path: Path, ending: str) -> None:
    emission = dict(zip(EMISSION, columns_of_levels(), strict=True))
    table = AtmosphereTable(
        *(FREQ, B, 0 * B, DRY, OZONE, 0 * B),
        attrs={"model": "made up", "pwv_range_mm": [0.2, 2.4]},
        slope_freq_hz=FREQ[:2],
        slopes=np.arange(14.0).reshape(7, 2),
        **emission,
    )
    save_table(tmp_path / f"t{ending}", table)
    got = load_table(tmp_path / f"t{ending}")
    for name in (*EMISSION, "slope_freq_hz", "slopes"):
        np.testing.assert_array_equal(getattr(got, name), getattr(table, name))


# ---- am

GHZ = np.linspace(200.0, 210.0, 11)
GROUND_K = 260.0
AMC = """f %1 %2  %3 %4  %5 %6
output f GHz  tau  {kind} K
Nscale troposphere h2o %9
T0 {background}
layer stratosphere
Pbase 100 mbar
Tbase 220 K
column h2o vmr 4.0e-6
layer troposphere
Pbase 500 mbar
Tbase {ground}   # ground
column h2o vmr 1.0e-3
"""


def am_run(
    path: Path,
    pwv: float,
    *,
    kind: str = "Trj",
    background: str = "0 K",
    ground: str = "260 K",
    warm: float = 1.0,
) -> Path:
    """An output of am for a sky of one layer that is 5 % colder (in J) than the ground."""
    nu = GHZ * 1e9
    tau = (0.05 + 0.001 * GHZ) * pwv + 0.02
    t = np.exp(-tau)
    t0 = float(background.split()[0])
    seen = warm * 0.95 * radiation(nu, GROUND_K) * (1.0 - t) + (
        radiation(nu, t0) * t if t0 else 0.0
    )
    if kind == "Tb":
        seen = PLANCK_K * nu / np.log1p(PLANCK_K * nu / seen)
    rows = zip(GHZ, tau, seen, strict=True)
    path.write_text("".join(f"{f:.7e} {x:.12e} {y:.12e}\n" for f, x, y in rows))
    path.with_suffix(".amc").write_text(AMC.format(kind=kind, background=background, ground=ground))
    return path


@pytest.mark.parametrize("pwv", [[1.0, 2.0], [0.5, 1.0, 2.0]])
@pytest.mark.parametrize(
    "said",
    [{}, {"background": "2.7 K"}, {"kind": "Tb", "background": "2.7 K"}, {"ground": "-13.15 C"}],
)
def test_am_tells_the_emission(tmp_path: Path, pwv: list[float], said: dict[str, Any]) -> None:
    paths = [am_run(tmp_path / f"r{i}.txt", p, **said) for i, p in enumerate(pwv)]
    table = import_am(paths, tmp_path / "t.npz", pwv_mm=pwv)
    for p in pwv:
        opacity = table.channel_opacity(GHZ * 1e9, 1.0)
        want = 0.05 * (1.0 - opacity.transmission(p, 1.0))
        np.testing.assert_allclose(opacity.departure(p, 1.0), want, rtol=1e-8)
    assert load_table(tmp_path / "t.npz").layered


@pytest.mark.parametrize(
    "said", [{"kind": "tx"}, {"background": "%7"}, {"ground": "%8 K"}, {"background": "3 F"}]
)
def test_am_that_does_not_tell_makes_an_isothermal_table(
    tmp_path: Path, said: dict[str, Any]
) -> None:
    paths = [am_run(tmp_path / "a.txt", 1.0), am_run(tmp_path / "b.txt", 2.0)]
    text = AMC.format(kind="Trj", background="0 K", ground="260 K")
    for old, new in (
        ("Trj", said.get("kind", "Trj")),
        ("T0 0 K", f"T0 {said.get('background', '0 K')}"),
    ):
        text = text.replace(old, new)
    text = text.replace("Tbase 260 K", f"Tbase {said.get('ground', '260 K')}")
    (tmp_path / "b.amc").write_text(text)
    table = import_am(paths, pwv_mm=[1.0, 2.0])
    assert not table.layered
    assert "No emission columns" in table.attrs["notes"]


def test_brightness_of_another_run_is_refused(tmp_path: Path) -> None:
    paths = [am_run(tmp_path / "a.txt", 1.0), am_run(tmp_path / "b.txt", 2.0, warm=3.0)]
    with pytest.raises(ImportFormatError, match=r"b\.txt: at .* but the sky emits"):
        import_am(paths, pwv_mm=[1.0, 2.0])
    paths[0].write_text("200 0.1\n201 0.2\n")
    with pytest.raises(
        ImportFormatError, match="expected frequency in GHz and opacity in Np and Trj in K"
    ):
        import_am(paths, pwv_mm=[1.0, 2.0])
