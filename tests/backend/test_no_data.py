"""On a device raw counts are blanked as on the host."""

from __future__ import annotations

import numpy as np
import pytest

from gpucal.backend.device_io_lane import blank_what_is_no_data
from gpucal.io.conventions.coding import Coding


@pytest.mark.parametrize("zeros_lost", [False, True])
@pytest.mark.parametrize("channels", [3, 8])
@pytest.mark.parametrize("dtype", ["i4", "u4", "f4", "f8"])
def test_as_on_the_host(dtype: str, channels: int, zeros_lost: bool) -> None:
    counts = np.random.default_rng(5).integers(0, 3, (channels, 4, 1, 5)).astype(dtype)
    counts[:, 1, 0, 2] = counts[:, 3] = 0
    if dtype != "u4":
        counts[2, 0, 0, 1] = -(2**31)
    here, there = counts.copy(), counts.copy()
    right = Coding().counts(here[..., None], zeros_lost=zeros_lost)[..., 0]
    blank_what_is_no_data(there, zeros_lost)
    if dtype.startswith("f"):  # a device leaves -inf where the host has NaN: neither is data
        there[np.isinf(there)] = np.nan
    np.testing.assert_array_equal(there, right)
    lost = np.isnan(right) if dtype.startswith("f") else right == -(2**31)
    assert lost[:, 3].all() == (zeros_lost and channels == 8 and dtype != "u4")
