"""Which nodes of a program are quantized: not what the user keeps in float, nor what has no kernel."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from edgeq.compiler.overrides import check_precisions, resolve_overrides
from edgeq.compiler.plan import NodePlan, Plan, Precision
from edgeq.compiler.recipe import Precision as Wanted
from edgeq.compiler.recipe import Recipe, Scheme
from edgeq.errors import UsageError
from edgeq.targets.neural_compressor.names import Named, name_nodes, op_type
from edgeq.targets.neural_compressor.quantized import QuantizedProgram

if TYPE_CHECKING:
    from torch.fx import Graph, GraphModule, Node

# Ops whose constant weights are rounded.
LAYERS = frozenset({"conv1d", "conv2d", "linear"})
# Ops that always get an INT8 kernel of PyTorch's compiler (conv1d does before a ReLU only).
KERNELS: Mapping[Scheme, frozenset[str]] = {
    "int8-static": frozenset({"conv2d", "linear"}),
    "int8-dynamic": frozenset({"linear"}),
}
_FLOAT: tuple[Wanted, ...] = ("fp32",)
# Ops that pass INT8 values on, between INT8 neighbours.
PASSING = frozenset({"max_pool2d", "cat", "flatten"})
# Ops that the quantizer would round although they are computed in float all the same, on the rounded values;
# the averages of a pool would have the range of what they are averages of.
_ROUNDED_IN_VAIN = frozenset({"mul", "avg_pool2d", "adaptive_avg_pool2d"})
_ARITHMETIC = frozenset({
    "linear", "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d",
    "matmul", "mm", "bmm", "addmm", "einsum", "lstm", "gru", "scaled_dot_product_attention",
})  # fmt: skip
_MOVES = frozenset({
    "view", "reshape", "permute", "transpose", "slice", "select", "expand", "unsqueeze", "squeeze",
    "contiguous", "flatten", "split", "chunk", "clone", "unflatten",
})  # fmt: skip
_FLOAT_REASONS = {
    "matmul": "products of two computed tensors have no INT8 kernel in PyTorch's compiler",
    "bmm": "products of two computed tensors have no INT8 kernel in PyTorch's compiler",
    "scaled_dot_product_attention": "attention is one kernel in float",
    "layer_norm": "statistics need the range of float",
    "softmax": "probabilities need float precision",
    "embedding": "it is read in float",
}


def name_sources(graph: Graph) -> None:
    """Tell the quantizer of every node, by itself, which operation it is.

    It finds its patterns by the modules that nodes come from: it fails where one module is called twice (the
    ReLU of torchvision's residual blocks), and does not see activations of modules that it does not know.
    """
    import torch

    sources = {
        "conv1d": torch.nn.Conv1d,
        "conv2d": torch.nn.Conv2d,
        "linear": torch.nn.Linear,
        "relu": torch.nn.ReLU,
        "hardtanh": torch.nn.Hardtanh,
        "relu6": torch.nn.ReLU6,
        "hardswish": torch.nn.Hardswish,
        "silu": torch.nn.SiLU,
        "gelu": torch.nn.GELU,
        "tanh": torch.nn.Tanh,
        "leaky_relu": torch.nn.LeakyReLU,
        "add": operator.add,
    }
    for node in graph.nodes:
        source = sources.get(op_type(node).removesuffix("_"))
        if source is not None:
            node.meta["source_fn_stack"] = [(node.name, source)]


def keep_in_float(nodes: Sequence[Named], recipe: Recipe) -> dict[str, str]:
    """Mark what must not be quantized, so that the quantizer leaves it; returns node name → pattern.

    Raises:
        UsageError: an override matches no node, or asks for what the scheme does not have.
    """
    wishes = resolve_overrides(nodes, recipe.overrides)
    check_precisions(wishes, recipe.scheme, ("fp32", "int8"))
    for named in nodes:
        precision, pattern = wishes.get(named.name, (None, ""))
        if precision == "int8" and named.op_type not in KERNELS[recipe.scheme]:
            raise UsageError(
                f"The override {pattern!r} asks for int8 at {named.name!r}, and {recipe.scheme} has no INT8 "
                f"kernel of {named.op_type} here.",
                fix=f"It has those of: {', '.join(sorted(KERNELS[recipe.scheme]))}.",
            )
        if precision == "fp32" or named.op_type in _ROUNDED_IN_VAIN:
            mark_float(named.node)
    return {name: pattern for name, (precision, pattern) in wishes.items() if precision == "fp32"}


def plan_of(nodes: Sequence[Named], kept: dict[str, str], form: str, scheme: Scheme) -> Plan:
    """What the quantizer has planned for every node, read from its annotations.

    ``form`` says in words what a layer in INT8 has.
    """
    plan = Plan()
    for named in nodes:
        plan.nodes[named.name] = _node_plan(named, kept, form, scheme)
    return plan


def _node_plan(named: Named, kept: dict[str, str], form: str, scheme: Scheme) -> NodePlan:
    asked = named.op_type in _ARITHMETIC
    if named.name in kept:
        reason = f"the recipe keeps it in float ({kept[named.name]})"
        return NodePlan(named.name, named.op_type, "fp32", reason, asked=False, pinned=True)
    if not _is_float(named.node):
        return NodePlan(
            named.name, named.op_type, "other", "it computes no floating-point values", asked=False
        )
    if not is_quantized(named.node):
        reason = _why_float(named, scheme)
        return NodePlan(named.name, named.op_type, "fp32", reason, asked=asked)
    if named.op_type in LAYERS:
        return NodePlan(named.name, named.op_type, "int8", form, asked=True)
    return NodePlan(named.name, named.op_type, "int8", _why_joined(named), asked=asked)


def _is_float(node: Node) -> bool:
    value = node.meta["val"]
    first = value[0] if isinstance(value, (tuple, list)) else value
    return bool(first.is_floating_point())


def _why_float(named: Named, scheme: Scheme) -> str:
    if named.op_type in _MOVES:
        return "it only moves values"
    if named.op_type in _ARITHMETIC and named.op_type not in _FLOAT_REASONS:
        return f"{scheme} has no INT8 kernel of {named.op_type} here"
    return _FLOAT_REASONS.get(named.op_type, f"{named.op_type} is computed in float")


def _why_joined(named: Named) -> str:
    if named.op_type in PASSING:
        return "it is computed on INT8 values"
    return "it is part of the INT8 kernel before it"


def is_quantized(node: Node) -> bool:
    """Whether the quantizer rounds inputs of ``node``, or computes it within a kernel that does."""
    from torchao.quantization.pt2e.quantizer.x86_inductor_quantizer import QUANT_ANNOTATION_KEY

    found = node.meta.get(QUANT_ANNOTATION_KEY)
    return found is not None and bool(found.input_qspec_map or found._is_output_of_quantized_pattern)


def mark_float(node: Node) -> None:
    """Tell the quantizer to leave ``node`` in float."""
    from torchao.quantization.pt2e.quantizer.x86_inductor_quantizer import _annotate_nodes_not_quantize

    _annotate_nodes_not_quantize(node)


def plan_in_float(module: GraphModule, recipe: Recipe) -> QuantizedProgram:
    """``module`` as it is, every node in float32.

    Raises:
        UsageError: an override matches no node, or asks for another precision.
    """
    nodes = name_nodes(module.graph)
    check_precisions(resolve_overrides(nodes, recipe.overrides), recipe.scheme, _FLOAT)
    plan = Plan()
    for named in nodes:
        precision: Precision = "fp32" if _is_float(named.node) else "other"
        plan.nodes[named.name] = NodePlan(named.name, named.op_type, precision, "the scheme is fp32", False)
    return QuantizedProgram.of(module, plan, nodes)
