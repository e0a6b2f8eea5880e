"""Kernels of MIL's reductions and of ``cumsum``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from edgeq.calibration.types import Array
from edgeq.errors import TargetError
from edgeq.targets.coreml.interpreter.call import Call, Kernel
from edgeq.targets.coreml.interpreter.kernels.shape import integers

# Takes x, axes (None for all) and whether to keep the dimensions.
Reduction = Callable[[Array, "tuple[int, ...] | None", bool], Any]


def _over_axes(reduce: Reduction) -> Kernel:
    def kernel(call: Call) -> Array:
        x: Array = call["x"]
        axes = call.get("axes")
        found = reduce(x, None if axes is None else integers(axes), bool(call.get("keep_dims", False)))
        if x.dtype.kind != "f" and np.asarray(found).dtype.kind == "f":
            raise TargetError(
                f"The operation {call.name!r} ({call.op_type}) has integers, "
                "and MIL does not say how it rounds them."
            )
        # sums of int32 are int64 here: whoever takes them sees what does not fit
        return np.asarray(found)

    return kernel


def _over_axis(find: Callable[..., Any]) -> Kernel:
    def kernel(call: Call) -> Array:
        keep = bool(call.get("keep_dims", False))
        return np.asarray(find(call["x"], axis=int(call.get("axis", -1)), keepdims=keep))

    return kernel


def _sum(x: Array, axes: tuple[int, ...] | None, keep: bool) -> Any:
    return np.sum(x, axis=axes, keepdims=keep)


def _log_sum_exp(x: Array, axes: tuple[int, ...] | None, keep: bool) -> Any:
    """``reduce_log_sum_exp`` without overflow."""
    peak = np.max(x, axis=axes, keepdims=True)
    peak = np.where(np.isfinite(peak), peak, np.zeros_like(peak))
    total = np.log(np.sum(np.exp(x - peak), axis=axes, keepdims=True)) + peak
    return total if keep else np.squeeze(total, axes)


def _cumsum(call: Call) -> Array:
    """``cumsum``: ``exclusive`` starts with 0, ``reverse`` sums from the end."""
    x: Array = call["x"]
    axis = int(call.get("axis", 0))
    along = np.moveaxis(x, axis, -1)
    if call.get("reverse", False):
        along = along[..., ::-1]
    sums = np.cumsum(along, axis=-1)
    if call.get("exclusive", False):
        sums = np.concatenate([np.zeros_like(sums[..., :1]), sums[..., :-1]], axis=-1)
    if call.get("reverse", False):
        sums = sums[..., ::-1]
    return np.moveaxis(sums, -1, axis)


KERNELS: dict[str, Kernel] = {
    "cumsum": _cumsum,
    "reduce_argmax": _over_axis(np.argmax),
    "reduce_argmin": _over_axis(np.argmin),
    "reduce_l1_norm": _over_axes(lambda x, axes, keep: _sum(np.abs(x), axes, keep)),
    "reduce_l2_norm": _over_axes(lambda x, axes, keep: np.sqrt(_sum(np.square(x), axes, keep))),
    "reduce_log_sum": _over_axes(lambda x, axes, keep: np.log(_sum(x, axes, keep))),
    "reduce_log_sum_exp": _over_axes(_log_sum_exp),
    "reduce_max": _over_axes(lambda x, axes, keep: np.max(x, axis=axes, keepdims=keep)),
    "reduce_mean": _over_axes(lambda x, axes, keep: np.mean(x, axis=axes, keepdims=keep)),
    "reduce_min": _over_axes(lambda x, axes, keep: np.min(x, axis=axes, keepdims=keep)),
    "reduce_prod": _over_axes(lambda x, axes, keep: np.prod(x, axis=axes, keepdims=keep)),
    "reduce_sum": _over_axes(_sum),
    "reduce_sum_square": _over_axes(lambda x, axes, keep: _sum(np.square(x), axes, keep)),
}
