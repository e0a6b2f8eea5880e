"""Weights of a prepared graph: rounded by edgeq's rules, before Neural Compressor rounds them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeq.compiler.plan import QuantSpec
from edgeq.compiler.quantize.saturation import worst_pair
from edgeq.compiler.quantize.static_weights import QuantizedWeight, quantize_weight
from edgeq.errors import DataError
from edgeq.targets.neural_compressor.annotate import LAYERS
from edgeq.targets.neural_compressor.constants import constant, insert_constant, is_constant
from edgeq.targets.neural_compressor.names import op_type
from edgeq.targets.neural_compressor.observers import is_observer, weight_observer

if TYPE_CHECKING:
    from torch.fx import GraphModule, Node

# Scales of weights are not smaller: the bias is added in float, so only normal numbers matter.
_FLOOR = np.float32(np.finfo(np.float32).tiny)

# The note of an artefact with layers that :func:`round_weights` counts, which the user has allowed.
MAY_SATURATE = "CPUs without VNNI may saturate in layers of this artefact (saturation_safe is off)."


@dataclass(frozen=True)
class Layer:
    """A layer with constant weights, which an observer stands on."""

    node: Node
    weight: Node
    observer: Node


def layers_of(prepared: GraphModule) -> list[Layer]:
    """The layers whose weights are to be rounded."""
    return list(_layers(prepared))


def _layers(prepared: GraphModule) -> Iterator[Layer]:
    for node in prepared.graph.nodes:
        if op_type(node) not in LAYERS or len(node.args) < 2:
            continue
        observer = node.args[1]
        if is_observer(observer) and is_constant(observer.args[0]):
            yield Layer(node, observer.args[0], observer)


def round_weights(prepared: GraphModule, safe: bool) -> int:
    """Round the weights of every layer; returns how many layers a kernel without VNNI could saturate in.

    ``safe``: with integers that cannot saturate, whatever the activations are. The pairs of products that
    oneDNN's kernels without VNNI add in int16, found by experiment: neighbours along the rows of matrices;
    neighbouring input channels of one kernel position, padded with a zero; none in depthwise kernels.

    Raises:
        DataError: weights are not finite.
    """
    risky = 0
    for index, layer in enumerate(layers_of(prepared)):
        weight = constant(prepared, layer.weight).numpy()
        if not np.isfinite(weight).all():
            raise DataError(f"The weights {layer.weight.target!r} have NaN or infinite values.")
        rounded, may_saturate = _round(np.asarray(weight, np.float32), safe)
        risky += may_saturate
        _replace(prepared, layer, rounded, f"_edgeq_weight_{index}")
    prepared.recompile()
    return risky


def _round(weight: Any, safe: bool) -> tuple[QuantizedWeight, bool]:
    order = (0, *range(2, weight.ndim), 1)
    # The kernel pads the channels of a position: a zero more makes the pairs those of the rows.
    padded = weight
    if weight.ndim > 2 and weight.shape[1] % 2:
        padded = np.pad(weight, [(0, 0), (0, 1), *[(0, 0)] * (weight.ndim - 2)])
    pairs = weight.shape[1] > 1
    spec = QuantSpec("int8", symmetric=True, axis=0)
    depth = int(np.prod(padded.shape[1:]))
    found = quantize_weight(padded, spec, order, depth, floor=np.asarray(_FLOOR), pairs=safe and pairs)
    rows = found.codes.transpose(order).reshape(len(weight), -1).astype(np.int16)
    codes = np.ascontiguousarray(found.codes[:, : weight.shape[1]])
    return QuantizedWeight(codes, found.params), bool(pairs and worst_pair(rows) > 128)


def _replace(prepared: GraphModule, layer: Layer, rounded: QuantizedWeight, name: str) -> None:
    """A copy of the weights for this layer: another one may read the same tensor."""
    import torch

    weight = torch.from_numpy(rounded.dequantized())
    made = insert_constant(prepared, name, weight, layer.observer, layer.weight.meta)
    layer.observer.replace_input_with(layer.weight, made)
    observer = str(layer.observer.target)
    setattr(prepared, observer, weight_observer(rounded.params.scale))
