"""MatMulNBits and GatherBlockQuantized as packages: numbers against ONNX Runtime, what the file holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from edgeq.calibration.types import Array
from edgeq.targets.coreml.frontend.node import RefusedNodeError
from edgeq.targets.coreml.verification.contents import package_contents
from edgeq.targets.dimensions import Dimension
from tests.support.coreml_ops import Op, by_onnxruntime, lower_ops, model_of, run_ops

CLOSE = {"rtol": 1e-5, "atol": 1e-4}
NBITS = "com.microsoft.MatMulNBits"
LOOKUP = "com.microsoft.GatherBlockQuantized"


def floats(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng([seed, *shape]).normal(size=shape).astype(np.float32)


def layer(n: int, k: int, bits: int, block: int, *, zeros: str = "", bias: bool = False) -> dict[str, Array]:
    """Random constants of a layer; ``zeros``: packed, float, or none."""
    random = np.random.default_rng([n, k, bits, block])
    count = -(-k // block)
    found: dict[str, Array] = {
        "b": random.integers(0, 256, (n, count, block * bits // 8)).astype(np.uint8),
        "s": random.uniform(0.01, 0.1, (n, count)).astype(np.float32),
    }
    if zeros == "packed":
        found["z"] = random.integers(0, 256, (n, -(-count * bits // 8))).astype(np.uint8)
    if zeros == "float":
        found["z"] = random.integers(0, 1 << bits, (n, count)).astype(np.float32)
    if bias:
        found["o"] = random.normal(size=n).astype(np.float32)
    return found


def node(n: int, k: int, bits: int, block: int, constants: dict[str, Array], **attributes: int) -> Op:
    inputs = ["x", "b", "s", "z" if "z" in constants else "", "", "o" if "o" in constants else ""]
    while not inputs[-1]:
        inputs.pop()
    return Op(NBITS, inputs, {"N": n, "K": k, "bits": bits, "block_size": block, **attributes})


LAYERS = [  # K, bits, block, zero points, bias, shape of the input before K
    (64, 4, 32, "", False, (3,)),
    (64, 4, 16, "packed", True, (2, 3)),
    (96, 4, 32, "packed", False, (1, 2, 2)),  # an odd number of blocks; rank 4
    (40, 4, 16, "packed", True, (3,)),  # blocks of 16 become blocks of 8
    (36, 4, 32, "", True, (2, 3)),  # no equal blocks: padded
    (20, 4, 32, "", False, (3,)),  # less than one block
    (64, 8, 32, "packed", True, (3,)),
    (64, 8, 64, "", False, (3,)),
    (64, 4, 32, "float", False, (3,)),
]


@pytest.mark.parametrize(("k", "bits", "block", "zeros", "bias", "rows"), LAYERS)
def test_linear_layers_in_blocks(
    tmp_path: Path, k: int, bits: int, block: int, zeros: str, bias: bool, rows: tuple[int, ...]
) -> None:
    constants = layer(24, k, bits, block, zeros=zeros, bias=bias)
    op = node(24, k, bits, block, constants)
    run_ops([op], {"x": floats(*rows, k)}, tmp_path, constants=constants).check(**CLOSE)
    weights = package_contents(tmp_path / "ops.mlpackage").weights
    kind = ("u" if zeros else "") + f"int{bits}"
    assert weights[kind].tensors == 1
    assert set(weights) <= {kind, "float32"}


def test_levels_of_accuracy_allow_to_compute_exactly(tmp_path: Path) -> None:
    constants = layer(16, 32, 4, 16)
    wanted = run_ops([node(16, 32, 4, 16, constants)], {"x": floats(4, 32)}, tmp_path, constants=constants)
    op = node(16, 32, 4, 16, constants, accuracy_level=4)
    run_ops([op], {"x": floats(4, 32)}, tmp_path / "second", constants=constants, wanted=wanted.wanted).check(
        **CLOSE
    )


def test_a_dynamic_number_of_rows(tmp_path: Path) -> None:
    constants = layer(16, 36, 4, 32)
    run_ops(
        [node(16, 36, 4, 32, constants)],
        {"x": floats(2, 5, 36)},
        tmp_path,
        constants=constants,
        axes={"x": (2, "t", 36)},
        dimensions={"t": Dimension(1, 16)},
    ).check(**CLOSE)


def test_8_bits_with_one_scale_per_row_need_ios16_only(tmp_path: Path) -> None:
    constants = layer(16, 32, 8, 32, zeros="packed")
    op = node(16, 32, 8, 32, constants)
    run_ops([op], {"x": floats(4, 32)}, tmp_path, constants=constants, ios=16).check(**CLOSE)
    assert package_contents(tmp_path / "ops.mlpackage").weights["uint8"].tensors == 1


def test_what_a_layer_cannot_have() -> None:
    inputs = {"x": floats(4, 32)}
    constants = layer(16, 32, 4, 16)
    model = model_of([node(16, 32, 4, 16, constants)], inputs, constants)
    results = by_onnxruntime(model, inputs)
    with pytest.raises(RefusedNodeError, match="iOS18"):
        lower_ops(model, results, ios=17)
    model.graph.node[0].attribute.append(_attribute("weight_prepacked", 1))
    with pytest.raises(RefusedNodeError, match="layout of one GPU"):
        lower_ops(model, results)
    grouped = Op(NBITS, ["x", "b", "s", "", "g"], {"N": 16, "K": 32, "bits": 4, "block_size": 16})
    model = model_of([grouped], inputs, {**constants, "g": np.zeros(32, np.int32)})
    with pytest.raises(RefusedNodeError, match="g_idx"):
        lower_ops(model, results)
    broken = {**constants, "s": constants["s"][:, :1]}
    with pytest.raises(RefusedNodeError, match="do not have the size"):
        lower_ops(model_of([node(16, 32, 4, 16, broken)], inputs, broken), results)
    halves = {**constants, "z": np.full((16, 2), 7.5, np.float32)}
    with pytest.raises(RefusedNodeError, match="no whole numbers"):
        lower_ops(model_of([node(16, 32, 4, 16, halves)], inputs, halves), results)


def _attribute(name: str, value: int) -> Any:
    from onnx import helper

    return helper.make_attribute(name, value)


IDS = {"ids": np.array([[3, 0, 9], [7, -1, 2]], np.int64)}
TABLES = [  # dtype, bits, columns, block, zero points
    (np.uint8, 4, 32, 16, False),
    (np.uint8, 4, 32, 16, True),
    (np.uint8, 8, 32, 32, True),
    (np.uint8, 4, 40, 16, True),  # blocks of 16 become blocks of 8
    (np.uint8, 8, 36, 16, False),  # no equal blocks: padded and cut
    (ml_dtypes.uint4, 4, 32, 16, True),
    (ml_dtypes.int4, 4, 32, 16, False),
    (ml_dtypes.int4, 4, 32, 16, True),
]


@pytest.mark.parametrize(("dtype", "bits", "columns", "block", "zeros"), TABLES)
def test_tables_in_blocks(
    tmp_path: Path, dtype: Any, bits: int, columns: int, block: int, zeros: bool
) -> None:
    random = np.random.default_rng([columns, block, bits])
    count = -(-columns // block)
    constants: dict[str, Array] = {
        "s": random.uniform(0.01, 0.1, (10, count)).astype(np.float32),
    }
    for name, size in (("t", columns), ("z", count)):
        if dtype == np.uint8:
            constants[name] = random.integers(0, 256, (10, -(-size * bits // 8))).astype(np.uint8)
        else:
            constants[name] = random.integers(0, 8, (10, size)).astype(dtype)
    if not zeros:
        del constants["z"]
    op = Op(
        LOOKUP,
        ["t", "ids", "s", *(["z"] if zeros else [])],
        {"bits": bits, "block_size": block, "gather_axis": 0, "quantize_axis": 1},
    )
    run_ops([op], IDS, tmp_path, constants=constants).check(rtol=0, atol=0)
    weights = package_contents(tmp_path / "ops.mlpackage").weights
    assert sum(item.tensors for name, item in weights.items() if name.endswith(f"int{bits}")) == 1


def test_a_table_that_is_gathered_along_its_blocks_is_refused() -> None:
    constants = {"t": np.zeros((4, 32), ml_dtypes.int4), "s": np.ones((1, 32), np.float32)}
    op = Op(LOOKUP, ["t", "ids", "s"], {"block_size": 16, "gather_axis": 1, "quantize_axis": 0})
    model = model_of([op], {"ids": np.array([1], np.int64)}, constants)
    with pytest.raises(RefusedNodeError, match="along the last axis"):
        lower_ops(model, [np.zeros((4, 1), np.float32)])
