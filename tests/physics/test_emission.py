"""Emission of a layered sky: the lapse curve, E, a table in the weather; physics section 5."""

from __future__ import annotations

from typing import Any

import array_api_strict as xp
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.integrate import quad
from scipy.special import expi

from gpucal import AtmosphereTable, TableError
from gpucal.physics.atm import EMISSION, SLOPED
from gpucal.physics.emission import departure, lapse, lapse_by_series
from gpucal.physics.weather import in_weather

F64 = NDArray[np.float64]
HERE = np.concatenate([[0.0], np.geomspace(1e-7, 300.0, 40), [0.29, 0.31]])


def integral(y: float, weight: Any) -> float:
    """g(y) is the mean of exp(-u) over a layer of opacity y weighted with ln(y / (y - u))."""
    parts = [
        quad(weight, a, b, args=(y,), epsabs=1e-15, epsrel=1e-13)[0]
        for a, b in ((0, 0.5), (0.5, 1))
    ]
    return float(sum(parts))


@pytest.mark.filterwarnings("ignore::scipy.integrate.IntegrationWarning")
def test_lapse_is_the_integral_over_a_layer_whose_temperature_falls_with_height() -> None:
    g, slope = lapse(HERE)
    want = [integral(y, lambda s, y: -np.log1p(-s) * np.exp(-y * s)) for y in HERE]
    steep = [integral(y, lambda s, y: s * np.log1p(-s) * np.exp(-y * s)) for y in HERE]
    np.testing.assert_allclose(g, want, rtol=0, atol=1e-12)
    np.testing.assert_allclose(slope, steep, rtol=0, atol=2e-12)
    assert g[0] == pytest.approx(1.0, abs=1e-14)
    assert slope[0] == pytest.approx(-0.75, abs=1e-12)


def test_lapse_is_the_exponential_integral_and_falls_as_its_square() -> None:
    y = np.linspace(0.5, 500.0, 997)
    closed = np.exp(-y) * (expi(y) - np.log(y) - np.euler_gamma) / y
    np.testing.assert_allclose(lapse(y)[0], closed, rtol=1e-12)
    np.testing.assert_allclose(lapse_by_series(y), closed, rtol=1e-12)
    far = np.array([1e4, 1e8, 1e150])
    assert np.all(np.isfinite(lapse(far)))
    np.testing.assert_allclose(lapse(far[:2])[0] * far[:2] ** 2, 1.0, rtol=2e-4)


def test_lapse_in_any_namespace() -> None:
    for shape in ((43,), (43, 1, 1)):
        for here, there in zip(
            lapse(HERE.reshape(shape)), lapse(xp.asarray(HERE.reshape(shape))), strict=True
        ):
            np.testing.assert_array_equal(here, np.asarray(there))


def one_point(**columns: float) -> tuple[F64, F64]:
    """Opacity [3,1] and emission [5,1]."""
    opacity = np.array([[columns.get(n, 0.0)] for n in ("b", "q", "c")])
    emission = np.array([[columns.get(n, 0.0)] for n in ("c_o3", *EMISSION)])
    return opacity, emission


@pytest.mark.parametrize("airmass", [1.0, 2.4])
@pytest.mark.parametrize("tau", [0.02, 0.5, 3.0])
def test_a_sky_whose_temperature_falls_linearly_is_exact(tau: float, airmass: float) -> None:
    # absorption falls as exp(-z), 1 - J/J_g = 0.08 z: E = 0.08 int z dt
    opacity, emission = one_point(b=tau, e_b=0.08 * tau)
    want = quad(
        lambda z: 0.08 * z * airmass * tau * np.exp(-z - airmass * tau * (1.0 - np.exp(-z))), 0, 60
    )[0]
    assert departure(opacity, emission, 1.0, airmass).value[0] == pytest.approx(want, rel=1e-10)


def test_ozone_lies_above_all_that_absorbs() -> None:
    opacity, emission = one_point(c=0.7, c_o3=0.3, e_o3=0.2)
    want = 0.2 * np.exp(-1.5 * 0.4) * (1.0 - np.exp(-1.5 * 0.3))
    assert departure(opacity, emission, 1.0, 1.5).value[0] == pytest.approx(want, rel=1e-14)


def test_slope_of_the_departure() -> None:
    rng = np.random.default_rng(3)
    opacity, emission = rng.uniform(0.01, 0.6, (3, 50)), rng.uniform(0.0, 0.05, (5, 50))
    opacity[2] += emission[0]
    step = 1e-5
    ends = [departure(opacity, emission, 0.8 + s, 1.7).value for s in (-step, step)]
    got = departure(opacity, emission, 0.8, 1.7).slope
    np.testing.assert_allclose(got, (ends[1] - ends[0]) / (2 * step), atol=1e-10)


