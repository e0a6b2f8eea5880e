"""Palettes: the best one, in the package and in the returned weights alike."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgeq.calibration.types import Array
from edgeq.compiler.model import Model
from edgeq.compiler.plan import Plan, QuantSpec
from edgeq.targets.coreml.interpreter.program import read_package
from edgeq.targets.coreml.options import CoreMLOptions
from edgeq.targets.coreml.package.clustering import find_palette
from edgeq.targets.coreml.package.palettize import palettize
from edgeq.targets.coreml.toolkit import coremltools
from edgeq.targets.coreml.verification.contents import package_contents
from tests.support.coreml_packages import digests, package, run_package
from tests.support.static_models import graph, normal, run


def error(weights: Array, decoded: Array) -> float:
    return float(np.sum((weights.astype(np.float64) - decoded.astype(np.float64)) ** 2))


# --- clustering ---------------------------------------------------------------------------------------------


def best_error(values: Array, clusters: int) -> float:
    """The least squared error of any partition of the sorted values."""
    ordered = np.sort(values.astype(np.float64))
    found = np.inf
    for cuts in combinations(range(1, ordered.size), clusters - 1):
        parts = np.split(ordered, cuts)
        found = min(found, sum(float(np.sum((part - part.mean()) ** 2)) for part in parts))
    return found


@settings(max_examples=30, deadline=None)
@given(hnp.arrays(np.float16, st.integers(5, 9), elements=st.floats(-4, 4, width=16), unique=True))
def test_no_partition_is_better(values: Any) -> None:
    from edgeq.targets.coreml.package.clustering import _centroids

    centroids = _centroids(values.astype(np.float64), np.ones(values.size), 4)
    nearest = np.abs(values.astype(np.float64)[:, None] - centroids).min(axis=1)
    assert np.sum(nearest**2) == pytest.approx(best_error(values, 4), abs=1e-9)


@pytest.mark.parametrize("bits", [4, 6])
def test_the_palette_is_better_than_that_of_sampling(bits: int) -> None:
    coremltools()
    from coremltools.models.neural_network.quantization_utils import _get_kmeans_lookup_table_and_weight

    weights = normal(4096, scale=0.1).astype(np.float16)
    table, indices = _get_kmeans_lookup_table_and_weight(bits, weights)
    sampled = error(weights, table.reshape(-1).astype(np.float16)[indices])
    assert error(weights, find_palette(weights, bits).decoded()) < sampled


@pytest.mark.parametrize("bits", [4, 6])
def test_the_palette_of_decoded_weights_is_the_same(bits: int) -> None:
    first = find_palette(normal(64, 48).astype(np.float16), bits)
    second = find_palette(first.decoded(), bits)
    np.testing.assert_array_equal(first.table, second.table)
    np.testing.assert_array_equal(first.indices, second.indices)
    assert np.all(np.diff(first.table.astype(np.float32)) >= 0)


@pytest.mark.parametrize("different", [1, 2, 15, 16])
def test_few_numbers_are_kept(different: int) -> None:
    weights = np.resize(np.linspace(-1, 1, different), 100).astype(np.float16)
    palette = find_palette(weights, 4)
    np.testing.assert_array_equal(palette.decoded(), weights)
    assert palette.table.shape == (16,)


# --- packages -----------------------------------------------------------------------------------------------


def net() -> Model:
    """Conv, MatMul (stored transposed), Gather: 3 weights of 2048 numbers and more, and a small one."""
    return graph(
        [
            ("Conv", ["x", "conv"], ["c"], {"pads": [1, 1, 1, 1]}),
            ("GlobalAveragePool", ["c"], ["g"], {}),
            ("Flatten", ["g"], ["f"], {}),
            ("MatMul", ["f", "matrix"], ["m"], {}),
            ("Gather", ["table", "i"], ["t"], {"axis": 0}),
            ("Add", ["m", "t"], ["s"], {}),
            ("Mul", ["s", "small"], ["y"], {}),
        ],
        {"x": [1, 16, 6, 6], "i": [1]},
        ["y"],
        {
            "conv": normal(32, 16, 3, 3, scale=0.1),
            "matrix": normal(32, 64, seed=1),
            "table": normal(40, 64, seed=2),
            "small": normal(64, seed=3),
        },
        types={"i": 7, "x": 1, "y": 1},
    )


WEIGHTS = ("conv", "matrix", "table")
INPUTS: dict[str, Array] = {"x": normal(1, 16, 6, 6, seed=5), "i": np.array([7])}


def planned(bits: int = 4, *names: str) -> Plan:
    spec = QuantSpec(f"pal{bits}", symmetric=False)  # type: ignore[arg-type]
    return Plan(weights=dict.fromkeys(names or WEIGHTS, spec))


def with_weights(model: Model, weights: dict[str, Array]) -> Model:
    import onnx_ir as ir

    changed = model.clone()
    for name, array in weights.items():
        changed.ir.graph.initializers[name].const_value = ir.tensor(array, name=name)
    return changed


@pytest.mark.parametrize("ios", [16, 17, 18])
@pytest.mark.parametrize("bits", [4, 6])
def test_the_returned_weights_are_those_of_the_package(ios: int, bits: int, tmp_path: Path) -> None:
    model, path = net(), package(net(), tmp_path / "m.mlpackage", ios=ios)
    weights, notes = palettize(path, model, planned(bits), CoreMLOptions())
    stored = package_contents(path).weights[f"lut-{bits}"]
    assert stored.tensors == len(WEIGHTS)
    assert {len(np.unique(array)) for array in weights.values()} == {2**bits}
    wanted = run(with_weights(model, weights), INPUTS)[0]
    assert np.abs(run_package(path, **INPUTS)[0] - wanted).max() < 2e-2
    assert "3 weights" in notes[0]


@pytest.mark.parametrize("ios", [16, 18])
def test_coremltools_decodes_the_same_numbers(ios: int, tmp_path: Path) -> None:
    ct = coremltools()
    from coremltools.converters.mil.frontend.milproto.load import load

    path = package(net(), tmp_path / "m.mlpackage", ios=ios)
    weights, _ = palettize(path, net(), planned(6), CoreMLOptions())
    written = ct.models.MLModel(str(path), skip_model_load=True)
    spec = written.get_spec()
    program = load(spec, spec.specificationVersion, written.weights_dir)
    tables = [o for o in program.functions["main"].operations if o.op_type == "constexpr_lut_to_dense"]
    decoded = {op.materialized_val_inference().astype(np.float32).tobytes() for op in tables}
    assert decoded == {
        np.ascontiguousarray(array.T if name == "matrix" else array).tobytes()
        for name, array in weights.items()
    }


def test_float32_packages_hold_float32_tables(tmp_path: Path) -> None:
    path = package(net(), tmp_path / "m.mlpackage", arithmetic="float32")
    weights, _ = palettize(path, net(), planned(), CoreMLOptions())
    wanted = run(with_weights(net(), weights), INPUTS)[0]
    assert np.abs(run_package(path, **INPUTS)[0] - wanted).max() < 1e-5


def test_a_palettized_package_can_be_built_again_from_its_weights(tmp_path: Path) -> None:
    first = package(net(), tmp_path / "a.mlpackage")
    weights, _ = palettize(first, net(), planned(), CoreMLOptions())
    again = with_weights(net(), weights)
    second = package(again, tmp_path / "b.mlpackage")
    palettize(second, again, planned(), CoreMLOptions())
    assert digests(first) == digests(second)


def test_groups_of_channels_are_nearer_to_the_weights(tmp_path: Path) -> None:
    model = net()
    originals = {name: model.ir.graph.initializers[name].const_value.numpy() for name in WEIGHTS}  # type: ignore[union-attr]
    found = []
    for group in (None, 8):
        path = package(net(), tmp_path / f"{group}.mlpackage", ios=18)
        weights, notes = palettize(path, model, planned(), CoreMLOptions(palette_group=group))
        found.append({name: error(originals[name], array) for name, array in weights.items()})
        assert len(notes) == 1
        wanted = run(with_weights(model, weights), INPUTS)[0]
        assert np.abs(run_package(path, **INPUTS)[0] - wanted).max() < 2e-2
    assert all(found[1][name] < found[0][name] for name in WEIGHTS)


def test_channels_that_make_no_groups_share_one_table(tmp_path: Path) -> None:
    path = package(net(), tmp_path / "m.mlpackage", ios=18)
    _, notes = palettize(path, net(), planned(), CoreMLOptions(palette_group=16))
    assert [note for note in notes if "'table'" in note and "groups of 16" in note]


def test_the_other_weights_stay_what_they_are(tmp_path: Path) -> None:
    path = package(net(), tmp_path / "m.mlpackage")
    before = package_contents(path).weights["float16"].tensors
    weights, _ = palettize(path, net(), planned(4, "conv"), CoreMLOptions())
    assert set(weights) == {"conv"}
    assert package_contents(path).weights["float16"].tensors == before - 1
    wanted = run(with_weights(net(), weights), INPUTS)[0]
    assert np.abs(run_package(path, **INPUTS)[0] - wanted).max() < 2e-2


def test_a_weight_that_was_folded_is_reported(tmp_path: Path) -> None:
    model = net()
    path = package(model, tmp_path / "m.mlpackage")
    other = with_weights(model, {"table": normal(40, 64, seed=9)})
    weights, notes = palettize(path, other, planned(), CoreMLOptions())
    assert "table" not in weights
    assert [note for note in notes if "'table'" in note and "folded" in note]
    assert "table" not in {o.name for o in read_package(path).main.block.operations}
