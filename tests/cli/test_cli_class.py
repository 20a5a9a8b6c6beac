"""``gpucal inspect`` and ``gpucal plot`` of CLASS files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpucal import Spectrum, main, open_class, write_class
from gpucal.plot import class_spectra


def spectrum(value: float, *, scan: int = 5, pixel: int = 0, channels: int = 9000) -> Spectrum:
    return Spectrum(
        values=np.full(channels, value),
        frequency=345.8e9,
        frequency_step=1e5,
        ref_channel=channels / 2,
        rest_frequency=345.79599e9,
        velocity=5e3,
        site_velocity=1e4,
        source="ORION",
        line="CO(3-2)",
        telescope="FYST",
        instrument="CHAI",
        scan=scan,
        pixel=pixel,
        receiver=0,
        exptime=10.0 / (1.0 + pixel),
        t_sys=200.0,
        f_eff=0.95,
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    spectra = [spectrum(float(p), pixel=p) for p in range(5)]
    write_class(tmp_path / "a.30m", [*spectra, spectrum(7.0, pixel=2), spectrum(np.nan, scan=6)])
    return tmp_path / "a.30m"


def test_inspect_lists_spectra(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(path)]) == 0
    out = capsys.readouterr().out
    assert "7 spectra" in out
    assert "FYST-CH00040" in out
    assert "345.795990" in out


def test_inspect_names_the_spectrum_that_is_damaged(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = bytearray(path.read_bytes())
    start = (int(open_class(path).index["bloc"][3]) - 1) * 512
    raw[start : start + 4] = b"????"
    path.write_bytes(raw)
    assert main(["inspect", str(path), "--json"]) == 2
    report = json.loads(capsys.readouterr().out)
    assert [bool(row["problems"]) for row in report["scans"]] == [i == 3 for i in range(7)]
    assert "spectrum 3: it starts with b'????'" in report["problems"][0]
    assert main(["inspect", str(path)]) == 2
    assert "unreadable" in capsys.readouterr().out


def test_plot_draws_every_setup(
    path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    assert main(["plot", str(path), "-o", str(tmp_path / "p"), "--format", "svg"]) == 0
    names = [Path(line).name for line in capsys.readouterr().out.split()]
    assert names == [
        "scan_000005_class_1.svg", "scan_000005_class_2.svg", "scan_000006_class.svg"
    ]  # fmt: skip
    assert main(["plot", str(path), "-o", str(tmp_path / "q"), "--scan", "6"]) == 0
    assert [p.name for p in (tmp_path / "q").iterdir()] == ["scan_000006_class.png"]
    assert main(["plot", str(path), "-o", str(tmp_path / "r"), "--scan", "99"]) == 1
    assert "no spectrum of scan 99" in capsys.readouterr().err


def test_what_is_drawn_is_the_weighted_mean(
    path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Pixel 2 was written twice, with 2 K and 7 K and equal weights: its panel shows 4.5 K."""
    pytest.importorskip("matplotlib")
    seen = []
    draw = class_spectra._draw_panel

    def keep(axes: Any, mean: Any) -> None:
        draw(axes, mean)
        line = axes.lines[0]
        seen.append((mean.count, line.get_xdata(), line.get_ydata()))

    monkeypatch.setattr(class_spectra, "_draw_panel", keep)
    class_spectra.plot_class(path, tmp_path / "p", scan=5)
    assert [count for count, _, _ in seen] == [1, 1, 2, 1, 1]
    for (_, velocity, values), expected in zip(seen, (0.0, 1.0, 4.5, 3.0, 4.0), strict=True):
        assert values == pytest.approx(expected, rel=1e-6)
        assert values.size == 3000  # 9000 channels, three in each bin
        step = -299792.458 * 3e5 * (1 + 1e4 / 299792458.0) / 345.79599e9
        assert np.diff(velocity) == pytest.approx(step, rel=1e-6)
