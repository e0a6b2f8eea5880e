"""Kernels of MIL's elementwise arithmetic (``elementwise_unary``, ``elementwise_binary``)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from edgeq.calibration.types import Array
from edgeq.errors import TargetError
from edgeq.targets.coreml.interpreter.call import Call, Kernel
from edgeq.targets.coreml.interpreter.kernels.erf import erf

# MIL's dtype names → numpy's; floats are kept in float32 arrays.
_CAST: Mapping[str, str] = MappingProxyType(
    {
        "fp16": "float32",
        "fp32": "float32",
        "int8": "int8",
        "uint8": "uint8",
        "int16": "int16",
        "uint16": "uint16",
        "int32": "int32",
        "bool": "bool",
    }
)


def _unary(function: Callable[[Any], Any]) -> Kernel:
    return lambda call: np.asarray(function(call["x"]))


def _binary(function: Callable[[Any, Any], Any]) -> Kernel:
    return lambda call: np.asarray(function(call["x"], call["y"]))


def _cast(call: Call) -> Array:
    """``cast``: towards zero; what does not fit saturates."""
    x, dtype = call["x"], np.dtype(_CAST[call["dtype"]])
    if x.dtype == dtype:
        return np.asarray(x)
    if dtype.kind not in "iu" or x.dtype.kind == "b":
        return np.asarray(x.astype(dtype))
    bounds = np.iinfo(dtype)
    wide = x.astype(np.float64) if x.dtype.kind == "f" else x
    return np.asarray(np.nan_to_num(np.clip(wide, bounds.min, bounds.max)).astype(dtype))


def _clip(call: Call) -> Array:
    """``clip``: alpha ≤ x ≤ beta."""
    return np.asarray(np.minimum(np.maximum(call["x"], call["alpha"]), call["beta"]))


def _threshold(call: Call) -> Array:
    """``threshold``: at least alpha."""
    return np.asarray(np.maximum(call["x"], call["alpha"]))


def _epsilon(call: Call, default: float) -> Any:
    """``epsilon`` in the dtype of x: 1e-12 and 1e-45 are 0 in float16."""
    rounded = np.float16(default) if call.outputs[0].dtype == "float16" else default
    return call.get("epsilon", np.float32(rounded))


def _inverse(call: Call) -> Array:
    """``inverse``: 1 / (x + epsilon)."""
    return np.asarray(np.float32(1) / (call["x"] + _epsilon(call, 1e-4)))


def _log(call: Call) -> Array:
    """``log``: ln(x + epsilon)."""
    return np.asarray(np.log(call["x"] + _epsilon(call, 1e-45)))


def _rsqrt(call: Call) -> Array:
    """``rsqrt``: 1 / √(x + epsilon)."""
    return np.asarray(np.float32(1) / np.sqrt(call["x"] + _epsilon(call, 1e-12)))


def _exp2(x: Array) -> Array:
    return np.exp2(x) if x.dtype.kind == "f" else np.exp2(x.astype(np.float64)).astype(x.dtype)


def _real_div(call: Call) -> Array:
    """``real_div``; how it rounds quotients of integers is not defined, so they are refused."""
    if call["x"].dtype.kind != "f":
        raise TargetError(
            f"The operation {call.name!r} (real_div) divides integers, and MIL does not say how."
        )
    return np.asarray(call["x"] / call["y"])


def _floor_div(x: Array, y: Array) -> Any:
    return np.floor(x / y) if x.dtype.kind == "f" else np.floor_divide(x, y)


def _pow(x: Array, y: Array) -> Any:
    if x.dtype.kind == "f":
        return np.power(x, y)
    return np.power(x.astype(np.float64), y).astype(x.dtype)


KERNELS: dict[str, Kernel] = {
    "abs": _unary(np.abs),
    "acos": _unary(np.arccos),
    "add": _binary(np.add),
    "asin": _unary(np.arcsin),
    "atan": _unary(np.arctan),
    "atanh": _unary(np.arctanh),
    "cast": _cast,
    "ceil": _unary(np.ceil),
    "clip": _clip,
    "cos": _unary(np.cos),
    "cosh": _unary(np.cosh),
    "erf": _unary(erf),
    "exp": _unary(np.exp),
    "exp2": _unary(_exp2),
    "floor": _unary(np.floor),
    "floor_div": _binary(_floor_div),
    "inverse": _inverse,
    "log": _log,
    "maximum": _binary(np.maximum),
    "minimum": _binary(np.minimum),
    "mod": _binary(np.mod),
    "mul": _binary(np.multiply),
    "pow": _binary(_pow),
    "real_div": _real_div,
    "round": _unary(np.rint),
    "rsqrt": _rsqrt,
    "sign": _unary(np.sign),
    "sin": _unary(np.sin),
    "sinh": _unary(np.sinh),
    "sqrt": _unary(np.sqrt),
    "square": _unary(np.square),
    "sub": _binary(np.subtract),
    "tan": _unary(np.tan),
    "tanh": _unary(np.tanh),
    "threshold": _threshold,
}
