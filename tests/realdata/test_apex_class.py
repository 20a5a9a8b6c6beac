"""A CLASS file of APEX: our reader against pyspeckit's, our writer against its words, our T_sys."""

from __future__ import annotations

import gc
import itertools
import json
import math
import warnings
from pathlib import Path

import numpy as np
import pytest

from gpucal import main, open_class, write_class
from gpucal.io.gildas.reader import ClassFile, is_class_file
from gpucal.io.gildas.words import CLASS_EPOCH, SECTIONS
from gpucal.physics.radiometry import airmass, radiation_temperature, sideband_gains

pytestmark = pytest.mark.realdata

SAME_NAMES = (
    *(
        "UT",
        "ST",
        "AZ",
        "EL",
        "TAU",
        "TSYS",
        "TIME",
        "EPOCH",
        "LAM",
        "BET",
        "LAMOF",
        "BETOF",
        "PROJ",
    ),
    *("SL0P", "SB0P", "SK0P", "RESTF", "NCHAN", "RCHAN", "FRES", "FOFF", "VRES", "VOFF", "BAD"),
    *("IMAGE", "VTYPE", "DOPPLER", "SCAN", "SUBSCAN", "QUAL", "KIND"),
)
CALIBRATION = (
    *("BEEFF", "FOEFF", "GAINI", "H2OMM", "PAMB", "TAMB", "TATMS", "TCHOP", "TCOLD", "TAUS"),
    *("TAUI", "TATMI", "TREC"),
)


@pytest.fixture
def path(realdata: Path) -> Path:
    return realdata / "class" / "example_h2co_mm_spectrum.apex"


@pytest.fixture
def apex(path: Path) -> ClassFile:
    return open_class(path)


def test_what_is_in_it(path: Path, apex: ClassFile) -> None:
    assert is_class_file(path)
    assert (len(apex), apex.version, apex.kind, apex.byte_order) == (3, 1, "single", "<")
    assert (apex.n_other, apex.n_superseded) == (0, 0)
    assert [s.line for s in apex] == ["H2CO218222", "H2CO218475", "H2CO218760"]
    assert apex.header(0)["sections"] == [-2, -3, -4, -7, -5, -6, -14]
    first = apex[0]
    assert (first.telescope, first.source, first.scan) == ("AP-H201-F101", "SGRA", 18595)
    assert (first.ra, first.dec) == pytest.approx((266.4166667, -29.0077778), abs=1e-6)
    assert math.floor(first.mjd) == 55289  # 2010-04-03
    assert first.pamb == pytest.approx(554.09 / 1.33322, rel=1e-4)
    assert (first.counts_sky, first.counts_hot, first.counts_cold) == pytest.approx(
        (268500, 759937, 368949), abs=0.5
    )


def test_formaldehyde_lies_at_the_velocity_of_the_galactic_centre(apex: ClassFile) -> None:
    s = apex[0]
    velocity = (1.0 - s.frequencies / s.rest_frequency) * 299792.458
    assert velocity[np.nanargmax(s.values)] == pytest.approx(36.0, abs=3.0)


