"""Which nodes of a program are quantized: what the user keeps in float, and what the CPU has no kernel for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from edgeq.compiler.overrides import check_precisions, resolve_overrides
from edgeq.compiler.plan import NodePlan, Plan
from edgeq.compiler.recipe import Recipe
from edgeq.errors import UsageError
from edgeq.targets.neural_compressor.names import Named

if TYPE_CHECKING:
    from torch.fx import GraphModule, Node

# Ops with an INT8 kernel behind PyTorch's compiler. The quantizer rounds further ones (products of equal
# shapes, matmul), which are then computed in float on the rounded values: slower and less exact.
KERNELS = frozenset({"conv1d", "conv2d", "linear"})
# Ops that pass INT8 values on, between INT8 neighbours.
_PASSING = frozenset({"max_pool2d", "cat", "avg_pool2d", "adaptive_avg_pool2d", "flatten"})
_ARITHMETIC = KERNELS | {
    "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "matmul", "mm", "bmm", "addmm",
    "einsum", "lstm", "gru", "scaled_dot_product_attention",
}  # fmt: skip
_FLOAT_REASONS = {
    "matmul": "products of two computed tensors have no INT8 kernel in PyTorch's compiler",
    "bmm": "products of two computed tensors have no INT8 kernel in PyTorch's compiler",
    "scaled_dot_product_attention": "attention is one kernel in float",
    "layer_norm": "statistics need the range of float",
    "softmax": "probabilities need float precision",
    "embedding": "it is read in float",
}


def keep_in_float(nodes: Sequence[Named], recipe: Recipe) -> dict[str, str]:
    """Mark what must not be quantized, so that the quantizer leaves it; returns node name → pattern.

    Raises:
        UsageError: an override matches no node, or asks for what the scheme does not have.
    """
    wishes = resolve_overrides(nodes, recipe.overrides)
    check_precisions(wishes, recipe.scheme, ("fp32", "int8"))
    for named in nodes:
        precision, pattern = wishes.get(named.name, (None, ""))
        if precision == "int8" and named.op_type not in KERNELS | _PASSING:
            raise UsageError(
                f"The override {pattern!r} asks for int8 at {named.name!r}, and {named.op_type} has no INT8 "
                "kernel here.",
                fix=f"Ops that have one: {', '.join(sorted(KERNELS))}.",
            )
        if precision == "fp32" or named.op_type == "mul":
            _mark_float(named.node)
    return {name: pattern for name, (precision, pattern) in wishes.items() if precision == "fp32"}


def plan_of(nodes: Sequence[Named], kept: dict[str, str], form: str) -> Plan:
    """What the quantizer has planned for every node, read from its annotations.

    ``form`` says in words what a layer in INT8 has.
    """
    plan = Plan()
    for named in nodes:
        plan.nodes[named.name] = _node_plan(named, kept, form)
    return plan


def _node_plan(named: Named, kept: dict[str, str], form: str) -> NodePlan:
    asked = named.op_type in _ARITHMETIC
    if named.name in kept:
        reason = f"the recipe keeps it in float ({kept[named.name]})"
        return NodePlan(named.name, named.op_type, "fp32", reason, asked=False, pinned=True)
    if not named.node.meta["val"].is_floating_point():
        return NodePlan(
            named.name, named.op_type, "other", "it computes no floating-point values", asked=False
        )
    if not is_quantized(named.node):
        default = f"{named.op_type} is computed in float"
        reason = _FLOAT_REASONS.get(named.op_type, default)
        return NodePlan(named.name, named.op_type, "fp32", reason, asked=asked)
    if named.op_type in KERNELS:
        return NodePlan(named.name, named.op_type, "int8", form, asked=True)
    return NodePlan(named.name, named.op_type, "int8", _why_joined(named), asked=asked)


def _why_joined(named: Named) -> str:
    if named.op_type in _PASSING:
        return "it is computed on INT8 values"
    return "it is part of the INT8 kernel before it"


def is_quantized(node: Node) -> bool:
    """Whether the quantizer rounds inputs of ``node``, or computes it within a kernel that does."""
    from torchao.quantization.pt2e.quantizer.x86_inductor_quantizer import QUANT_ANNOTATION_KEY

    found = node.meta.get(QUANT_ANNOTATION_KEY)
    return found is not None and bool(found.input_qspec_map or found._is_output_of_quantized_pattern)


def _mark_float(node: Node) -> None:
    from torchao.quantization.pt2e.quantizer.x86_inductor_quantizer import _annotate_nodes_not_quantize

    _annotate_nodes_not_quantize(node)


def attribute(module: GraphModule, path: str) -> Any:
    """The tensor or module at ``path``."""
    found: Any = module
    for part in path.split("."):
        found = getattr(found, part)
    return found
