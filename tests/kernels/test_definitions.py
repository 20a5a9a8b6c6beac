"""The contract of the kernels: its definitions against the scalar oracle, both twins against them."""

from __future__ import annotations

import inspect
from typing import Any, get_type_hints

import numpy as np
import pytest
from oracle.kernel_contract import (
    DTYPES,
    KernelContract,
    assert_same_bits,
    filled,
    make_chi2,
    make_counts,
    make_fold,
    spoil,
)

from cpu_fallback import NumpyKernels
from gpucal.kernel_contract.argument import SPECTRA
from gpucal.kernel_contract.calibrate import CalibrationTile
from gpucal.kernel_contract.chi2 import SkyFits
from gpucal.kernel_contract.dump_mean import SubscanDumps
from gpucal.kernel_contract.fold import FoldTile
from gpucal.kernel_contract.kernel_set import CONTRACTS, KernelSet
from gpucal.kernel_contract.reference import OffPair
from gpucal.kernels import CudaKernels


class DefinedKernels:
    """A kernel set made of the definitions alone."""

    def __getattr__(self, kernel: str) -> Any:
        contract = CONTRACTS[kernel]

        def run(value: Any) -> Any:
            contract.check(value)
            return contract.definition(value)

        return run


@pytest.fixture(scope="class")
def xp() -> Any:
    return np


class TestDefinitionsAreTheOracle(KernelContract):
    """All that every kernel set promises holds for the definitions."""

    @pytest.fixture(scope="class")
    @classmethod
    def kernels(cls) -> Any:
        return DefinedKernels()


SHAPE = (6, 7, 2, 3)


def calibration_tile(rng: np.random.Generator, share: float) -> Any:
    shape, row = SHAPE, (SHAPE[0], *SHAPE[2:])
    flags = np.where(rng.random(row) < share, rng.integers(0, 4096, row), 0).astype(np.uint16)
    return CalibrationTile(
        make_counts(rng, shape, rng.choice(np.array(DTYPES)), share),
        spoil(rng, rng.normal(3e4, 10.0, shape if rng.random() < 0.5 else row), share),
        spoil(rng, rng.normal(0.01, 0.001, row), share),
        flags,
        np.full(shape, 7, rng.choice(np.array(SPECTRA))),
        np.full(shape, 7, np.uint16),
    )


def subscan_dumps(rng: np.random.Generator, share: float) -> Any:
    valid = None if rng.random() < 0.3 else rng.random(SHAPE[1]) < 0.7
    return SubscanDumps(make_counts(rng, SHAPE, rng.choice(np.array(DTYPES)), share), valid)


def off_pair(rng: np.random.Generator, share: float) -> Any:
    row = (SHAPE[0], *SHAPE[2:])
    weight = rng.choice([0.0, 0.25, 0.7, 1.0], SHAPE[1] if rng.random() < 0.5 else None)
    offs = (spoil(rng, rng.normal(3e4, 1e3, row), share) for _ in range(2))
    return filled(OffPair, *offs, np.asarray(weight))


def sky_fits(rng: np.random.Generator, share: float) -> Any:
    case = make_chi2(rng, 9, 3, 2, 2, tuple(rng.random(3) < 0.5))
    case[3][rng.random(case[3].shape) < share] = 0.0
    return filled(SkyFits, *case, derivatives=bool(rng.random() < 0.5))


def fold_tile(rng: np.random.Generator, share: float) -> Any:
    arrays = make_fold(rng, SHAPE, 4, 2, "mixed", share)
    arrays[5] = arrays[5] if rng.random() < 0.7 else None
    return filled(
        FoldTile,
        *arrays,
        np.full(SHAPE, 7, rng.choice(np.array(SPECTRA))),
        np.full(SHAPE, 7, np.uint16),
    )


MAKERS = {
    "calibrate": calibration_tile,
    "dump_mean": subscan_dumps,
    "reference": off_pair,
    "chi2": sky_fits,
    "fold": fold_tile,
}


def kept(array: Any) -> Any:
    """An array that is there."""
    assert array is not None
    return array