def test_same_as_pyspeckit(path: Path, apex: ClassFile) -> None:
    """pyspeckit takes the calibration section for one word longer: its names are one word behind."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("pyspeckit")
        from pyspeckit.spectrum.readers.read_class import read_class

        data, headers, _ = read_class(str(path))
        data, headers = [np.array(x) for x in data], [dict(h) for h in headers]
        gc.collect()  # read_class leaves its file open
    assert len(headers) == 3
    for i, (values, theirs) in enumerate(zip(data, headers, strict=True)):
        ours = apex.header(i)
        assert np.array_equal(apex[i].values, values.astype(np.float64))
        for name in SAME_NAMES:
            assert ours[name.lower()] == theirs[name], name
        for name, behind in itertools.pairwise(CALIBRATION):
            assert ours[behind.lower()] == theirs[name], behind
        assert ours["dobs"] + CLASS_EPOCH == theirs["MJD"]
        assert ours["line"] == theirs["LINE"].strip()


def test_written_again_with_the_same_words(tmp_path: Path, path: Path, apex: ClassFile) -> None:
    """General, position and spectroscopic sections of both files, byte by byte, but what may differ."""
    write_class(tmp_path / "again.30m", apex)
    again = open_class(tmp_path / "again.30m")
    raws = path.read_bytes(), (tmp_path / "again.30m").read_bytes()
    may_differ = {"st", "foff", "doppler", "bad"}
    places = {-2: (55, 9), -3: (64, 17), -4: (81, 17)}
    for i in range(3):
        starts = [(int(f.index[i]["bloc"]) - 1) * 512 for f in (apex, again)]
        for code, (address, length) in places.items():
            layout = SECTIONS[code][length]
            words = [
                np.frombuffer(raw, layout, 1, start + 4 * (address - 1))[0]
                for raw, start in zip(raws, starts, strict=True)
            ]
            for name in layout.names or ():
                if name in may_differ:
                    continue
                if layout[name] == np.dtype("f8"):  # degrees and Hz in between: the last bit
                    assert words[0][name] == pytest.approx(words[1][name], rel=5e-16), name
                else:
                    assert words[0][name].tobytes() == words[1][name].tobytes(), name
        old, new = apex.header(i), again.header(i)
        for name in SECTIONS[-14][25].names or ():
            assert name in ("cmode", "atfac") or old[name] == new[name], name
        for name in ("source", "line", "teles", "dobs", "off1", "off2", "typec", "scan", "subscan"):
            assert old[name] == new[name], name
        assert np.array_equal(apex[i].values, again[i].values, equal_nan=True)
        assert again[i].frequencies == pytest.approx(apex[i].frequencies, abs=1.0)


def test_system_temperature_from_the_loads(apex: ClassFile) -> None:
    """Hot, cold and sky counts of the header through physics sections 2 to 6: T_sys* within 2 %."""
    for s in apex:
        nu = np.array([s.frequency, s.image_frequency])
        gains = np.array([float(g) for g in sideband_gains(np.array(s.gain_image), np)])

        def brightness(kelvin: float, nu: np.ndarray = nu, gains: np.ndarray = gains) -> float:
            return float(gains @ radiation_temperature(nu, kelvin))

        hot, cold = brightness(s.t_hot), brightness(s.t_cold)
        y = s.counts_hot / s.counts_cold
        t_rec = (hot - y * cold) / (y - 1.0)
        sky = cold + (s.counts_sky - s.counts_cold) * (hot - cold) / (s.counts_hot - s.counts_cold)
        transmission = np.exp(-s.tau_signal * airmass(np.array(s.elevation)))
        t_sys = (t_rec + sky) / (gains[0] * s.f_eff * transmission)
        assert 179.2 < s.t_sys < 179.7
        assert t_sys == pytest.approx(s.t_sys, rel=0.02)
        assert t_rec == pytest.approx(s.t_rec, rel=0.05)


def test_inspect(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(path)]) == 0
    out = capsys.readouterr().out
    for word in ("CLASS version 1", "SGRA", "H2CO218475", "AP-H201-F101", "218.222187", "179.6"):
        assert word in out
    assert main(["inspect", str(path), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["format"] == "class"
    assert [row["channels"] for row in report["scans"]] == [201, 201, 201]


def test_plot(path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    assert main(["plot", str(path), "-o", str(tmp_path / "pictures")]) == 0
    written = capsys.readouterr().out.split()
    assert [Path(p).name for p in written] == ["scan_018595_class.png"]
    assert Path(written[0]).read_bytes().startswith(b"\x89PNG")


def test_truncated(path: Path, tmp_path: Path, apex: ClassFile) -> None:
    """The index stands first in this file: what is cut off is missed when it is read."""
    raw = path.read_bytes()
    cut = tmp_path / "cut.apex"
    cut.write_bytes(raw[: 103 * 512 + 100])
    file = open_class(cut)
    assert np.array_equal(file[0].values, apex[0].values)
    assert main(["inspect", str(cut)]) == 2
    cut.write_bytes(raw[:2000])
    assert main(["inspect", str(cut)]) == 1
