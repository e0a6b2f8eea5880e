"""Bias correction on a prepared program: every layer's outputs keep the mean that they have in float.

b' = b + E[W x] - E[Wq xq] per output channel, errors of all earlier layers included (Nagel et al.,
"Data-Free Quantization Through Weight Equalization and Bias Correction", 2019, section 4.2, with measured
means). Layers are corrected in the order in which they run, in one run.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from edgeq.targets.neural_compressor.constants import constant, insert_constant, is_constant
from edgeq.targets.neural_compressor.interpret import watch
from edgeq.targets.neural_compressor.names import op_type
from edgeq.targets.neural_compressor.weights import Layer

if TYPE_CHECKING:
    import torch
    from torch.fx import GraphModule, Node


def correctable(layers: Sequence[Layer]) -> list[Layer]:
    """The layers with a bias, none if most are no convolutions.

    In transformers LayerNormalization takes the mean shift back, and padded tokens would spoil the means
    (measured for ``compiler/quantize/bias_correction.py``).
    """
    convolutions = sum(op_type(layer.node).startswith("conv") for layer in layers)
    if 2 * convolutions < len(layers):
        return []
    return [layer for layer in layers if len(layer.node.args) > 2 and is_constant(layer.node.args[2])]


def output_means(
    prepared: GraphModule, layers: Sequence[Layer], batch: Sequence[torch.Tensor]
) -> dict[Node, Any]:
    """The mean of each output channel of every layer, as ``prepared`` computes it now."""
    wanted = {layer.node for layer in layers}
    found: dict[Node, Any] = {}

    def see(node: Node, value: Any) -> Any:
        if node in wanted:
            found[node] = _mean(node, value)
        return value

    watch(prepared, see, batch)
    return found


def correct(
    prepared: GraphModule, layers: Sequence[Layer], means: dict[Node, Any], batch: Sequence[torch.Tensor]
) -> None:
    """Change the biases so that the layers have the ``means`` of the float program on ``batch``."""
    shifts: dict[Node, Any] = {}

    def see(node: Node, value: Any) -> Any:
        if node not in means:
            return value
        shifts[node] = means[node] - _mean(node, value)
        return value + shifts[node].reshape(_along_channels(node, value))

    watch(prepared, see, batch)
    for index, layer in enumerate(layers):
        _shift(prepared, layer.node, shifts[layer.node], f"_edgeq_bias_{index}")
    prepared.recompile()


def _shift(prepared: GraphModule, node: Node, shift: Any, name: str) -> None:
    bias = node.args[2]
    made = insert_constant(prepared, name, constant(prepared, bias) + shift, node, bias.meta)
    node.args = (*node.args[:2], made, *node.args[3:])


def _mean(node: Node, value: Any) -> Any:
    channels = _channel_axis(node, value)
    return value.mean(dim=[axis for axis in range(value.ndim) if axis != channels])


def _along_channels(node: Node, value: Any) -> list[int]:
    shape = [1] * value.ndim
    shape[_channel_axis(node, value)] = -1
    return shape


def _channel_axis(node: Node, value: Any) -> int:
    return value.ndim - 1 if op_type(node) == "linear" else 1
