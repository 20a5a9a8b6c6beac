"""Opacity of channels from a coefficient table: physics section 5."""

from __future__ import annotations

from typing import Any

import array_api_strict as xp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import trapezoid

from gpucal import AtmosphereTable, TableError
from gpucal.physics.atm import MAX_POINTS, ChannelOpacity, flat_opacity, pwv_grid

GHZ = 1e9
COLUMNS = ("b", "q", "c_dry", "c_o3", "c_minor")


def make_table(
    freq_ghz: Any, rng: np.random.Generator | None = None, bands_ghz: Any = None, **attrs: Any
) -> AtmosphereTable:
    rng = rng or np.random.default_rng(1)
    f = np.asarray(freq_ghz, dtype=np.float64) * GHZ
    columns: dict[str, Any] = {n: rng.uniform(0.01, 1.0, f.size) for n in COLUMNS}
    bands = None if bands_ghz is None else np.asarray(bands_ghz, dtype=np.float64) * GHZ
    return AtmosphereTable(f, **columns, band_edges_hz=bands, attrs=attrs)


def test_knots_are_returned_exactly() -> None:
    table = make_table([100, 101, 103, 107, 110])
    got = table.channel_opacity(table.freq_hz, 1e6, ozone_scale=1.5)
    assert got.shape == (1, 5)
    np.testing.assert_array_equal(got.b[0], table.b)
    np.testing.assert_array_equal(got.q[0], table.q)
    np.testing.assert_array_equal(got.c[0], table.c_dry + 1.5 * table.c_o3 + table.c_minor)
    tau = table.b * 2.0 + table.q * 4.0 + got.c[0]
    np.testing.assert_allclose(got.zenith_tau(2.0), tau, rtol=1e-14)
    np.testing.assert_allclose(got.transmission(2.0, 1.7), np.exp(-1.7 * tau), rtol=1e-14)


def test_linear_between_knots() -> None:
    table = make_table([100, 104, 105])
    got = table.channel_opacity(np.array([101.0, 104.25]) * GHZ, 1e6)
    b = table.b
    np.testing.assert_allclose(got.b[0], [0.75 * b[0] + 0.25 * b[1], 0.75 * b[1] + 0.25 * b[2]])


def test_falling_channel_order_and_negative_width() -> None:
    table = make_table(np.arange(100, 120))
    f = np.linspace(102, 117, 64) * GHZ
    up, down = table.channel_opacity(f, 1e7), table.channel_opacity(f[::-1], -1e7)
    np.testing.assert_array_equal(up.b, down.b[:, ::-1])


def smooth_line_table() -> AtmosphereTable:
    """A Lorentzian ozone-like line of 20 MHz half width on a knot grid of 1 MHz."""
    f = np.arange(229.0, 231.0005, 0.001) * GHZ
    line = 1.2 / (1 + ((f - 230 * GHZ) / 20e6) ** 2)
    zero = np.zeros(f.size)
    return AtmosphereTable(f, zero + 0.06, zero + 1e-3, zero + 0.02, line, zero)


@pytest.mark.parametrize("width_mhz", [5.0, 16.0, 60.0, 200.0])
def test_wide_channel_is_the_mean_transmission(width_mhz: float) -> None:
    table = smooth_line_table()
    centre = np.array([229.5, 229.97, 230.0, 230.03]) * GHZ
    got = table.channel_opacity(centre, width_mhz * 1e6)
    assert 1 < got.shape[0] <= MAX_POINTS
    assert got.shape[0] % 2 == 1
    for pwv, airmass in ((1.0, 1.0), (4.0, 2.3)):
        fine = centre[:, None] + np.linspace(-0.5, 0.5, 20001) * width_mhz * 1e6
        tau = 0.06 * pwv + 1e-3 * pwv**2 + 0.02 + np.interp(fine, table.freq_hz, table.c_o3)
        want = trapezoid(np.exp(-airmass * tau), dx=1 / 20000, axis=1)
        np.testing.assert_allclose(got.transmission(pwv, airmass), want, atol=1e-3)
    at_centre = np.exp(-np.interp(centre, table.freq_hz, table.c_o3))
    if width_mhz == 200.0:  # the centre alone would be wrong by far more
        assert np.max(np.abs(np.exp(-0.081) * at_centre - got.transmission(1.0, 1.0))) > 0.05


