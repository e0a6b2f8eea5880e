"""Which layers of a language model get which weights, decided before anything is read or calibrated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edgeq.compiler.overrides import check_precisions, resolve_overrides
from edgeq.compiler.plan import NodePlan, Plan
from edgeq.compiler.recipe import Precision, Recipe, Scheme
from edgeq.compiler.weights.joined import joined_apart
from edgeq.compiler.weights.spec import BITS, OF_SCHEME, PER_CHANNEL, WeightSpec
from edgeq.errors import TargetError, UsageError
from edgeq.targets.capabilities import WeightRules

# Products of integers too: the scale of an output stands before their sum.
_PRECISIONS: dict[Scheme, Precision] = {**OF_SCHEME, "int8-dynamic": "int8"}
# What floats are stored as, whichever of both an override names.
_FLOATS: dict[Precision, tuple[Precision, str]] = {
    "fp32": ("fp32", "float32, as the scheme says"),
    "fp16": ("fp16", "floats are stored in 16 bits"),
}


@dataclass(frozen=True)
class LinearLayer:
    """A layer that multiplies by a matrix [outputs, inputs].

    ``op_type``: ``Linear``, ``Embedding``, or ``Router`` of a layer that chooses among experts. ``head``: its
    outputs are the logits.
    """

    name: str
    outputs: int
    inputs: int
    op_type: str = "Linear"
    head: bool = False


@dataclass(frozen=True)
class WeightPlan:
    """The plan for the report, and the layers that are quantized."""

    plan: Plan
    specs: dict[str, WeightSpec]


def plan_weights(layers: list[LinearLayer], recipe: Recipe, rules: WeightRules) -> WeightPlan:
    """What the recipe does with every layer.

    Raises:
        UsageError: an override matches no layer or asks for what the scheme does not have.
        TargetError: no layer can be quantized as asked, or layers would differ that the format wants alike.
    """
    wishes = resolve_overrides(layers, recipe.overrides)
    check_precisions(wishes, recipe.scheme, allowed_precisions(recipe.scheme, rules))
    plan, specs = Plan(), {}
    narrowed: dict[str, None] = {}
    for layer in layers:
        default = _PRECISIONS.get(recipe.scheme, "fp16")
        wish, pattern = wishes.get(layer.name, (None, ""))
        node, spec = _planned(layer, wish or default, recipe, rules, pattern if wish else "")
        plan.nodes[layer.name] = node
        if wish == "fp32" and node.precision == "fp16":
            narrowed[pattern] = None
        if spec is not None:
            specs[layer.name] = spec
    plan.notes += [f"{pattern}=fp32: stored in 16 bits, as the format stores floats." for pattern in narrowed]
    if recipe.scheme in _PRECISIONS and not specs:
        raise TargetError(
            f"No layer of the model can have {recipe.scheme} weights: {_why_none(plan)}.",
            fix="Exclude fewer layers, or choose another block size.",
        )
    if rules.joined_alike:
        _refuse_apart(specs, plan)
    return WeightPlan(plan, specs)


def _why_none(plan: Plan) -> str:
    nodes = [node for node in plan.nodes.values() if node.op_type == "Linear"]
    first = next((n for n in nodes if n.asked), next(iter(nodes), None))
    return "it has no Linear layers" if first is None else f"{first.name!r} stays float, {first.reason}"


def _refuse_apart(specs: Mapping[str, WeightSpec], plan: Plan) -> None:
    """Raise where layers differ that engines join.

    Raises:
        TargetError: naming the first of them.
    """
    apart = joined_apart(specs, plan.nodes)
    if apart:
        raise TargetError(
            f"vLLM joins {apart[0]!r} with its neighbours, and they would not be stored alike.",
            fix="Give q_proj, k_proj and v_proj one precision, and gate_proj and up_proj one.",
        )


def allowed_precisions(scheme: Scheme, rules: WeightRules) -> tuple[Precision, ...]:
    """What overrides may ask for."""
    own = _PRECISIONS.get(scheme)
    if own is None or scheme == "int8-dynamic":
        return ("fp16", "fp32", *((own,) if own else ()))
    others = [p for p, bits in BITS.items() if p != "nf4" and bits in rules.bits] if rules.mixed else []
    return tuple(dict.fromkeys(("fp32", "fp16", own, *others)))


def _planned(
    layer: LinearLayer, precision: Precision, recipe: Recipe, rules: WeightRules, pattern: str
) -> tuple[NodePlan, WeightSpec | None]:
    if precision in ("fp32", "fp16"):
        kept, reason = _FLOATS["fp32" if recipe.scheme == "fp32" else "fp16"]
        reason = f"the recipe keeps it in float ({pattern}); {reason}" if pattern else reason
        return NodePlan(layer.name, layer.op_type, kept, reason, asked=False, pinned=bool(pattern)), None
    spec = _spec(precision, recipe, rules)
    why_not = _why_float(layer, spec, rules)
    if not why_not:
        size = "output channel" if spec.group_size == PER_CHANNEL else f"{spec.group_size} inputs"
        kind = "symmetric" if spec.symmetric else "asymmetric"
        reason = f"{kind} {spec.precision} weights, a scale per {size}"
        return NodePlan(layer.name, layer.op_type, spec.precision, reason, asked=True), spec
    if pattern:
        raise UsageError(
            f"The override {pattern!r} asks for {precision} at {layer.name!r}, which has not: {why_not}.",
            fix="Leave it out.",
        )
    return NodePlan(layer.name, layer.op_type, "fp16", why_not, asked=layer.op_type == "Linear"), None


def _spec(precision: Precision, recipe: Recipe, rules: WeightRules) -> WeightSpec:
    group = recipe.block_size or rules.group_size
    if precision == "nf4":
        return WeightSpec(4, group, form="nf4")
    bits = BITS[precision]
    if recipe.scheme == "int8-dynamic":
        return WeightSpec(bits, PER_CHANNEL)
    return WeightSpec(bits, group, recipe.symmetric_weights or bits in rules.always_symmetric)


def _why_float(layer: LinearLayer, spec: WeightSpec, rules: WeightRules) -> str:
    if layer.op_type == "Embedding" and not rules.embeddings:
        return "the format stores embeddings in float16"
    if layer.op_type == "Router":
        return "a small error of it would choose other experts"
    if layer.head and not rules.head:
        return "the format's readers take the output layer in float16"
    if spec.group_size != PER_CHANNEL and layer.inputs % spec.group_size and not rules.uneven:
        return f"its {layer.inputs} inputs are no whole groups of {spec.group_size}"
    if layer.outputs % rules.outputs_multiple:
        return f"its {layer.outputs} outputs are no multiple of {rules.outputs_multiple}"
    return ""
