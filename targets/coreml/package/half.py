"""Float16 arithmetic: coremltools' cast pass, faster and with the names of all outputs kept."""

from __future__ import annotations

from collections.abc import Collection
from functools import cache
from typing import Any

import numpy as np

from edgeq.calibration.types import Array
from edgeq.targets.coreml.package.angles import angle_operations
from edgeq.targets.coreml.package.masks import INFINITE, soften_masks
from edgeq.targets.coreml.toolkit import coremltools

_PRODUCTS = frozenset({"mul", "real_div", "matmul", "linear", "conv"})
_LARGEST_HALF = float(np.finfo(np.float16).max)


def cast_to_half(program: Any, keep: Collection[str] = ()) -> None:
    """Let every operation of the MIL ``program`` compute in float16.

    An operation with a constant that float16 cannot hold stays in float32, and so do the angles of positions
    and what makes a value whose name is in ``keep``.
    """
    soften_masks(program)
    exact, kept = angle_operations(program), frozenset(keep)
    _half_pass()(op_selector=lambda op: op not in exact and not any(out.name in kept for out in op.outputs))(
        program
    )


@cache
def _half_pass() -> Any:
    coremltools()
    from coremltools.converters.mil.mil.passes.defs.quantization import FP16ComputePrecision

    class HalfPass(FP16ComputePrecision):  # type: ignore[misc]
        @staticmethod
        def fp16_overflow(op: Any) -> bool:
            # a comparison, a selection or a sum with infinity means the same; 0 * infinity does not
            infinite = np.inf if op.op_type in _PRODUCTS else INFINITE
            return any(_overflows(value, infinite) for value in _float_constants(op))

        def _get_casted_outputs(self, op: Any, casted_inputs: Any) -> Any:
            """The operation in float16; several outputs would be named after the operation."""
            results = super()._get_casted_outputs(op, casted_inputs)
            if len(op.outputs) > 1:
                for old, new in zip(op.outputs, results, strict=True):
                    new.name = f"{old.name}_cast_fp16"
            return results

    return HalfPass


def _float_constants(op: Any) -> list[Array]:
    variables = [
        var
        for bound in op.inputs.values()
        for var in (bound if isinstance(bound, (list, tuple)) else [bound])
        if var.op is not None and var.op.op_type == "const"
    ]
    return [np.asarray(var.op.val.val) for var in variables if var.is_tensor_or_scalar_of(dtype="fp32")]


def _overflows(values: Array, infinite: float) -> bool:
    if values.size == 0:
        return False
    largest = max(float(values.max()), -float(values.min()))
    if largest <= _LARGEST_HALF:
        return False
    magnitudes = np.abs(values)
    return bool(((magnitudes > _LARGEST_HALF) & (magnitudes < infinite)).any())
