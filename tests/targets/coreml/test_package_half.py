"""Float16 packages keep what float16 has no room for: angles of positions, masks that hide everything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto

from edgeq.calibration.types import Array
from edgeq.compiler.model import Model
from edgeq.targets.coreml.interpreter.program import read_package
from tests.support.coreml_packages import package, run_package
from tests.support.static_models import graph, normal, run

LOWEST = np.array(np.finfo(np.float32).min)
QUERIES, KEYS = 3, 5


def rotary() -> Model:
    """Angles of integer positions as Llama computes them, and their sines and cosines times states."""
    frequencies = (1.0 / 10000 ** (np.arange(0, 16, 2) / 16)).astype(np.float32).reshape(1, 1, 8)
    return graph(
        [
            ("Cast", ["p"], ["f"], {"to": 1}),
            ("Mul", ["f", "frequencies"], ["angles"], {}),
            ("Cos", ["angles"], ["c"], {}),
            ("Sin", ["angles"], ["s"], {}),
            ("Concat", ["c", "s"], ["both"], {"axis": -1}),
            ("Mul", ["both", "x"], ["y"], {}),
        ],
        {"p": [1, 64, 1], "x": [1, 64, 16]},
        ["y"],
        {"frequencies": frequencies},
        types={"p": TensorProto.INT64},
    )


def decibel(wanted: Array, found: Array) -> float:
    return float(10 * np.log10(np.square(wanted).sum() / np.square(wanted - found).sum()))


@pytest.mark.parametrize("first", [0, 512, 1984])
def test_angles_of_far_positions_are_exact(tmp_path: Path, first: int) -> None:
    positions = np.arange(first, first + 64).reshape(1, 64, 1)
    inputs = {"p": positions, "x": normal(1, 64, 16)}
    written = package(rotary(), tmp_path / "m.mlpackage")
    found = run_package(written, **inputs)
    assert decibel(run(rotary(), inputs)[0], found[0]) > 65
    types = {
        op.type: op.outputs[0].type.dtype for op in read_package(written).main.block.operations if op.outputs
    }
    assert (types["sin"], types["cos"]) == ("float32", "float32")
    assert types["mul"] == "float16"


def masked(make: list[tuple[str, list[str], list[str], dict[str, Any]]], constants: dict[str, Any]) -> Model:
    """Scores plus a mask made of ``hide`` (1: hidden), softmax, product with values."""
    return graph(
        [
            *make,
            ("Add", ["scores", "mask"], ["z"], {}),
            ("Softmax", ["z"], ["probabilities"], {"axis": -1}),
            ("MatMul", ["probabilities", "values"], ["y"], {}),
        ],
        {"scores": [QUERIES, KEYS], "hide": [QUERIES, KEYS], "values": [KEYS, 4]},
        ["y"],
        constants,
        types={"hide": TensorProto.INT64},
    )


WAYS = {
    "where": masked(
        [("Cast", ["hide"], ["h"], {"to": 9}), ("Where", ["h", "lowest", "zero"], ["mask"], {})],
        {"lowest": LOWEST, "zero": np.array(0, np.float32)},
    ),
    "product": masked(
        [("Cast", ["hide"], ["h"], {"to": 1}), ("Mul", ["h", "lowest"], ["mask"], {})], {"lowest": LOWEST}
    ),
    "inverted": masked(
        [
            ("Cast", ["hide"], ["h"], {"to": 1}),
            ("Sub", ["one", "h"], ["shown"], {}),
            ("Sub", ["one", "shown"], ["hidden"], {}),
            ("Mul", ["lowest", "hidden"], ["mask"], {}),
        ],
        {"lowest": LOWEST, "one": np.array(1, np.float32)},
    ),
}


@pytest.mark.parametrize("way", WAYS)
def test_queries_without_keys_and_products_stay_finite(tmp_path: Path, way: str) -> None:
    hide = np.array([[0, 0, 1, 0, 1], [1, 1, 1, 1, 1], [0, 0, 0, 0, 0]])
    inputs = {"scores": normal(QUERIES, KEYS), "hide": hide, "values": normal(KEYS, 4, seed=1)}
    wanted = run(WAYS[way], inputs)[0]
    found = run_package(package(WAYS[way], tmp_path / "m.mlpackage"), **inputs)[0]
    np.testing.assert_allclose(found, wanted, atol=4e-3)


def test_a_mask_that_is_a_result_keeps_its_numbers(tmp_path: Path) -> None:
    """Only softmax sees no difference between -3e4 and less: elsewhere float16 makes it -inf."""
    model = graph(
        [("Cast", ["hide"], ["h"], {"to": 9}), ("Where", ["h", "lowest", "x"], ["y"], {})],
        {"x": [4], "hide": [4]},
        ["y"],
        {"lowest": LOWEST},
        types={"hide": TensorProto.INT64},
    )
    hide, x = np.array([0, 1, 0, 1]), np.array([1, 2, 3, 4], np.float32)
    found = run_package(package(model, tmp_path / "m.mlpackage"), x=x, hide=hide)[0]
    np.testing.assert_array_equal(found, [1, -np.inf, 3, -np.inf])


def test_zero_times_a_number_beyond_float16_is_zero(tmp_path: Path) -> None:
    model = graph([("Mul", ["x", "lowest"], ["y"], {})], {"x": [2]}, ["y"], {"lowest": LOWEST})
    found = run_package(package(model, tmp_path / "m.mlpackage"), x=np.array([0, 1e-38], np.float32))[0]
    assert found[0] == 0
