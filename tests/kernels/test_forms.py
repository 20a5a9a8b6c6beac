"""Fused and plain kernels as one set: the choice, and what happens where a kernel cannot be compiled."""

from __future__ import annotations

import warnings
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from cpu_fallback import NumpyKernels
from gpucal import GpucalWarning
from gpucal.kernel_contract.dump_mean import SubscanDumps
from gpucal.kernel_contract.kernel_set import CONTRACTS
from gpucal.kernel_contract.reference import OffPair
from gpucal.kernels.device import CupyDevice, NotCompiledError
from gpucal.kernels.forms import KernelForms
from gpucal.kernels.variants import all_kernels

DUMPS = SubscanDumps(np.arange(12, dtype=np.int32).reshape(2, 3, 2, 1))
OFFS = OffPair(np.ones((2, 1, 1)), np.full((2, 1, 1), 3.0), np.asarray(0.5))


class Counted(NumpyKernels):
    """NumPy's kernels that count their calls; those of ``broken`` cannot be compiled."""

    def __init__(self, *broken: str) -> None:
        super().__init__()
        self.calls: list[str] = []
        self.broken = broken

    def __getattribute__(self, name: str) -> Any:
        if name in CONTRACTS:
            self.calls.append(name)
            if name in self.broken:
                raise NotCompiledError("error: no such architecture")
        return super().__getattribute__(name)


def test_fused_is_what_runs() -> None:
    fused = Counted()
    forms = KernelForms(fused, lambda: pytest.fail("nobody asked for it"), "fused")
    np.testing.assert_array_equal(forms.dump_mean(DUMPS).mean, DUMPS.counts.mean(axis=1))
    assert fused.calls == ["dump_mean"]
    assert forms.describe() == "fused"


def test_plain_is_what_was_asked_for() -> None:
    fused, plain = Counted(), Counted()
    forms = KernelForms(fused, lambda: plain, "plain")
    forms.dump_mean(DUMPS)
    forms.reference(OFFS)
    assert (fused.calls, plain.calls) == ([], ["dump_mean", "reference"])
    assert forms.describe() == "plain"


def test_one_that_cannot_be_compiled_is_replaced_and_that_is_said_once() -> None:
    fused, plain = Counted("reference"), Counted()
    forms = KernelForms(fused, lambda: plain, "fused")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(3):
            assert float(forms.reference(OFFS)[0, 0, 0]) == 2.0
        forms.dump_mean(DUMPS)
    (warning,) = caught
    assert warning.category is GpucalWarning
    assert "the CUDA kernel reference cannot be compiled (error: no such archit" in str(
        warning.message
    )
    assert fused.calls == ["reference", "dump_mean"]
    assert plain.calls == ["reference"] * 3
    assert forms.describe() == "fused, reference plain (error: no such architecture)"


class CompileException(Exception):
    """As cupy.cuda.compiler has it."""


@pytest.mark.parametrize("kind", [CompileException, type("Other", (RuntimeError,), {})])
def test_errors_of_the_compiler_are_known(
    kind: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def module(**_: Any) -> Any:
        raise kind(
            "in file kern.cu\nkern.cu(3): error: invalid value for --gpu-architecture.\n1 error"
        )

    runtime = SimpleNamespace(getDeviceCount=lambda: 1, CUDARuntimeError=OSError)
    cupy: Any = SimpleNamespace(cuda=SimpleNamespace(runtime=runtime), RawModule=module)
    monkeypatch.setitem(__import__("sys").modules, "cupy", cupy)
    device = CupyDevice()
    with pytest.raises(NotCompiledError if kind is CompileException else kind) as caught:
        device.run(all_kernels()[0], (1,), (1,), ())
    if kind is CompileException:
        assert str(caught.value) == "kern.cu(3): error: invalid value for --gpu-architecture"


def test_other_errors_are_not_taken_for_it() -> None:
    class Lost(Counted):
        def dump_mean(self, dumps: SubscanDumps) -> Any:
            raise RuntimeError("the device was lost")

    forms = KernelForms(Lost(), lambda: pytest.fail("it was no compiler"), "fused")
    with pytest.raises(RuntimeError, match="lost"):
        forms.dump_mean(DUMPS)
