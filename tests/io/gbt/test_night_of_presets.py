"""Simulated nights in the telescope's own form come back through import and calibrate as their truth.

The faults are those of real sessions: a bank that starts late or is lost for a scan, integrations that are
blank or zero, a number that is used again, words padded with NUL, a first channel without a number.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.gbt_night import W_BAND, Row, Session, gbt_form, w_band_form, write_bank

from gpucal import (
    CalibrationConfig,
    GpucalWarning,
    ImportReport,
    calibrate_store,
    import_sdfits,
    open_l0,
    open_l1,
    save_table,
)
from gpucal.simulate.presets import PRESETS

GAIN = 3.0
"""What the second half of the night multiplies its counts with: loads of the first half would show."""


def brought_in(folder: Path, session: Session, rows: list[Row]) -> tuple[ImportReport, list[str]]:
    """Import a night of two banks, one padded with blanks and one with NUL; its report and warnings."""
    for row in rows:
        row["DATA"][0] = np.nan
    raw = folder / "AGBT25A_001_01.raw.vegas"
    raw.mkdir()
    half = session.setup.pixels // 2
    for bank, pad in (("A", b" "), ("B", b"\0")):
        mine = [r for r in rows if (r["FDNUM"] < half) == (bank == "A")]
        write_bank(raw / f"AGBT25A_001_01.raw.vegas.{bank}.fits", mine, pad=pad)
    save_table(folder / "table.npz", session.table)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        report = import_sdfits([raw], folder / "l0")
    return report, [str(w.message) for w in caught if issubclass(w.category, GpucalWarning)]


def calibrated(folder: Path, session: Session, **options: Any) -> Any:
    truth, _ = next(iter(session.truth.values()))
    config = {"atmosphere": str(folder / "table.npz"), "pwv": truth.pwv_mm, "fold": False}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GpucalWarning)
        report = calibrate_store(
            folder / "l0", folder / "l1", CalibrationConfig(**config, **options)
        )
    assert not report.failures, [f.sentence for f in report.failures]
    return open_l1(folder / "l1")


def same(store: Any, number: int, told: Any, scheme: str, band: str = "") -> None:
    """T_A* of a scan as its truth has it, but for the samples that are NaN; channel 0 is."""
    truth, subscan = told
    expected = truth.t_a_star(subscan, scheme=scheme)
    spectra = store.scan(number, band)["spectra"][...][..., 0]
    good = np.isfinite(spectra)
    assert not good[0].any()
    assert good[1:].any()
    # the simulation takes the opacity between the phases of a frequency switch, the importer at the signal
    rtol = 6e-3 if truth.kind == "fsw" else 2e-4
    where = f"scan {number} {band}"
    np.testing.assert_allclose(spectra[good], expected[good], rtol=rtol, atol=3e-3, err_msg=where)


def lost_samples(store: Any, number: int, band: str = "") -> set[tuple[int, int]]:
    """(dump, pixel) without a number."""
    spectra = store.scan(number, band)["spectra"][...][..., 0]
    gone = ~np.isfinite(spectra[1:]).any(axis=(0, 2))
    return {(int(d), int(a)) for d, a in np.argwhere(gone)}


def faulty(rows: list[Row], several: bool) -> list[Row]:
    """The rows of a night as they are after an evening of real trouble."""
    kept = []
    for row in rows:
        scan, feed, dump = row["SCAN"], row["FDNUM"], row["_dump"]
        if scan == 3 and feed > 1 and dump == 0:
            continue  # bank B starts late
        if scan == 6 and (row["IFNUM"] == 1 if several else feed > 1):
            continue  # a bank is lost for the second half of a pair
        if scan == 4 and (feed, dump) == (0, 1):
            row["DATA"][:] = np.nan
        if scan == 4 and (feed, dump) == (1, 2):
            row["DATA"][:] = 0.0
        kept.append(row)
    return kept


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_a_night_of_each_preset_in_the_form_of_the_gbt(tmp_path: Path, name: str) -> None:
    session = Session(gbt_form(name))
    session.loads(1)
    session.pair(3, "OnOff")
    session.pair(5, "OffOn")
    session.pair(7, "Nod")
    session.loads(9, phases="TF")
    session.switched(11)
    first = len(session.rows)
    session.now += 0.2
    session.loads(1)
    session.pair(13, "OnOff")
    for row in session.rows[first:]:
        row["DATA"] *= np.float32(GAIN)
    several = len(session.setup.bands) > 1
    report, said = brought_in(tmp_path, session, faulty(session.rows, several))
    assert report.scans == (1, 3, 5, 7, 9, 11, 13, 100001)
    assert [(x.scan, x.band) for x in report.lost] == ([(5, "band_2")] if several else [])
    assert any("scan number 1 comes again" in text for text in said)
    assert any("spectra are 0 in all channels" in text for text in said)
    loads = {3: 1, 11: 9, 13: 100001}
    for number, load in loads.items():
        source = open_l0(tmp_path / "l0").load(number)[0].source
        assert source is not None
        assert set(source.lloadsn.tolist()) == {load}
    store = calibrated(tmp_path, session, cal_scheme="vane")
    for (number, band), told in session.truth.items():
        if (number, band) != (5, "band_2"):
            same(store, number, told, "vane", band)
    band = "band_1" if several else ""
    assert lost_samples(store, 3, band) == {(0, 2), (0, 3)}
    everything = {(d, a) for d in range(3) for a in (2, 3)}
    assert lost_samples(store, 5, band) == (set() if several else everything)
    for number in (7, 11, 13):
        assert lost_samples(store, number, band) == set()


def test_a_night_of_the_wheel(tmp_path: Path) -> None:
    """W-band: the loads of a preset with a cold one, as each feed sees them."""
    session = Session(w_band_form(), W_BAND)
    session.loads(1)
    session.pair(2, "OnOff")
    session.pair(4, "Nod")
    report, _ = brought_in(tmp_path, session, session.rows)
    assert report == ImportReport((1, 2, 4))
    store = calibrated(tmp_path, session, cal_scheme="hot-cold")
    for (number, band), told in session.truth.items():
        same(store, number, told, "hot-cold", band)
        assert lost_samples(store, number, band) == set()
