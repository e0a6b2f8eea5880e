"""Small rewrites before planning, so that ONNX Runtime's INT8 kernels can take more nodes as they are.

Every rewrite keeps the function of the model; the constants are folded in float32.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from edgeq.compiler.model import Model
from edgeq.compiler.plan_nodes import attribute, constant, input_at
from edgeq.compiler.quantize.layer_geometry import kernel_order
from edgeq.compiler.quantize.rewriter import Rewriter
from edgeq.compiler.recipe import Recipe
from edgeq.targets.capabilities import Capabilities

Array = npt.NDArray[np.generic]


def prepare(model: Model, capabilities: Capabilities, recipe: Recipe) -> Model:
    """A copy of ``model`` with the rewrites done; weights that are not touched are shared."""
    result = model.clone()
    edit = Rewriter(result.ir, capabilities, recipe)
    steps: tuple[Callable[[ir.Node, Rewriter], None], ...] = (
        _fold_gemm_factors,
        _flatten_bias,
    )
    for step in steps:
        for node in list(result.ir.graph):
            step(node, edit)
    if recipe.bias_correction:
        for node in result.ir.graph:
            _add_bias(node, edit, capabilities)
    _unshare_constants(result.ir.graph, edit, capabilities)
    return result


def _fold_gemm_factors(node: ir.Node, edit: Rewriter) -> None:
    """Fold alpha into the weights and beta into the bias: the INT8 kernel takes neither."""
    if node.op_type != "Gemm" or node.domain != "":
        return
    for name, index in (("alpha", 1), ("beta", 2)):
        factor = attribute(node, name, 1.0)
        value = input_at(node, index)
        numbers = constant(value)
        if not isinstance(factor, float) or factor == 1.0:
            continue
        if value is not None and numbers is None:
            continue
        if value is not None and numbers is not None:
            scaled = np.multiply(numbers, factor, dtype=numbers.dtype)
            node.replace_input_with(index, edit.initializer(f"{value.name}_{name}", scaled))
        node.attributes.pop(name)


def _flatten_bias(node: ir.Node, edit: Rewriter) -> None:
    """A Gemm bias [1, N] (or one number) as the vector [N] that the kernel wants."""
    if node.op_type != "Gemm" or (bias := input_at(node, 2)) is None:
        return
    numbers, weights = constant(bias), constant(input_at(node, 1))
    if numbers is None or weights is None or weights.ndim != 2:
        return
    channels = weights.shape[0 if attribute(node, "transB", 0) else 1]
    if numbers.shape not in ((1, channels), (1,), (1, 1), ()) or numbers.shape == (channels,):
        return
    vector = np.ascontiguousarray(np.broadcast_to(numbers.reshape(-1), (channels,)))
    node.replace_input_with(2, edit.initializer(f"{bias.name}_vector", vector))


def _add_bias(node: ir.Node, edit: Rewriter, capabilities: Capabilities) -> None:
    """A bias of zeros where there is none, for the correction: INT8 kernels add it at no cost."""
    rule = capabilities.int8_static.get(node.op_type)
    if rule is None or rule.bias is None or node.domain != "" or input_at(node, rule.bias) is not None:
        return
    weights = [constant(input_at(node, index)) for index in rule.weights]
    if len(weights) != 1 or weights[0] is None or weights[0].dtype != np.float32:
        return
    channels = weights[0].shape[kernel_order(node, weights[0].ndim)[0]]
    node.resize_inputs(rule.bias + 1)
    zeros = np.zeros(channels * int(_groups_of_transposed(node)), np.float32)
    node.replace_input_with(rule.bias, edit.initializer(f"{node.name}_bias", zeros))


def _groups_of_transposed(node: ir.Node) -> int:
    group = attribute(node, "group", 1) if node.op_type == "ConvTranspose" else 1
    return group if isinstance(group, int) else 1


def _unshare_constants(graph: ir.Graph, edit: Rewriter, capabilities: Capabilities) -> None:
    """Give every quantized port a constant of its own: scales differ from node to node."""
    taken: set[ir.Value] = set()
    for node in graph:
        rule = capabilities.int8_static.get(node.op_type)
        if rule is None or node.domain != "":
            continue
        for index in _quantized_ports(node, rule.activations, rule.weights, rule.bias, rule.variadic):
            value = input_at(node, index)
            numbers = constant(value)
            if value is None or numbers is None:
                continue
            if value in taken or value.is_graph_output():
                node.replace_input_with(index, edit.initializer(value.name or "constant", numbers))
            else:
                taken.add(value)


def _quantized_ports(
    node: ir.Node, activations: tuple[int, ...], weights: object, bias: int | None, variadic: bool
) -> list[int]:
    if node.op_type == "Gather":
        return []
    if variadic:
        return list(range(len(node.inputs)))
    ports = {*activations, *(weights if isinstance(weights, dict) else {})}
    return sorted(ports | ({bias} if bias is not None else set()))
