"""The page on adding a mode: its code, run as it stands, makes a mode that works."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

import numpy as np
import pytest

from gpucal import config
from gpucal.axes import OFF_MODES, ON_MODES
from gpucal.modes.recipe import Difference, Recipe
from gpucal.pipeline.scan.noise import noise_of_solution
from gpucal.pipeline.store.l1_arrays import small_arrays
from gpucal.products import MeanKey
from gpucal.steps import pairing
from gpucal.steps.sky_diff import sky_entries

PAGE = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "add_a_mode.md"


def code_of_page() -> list[str]:
    """The Python blocks of the page, from the top down."""
    return re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.M | re.S)


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The names that the page's code defines; its entries in the tables last as long as the test."""
    monkeypatch.setattr(pairing, "RULES", dict(pairing.RULES))
    monkeypatch.setattr(pairing, "MODE_OF_PREFIX", dict(pairing.MODE_OF_PREFIX))
    module = ModuleType("mode_of_the_page")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    for block in code_of_page():
        exec(compile(block, str(PAGE), "exec"), module.__dict__)
    return module.__dict__


def test_the_mode_of_the_page_gives_the_truth_back(
    page: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert page["error"] < 1e-6
    solution, spectra = page["result"].solution, page["result"].spectra
    assert solution.pairing.mode == "raster"
    assert np.isfinite(spectra).mean() > 0.5
    bad = np.asarray(solution.loads.bad)[:, None, :, :, None]
    assert np.isfinite(spectra[np.broadcast_to(~bad, spectra.shape)]).mean() > 0.9


def test_every_method_of_the_recipe_is_used_and_right(page: dict[str, Any]) -> None:
    solution, group = page["result"].solution, page["raster"].source
    offs = group.select("RAS-OFF")
    assert len(offs) > 2
    n = len(offs)
    times = np.array([solution.means[MeanKey(off)].time for off in offs])
    arrays = small_arrays(solution)
    for j, one in enumerate(solution.pairing.recipes):
        on = group.select("RAS-ON")[j]
        assert (one.on, one.subscans(), one.means()) == (on, (on,), tuple(map(MeanKey, offs)))
        # all OFFs are equally long
        assert list(one.reference_weights().values()) == pytest.approx([1.0 / n] * n)
        own, shared = one.noise_rates(group.exptime, solution.means)
        assert own == pytest.approx(1.0 / group.exptime[0, on])
        assert shared == pytest.approx(np.sum(1.0 / times) / n**2)
        assert [sky.key for sky in one.skies(solution.means, solution.backend)][:n] == [*one.offs]
        nearest = min(offs, key=lambda off: abs(group.mjd_mid[off] - group.mjd_mid[on]))
        assert arrays["off_index_per_on"][0][j] == nearest
        assert np.array_equal(arrays["mjd"][0][:, j], group.mjd[:, on])
    assert arrays["pixel_offset_lon"][0].shape[-1] == len(solution.pairing.recipes)
    assert {entry.subscan for entry in sky_entries(solution)} <= set(offs)
    noise = noise_of_solution(solution, np.ones(len(solution.pairing.recipes)))
    assert noise.reference == pytest.approx(np.tile(1.0 / n / np.sqrt(times), (noise.rate.size, 1)))


def test_the_reference_of_the_page_by_hand(page: dict[str, Any]) -> None:
    """Two OFFs with weights 1/4 and 3/4; where one of them is lost the other stands alone."""
    means = {
        MeanKey(0): np.array([8.0, np.nan, 5.0, np.nan]),
        MeanKey(2): np.array([4.0, 6.0, np.nan, np.nan]),
    }

    class Counts:
        backend = page["result"].solution.backend
        n_dumps = 1

        def source(self, subscan: int) -> Any:
            return f"dumps of {subscan}"

        def reference(self, subscan: int) -> Any:
            raise AssertionError("no single dumps of an OFF are needed")

        def mean(self, key: MeanKey) -> Any:
            return means[key]

    one = page["AllOffs"](1, (MeanKey(0), MeanKey(2)), (0.25, 0.75), MeanKey(2))
    on, reference = one.on_and_reference(Counts())
    assert on == "dumps of 1"
    assert np.array_equal(reference, [5.0, 6.0, 5.0, np.nan], equal_nan=True)


def test_the_page_knows_all_methods() -> None:
    """What a recipe can override stands on the page: in its code or in its last table."""
    text = PAGE.read_text(encoding="utf-8")
    questions = {
        name
        for base in (Recipe, Difference)
        for name, value in vars(base).items()
        if callable(value) and not name.startswith("_")
    } - {"noise_rates"}  # follows from dump_noise and reference_weights
    assert len(questions) > 10
    missing = {name for name in questions if f"`{name}`" not in text and f"def {name}(" not in text}
    assert not missing


def test_every_mode_has_a_rule_and_a_name() -> None:
    modes = set(get_args(config.Mode)) - {"auto"}
    assert set(pairing.RULES) == modes
    assert set(pairing.MODE_OF_PREFIX.values()) | {"tp"} == modes
    assert {pairing.detect_mode([name]) for name in ON_MODES} == modes
    assert {pairing.detect_mode([name]) for name in OFF_MODES} == modes