def test_a_core_narrower_than_a_point_is_not_missed() -> None:
    """A 0.5 MHz core in 200 MHz: 33 points 6 MHz apart, wherever the core falls among them."""
    f = (
        230 * GHZ
        + np.concatenate([np.arange(-200, -5, 5), np.arange(-5, 5, 0.05), np.arange(5, 201, 5)])
        * 1e6
    )
    core = 0.5 / (1 + ((f - 230 * GHZ) / 0.5e6) ** 2)
    zero = np.zeros(f.size)
    table = AtmosphereTable(f, zero, zero, zero, core, zero)
    centre = 230 * GHZ + np.linspace(-3e6, 3e6, 13)
    got = table.channel_opacity(centre, 200e6).transmission(0.0, 1.0)
    fine = centre[:, None] + np.linspace(-100e6, 100e6, 40001)
    want = trapezoid(np.exp(-np.interp(fine, f, core)), dx=1 / 40000, axis=1)
    np.testing.assert_allclose(got, want, atol=5e-4)


def test_two_table_steps_are_still_one_point() -> None:
    table = make_table(np.arange(100, 120))
    f = np.array([105.3, 110.2]) * GHZ
    assert table.channel_opacity(f, 2.0 * GHZ).shape == (1, 2)
    assert table.channel_opacity(f, 2.1 * GHZ).shape[0] == 3


def test_opaque_sky_has_a_finite_zenith_opacity() -> None:
    opacity = ChannelOpacity(*(np.full((3, 2), v) for v in (900.0, 0.0, 1.0)))
    np.testing.assert_allclose(opacity.zenith_tau(2.0), 1801.0)
    np.testing.assert_array_equal(opacity.transmission(2.0, 1.0), 0.0)


def test_zenith_tau_is_minus_log_transmission() -> None:
    rng = np.random.default_rng(2)
    opacity = ChannelOpacity(*(rng.uniform(0, 0.5, (5, 7)) for _ in range(3)))
    np.testing.assert_allclose(opacity.zenith_tau(1.3), -np.log(opacity.transmission(1.3, 1.0)))
    per_channel = rng.uniform(0.1, 3, 7)
    each = [opacity.zenith_tau(p)[i] for i, p in enumerate(per_channel)]
    np.testing.assert_allclose(opacity.zenith_tau(per_channel), each)


def test_other_array_namespace() -> None:
    rng = np.random.default_rng(3)
    arrays = [rng.uniform(0, 1, (3, 4)) for _ in range(3)]
    host = ChannelOpacity(*arrays)
    other = ChannelOpacity(*(xp.asarray(a) for a in arrays))
    np.testing.assert_allclose(
        np.asarray(other.transmission(1.2, 1.5)), host.transmission(1.2, 1.5)
    )
    np.testing.assert_allclose(np.asarray(other.zenith_tau(1.2)), host.zenith_tau(1.2))


def test_flat_opacity() -> None:
    flat = flat_opacity(0.3, 5)
    assert flat.shape == (1, 5)
    np.testing.assert_allclose(flat.transmission(7.0, 2.0), np.exp(-0.6))
    np.testing.assert_allclose(flat.zenith_tau(0.0), 0.3)


@pytest.mark.parametrize("tau", [-0.1, np.nan, np.inf])
def test_flat_opacity_refuses(tau: float) -> None:
    with pytest.raises(TableError, match="zenith opacity"):
        flat_opacity(tau, 3)


def test_outside_names_both_ranges() -> None:
    table = make_table([100, 101, 110])
    with pytest.raises(TableError, match="111") as caught:
        table.channel_opacity(np.array([105.0, 111.0]) * GHZ, 1e6)
    for number in ("105", "111", "100", "110"):
        assert number in str(caught.value)
    with pytest.raises(TableError, match=r"99\.99"):
        table.channel_opacity(np.array([99.99]) * GHZ, 1e6)


def test_edge_channel_must_fit_with_its_width() -> None:
    table = make_table(np.arange(100, 120))
    table.channel_opacity(np.array([100.0, 119.0]) * GHZ, 1e6)
    with pytest.raises(TableError, match="holds 100 to 119"):
        table.channel_opacity(np.array([110.0, 101.0]) * GHZ, 8.0 * GHZ)


def test_no_value_in_or_across_a_gap() -> None:
    table = make_table([100, 101, 102, 200, 201, 202], bands_ghz=[[100, 102], [200, 202]])
    both = table.channel_opacity(np.array([101.5, 200.5]) * GHZ, 1e6)
    assert both.shape == (1, 2)
    with pytest.raises(TableError, match="100 to 102, 200 to 202"):
        table.channel_opacity(np.array([150.0]) * GHZ, 1e6)
    near = make_table([100, 101, 102, 102.5, 103, 104], bands_ghz=[[100, 102], [102.4, 104]])
    with pytest.raises(TableError, match="first outside: 101"):
        near.channel_opacity(np.array([101.9]) * GHZ, 2.2 * GHZ)


