"""Smoothing: outlier channels of activations move into the weights, and nothing changes in float."""

from __future__ import annotations

import numpy as np

from tests.support.static_models import Samples, graph, normal, optimized_ops, precisions, quantize, run, sqnr


def _outliers(rows: int = 64) -> np.ndarray:
    """Values of which two channels of 16 are a hundred times larger."""
    x = normal(rows, 4, 16)
    x[..., 3] *= 100
    x[..., 9] *= 60
    return x


def _weights(seed: int, columns: int = 16) -> np.ndarray:
    """Rows that read the large channels are small, as training makes them."""
    weights = normal(16, columns, seed=seed)
    weights[3] /= 100
    weights[9] /= 60
    return weights


def _normalized(readers: int, *, residual: bool = False):
    nodes = [("LayerNormalization", ["x", "gain", "offset"], ["n"], {"axis": -1})]
    constants = {"gain": np.ones(16, np.float32), "offset": np.zeros(16, np.float32)}
    constants["gain"][[3, 9]] = (100, 60)
    for i in range(readers):
        nodes += [("MatMul", ["n", f"w{i}"], [f"m{i}"], {}), ("Tanh", [f"m{i}"], [f"t{i}"], {})]
        constants[f"w{i}"] = _weights(i)
    nodes.append(("Add", ["t0", "n" if residual else f"t{readers - 1}"], ["y"], {}))
    return graph(nodes, {"x": ["n", 4, 16]}, ["y"], constants)


def test_smoothing_folds_into_a_normalization_that_nobody_else_reads() -> None:
    model, x = _normalized(2), normal(64, 4, 16)
    wanted = run(model, {"x": x})[0]
    found = {s: quantize(model, Samples(x=x), smoothing=s) for s in (True, False)}
    quality = {s: sqnr(wanted, run(r.model, {"x": x})[0]) for s, r in found.items()}
    assert quality[True] > quality[False] + 6
    assert "Mul" not in precisions(found[True]).values()
    assert not any(node.op_type == "Mul" for node in found[True].model.ir.graph)
    assert any("Smoothing: outlier channels of 1 of 1" in text for text in found[True].notes)


def test_other_readers_of_the_activation_see_it_unchanged() -> None:
    model, x = _normalized(1, residual=True), normal(64, 4, 16)
    wanted = run(model, {"x": x})[0]
    result = quantize(model, Samples(x=x))
    assert sum(node.op_type == "Mul" for node in result.model.ir.graph) == 1
    assert sqnr(wanted, run(result.model, {"x": x})[0]) > 30
    assert optimized_ops(result.model)["MatMulIntegerToFloat"] == 1


def test_gemm_with_transposed_weights_is_smoothed() -> None:
    nodes = [("Gelu", ["x"], ["g"], {}), ("Gemm", ["g", "w", "b"], ["y"], {"transB": 1})]
    constants = {"w": np.ascontiguousarray(_weights(0, 8).T), "b": normal(8)}
    model = graph(nodes, {"x": ["n", 16]}, ["y"], constants)
    x = _outliers()[:, 0]
    wanted = run(model, {"x": x})[0]
    quality = {
        s: sqnr(wanted, run(quantize(model, Samples(x=x), smoothing=s).model, {"x": x})[0])
        for s in (True, False)
    }
    assert quality[True] > quality[False] + 6


def test_even_activations_are_left_alone() -> None:
    nodes = [("Gelu", ["x"], ["g"], {}), ("MatMul", ["g", "w"], ["y"], {})]
    model = graph(nodes, {"x": ["n", 16]}, ["y"], {"w": normal(16, 8)})
    result = quantize(model, Samples(x=normal(64, 16)))
    assert not any(node.op_type == "Mul" for node in result.model.ir.graph)


def test_a_chain_of_integer_kernels_is_not_taken_apart() -> None:
    nodes = [
        ("Conv", ["x", "k"], ["c"], {}),
        ("Relu", ["c"], ["r"], {}),
        ("GlobalAveragePool", ["r"], ["p"], {}),
        ("Flatten", ["p"], ["f"], {}),
        ("Gemm", ["f", "w"], ["y"], {}),
    ]
    kernel = normal(16, 3, 3, 3)
    kernel[5] *= 80
    model = graph(nodes, {"x": ["n", 3, 8, 8]}, ["y"], {"k": kernel, "w": normal(16, 8)})
    result = quantize(model, Samples(x=normal(32, 3, 8, 8)))
    assert not any(node.op_type == "Mul" for node in result.model.ir.graph)
    assert optimized_ops(result.model)["QGemm"] == 1
