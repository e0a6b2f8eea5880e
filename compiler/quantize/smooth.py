"""Moves outlier channels of activations into the weights that read them (SmoothQuant, arXiv:2211.10438).

A transformer's matrix products read activations in which a few channels are tens of times larger than the
rest: one scale for the tensor then leaves the others with few levels. Dividing channel k by s_k and
multiplying row k of the weights by it changes nothing in float and evens out the activations. The division
goes into the LayerNormalization before where all its readers take part, else it is one elementwise product.

With s_k = max|x_k|^a / max|w_k|^(1-a) the strength ``a`` is chosen for every tensor by the rounding noise it
leaves, which follows from per-channel statistics alone: D_x^2/12 * sum(w'^2) for the activations and
sum_n(D_n^2)/12 * sum_k(E[x'_k^2]) for the weights, D being the quantization steps.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from edgeq.calibration.types import Array
from edgeq.compiler.model import Model
from edgeq.compiler.plan import Plan
from edgeq.compiler.plan_nodes import attribute, constant, input_at
from edgeq.compiler.quantize.rewriter import Rewriter
from edgeq.compiler.quantize.smooth_folding import (
    behind_attention,
    divide_normalization,
    divide_values,
    restore,
)
from edgeq.compiler.recipe import Recipe
from edgeq.targets.capabilities import Capabilities

Float64 = npt.NDArray[np.float64]

# Samples whose per-channel statistics are taken: outliers show on the first, the channels of a Relu later.
SMOOTHING_SAMPLES = 128
STRENGTHS = (0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
# An elementwise product must pay: at least this much less noise power, 2 dB.
NEEDED_GAIN = 1.6
_TINY = 1e-9
# A channel counts as at least this share of the largest one. Behind a Relu some channels hardly show in the
# samples; scaled up by what was seen of them, they would set the range of the tensor where they do.
FLOOR = 1 / 8


@dataclass(frozen=True)
class Group:
    """The matrix products that read one activation: it is scaled once for all of them."""

    tensor: str
    nodes: tuple[ir.Node, ...]

    def weights(self) -> Float64:
        """All weights side by side, [K, N]."""
        return np.concatenate([_rows_first(node) for node in self.nodes], axis=1).astype(np.float64)


@dataclass
class ChannelStatistics:
    """Observer: minimum, maximum and mean square of every channel (last axis) of some tensors."""

    tensors: Sequence[str]
    low: dict[str, Float64] = field(default_factory=dict)
    high: dict[str, Float64] = field(default_factory=dict)
    squares: dict[str, Float64] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)

    def observe(self, name: str, array: Array) -> None:
        """Take in the values of one batch."""
        flat = array.reshape(-1, array.shape[-1])
        squares = np.einsum("nk,nk->k", flat, flat, dtype=np.float64)
        low, high = flat.min(axis=0).astype(np.float64), flat.max(axis=0).astype(np.float64)
        if name in self.rows:
            low, high = np.minimum(low, self.low[name]), np.maximum(high, self.high[name])
            squares += self.squares[name]
        self.low[name], self.high[name], self.squares[name] = low, high, squares
        self.rows[name] = self.rows.get(name, 0) + len(flat)


def find_groups(graph: ir.Graph, plan: Plan) -> list[Group]:
    """Matrix products with constant weights whose input is rounded for them alone.

    An activation that its producer already writes as integers is left alone: a product there would take the
    chain of INT8 kernels apart.
    """
    found: dict[ir.Value, list[ir.Node]] = {}
    for node in graph:
        value = _smoothable(node, plan)
        if value is not None:
            found.setdefault(value, []).append(node)
    return [Group(value.name or "", tuple(nodes)) for value, nodes in found.items()]


def _smoothable(node: ir.Node, plan: Plan) -> ir.Value | None:
    planned = plan.nodes.get(node.name or "")
    if node.op_type not in ("MatMul", "Gemm") or planned is None or planned.precision != "int8":
        return None
    value, weights = input_at(node, 0), constant(input_at(node, 1))
    if value is None or weights is None or weights.ndim != 2 or weights.dtype != np.float32:
        return None
    if value.name in plan.stored or value.producer() is None or attribute(node, "transA", 0):
        return None
    return value


def smooth(
    model: Model,
    groups: Iterable[Group],
    statistics: ChannelStatistics,
    capabilities: Capabilities,
    recipe: Recipe,
) -> list[str]:
    """Scale the groups of ``model`` in place where that pays; returns the tensors that were scaled."""
    edit = Rewriter(model.ir, capabilities, recipe)
    done = []
    for group in groups:
        scales = _best_scales(group, statistics, capabilities)
        if scales is not None and _apply(group, scales, edit):
            done.append(group.tensor)
    return done


def _best_scales(
    group: Group, statistics: ChannelStatistics, capabilities: Capabilities
) -> npt.NDArray[np.float32] | None:
    low, high = statistics.low[group.tensor], statistics.high[group.tensor]
    squares = statistics.squares[group.tensor] / statistics.rows[group.tensor]
    one_sided = capabilities.unsigned_positive and low.min() >= 0
    if capabilities.symmetric_activations and not one_sided:
        high = np.maximum(-low, high)
        low = -high
    return best_scales(low, high, squares, group.weights())


def best_scales(
    low: Float64, high: Float64, squares: Float64, weights: Float64
) -> npt.NDArray[np.float32] | None:
    """What to divide the channels of an activation by, float32 [K]; None where that does not pay.

    ``low``, ``high`` and ``squares`` (the mean square) are those of each channel; ``weights`` [K, N] are all
    that read it.
    """
    if len(low) != len(weights):
        return None
    largest_input = np.maximum(np.maximum(-low, high), _TINY)
    largest_input = np.maximum(largest_input, FLOOR * largest_input.max())
    largest_weight = np.maximum(np.abs(weights).max(axis=1), _TINY)
    plain = _noise(np.ones(len(low)), low, high, squares, weights)
    candidates = [largest_input**a / largest_weight ** (1 - a) for a in STRENGTHS]
    # The mean scale cancels; without it the weights keep their magnitude. Dead channels have no say in it.
    live = (largest_input > _TINY) & (largest_weight > _TINY)
    if not live.any():
        return None
    candidates = [np.where(live, s / np.exp(np.log(s[live]).mean()), 1.0) for s in candidates]
    noises = [_noise(scales, low, high, squares, weights) for scales in candidates]
    best = int(np.argmin(noises))
    if plain < NEEDED_GAIN * noises[best]:
        return None
    return np.asarray(candidates[best], np.float32)


def _noise(scales: Float64, low: Float64, high: Float64, squares: Float64, weights: Float64) -> float:
    """Expected squared rounding error of the product, summed over its outputs."""
    step = (max(float((high / scales).max()), 0.0) - min(float((low / scales).min()), 0.0)) / 255
    scaled = weights * scales[:, None]
    steps = np.abs(scaled).max(axis=0) / 127
    from_inputs = step**2 * float((scaled**2).sum())
    from_weights = float((steps**2).sum()) * float((squares / scales**2).sum())
    return (from_inputs + from_weights) / 12


def _apply(group: Group, scales: npt.NDArray[np.float32], edit: Rewriter) -> bool:
    value = input_at(group.nodes[0], 0)
    if value is None:
        return False
    if edit.capabilities.fuses_elementwise and behind_attention(value):
        if not divide_values(value, scales, edit):
            return False
    elif not _fold_into_normalization(value, group, scales, edit):
        _multiply(value, group, scales, edit)
    for node in group.nodes:
        weights = input_at(node, 1)
        if weights is None:
            continue
        scaled = _in_layout(node, _rows_first(node) * scales[:, None])
        node.replace_input_with(1, edit.initializer(f"{weights.name}_smooth", scaled))
    return True


def _fold_into_normalization(
    value: ir.Value, group: Group, scales: npt.NDArray[np.float32], edit: Rewriter
) -> bool:
    """Into the normalization, if nobody else reads what it writes, or restoring it for others is free."""
    others = [(use.node, use.idx) for use in value.uses() if use.node not in group.nodes]
    if others and not edit.capabilities.fuses_elementwise:
        return False
    if not divide_normalization(value, scales, edit):
        return False
    if others:
        restore(value, scales, others, edit)
    return True


def _multiply(value: ir.Value, group: Group, scales: npt.NDArray[np.float32], edit: Rewriter) -> None:
    factors = edit.initializer(f"{value.name}_smoothing", (1 / scales).astype(np.float32))
    product = edit.node("Mul", [value, factors], f"{value.name}_smooth")
    product.outputs[0].shape = value.shape
    product.outputs[0].type = value.type
    edit.model.graph.insert_before(group.nodes[0], product)
    for node in group.nodes:
        node.replace_input_with(0, product.outputs[0])


def _rows_first(node: ir.Node) -> npt.NDArray[np.float32]:
    """The weights as [K, N]."""
    numbers = constant(input_at(node, 1))
    weights = np.asarray(numbers, np.float32)
    return weights.T if attribute(node, "transB", 0) else weights


def _in_layout(node: ir.Node, weights: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return np.ascontiguousarray(weights.T if attribute(node, "transB", 0) else weights)


def note(scaled: Sequence[str], groups: Sequence[Group]) -> str:
    """What the user is told."""
    return (
        f"Smoothing: outlier channels of {len(scaled)} of {len(groups)} activations before matrix products "
        "were moved into the weights."
    )