def outcome(contract: Any, run: Any, value: Any) -> Any:
    """Everything that a kernel writes and returns, as arrays; what it was given stays as it was."""
    given = {n: getattr(value, n) for n, a in contract.arguments.items() if a.role == "in"}
    before = {name: None if array is None else array.copy() for name, array in given.items()}
    own = value._replace(
        **{n: getattr(value, n).copy() for n, a in contract.arguments.items() if a.role == "out"}
    )
    returned = run(own)
    for name, array in given.items():
        assert array is None or array.tobytes() == kept(before[name]).tobytes(), name
    results = returned if isinstance(returned, tuple) else (returned,)
    written = [getattr(own, n) for n, a in contract.arguments.items() if a.role == "out"]
    return [np.asarray(result) for result in (*results, *written)]


@pytest.mark.parametrize("twin", ["numpy", "cuda source"])
@pytest.mark.parametrize("kernel", CONTRACTS)
def test_twins_give_what_is_defined(kernel: str, twin: str, device: Any) -> None:
    contract = CONTRACTS[kernel]
    kernels = NumpyKernels() if twin == "numpy" else CudaKernels(device)
    for seed in range(30):
        value = MAKERS[kernel](np.random.default_rng(seed), (0.0, 0.1, 0.5)[seed % 3])
        expected = outcome(contract, contract.definition, value)
        found = outcome(contract, getattr(kernels, kernel), value)
        for one, other in zip(found, expected, strict=True):
            if contract.same_bits or one.dtype.kind in "iu":
                assert_same_bits(one, other)
            else:
                scale = 1e-12 * np.abs(other).max(initial=0.0)
                np.testing.assert_allclose(one, other, rtol=1e-11, atol=scale)


@pytest.mark.parametrize("kernels", [NumpyKernels, CudaKernels])
def test_a_kernel_set_has_the_functions_of_the_contract(kernels: Any) -> None:
    for name, contract in CONTRACTS.items():
        wanted = get_type_hints(getattr(KernelSet, name))
        assert get_type_hints(getattr(kernels, name)) == wanted
        assert contract.value in wanted.values()
        assert list(inspect.signature(getattr(kernels, name)).parameters) == list(
            inspect.signature(getattr(KernelSet, name)).parameters
        )
    public = {name for name in vars(KernelSet) if not name.startswith("_")}
    assert public == set(CONTRACTS) == set(MAKERS)


def fields(value: Any) -> set[str]:
    """Names in the NamedTuple of a contract."""
    return set(value._fields)


def test_every_array_of_a_contract_has_its_role() -> None:
    numbers = {"airmass", "derivatives"}
    for contract in CONTRACTS.values():
        assert set(contract.arguments) == fields(contract.value) - numbers
        out = {name for name, a in contract.arguments.items() if a.role == "out"}
        assert out == {name for name in fields(contract.value) if name.startswith("out")}
        assert all(a.unit and a.dtypes and a.shapes for a in contract.arguments.values())


@pytest.mark.parametrize("kernel", CONTRACTS)
def test_each_array_is_checked(kernel: str) -> None:
    """A shape with an axis too many, and a dtype that no kernel takes, name their argument."""
    contract = CONTRACTS[kernel]
    value = MAKERS[kernel](np.random.default_rng(3), 0.0)
    contract.check(value)
    for name in contract.arguments:
        array = getattr(value, name)
        if array is None:
            continue
        with pytest.raises(ValueError, match=f"^{name} has shape .* expected"):
            contract.check(value._replace(**{name: array[..., None, None]}))
        with pytest.raises(ValueError, match=f"^{name} is complex64, expected "):
            contract.check(value._replace(**{name: array.astype(np.complex64)}))


def test_messages_name_the_sizes_that_are_known() -> None:
    tile = calibration_tile(np.random.default_rng(0), 0.0)
    with pytest.raises(
        ValueError, match=r"factor has shape \(5, 2, 3\), expected \[c, R, A\] = \(6, 2, 3\)\."
    ):
        CONTRACTS["calibrate"].check(tile._replace(factor=tile.factor[:5]))
    fold = fold_tile(np.random.default_rng(0), 0.0)
    with pytest.raises(ValueError, match=r"taps has shape \(2, 2, 4\), expected \[2, R, 2h\+1\]"):
        CONTRACTS["fold"].check(fold._replace(taps=fold.taps[..., :-1]))
    fits = sky_fits(np.random.default_rng(0), 0.0)
    with pytest.raises(ValueError, match=r"observed has shape \(9,\), expected \[C, N\]\."):
        CONTRACTS["chi2"].check(fits._replace(observed=fits.observed[:, 0]))
