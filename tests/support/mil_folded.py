"""MIL operations that coremltools folds: one case for every way in which a kernel can go wrong."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgeq.calibration.types import Array
from tests.support.mil_cases import Mil


def floats(*shape: int, seed: int = 0, scale: float = 2.0) -> Array:
    return np.asarray(np.random.default_rng(seed).normal(size=shape) * scale, np.float32)


def ints(*shape: int, seed: int = 0, low: int = -9, high: int = 10) -> Array:
    return np.asarray(np.random.default_rng(seed).integers(low, high, shape), np.int32)


def bools(*shape: int, seed: int = 0) -> Array:
    return np.asarray(np.random.default_rng(seed).integers(0, 2, shape), bool)


X = floats(3, 4)
N = ints(3, 4)
UNIT = np.linspace(-0.95, 0.95, 12, dtype=np.float32).reshape(3, 4)
POSITIVE = np.abs(X) + np.float32(0.1)
EDGES = np.array([-np.inf, -70000.0, -2.5, -1.5, -0.5, -0.0, 0.0, 0.5, 1.5, 2.5, 88.0, np.inf], np.float32)
F32 = np.float32


def unary() -> list[Mil]:
    plain = ("abs", "ceil", "cos", "erf", "exp", "exp2", "floor", "round", "sign", "sin", "square", "tanh")
    return [
        *(Mil(op, {"x": x}) for op in plain for x in (X, EDGES[1:-1] / 2, F32(0.5))),
        *(Mil(op, {"x": EDGES}) for op in ("ceil", "floor", "round", "sign", "abs", "tanh")),
        *(Mil(op, {"x": N}) for op in ("abs", "sign", "square")),
        *(Mil(op, {"x": X}) for op in ("atan", "cosh", "sinh", "tan")),
        *(Mil(op, {"x": UNIT}) for op in ("acos", "asin", "atanh")),
        Mil("sqrt", {"x": POSITIVE}),
        *(Mil(op, {"x": POSITIVE}) for op in ("inverse", "log", "rsqrt")),
        *(Mil(op, {"x": POSITIVE, "epsilon": F32(0.5)}) for op in ("inverse", "log", "rsqrt")),
        *(Mil(op, {"x": np.zeros(2, F32)}) for op in ("inverse", "log", "rsqrt")),
        Mil("clip", {"x": X, "alpha": F32(-0.5), "beta": F32(1.0)}),
        Mil("threshold", {"x": X, "alpha": F32(0.25)}),
        Mil("threshold", {"x": N, "alpha": np.int32(2)}),
        Mil("logical_not", {"x": bools(5)}),
    ]


def casts() -> list[Mil]:
    fitting = np.array([-1.5, -0.5, 0.0, 0.5, 1.5, 100.7], F32)
    return [
        *(Mil("cast", {"x": fitting, "dtype": to}) for to in ("int32", "fp32", "bool", "int8", "int16")),
        Mil("cast", {"x": np.abs(fitting), "dtype": "uint8"}),
        *(Mil("cast", {"x": N, "dtype": to}) for to in ("fp32", "bool", "int32", "int8")),
        *(Mil("cast", {"x": bools(4), "dtype": to}) for to in ("fp32", "int32", "bool")),
        Mil("cast", {"x": F32(3.7), "dtype": "int32"}, opset=15),
    ]


def binary() -> list[Mil]:
    y, m = floats(4, seed=1), ints(3, 1, seed=1)
    arithmetic = ("add", "sub", "mul", "maximum", "minimum")
    compare = ("equal", "not_equal", "greater", "greater_equal", "less", "less_equal")
    whole = np.array([[3.0], [-4.0], [5.0]], F32)
    nonzero = np.where(m == 0, 3, m).astype(np.int32)
    return [
        *(Mil(op, {"x": X, "y": y}) for op in (*arithmetic, "real_div")),
        *(Mil(op, {"x": N, "y": m}) for op in (*arithmetic, *compare)),
        *(Mil(op, {"x": np.rint(X), "y": np.rint(y)}) for op in compare),
        *(Mil(op, {"x": np.rint(X * 4), "y": whole}) for op in ("floor_div", "mod")),
        *(Mil(op, {"x": N, "y": nonzero}) for op in ("floor_div", "mod")),
        Mil("mod", {"x": X, "y": whole + F32(0.25)}),
        Mil("pow", {"x": POSITIVE, "y": y}),
        Mil("pow", {"x": X, "y": F32(2)}),
        Mil("pow", {"x": N, "y": np.int32(3)}),
        *(
            Mil(op, {"x": bools(2, 3), "y": bools(3, seed=1)})
            for op in ("logical_and", "logical_or", "logical_xor")
        ),
        Mil("select", {"cond": bools(3, 4), "a": X, "b": floats(3, 4, seed=2)}),
        Mil("select", {"cond": bools(3, 4), "a": N, "b": ints(3, 4, seed=2)}),
    ]


def activations() -> list[Mil]:
    image, two = floats(2, 3, 4, 5), {"alpha": F32(0.3), "beta": F32(0.6)}
    channels = {"alpha": np.array([0.1, 0.5, 2.0], F32), "beta": np.array([1.0, 0.5, 0.25], F32)}
    return [
        *(
            Mil(op, {"x": X})
            for op in ("relu", "relu6", "sigmoid", "softplus", "softsign", "gelu", "softmax")
        ),
        *(Mil(op, {"x": EDGES}) for op in ("relu", "relu6")),
        *(Mil("gelu", {"x": X, "mode": m}) for m in ("EXACT", "TANH_APPROXIMATION", "SIGMOID_APPROXIMATION")),
        *(Mil("softmax", {"x": image, "axis": axis}) for axis in (0, 1, -1, -2)),
        *(Mil(op, {"x": X, "alpha": F32(0.3)}) for op in ("elu", "leaky_relu", "thresholded_relu")),
        *(
            Mil(op, {"x": X, **two})
            for op in ("clamped_relu", "linear_activation", "scaled_tanh", "sigmoid_hard")
        ),
        Mil("prelu", {"x": image, "alpha": channels["alpha"]}),
        Mil("softplus_parametric", {"x": image, **channels}),
    ]


def reductions() -> list[Mil]:
    x, n = floats(2, 3, 4), ints(2, 3, 4)
    real = ("l1_norm", "l2_norm", "log_sum_exp", "max", "mean", "min", "prod", "sum", "sum_square")
    exact = ("l1_norm", "max", "min", "sum", "sum_square")
    axes: list[dict[str, Any]] = [
        {},
        {"axes": [1]},
        {"axes": [0, -1]},
        {"axes": [-2], "keep_dims": True},
        {"keep_dims": True},
    ]
    one: list[dict[str, Any]] = [{}, {"axis": 0}, {"axis": 1, "keep_dims": True}]
    return [
        *(Mil(f"reduce_{kind}", {"x": x, **over}) for kind in real for over in axes),
        *(Mil("reduce_log_sum", {"x": np.abs(x), **over}) for over in axes),
        *(Mil(f"reduce_{kind}", {"x": n, **over}) for kind in exact for over in axes),
        *(
            Mil(f"reduce_arg{kind}", {"x": a, **over})
            for kind in ("max", "min")
            for a in (x, n)
            for over in one
        ),
        Mil("reduce_argmax", {"x": x, "axis": 1, "output_dtype": "uint16"}),
        *(Mil("cumsum", {"x": a, "axis": axis}) for a in (x, n) for axis in (0, 1, -1)),
        Mil("cumsum", {"x": x}),
        Mil("cumsum", {"x": x, "axis": 2, "reverse": True}),
        *(
            Mil("argsort", {"x": x, "axis": axis, "ascending": up})
            for axis in (0, -1)
            for up in (True, False)
        ),
        Mil("argsort", {"x": x}),
        Mil("topk", {"x": x}),
        Mil("topk", {"x": x, "k": 2, "axis": 1}),
        Mil("topk", {"x": x, "k": 3, "axis": -1, "ascending": True}, opset=15),
        Mil("topk", {"x": x, "k": 2, "return_indices": False}, opset=16),
        Mil("topk", {"x": x, "k": 2, "output_indices_dtype": "uint16"}, opset=17),
    ]


def shapes() -> list[Mil]:
    x, n, b = floats(2, 3, 4), ints(2, 3, 4), bools(2, 3, 4)
    return [
        *(Mil("identity", {"x": a}) for a in (x, n, b)),
        *(
            Mil("reshape", {"x": a, "shape": to})
            for a in (x, n, b)
            for to in ([4, 6], [-1], [2, -1, 2], [0, 8])
        ),
        *(Mil("reshape", {"x": x, "shape": [0, 0, -1]}, opset=o) for o in (15, 17)),
        Mil("reshape", {"x": floats(2, 50), "shape": [1, 0, -1, 0]}, opset=17),
        Mil("reshape", {"x": floats(2, 3, 4), "shape": [-1, 0]}, opset=17),
        *(Mil("transpose", {"x": a, "perm": perm}) for a in (x, n) for perm in ([2, 0, 1], [0, -1, 1])),
        *(Mil("expand_dims", {"x": x, "axes": axes}) for axes in ([0], [-1], [1, 3], [-2])),
        Mil("squeeze", {"x": floats(1, 3, 1, 2)}),
        Mil("squeeze", {"x": floats(1, 3, 1, 2), "axes": [-2]}),
        Mil("squeeze", {"x": floats(1, 3, 1, 2), "axes": [0, 2]}),
        Mil("flatten2d", {"x": x}),
        *(Mil("flatten2d", {"x": x, "axis": axis}) for axis in (-1, 2)),
        *(Mil("concat", {"values": [x, floats(2, 3, 4, seed=1)], "axis": axis}) for axis in (0, -1)),
        Mil("concat", {"values": [n, ints(2, 1, 4)], "axis": 1}),
        Mil("stack", {"values": [x, floats(2, 3, 4, seed=1), x], "axis": 1}),
        Mil("stack", {"values": [x, x + 1], "axis": -1}),
        Mil("split", {"x": x, "num_splits": 2, "axis": 2}),
        Mil("split", {"x": n, "split_sizes": [1, 2], "axis": 1}),
        Mil("split", {"x": x, "split_sizes": [1, 3], "num_splits": 2, "axis": -1}),
        *(Mil("tile", {"x": a, "reps": [1, 2, 3]}) for a in (x, n)),
        Mil("reverse", {"x": x}),
        Mil("reverse", {"x": x, "axes": [0, -1]}),
        Mil("shape", {"x": x}),
    ]


def slices() -> list[Mil]:
    x = floats(4, 5, 6)
    full = {"x": x, "begin": [1, 0, 2], "end": [3, 5, 6]}
    masks = {"begin_mask": [False, True, False], "end_mask": [True, False, False]}
    return [
        Mil("slice_by_index", full),
        Mil("slice_by_index", {**full, "stride": [1, 2, 3]}),
        Mil("slice_by_index", {**full, **masks}),
        Mil("slice_by_index", {**full, "squeeze_mask": [True, False, False]}),
        Mil("slice_by_index", {**full, "begin": [-2, -5, 0], "end": [-1, -1, 100]}),
        Mil("slice_by_index", {**full, "begin": [3, 4, 5], "end": [0, 1, -4], "stride": [-1, -2, -1]}),
        Mil(
            "slice_by_index",
            {**full, "begin": [3, 4, -1], "stride": [-1, -1, -2], "end_mask": [True, True, True]},
        ),
        Mil("slice_by_index", {**full, "x": ints(4, 5, 6), "end": [2, 5, 4]}),
        Mil("slice_by_size", {"x": x, "begin": [1, 0, 2], "size": [2, -1, 3]}),
        Mil("slice_by_size", {"x": x, "begin": [-2, 0, -3], "size": [2, 2, 2]}),
        Mil("slice_update", {**full, "update": floats(2, 5, 4, seed=3)}),
        Mil("slice_update", {**full, "stride": [1, 2, 3], "update": floats(2, 3, 2, seed=3)}),
        Mil("slice_update", {**full, "squeeze_mask": [True, False, False], "update": floats(5, 4, seed=3)}),
        *(Mil("pad", {"x": x, "pad": [1, 2, 0, 3], "mode": mode}) for mode in ("reflect", "replicate")),
        Mil("pad", {"x": x, "pad": [1, 2, 0, 3, 1, 1]}),
        Mil("pad", {"x": x, "pad": [2, 1], "mode": "constant", "constant_val": F32(-1.5)}),
    ]


def indexed() -> list[Mil]:
    x, along = floats(3, 4, 5), np.random.default_rng(0).integers(0, 3, (2, 4, 5)).astype(np.int32)
    index = np.array([[2, 0], [1, 1]], np.int32)
    distinct = np.argsort(floats(3, 4, 5), axis=0).astype(np.int32)[:2]
    return [
        *(Mil("gather", {"x": x, "indices": index, "axis": axis}) for axis in (0, 1, -1)),
        Mil("gather", {"x": x, "indices": index}),
        Mil("gather", {"x": x, "indices": np.int32(1), "axis": 1}),
        Mil("gather", {"x": x, "indices": np.array([-1, 0, -3], np.int32)}, opset=15),
        Mil("gather", {"x": x, "indices": ints(3, 2, low=0, high=4), "axis": 1, "batch_dims": 1}, opset=16),
        Mil(
            "gather",
            {"x": ints(3, 4, 5), "indices": ints(3, 4, 2, low=0, high=5), "axis": 2, "batch_dims": 2},
        ),
        Mil("gather_along_axis", {"x": x, "indices": along}),
        Mil("gather_along_axis", {"x": x, "indices": -1 - along}, opset=15),
        Mil("gather_along_axis", {"x": x, "indices": ints(3, 4, 2, low=0, high=5), "axis": 2}),
        Mil(
            "scatter_along_axis",
            {"data": x, "indices": distinct, "updates": floats(2, 4, 5, seed=1), "axis": 0, "mode": "update"},
        ),
        *(Mil("fill", {"shape": [2, 3], "value": value}) for value in (F32(1.5), np.int32(7), True)),
        Mil("fill", {"shape": [2, 1]}),
        Mil("fill_like", {"ref_tensor": ints(2, 2), "value": F32(0.5)}),
        Mil("range_1d", {"start": np.int32(1), "end": np.int32(12), "step": np.int32(3)}),
        Mil("range_1d", {"start": np.int32(5), "end": np.int32(-4), "step": np.int32(-2)}),
        Mil("range_1d", {"start": F32(0.5), "end": F32(3.0), "step": F32(0.5)}),
        *(Mil("non_zero", {"x": a}) for a in (bools(3, 4), ints(2, 3, low=0, high=2))),
        *(Mil("band_part", {"x": a, "lower": 1, "upper": 0}) for a in (x, ints(4, 3))),
        Mil("band_part", {"x": x}),
        *(
            Mil("band_part", {"x": x, "lower": low, "upper": up})
            for low, up in ((0, -1), (-1, 0), (0, 0), (2, 1))
        ),
    ]


CASES = [*unary(), *casts(), *binary(), *activations(), *reductions(), *shapes(), *slices(), *indexed()]
