"""Which ONNX Runtimes have what an artefact asks for.

Found by loading models in 1.22.1, 1.23.2, 1.24.1 and 1.31.1: the first knows opsets up to 22. 1.23 knows
opset 23 and has a kernel of its Attention, but none of its QuantizeLinear. 1.24 has both, and knows opset 24.
"""

from __future__ import annotations

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

from edgeq.calibration.types import Array
from edgeq.compiler.model import Model
from edgeq.compiler.normalize.attention import ATTENTION_OPSET
from edgeq.errors import TargetError
from edgeq.targets.onnxruntime.session import open_session, session_options


def oldest_version(model: Model) -> str:
    """The oldest ONNX Runtime, of those that edgeq supports, that loads ``model``."""
    opset = model.ir.opset_imports.get("", 0)
    if opset < ATTENTION_OPSET:
        return "1.22"
    return "1.24" if opset > ATTENTION_OPSET or rounds(model) else "1.23"


def rounds(model: Model) -> bool:
    """Whether ``model`` rounds activations by QuantizeLinear."""
    return any(node.op_type == "QuantizeLinear" for node in model.ir.graph.all_nodes())


def has_attention(*, rounding: bool) -> bool:
    """Whether the installed ONNX Runtime has ONNX's Attention; with QuantizeLinear of that opset, if asked.

    Old builds do not, and those that were reduced to some operators.
    """
    try:
        open_session(_probe(rounding).SerializeToString(), session_options(1), name="the probe")
    except TargetError:
        return False
    return True


def _probe(rounding: bool) -> ModelProto:
    rows = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", "s", 8]) for name in "qkvy"]
    nodes = [helper.make_node("Attention", ["q", "k", "v"], ["y"], q_num_heads=2, kv_num_heads=2)]
    constants: list[tuple[Array, str]] = []
    if rounding:
        nodes.append(helper.make_node("QuantizeLinear", ["y", "scale", "zero"], ["rounded"]))
        constants = [(np.array(1, np.float32), "scale"), (np.array(0, np.uint8), "zero")]
        rows[3] = helper.make_tensor_value_info("rounded", TensorProto.UINT8, ["n", "s", 8])
    initializers = [numpy_helper.from_array(array, name) for array, name in constants]
    graph = helper.make_graph(nodes, "probe", rows[:3], rows[3:], initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", ATTENTION_OPSET)], ir_version=10)
