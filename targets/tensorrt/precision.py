"""Everything of a quantized float32 model that is not integer becomes float16 or bfloat16, strongly typed.

The type of a scale is the type that DequantizeLinear writes, so scales, biases and the operators between them
must agree. Model inputs and outputs keep float32, with a Cast at the border. Rules: :mod:`.float_parts`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

from edgeq.calibration.types import Arrays
from edgeq.compiler.model import Model
from edgeq.compiler.node_names import name_nodes
from edgeq.compiler.normalize.opset import raise_opset
from edgeq.compiler.plan import Plan
from edgeq.compiler.quantize.masks import soften_masks
from edgeq.compiler.quantize.narrowing import FLOAT, Caster, NarrowConstants
from edgeq.compiler.quantize.rewriter import Editor, drop_unused
from edgeq.targets.tensorrt.float_parts import Reasons, float_parts, shifts
from edgeq.targets.tensorrt.magnitudes import around, too_large
from edgeq.targets.tensorrt.options import HighPrecision

# Convolutions and pools have had bfloat16 since.
_BFLOAT16_OPSET = 22
_DTYPES = {"fp16": ir.DataType.FLOAT16, "bf16": ir.DataType.BFLOAT16}


def cast_rest(
    model: Model, plan: Plan, precision: HighPrecision, samples: Sequence[Arrays] = ()
) -> tuple[Model, tuple[str, ...]]:
    """``model`` with its float32 arithmetic in ``precision``, and what the user is told about it.

    Nodes keep their names; inputs and outputs keep float32. Nodes that an override of the recipe keeps in
    float32 (``NodePlan.pinned``) stay so, and those whose numbers leave the range of float16 on ``samples``.

    Raises:
        TargetError: ONNX Runtime cannot run ``model`` on the samples.
    """
    dtype = _DTYPES.get(precision)
    if dtype is None:
        return model, ()
    result = model.clone()
    name_nodes(result.ir)
    _infer_types(result.ir)
    state = Editor(result.ir)
    constants = NarrowConstants(state, dtype)
    soften_masks(state, constants.largest)
    if dtype == ir.DataType.BFLOAT16:
        raise_opset(result.ir, _BFLOAT16_OPSET)
    kept = float_parts(result.ir, dtype, constants)
    if dtype == ir.DataType.FLOAT16:
        kept.update(around(result.ir.graph, too_large(result, samples)))
    for name, node in plan.nodes.items():
        if node.pinned:
            kept.update((n, node.reason) for n in result.ir.graph.all_nodes() if n.name == name)
    _convert(result.ir, dtype, Caster(state, constants, dtype), {**shifts(result.ir.graph), **kept})
    drop_unused(result.ir)
    return result, _notes(kept, precision)


def _infer_types(model: ir.Model) -> None:
    if any(value.dtype is None for node in model.graph.all_nodes() for value in node.outputs):
        ShapeInferencePass()(model)


def _convert(model: ir.Model, dtype: ir.DataType, caster: Caster, kept: Reasons) -> None:
    nodes = list(model.graph.all_nodes())
    narrow = {node: _is_narrow(node, kept) for node in nodes}
    for node in nodes:
        if narrow[node]:
            _retype(node, dtype)
        caster.convert(node, narrow[node])
    for graph in model.graphs():
        caster.restore_outputs(graph)


def _is_narrow(node: ir.Node, kept: Reasons) -> bool:
    if node.op_type == "QuantizeLinear" and node.domain == "":
        return _quantizes_narrow(node, kept)
    if node.op_type == "DequantizeLinear" and node.domain == "":
        readers = node.outputs[0].consumers()
        return any(_is_narrow(reader, kept) for reader in readers if reader.op_type != "QuantizeLinear")
    return node not in kept


def _quantizes_narrow(node: ir.Node, kept: Reasons) -> bool:
    """A QuantizeLinear reads what there is: it needs no Cast before it."""
    source = node.inputs[0]
    maker = None if source is None else source.producer()
    return maker is not None and _is_narrow(maker, kept)


def _retype(node: ir.Node, dtype: ir.DataType) -> None:
    """Operators that say in an attribute what they write."""
    if node.op_type == "Cast" and node.outputs[0].dtype == FLOAT:
        node.attributes["to"] = ir.AttrInt64("to", int(dtype))
    if node.op_type == "ConstantOfShape" and node.outputs[0].dtype == FLOAT:
        given = node.attributes.get("value")
        numbers = np.zeros(1, np.float32) if given is None else given.as_tensor().numpy()
        node.attributes["value"] = ir.AttrTensor("value", ir.tensor(numbers.astype(dtype.numpy())))


def _notes(kept: Reasons, precision: str) -> tuple[str, ...]:
    if not kept:
        return ()
    counts = Counter(node.op_type for node in kept)
    listed = ", ".join(f"{count} {op_type}" for op_type, count in sorted(counts.items()))
    stay = "1 node stays" if len(kept) == 1 else f"{len(kept)} nodes stay"
    return (f"{stay} in float32 beside {precision}: {listed}.",)