def make_table(**more: Any) -> AtmosphereTable:
    f = np.linspace(200e9, 210e9, 101)
    rng = np.random.default_rng(2)
    columns: dict[str, Any] = {
        n: rng.uniform(0.01, 0.5, f.size) for n in ("b", "q", "c_dry", "c_o3")
    }
    emission: dict[str, Any] = {n: rng.uniform(0.001, 0.1, f.size) for n in EMISSION}
    return AtmosphereTable(f, **columns, c_minor=0 * f, **(emission | more))


def test_columns_are_linear_in_frequency_and_the_departure_is_the_mean_over_a_channel() -> None:
    table = make_table()
    assert table.layered
    got = table.channel_opacity(np.array([203.03e9]), 1e6, ozone_scale=1.5)
    assert got.emission is not None
    want = [1.5 * np.interp(203.03e9, table.freq_hz, table.c_o3)]
    want += [np.interp(203.03e9, table.freq_hz, getattr(table, n)) for n in EMISSION]
    np.testing.assert_allclose(got.emission[:, 0, 0], want, rtol=1e-12)
    wide = table.channel_opacity(np.array([203.0e9, 206.0e9]), 2e9)
    assert wide.emission is not None
    points = departure(np.stack([wide.b, wide.q, wide.c]), wide.emission, 1.3, 1.2).value
    assert points.shape[0] > 3
    np.testing.assert_allclose(wide.departure(1.3, 1.2), points.mean(axis=0), rtol=1e-14)


def test_an_isothermal_table_departs_from_nothing() -> None:
    table = make_table(**dict.fromkeys(EMISSION))
    assert not table.layered
    got = table.channel_opacity(np.array([203e9]), 1e6)
    assert got.emission is None
    np.testing.assert_array_equal(got.departure(1.0, 2.0), [0.0])


@pytest.mark.parametrize(
    ("more", "text"),
    [
        ({"e_q": None}, "all or none"),
        ({"e_c": np.full(101, np.nan)}, r"e_c\[0\] is nan"),
        ({"e_b": np.zeros(7)}, "e_b has 7 values"),
        ({"slopes": np.zeros((7, 2))}, "shapes None"),
        ({"slope_freq_hz": np.array([1.0, 2.0]), "slopes": np.zeros((3, 2))}, "expected"),
        ({"slope_freq_hz": np.array([2.0, 1.0]), "slopes": np.zeros((7, 2))}, "does not rise"),
    ],
)
def test_broken_emission_columns(more: dict[str, Any], text: str) -> None:
    with pytest.raises(TableError, match=text):
        make_table(**more)


def sloped(**attrs: float) -> AtmosphereTable:
    ends = np.array([200e9, 210e9])
    slopes = np.stack([[n, n] for n in (-3.0, -7.0, -2.0, -2.5, -6.0, -1.5, 3.0)])
    return make_table(attrs=attrs, slope_freq_hz=ends, slopes=slopes)


def test_a_table_in_the_weather() -> None:
    table = sloped(t_ground_k=270.0, pressure_hpa=500.0)
    here = in_weather(table, 280.0, 510.0)
    assert table.slopes is not None
    for name, n in zip(SLOPED, table.slopes[:, 0], strict=True):
        squeeze = 1.02**2 if name in ("c_dry", "e_c") else 1.0
        want = getattr(table, name) * (280.0 / 270.0) ** n * squeeze
        np.testing.assert_allclose(getattr(here, name), want, rtol=1e-12, err_msg=name)
    for name in ("c_o3", "c_minor"):
        np.testing.assert_array_equal(getattr(here, name), getattr(table, name))
    np.testing.assert_allclose(in_weather(table, 270.0).b, table.b, rtol=1e-14)


def test_weather_that_cannot_be_that_of_the_table() -> None:
    table = sloped(t_ground_k=270.0, pressure_hpa=500.0)
    # a pressure at sea level, in another unit, or none
    for wrong in (1013.0, 375.0, 50000.0, 0.0, np.nan):
        np.testing.assert_array_equal(
            in_weather(table, 270.0, wrong).c_dry, in_weather(table, 270.0).c_dry
        )
    # the power laws end 30 K from the profile
    np.testing.assert_array_equal(in_weather(table, 310.0).b, in_weather(table, 300.0).b)
    # a table that says nothing of itself
    np.testing.assert_array_equal(in_weather(sloped(), 280.0, 510.0).b, sloped().b)
    plain = make_table(attrs={"t_ground_k": 270.0, "pressure_hpa": 500.0})
    assert in_weather(plain, 280.0, 510.0) is plain
