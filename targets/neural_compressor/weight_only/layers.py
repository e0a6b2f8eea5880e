"""Which layers of a Hugging Face model get INT4 weights, and why the others keep float ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgeq.compiler.overrides import check_precisions, resolve_overrides
from edgeq.compiler.plan import NodePlan, Plan
from edgeq.compiler.recipe import Recipe
from edgeq.errors import TargetError, UsageError
from edgeq.targets.neural_compressor.weight_only.packing import PACKED

if TYPE_CHECKING:
    import torch

_FORM = "INT4 weights in blocks of {block}"
# A rule of the format, not of the model: nobody asked for it.
_OUTSIDE = "readers of the format take INT4 only inside the model's repeated blocks: float16"
_REASONS = {
    "Embedding": "tables of embeddings have no INT4 form in this format: float16",
    "Conv1D": "its weights have no INT4 form in this format: float16",
}


@dataclass(frozen=True)
class Layer:
    """One module with a weight of its own."""

    name: str
    op_type: str
    module: Any


def layers_of(module: torch.nn.Module) -> list[Layer]:
    """Every module whose own weight has two dimensions or more, in the order of the model."""
    return list(_layers(module))


def _layers(module: torch.nn.Module) -> Iterator[Layer]:
    for name, part in module.named_modules():
        weight = getattr(part, "weight", None)
        if weight is not None and weight.dim() >= 2:
            yield Layer(name, type(part).__name__, part)


def blocks_of(module: torch.nn.Module) -> list[torch.nn.Module]:
    """The repeated blocks that Neural Compressor's methods go through; empty when there are none."""
    from neural_compressor.torch.algorithms.weight_only.utility import get_block_prefix

    try:
        prefix, count = get_block_prefix(module)
    except (AssertionError, AttributeError):
        return []
    return [module.get_submodule(f"{prefix}.{index}") for index in range(count)]


def plan_layers(layers: list[Layer], recipe: Recipe, block: int) -> Plan:
    """What the scheme does with every layer.

    Raises:
        UsageError: an override matches no layer, or asks for what the scheme does not have.
        TargetError: no layer can have INT4 weights.
    """
    wishes = resolve_overrides(layers, recipe.overrides)
    check_precisions(wishes, recipe.scheme, ("fp32", "int4"))
    plan = Plan()
    for layer in layers:
        precision, pattern = wishes.get(layer.name, (None, ""))
        plan.nodes[layer.name] = _planned(layer, block, precision, pattern)
    if not any(node.precision == "int4" for node in plan.nodes.values()):
        first = next((n.reason for n in plan.nodes.values() if n.asked), "it has no Linear layers")
        raise TargetError(
            f"No layer of the model can have INT4 weights in blocks of {block}: {first}.",
            fix="Choose another block size (--block-size), or take --target openvino.",
        )
    return plan


def _planned(layer: Layer, block: int, precision: str | None, pattern: str) -> NodePlan:
    if precision == "fp32":
        reason = f"the recipe keeps it in float ({pattern})"
        return NodePlan(layer.name, layer.op_type, "fp16", reason, asked=False, pinned=True)
    why_not = _why_float(layer, block)
    if not why_not:
        return NodePlan(layer.name, layer.op_type, "int4", _FORM.format(block=block), asked=True)
    if precision == "int4":
        raise UsageError(
            f"The override {pattern!r} asks for int4 at {layer.name!r}, which cannot have it: {why_not}.",
            fix="Leave it out.",
        )
    asked = layer.op_type == "Linear" and why_not != _OUTSIDE
    return NodePlan(layer.name, layer.op_type, "fp16", why_not, asked=asked)


def _why_float(layer: Layer, block: int) -> str:
    if layer.op_type != "Linear":
        return _REASONS.get(layer.op_type, f"{layer.op_type} has no INT4 form in this format: float16")
    if not any(part.isdecimal() for part in layer.name.split(".")):
        return _OUTSIDE
    outputs, inputs = layer.module.weight.shape
    if inputs % block:
        return f"its {inputs} inputs are no whole blocks of {block}: float16"
    if outputs % PACKED:
        return f"its {outputs} outputs are no multiple of {PACKED}: float16"
    return ""
