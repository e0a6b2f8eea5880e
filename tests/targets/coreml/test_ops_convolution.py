"""Convolutions as Core ML packages, against ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeq.calibration.types import Array
from edgeq.targets.coreml.frontend.node import RefusedNodeError
from edgeq.targets.dimensions import Dimension
from tests.support.coreml_ops import Op, lower_ops, model_of, refusal, run_ops

CLOSE = {"rtol": 1e-5, "atol": 1e-5}
SPATIAL = {1: (9,), 2: (9, 8), 3: (6, 5, 7)}
KERNEL = {1: (3,), 2: (3, 2), 3: (3, 2, 2)}
# Asymmetric, before and after of every dimension.
PADS = {1: [2, 1], 2: [2, 0, 1, 3], 3: [1, 0, 2, 2, 1, 0]}


def floats(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng([seed, *shape]).normal(size=shape).astype(np.float32)


def attribute_grid(dims: int, *, same: tuple[str, ...]) -> list[dict[str, Any]]:
    strides, dilations = [2, 1, 2][:dims], [1, 2, 2][-dims:]
    paddings: list[dict[str, Any]] = [{}, {"pads": PADS[dims]}, {"auto_pad": "VALID"}]
    found = [
        {**padding, **stride, **dilation}
        for padding, stride, dilation in product(
            paddings, ({}, {"strides": strides}), ({}, {"dilations": dilations})
        )
    ]
    found += [{"auto_pad": mode, **stride} for mode, stride in product(same, ({}, {"strides": [2] * dims}))]
    return [*found, {"kernel_shape": list(KERNEL[dims])}]


def conv_ops(dims: int, weights: Mapping[str, Array]) -> list[Op]:
    ops = []
    for attributes in attribute_grid(dims, same=("SAME_UPPER", "SAME_LOWER")):
        for groups, weight in zip((1, 2, 4), weights, strict=True):
            ops.append(Op("Conv", ["x", weight], {**attributes, "group": groups}))
        ops.append(Op("Conv", ["x", "w1", "b"], attributes))
    return ops


@pytest.mark.parametrize(("dims", "ios"), [(1, 18), (2, 18), (3, 18), (2, 15)])
def test_conv(tmp_path: Path, dims: int, ios: int) -> None:
    weights = {f"w{groups}": floats(8, 4 // groups, *KERNEL[dims]) for groups in (1, 2, 4)}
    inputs = {"x": floats(2, 4, *SPATIAL[dims])}
    constants = {**weights, "b": floats(8)}
    run_ops(conv_ops(dims, weights), inputs, tmp_path, constants=constants, ios=ios).check(**CLOSE)


def transposed_ops(dims: int) -> list[Op]:
    ops = []
    attributes = attribute_grid(dims, same=())
    attributes += [
        {"strides": [3] * dims, "output_padding": [1, 2, 1][:dims]},
        {"strides": [3] * dims, "output_padding": [2, 1, 1][:dims], "pads": PADS[dims]},
        {"strides": [2] * dims, "output_shape": [2 * size for size in SPATIAL[dims]]},
        {"strides": [2] * dims, "output_shape": [2 * size - 1 for size in SPATIAL[dims]]},
        {"strides": [3] * dims, "output_shape": [3 * size + 1 for size in SPATIAL[dims]]},
        {"strides": [1] * dims, "output_shape": [size + 1 for size in SPATIAL[dims]]},
        {"strides": [3] * dims, "output_padding": [2] * dims, "output_shape": [3 * n for n in SPATIAL[dims]]},
        *(
            {"strides": [2] * dims, "output_shape": [2 * size for size in SPATIAL[dims]], "auto_pad": mode}
            for mode in ("SAME_UPPER", "SAME_LOWER")
        ),
        *({"strides": [2] * dims, "auto_pad": mode} for mode in ("SAME_UPPER", "SAME_LOWER")),
        {"auto_pad": "SAME_UPPER"},
        {"auto_pad": "SAME_LOWER"},
    ]
    for given in attributes:
        ops.append(Op("ConvTranspose", ["x", "w1"], given))
        ops.append(Op("ConvTranspose", ["x", "w2", "b"], {**given, "group": 2}))
        ops.append(Op("ConvTranspose", ["x", "w4"], {**given, "group": 4}))
    return ops


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_conv_transpose(tmp_path: Path, dims: int) -> None:
    constants = {f"w{groups}": floats(4, 8 // groups, *KERNEL[dims]) for groups in (1, 2, 4)}
    constants["b"] = floats(8)
    inputs = {"x": floats(2, 4, *SPATIAL[dims])}
    run_ops(transposed_ops(dims), inputs, tmp_path, constants=constants).check(**CLOSE)


def test_weights_and_biases_computed_at_run_time(tmp_path: Path) -> None:
    inputs = {"x": floats(2, 4, 9, 8), "w": floats(8, 4, 3, 2), "t": floats(4, 8, 3, 2), "b": floats(8)}
    ops = [
        Op("Conv", ["x", "w", "b"], {"pads": [1, 0, 1, 1]}),
        Op("ConvTranspose", ["x", "t", "b"], {"strides": [2, 2], "output_padding": [1, 0]}),
    ]
    run_ops(ops, inputs, tmp_path).check(**CLOSE)
    run_ops(ops[:1], inputs, tmp_path / "old", ios=15).check(**CLOSE)
    with pytest.raises(RefusedNodeError, match="iOS 17"):
        lower_ops(model_of(ops[1:], inputs, {}), [floats(1)], ios=15)


def test_dynamic_batch_and_size(tmp_path: Path) -> None:
    constants = {"w": floats(8, 4, 3, 2), "t": floats(4, 8, 3, 2), "b": floats(8)}
    ops = [
        Op("Conv", ["x", "w", "b"], {"pads": [1, 0, 1, 1], "strides": [2, 2]}),
        Op("Conv", ["x", "w", "b"], {"auto_pad": "SAME_LOWER"}),
        Op("ConvTranspose", ["x", "t", "b"], {"strides": [2, 2], "pads": [1, 0, 0, 0]}),
        Op("ConvTranspose", ["x", "t"], {"strides": [3, 2], "output_padding": [1, 1]}),
        Op("ConvTranspose", ["x", "t"], {"strides": [2, 2], "auto_pad": "SAME_UPPER"}),
    ]
    sizes = {"n": Dimension(1, 4), "h": Dimension(4, 32), "w": Dimension(4, 32)}
    axes = {"x": ("n", 4, "h", "w")}
    run_ops(ops, {"x": floats(2, 4, 9, 8)}, tmp_path, constants=constants, axes=axes, dimensions=sizes).check(
        **CLOSE
    )


DYNAMIC = [
    (Op("Conv", ["x", "w"], {"auto_pad": "SAME_UPPER", "strides": [2, 2]}), "SAME_UPPER with stride 2"),
    (Op("ConvTranspose", ["x", "t"], {"output_shape": [12, 12]}), "output_shape with a dynamic"),
]  # fmt: skip


@pytest.mark.parametrize(("op", "reason"), DYNAMIC, ids=str)
def test_paddings_that_depend_on_a_dynamic_size_are_refused(op: Op, reason: str) -> None:
    constants = {"w": floats(8, 4, 3, 2), "t": floats(4, 8, 3, 2)}
    model = model_of([op], {"x": floats(2, 4, 9, 8)}, constants, {"x": (2, 4, "h", "w")})
    with pytest.raises(RefusedNodeError, match=reason):
        lower_ops(model, [floats(1)], dimensions={"h": Dimension(4, 32), "w": Dimension(4, 32)})


@pytest.mark.parametrize("ios", [16, 18])
@pytest.mark.parametrize(("op_type", "shape"), [("Conv", (8, 4, 3, 2)), ("ConvTranspose", (4, 8, 3, 2))])
def test_a_compressed_weight_stays_compressed(
    tmp_path: Path, op_type: str, shape: tuple[int, ...], ios: int
) -> None:
    codes = np.random.default_rng(0).integers(-7, 8, shape).astype(np.int8)
    constants = {"q": codes, "s": np.full(8, 0.25, np.float32), "z": np.zeros(8, np.int8), "b": floats(8)}
    ops = [Op("DequantizeLinear", ["q", "s", "z"], {"axis": shape.index(8)}), Op(op_type, ["x", "y0", "b"])]
    inputs = {"x": floats(2, 4, 9, 8)}
    run = run_ops(ops, inputs, tmp_path, constants=constants, ios=ios)
    run.check(**CLOSE)
    lowered = lower_ops(model_of(ops, inputs, constants), run.wanted, ios=ios)
    mil = {"Conv": "conv", "ConvTranspose": "conv_transpose"}[op_type]
    (found,) = lowered.program.functions["main"].find_ops(op_type=mil)
    assert found.weight.op.op_type.startswith("constexpr_")


def test_half_precision_stays_close(tmp_path: Path) -> None:
    constants = {"w": floats(8, 4, 3, 2), "t": floats(4, 8, 3, 2), "b": floats(8)}
    ops = [
        Op("Conv", ["x", "w", "b"]),
        Op("ConvTranspose", ["x", "t", "b"], {"strides": [3, 3], "output_padding": [1, 1]}),
    ]
    inputs = {"x": floats(2, 4, 9, 8)}
    run_ops(ops, inputs, tmp_path, constants=constants, arithmetic="float16").check(rtol=1e-2, atol=2e-2)


REFUSED = [
    (Op("ConvTranspose", ["x", "t"], {"strides": [4, 4], "auto_pad": "SAME_UPPER"}), "larger than"),
    (Op("ConvTranspose", ["x", "t"], {"output_shape": [30, 30]}), "larger than"),
]  # fmt: skip


@pytest.mark.parametrize(("op", "reason"), REFUSED, ids=str)
def test_refusals(op: Op, reason: str) -> None:
    inputs = {"x": floats(2, 4, 9, 8)}
    constants = {"w": floats(8, 4, 3, 2), "t": floats(4, 8, 3, 2)}
    used = {name: array for name, array in inputs.items() if name in op.inputs}
    weights = {name: array for name, array in constants.items() if name in op.inputs}
    assert reason in refusal(op, used, weights)