def test_band_edges_beyond_the_knots_do_not_extrapolate() -> None:
    table = make_table([100, 101, 200, 201], bands_ghz=[[99, 102], [199, 202]])
    np.testing.assert_array_equal(table.bands_hz, np.array([[100, 101], [200, 201]]) * GHZ)
    with pytest.raises(TableError):
        table.channel_opacity(np.array([101.5]) * GHZ, 1e6)


def test_not_finite_channels_are_refused() -> None:
    table = make_table([100, 110])
    for f, width in (([np.nan], 1e6), ([105e9], np.inf), ([[105e9]], 1e6)):
        with pytest.raises(TableError, match="finite"):
            table.channel_opacity(np.array(f), width)


def test_no_channels() -> None:
    assert make_table([100, 110]).channel_opacity(np.empty(0), 1e6).shape == (1, 0)


def test_pwv_grid() -> None:
    for table, lo, hi in (
        (make_table([1, 2], pwv_range_mm=(0.5, 10.0)), 0.25, 20.0),
        (make_table([1, 2]), 0.001, 20.0),
        (None, 0.001, 20.0),
    ):
        grid = pwv_grid(table)
        assert grid.shape == (100,)
        np.testing.assert_allclose(grid[[0, -1]], [lo, hi])
        np.testing.assert_allclose(np.diff(np.log(grid)), np.log(hi / lo) / 99)


def broken(**changes: Any) -> AtmosphereTable:
    good = {name: np.array([1.0, 2.0, 3.0]) for name in ("b", "q", "c_dry", "c_o3", "c_minor")}
    return AtmosphereTable(**({"freq_hz": np.array([1e9, 2e9, 3e9]), **good} | changes))


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"freq_hz": np.array([1e9, 3e9, 2e9])}, "strictly rising"),
        ({"freq_hz": np.array([1e9, 1e9, 2e9])}, "strictly rising"),
        ({"freq_hz": np.array([-1e9, 1e9, 2e9])}, "positive"),
        ({"freq_hz": np.array([1e9, np.nan, 2e9])}, "finite"),
        ({"b": np.array([1.0, 2.0])}, "b has 2 values"),
        ({"q": np.array([1.0, np.inf, 2.0])}, r"q\[1\] is inf"),
        ({"c_dry": np.ones((3, 1))}, "2 dimensions"),
        ({"c_o3": np.ones(3, dtype=np.float32)}, "float32"),
        ({"band_edges_hz": np.array([1e9, 3e9])}, "shape"),
        ({"band_edges_hz": np.array([[3e9, 1e9]])}, "rise from band to band"),
        ({"band_edges_hz": np.array([[1e9, 2.5e9], [2.2e9, 3e9]])}, "rise from band to band"),
        ({"band_edges_hz": np.array([[1e9, 2e9]])}, "outside every band"),
        ({"band_edges_hz": np.array([[1e9, 2e9], [2.5e9, 3e9]])}, "fewer than 2"),
        ({"attrs": {"pwv_range_mm": (3.0, 1.0)}}, "pwv_range_mm"),
        ({"attrs": {"pwv_range_mm": "dry"}}, "pwv_range_mm"),
        ({"attrs": {"pwv_range_mm": [0.0, 1.0]}}, "pwv_range_mm"),
    ],
)
def test_malformed_tables(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(TableError, match=text):
        broken(**changes)


def test_single_knot_is_refused() -> None:
    one = np.ones(1)
    with pytest.raises(TableError, match="at least 2"):
        AtmosphereTable(one, one, one, one, one, one)


@given(
    steps=st.lists(st.floats(1e-4, 5.0), min_size=2, max_size=40),
    place=st.lists(st.floats(0, 1), min_size=1, max_size=20),
    width=st.floats(0, 20.0),
    pwv=st.floats(0, 50),
    airmass=st.floats(1, 10),
)
def test_any_table_gives_a_transmission_or_an_error(
    steps: list[float], place: list[float], width: float, pwv: float, airmass: float
) -> None:
    table = make_table(100 + np.cumsum(steps))
    lo, hi = table.range_hz
    f = lo + np.array(place) * (hi - lo)
    try:
        got = table.channel_opacity(np.minimum(f, hi), width * GHZ)
    except TableError:
        assert np.max(np.abs(f - 0.5 * (lo + hi))) + 0.5 * width * GHZ > 0.5 * (hi - lo)
        return
    t = got.transmission(pwv, airmass)
    assert got.shape[1] == f.size
    assert got.shape[0] <= MAX_POINTS
    assert np.all((t >= 0) & (t <= 1))
    for low, value, high in ((table.b.min(), got.b, table.b.max()),):
        assert np.all((value >= low - 1e-12) & (value <= high + 1e-12))
    again = table.channel_opacity(np.minimum(f, hi), width * GHZ)
    np.testing.assert_array_equal(again.c, got.c)
