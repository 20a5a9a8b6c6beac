"""Every observing mode from L0 to L1 on a card, in threads, against the CPU; and a card that is full."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from builders.recoded import LAYOUTS, recode

from gpucal import CalibrationConfig, StoreReport, calibrate_store
from gpucal.backend.protocol import Backend
from gpucal.pipeline.scan import work_units
from gpucal.pipeline.store.report import SilentObserver

OPTIONS: dict[str, dict[str, Any]] = {
    # every mode once with all that a card can do, and once with the other ways to read and write
    "as it comes": {},
    "io auto": {"io": "auto"},
    "io host, f32": {"io": "host", "dtype": "f32", "scans": "1,3,5"},
    "drift": {"gain_interpolate": 3, "scans": "1-3"},
    "not folded": {"fold": False, "scans": "5"},
    "chopped, merged": {"dbs_coupling": True, "scans": "3,7"},
    "per dump": {"reference": "per-dump", "pwv_scope": "per-pixel", "scans": "2"},
    "uncompressed": {"codec": "none", "scans": "1"},
    "vane": {"cal_scheme": "vane", "tau": 0.1},
    "vane by channel": {"cal_scheme": "vane-channel", "tau": 0.1, "scans": "1"},
}


class Heard(SilentObserver):
    """Keeps the messages."""

    def __init__(self) -> None:
        self.messages: list[str] = []

    def message(self, level: Any, text: str) -> None:
        self.messages.append(text)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several blocks of channels per scan."""
    monkeypatch.setattr(work_units, "L1_CHUNK_BYTES", 1 << 12)


def run(
    l0: Path, out: Path, backend: Backend | None, **options: Any
) -> tuple[StoreReport, list[str]]:
    given = {"workers": 4, "io": "device", "backend": "cpu", **options}
    if "tau" not in given:
        given["atmosphere"] = str(l0.parent / "table.npz")
    given["io"] = given["io"] if backend else "host"
    heard = Heard()
    report = calibrate_store(l0, out, CalibrationConfig(**given), backend=backend, observer=heard)
    return report, heard.messages


def arrays(store: Path) -> dict[str, Any]:
    """All arrays of a store by name."""
    documents = [
        p for p in store.rglob("zarr.json") if '"node_type": "array"' in p.read_text("utf-8")
    ]
    return {
        str(p.parent.relative_to(store)): zarr.open_array(p.parent, mode="r")[...]
        for p in documents
    }


def assert_alike(store: Path, other: Path, limit: float) -> None:
    """The same flags; spectra and T_sys to ``limit`` of the larger of the number and the rms of its array."""
    one, two = arrays(store), arrays(other)
    assert one.keys() == two.keys()
    assert any(name.endswith("spectra") for name in one)
    for name, values in one.items():
        a, b = np.asarray(values), np.asarray(two[name])
        if a.dtype.kind != "f":
            assert np.array_equal(a, b), name
            continue
        seen = np.isfinite(b)
        assert np.array_equal(np.isfinite(a), seen), name
        if seen.any() and name.rsplit("/", 1)[-1] in ("spectra", "t_sys", "t_sys_star", "t_rec"):
            scale = np.maximum(np.abs(b[seen]), np.sqrt(np.mean(b[seen].astype(float) ** 2)))
            assert np.max(np.abs(a[seen] - b[seen]) / np.maximum(scale, 1e-30)) <= limit, name


@pytest.mark.parametrize("name", OPTIONS)
def test_every_mode_is_that_of_the_cpu(
    card: Backend, night: Path, vane_night: Path, tmp_path: Path, name: str
) -> None:
    options = OPTIONS[name]
    l0 = (vane_night if "vane" in name else night) / "l0.zarr"
    ours, _ = run(l0, tmp_path / "cpu.zarr", None, **options)
    theirs, _ = run(l0, tmp_path / "card.zarr", card, **options)
    assert not ours.failures
    assert not theirs.failures
    assert len(theirs.summaries) == len(ours.summaries) > 0
    limit = 1e-6 if options.get("dtype") == "f32" else 1e-12
    assert_alike(tmp_path / "card.zarr", tmp_path / "cpu.zarr", limit)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_decoded_there(
    card: Backend, tools: Any, night: Path, tmp_path: Path, layout: str
) -> None:
    """One frame of zstd and many, with and without checksums, and none."""
    assert tools.codec
    l0 = recode(night / "l0.zarr", tmp_path / "l0.zarr", **LAYOUTS[layout])
    (tmp_path / "table.npz").write_bytes((night / "table.npz").read_bytes())
    run(l0, tmp_path / "cpu.zarr", None, scans="1")
    report, said = run(l0, tmp_path / "card.zarr", card, scans="1")
    assert not report.failures
    by_host = [text for text in said if "by the host" in text]
    # frames of which the last one starts where the codec of the card wants none may be left to the host
    assert not [text for text in by_host if "multiple of" not in text]
    assert_alike(tmp_path / "card.zarr", tmp_path / "cpu.zarr", 1e-12)


def test_a_full_card_says_so_and_works_again(
    card: Backend, night: Path, tmp_path: Path, is_fake: bool
) -> None:
    if is_fake:
        pytest.skip(
            "the simulated device has no memory to fill; tests/backend/test_device_failures.py does"
        )
    l0 = night / "l0.zarr"
    card.health.release()
    free = card.health.free_bytes()
    assert free
    hog: Any = card.xp.empty(max(0, free - (8 << 20)), dtype=np.uint8)
    report, _ = run(l0, tmp_path / "full.zarr", card, scans="1")
    for failure in report.failures:
        assert "memory" in failure.message or "room" in failure.message
    del hog
    card.health.release()
    report, _ = run(l0, tmp_path / "again.zarr", card, scans="1")
    assert not report.failures
