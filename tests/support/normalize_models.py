"""Small models for the normalizer's tests, and running them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import onnxruntime as ort
from onnx import helper, numpy_helper

from edgeq.calibration.types import Array
from edgeq.compiler.model import Model, Source
from edgeq.compiler.normalize import Normalized, normalize
from edgeq.compiler.normalize.equivalence import check_equivalent

IR_VERSIONS = {7: 3, 8: 3, 9: 4, 10: 5, 11: 6, 12: 7, 13: 7, 14: 7, 15: 8, 16: 8, 17: 8, 18: 8, 19: 9, 20: 9}


def wrap(proto: onnx.ModelProto) -> Model:
    return Model(ir.from_proto(proto), Source("onnx", "test.onnx", "0" * 64))


def from_text(body: str, opset: int = 21, weights: Mapping[str, Array] | None = None) -> Model:
    """A model from ONNX text that starts with its signature; ``weights`` become initializers."""
    header = f'<ir_version: {max(4, IR_VERSIONS.get(opset, 10))}, opset_import: ["": {opset}]>\n'
    proto = onnx.parser.parse_model(header + "g " + body)
    proto.graph.initializer.extend(numpy_helper.from_array(a, n) for n, a in (weights or {}).items())
    return wrap(proto)


def one_node(
    op_type: str,
    inputs: Sequence[str],
    *,
    opset: int,
    x: Array,
    shape: Sequence[int | str] | None = None,
    constants: Mapping[str, Array] | None = None,
    outputs: int = 1,
    **attributes: Any,
) -> Model:
    """One node of an opset; input ``x`` like the array, other names are constants."""
    constants = constants or {}
    node = helper.make_node(op_type, inputs, [f"y{i}" for i in range(outputs)], name="node", **attributes)
    dtype = helper.np_dtype_to_tensor_dtype(x.dtype)
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", dtype, shape or x.shape)],
        [onnx.ValueInfoProto(name=name) for name in node.output],
        [numpy_helper.from_array(a, n) for n, a in constants.items()],
    )
    if opset < 9:  # IR version 3: initializers are inputs.
        graph.input.extend(
            helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
            for n, a in constants.items()
        )
    proto = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=IR_VERSIONS.get(opset, 10)
    )
    inferred = onnx.shape_inference.infer_shapes(proto)
    return wrap(inferred)


def run(model: Model, feed: Mapping[str, Array], *, optimized: bool = True) -> list[Array]:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    if not optimized:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    content = ir.to_proto(model.ir).SerializeToString()
    session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return session.run(None, dict(feed))


def ops(model: Model) -> Counter[str]:
    return Counter(node.op_type for node in model.ir.graph.all_nodes())


def content(model: Model) -> bytes:
    return ir.to_proto(model.ir).SerializeToString(deterministic=True)


def normalized(model: Model, feed: Mapping[str, Array] | None = None, tolerance: float = 1e-5) -> Normalized:
    """Normalize and check what always holds: same numbers, signature, validity, idempotence."""
    before = content(model)
    result = normalize(model)
    assert content(model) == before, "the given model was changed"
    proto = ir.to_proto(result.model.ir)
    onnx.checker.check_model(proto, full_check=False)
    assert [(s.name, s.dtype, s.shape) for s in result.model.inputs] == [
        (s.name, s.dtype, s.shape) for s in model.inputs
    ]
    assert [(s.name, s.dtype) for s in result.model.outputs] == [(s.name, s.dtype) for s in model.outputs]
    again = normalize(result.model)
    assert content(again.model) == content(result.model), "not idempotent"
    nodes = list(result.model.ir.graph.all_nodes())
    assert all(node.name for node in nodes)
    assert len({node.name for node in nodes}) == len(nodes)
    if feed is None:
        check_equivalent(model, result.model, None)
        return result
    for a, b in zip(run(model, feed), run(result.model, feed), strict=True):
        assert np.asarray(a).dtype == np.asarray(b).dtype
        np.testing.assert_allclose(b, a, rtol=tolerance, atol=tolerance)
    return result


def values(*shape: int, seed: int = 0, dtype: Any = np.float32) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)
