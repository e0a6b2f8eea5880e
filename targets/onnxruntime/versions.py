"""Which ONNX Runtimes have what an artefact asks for."""

from __future__ import annotations

from onnx import TensorProto, helper

from edgeq.compiler.model import Model
from edgeq.compiler.normalize.attention import ATTENTION_OPSET
from edgeq.errors import TargetError
from edgeq.targets.onnxruntime.session import open_session, session_options

# The first version that loads a model of the opset; found by loading one in 1.22.1, 1.23.2 and 1.24.1.
# 1.23 is also the first with a kernel of Attention.
_FIRST = {23: "1.23", 24: "1.24"}
_OLDEST = "1.22"


def oldest_version(model: Model) -> str:
    """The oldest ONNX Runtime, of those that edgeq supports, that loads ``model``."""
    return _FIRST.get(model.ir.opset_imports.get("", 0), _OLDEST)


def has_attention() -> bool:
    """Whether the installed ONNX Runtime has a kernel of ONNX's Attention: old and reduced builds do not."""
    rows = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", "s", 8]) for name in "qkvy"]
    node = helper.make_node("Attention", ["q", "k", "v"], ["y"], q_num_heads=2, kv_num_heads=2)
    graph = helper.make_graph([node], "probe", rows[:3], rows[3:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", ATTENTION_OPSET)], ir_version=10)
    try:
        open_session(model.SerializeToString(), session_options(1), name="the probe")
    except TargetError:
        return False
    return True
