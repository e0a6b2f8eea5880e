"""Every kernel against coremltools' own value inference, which folds constants with other code."""

from __future__ import annotations

import numpy as np
import pytest

from edgeq.targets.coreml.interpreter.kernels import (
    activation,
    elementwise,
    gather,
    generate,
    logic,
    reduction,
    scatter,
    shape,
    slicing,
    sorting,
    spatial,
)
from tests.support.mil_cases import Mil
from tests.support.mil_folded import CASES

MODULES = (
    activation,
    elementwise,
    gather,
    generate,
    logic,
    reduction,
    scatter,
    shape,
    slicing,
    sorting,
    spatial,
)

# coremltools folds none of these; test_interpreter_references.py has other references for them.
NOT_FOLDED = {
    "batch_to_space",
    "depth_to_space",
    "gather_nd",
    "one_hot",
    "pixel_shuffle",
    "pixel_unshuffle",
    "reshape_like",
    "reverse_sequence",
    "scatter",
    "scatter_nd",
    "silu",
    "sliding_windows",
    "space_to_batch",
    "space_to_depth",
}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_kernels_agree_with_value_inference(case: Mil) -> None:
    wanted = case.by_coremltools()
    found = case.by_kernel(wanted)
    assert len(found) == len(wanted)
    for got, want in zip(found, wanted, strict=True):
        assert got.shape == want.shape
        assert (got.dtype.kind in "iu") == (want.dtype.kind in "iu")
        assert (got.dtype == bool) == (want.dtype == bool)
        np.testing.assert_allclose(got, want, rtol=3e-6, atol=1e-6)


def test_no_kernel_goes_unchecked() -> None:
    kernels = {op for module in MODULES for op in module.KERNELS}
    checked = {case.op_type for case in CASES}
    assert kernels - checked == NOT_FOLDED
