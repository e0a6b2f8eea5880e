"""One layer of each kind, compiled once: what runs in INT8, in which kernel, and why not the others."""

from __future__ import annotations

import pytest

from edgeq.targets.base import NodeResult
from edgeq.targets.neural_compressor.placement import Placement
from tests.support.neural_compressor import Artefact

# Layer → precision that it really runs in.
LAYERS = {
    "conv": "int8",
    "residual": "int8",
    "depthwise": "int8",
    "pointwise": "int8",
    "gray": "int8",
    "behind_gray": "int8",
    "temporal": "int8",
    "query": "int8",
    "key": "int8",
    "value": "int8",
    "wide": "int8",
    "narrow": "int8",
    "words": "int8-weight",
    "kinds": "fp32",
    "transposed": "fp32",
    "recurrent/lstm": "fp32",
    "gated/gru": "fp32",
    "scale": "fp32",
}


def _nodes(result: Artefact) -> dict[str, NodeResult]:
    return {node.name: node for node in result.manifest.nodes}


@pytest.mark.parametrize("layer", LAYERS)
def test_every_layer_runs_as_expected(static: Artefact, layer: str) -> None:
    node = _nodes(static)[layer]
    assert node.actual == LAYERS[layer], node
    assert not node.missed
    assert node.kernel
    if node.actual == "int8":
        assert node.kernel.startswith(("qconv", "qlinear"))
    else:
        assert node.reason


def test_nothing_that_was_planned_runs_in_float(static: Artefact) -> None:
    assert static.manifest.missed == []


def test_activations_and_additions_are_within_kernels(static: Artefact) -> None:
    within = {
        n.op_type for n in static.manifest.nodes if n.kernel.startswith("qconv") and n.name not in LAYERS
    }
    assert {"relu", "add"} <= within
    (pool,) = [node for node in static.manifest.nodes if "max_pool2d" in node.op_type]
    assert (pool.actual, pool.kernel) == ("int8", "qmaxpool2d")


def test_products_of_activations_are_float_and_say_why(static: Artefact) -> None:
    products = [node for node in static.manifest.nodes if node.op_type == "matmul"]
    assert len(products) == 2
    for node in products:
        assert (node.planned, node.actual) == ("fp32", "fp32")
        assert "no INT8 kernel" in node.reason
        assert "mm" in node.kernel


def test_onednn_executed_the_kernels_of_the_table(static: Artefact) -> None:
    layers = sum(actual == "int8" for actual in LAYERS.values())
    assert Placement.read(static.folder).layers == layers
    (check,) = [check for check in static.manifest.checks if check.name == "int8 kernels"]
    assert check.passed
    assert check.found.startswith(f"{layers} executed by oneDNN")


def test_dynamic_layers_run_in_int8(dynamic: Artefact) -> None:
    nodes = _nodes(dynamic)
    assert [nodes[name].actual for name in ("first", "second")] == ["int8", "int8"]
    assert dynamic.manifest.missed == []
