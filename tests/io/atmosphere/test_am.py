"""Import of am output."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from typer.testing import CliRunner

from gpucal import ImportFormatError, load_table
from gpucal.cli.commands.atm import app
from gpucal.io.atmosphere.am import amc_pwv_mm, import_am

FREQ = np.linspace(200.0, 210.0, 11)
B, Q, C = 0.05 + 0.001 * FREQ, 1e-3 + 1e-5 * FREQ, 0.02 + 1e-4 * FREQ

AMC = """# made up
? usage
f %1 %2  %3 %4  %5 %6
Nscale troposphere h2o {scale}
T0 2.7 K
layer stratosphere
Pbase 100 mbar
Tbase 220 K
column dry_air vmr
column h2o vmr 4.0e-6
layer troposphere
Pbase 500 mbar
Tbase 260 K   # ground
column dry_air vmr
column h2o vmr 1.0e-3
"""


def write_run(
    path: Path,
    pwv: float,
    q: NDArray[Any] | float = Q,
    note: str = "",
    freq: NDArray[Any] = FREQ,
) -> Path:
    tau = B * pwv + q * pwv**2 + C
    rows = "\n".join(f"{f:.7e} {t:.12e} 100.0" for f, t in zip(freq, tau, strict=True))
    text = f"{note}{rows}\n".encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path


def test_three_runs_give_b_q_c(tmp_path: Path) -> None:
    pwv = [0.5, 1.0, 3.0]
    paths = [write_run(tmp_path / f"r{i}.out", p) for i, p in enumerate(pwv)]
    table = import_am(paths, tmp_path / "t.npz", pwv_mm=pwv)
    np.testing.assert_allclose(table.freq_hz, FREQ * 1e9)
    np.testing.assert_allclose(table.b, B, rtol=1e-9)
    np.testing.assert_allclose(table.q, Q, rtol=1e-9)
    np.testing.assert_allclose(table.c_dry, C, rtol=1e-9)
    assert table.pwv_range_mm == (0.5, 3.0)
    np.testing.assert_array_equal(load_table(tmp_path / "t.npz").b, table.b)


def test_two_runs_give_b_c(tmp_path: Path) -> None:
    paths = [write_run(tmp_path / f"r{p}.txt.gz", p, q=0) for p in (1.0, 2.0)]
    table = import_am(paths, pwv_mm=[1.0, 2.0])
    np.testing.assert_allclose(table.b, B, rtol=1e-9)
    np.testing.assert_allclose(table.c_dry, C, rtol=1e-9)
    np.testing.assert_array_equal(table.q, 0)


def test_pwv_from_comment_and_configuration(tmp_path: Path) -> None:
    first = write_run(tmp_path / "a.txt", 1.2, q=0, note="# PWV = 1200 um\n")
    known = amc_pwv_mm(AMC.format(scale="%9"))
    second = write_run(tmp_path / "b.txt.gz", known, q=0)
    (tmp_path / "b.amc").write_text(AMC.format(scale="%9"))
    table = import_am([second, first])
    np.testing.assert_allclose(table.b, B, rtol=1e-9)
    assert table.attrs["pressure_hpa"] == 500.0
    assert table.attrs["t_ground_k"] == 260.0


def test_configuration_integral() -> None:
    # vmr dP m_w / (m_air g): 100 hPa of 4e-6 and 400 hPa of 1e-3
    want = (100e2 * 4e-6 + 400e2 * 1e-3) * 18.01528 / 28.964 / 9.80665
    assert amc_pwv_mm(AMC.format(scale="%9")) == pytest.approx(want, rel=1e-12)
    half = (100e2 * 4e-6 + 400e2 * 0.5e-3) * 18.01528 / 28.964 / 9.80665
    assert amc_pwv_mm(AMC.format(scale="0.5")) == pytest.approx(half, rel=1e-12)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        (AMC.format(scale="%9").replace("vmr 1.0e-3", "RH 50%"), "expected vmr"),
        (AMC.format(scale="%9").replace("vmr 1.0e-3", "vmr wet"), "line 15 is not understood"),
        (AMC.format(scale="%9").replace("500 mbar", "500 feet"), "not understood"),
        ("layer a\nPbase 1 mbar\n", "no water"),
        ("", "no water"),
    ],
)
def test_configurations_that_do_not_tell(text: str, match: str) -> None:
    with pytest.raises(ImportFormatError, match=match):
        amc_pwv_mm(text)


@given(text=st.text(max_size=300))
def test_any_configuration_gives_a_number_or_an_error(text: str) -> None:
    try:
        pwv = amc_pwv_mm("layer\nPbase 1 mbar\ncolumn h2o vmr 1e-3\n" + text)
    except ImportFormatError:
        return
    assert pwv > 0


def test_errors(tmp_path: Path) -> None:
    a, b = (write_run(tmp_path / f"{n}.txt", p, q=0) for n, p in (("a", 1.0), ("b", 2.0)))
    other = write_run(tmp_path / "other.txt", 2.0, q=0, freq=FREQ + 0.1)
    words = tmp_path / "words.txt"
    words.write_text("2.0e2 0.1 1\n2.1e2 wet 1\n")
    short = tmp_path / "short.txt"
    short.write_text("2.0e2 0.1 1\n")
    negative = tmp_path / "negative.txt"
    negative.write_text("200 0.1\n201 -0.1\n")
    falling = tmp_path / "falling.txt"
    falling.write_text("200 0.1\n199 0.1\n")
    torn = tmp_path / "torn.txt.gz"
    torn.write_bytes(gzip.compress(a.read_bytes())[:40])
    (tmp_path / "empty.txt").write_text("# nothing\n")
    for files, pwv, text in (
        ([a], [1.0], "1 am outputs"),
        ([a, b, a, b], [1.0, 2.0, 3.0, 4.0], "4 am outputs"),
        ([a, b], [1.0], "1 PWV values"),
        ([a, b], [1.0, 1.0], "same PWV"),
        ([a, b], [1.0, -1.0], "positive"),
        ([a, b], [1.0, float("nan")], "positive"),
        ([a, b], None, "not known"),
        ([a, other], [1.0, 2.0], "other frequencies"),
        ([a, words], [1.0, 2.0], "2.1e2 wet"),
        ([a, short], [1.0, 2.0], "at least 2"),
        ([a, tmp_path / "empty.txt"], [1.0, 2.0], "at least 2"),
        ([a, negative], [1.0, 2.0], "negative"),
        ([a, falling], [1.0, 2.0], "rising"),
        ([a, torn], [1.0, 2.0], "cannot be read"),
        ([a, tmp_path / "missing"], [1.0, 2.0], "cannot be read"),
    ):
        with pytest.raises(ImportFormatError, match=text):
            import_am(files, pwv_mm=pwv)


def test_command(tmp_path: Path) -> None:
    paths = [str(write_run(tmp_path / f"r{p}.txt", p)) for p in (1.0, 2.0, 3.0)]
    out = tmp_path / "t.zarr"
    arguments = [x for p in (1, 2, 3) for x in ("--pwv", str(p))]
    result = CliRunner().invoke(app, ["import", *paths, "-o", str(out), *arguments, "--json"])
    assert result.exit_code == 0, result.exception
    facts = json.loads(result.stdout)
    assert facts["range_ghz"] == [200.0, 210.0]
    assert facts["water_terms"] == "b, q"
    assert load_table(out).pwv_range_mm == (1.0, 3.0)
