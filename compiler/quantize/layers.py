"""The linear layers of a model as values: what they read, their weights and their bias."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgeq.compiler.plan import Plan
from edgeq.compiler.plan_nodes import activation_ports, constant, input_at, weight_ports
from edgeq.compiler.quantize.layer_geometry import groups, kernel_order
from edgeq.compiler.quantize.saturation import Floats
from edgeq.targets.capabilities import Capabilities


@dataclass(frozen=True, eq=False)
class Layer:
    """A linear layer of the float model that is planned in INT8.

    ``input`` and ``weight`` are tensor names, ``weights`` the float32 numbers as stored, ``bias`` the name of
    the layer's own bias, if it has one.
    """

    node: ir.Node
    input: str
    weight: str
    weights: Floats
    bias: str | None

    @property
    def kernel(self) -> tuple[int, ...]:
        """Spatial shape of a convolution's weights, () for a matrix product."""
        return self.weights.shape[2:] if self.node.op_type == "Conv" else ()

    @property
    def groups(self) -> int:
        """Groups of a convolution, else 1."""
        return groups(self.node)

    def rows(self, weights: Floats) -> Floats:
        """Weights of this layer's shape as [groups, channels of the group, K]."""
        ordered = weights.transpose(kernel_order(self.node, weights.ndim))
        return ordered.reshape(self.groups, -1, int(np.prod(ordered.shape[1:])))


def find_layers(graph: ir.Graph, plan: Plan, capabilities: Capabilities) -> list[Layer]:
    """The convolutions and matrix products with constant weights that are planned in INT8."""
    found = []
    for node in graph:
        planned = plan.nodes.get(node.name or "")
        rule = capabilities.int8_static.get(node.op_type)
        if planned is None or planned.precision != "int8" or rule is None or rule.role != "compute":
            continue
        ports = list(weight_ports(node, rule))
        if len(ports) == 1 and node.op_type != "ConvTranspose":
            found.append(_layer(node, activation_ports(node, rule), ports[0], rule.bias))
    return [layer for layer in found if layer is not None]


def _layer(node: ir.Node, activations: Sequence[int], weight: int, bias: int | None) -> Layer | None:
    x, w = node.inputs[activations[0]], node.inputs[weight]
    numbers = constant(w)
    if x is None or w is None or numbers is None or (node.op_type != "Conv" and numbers.ndim != 2):
        return None
    own = input_at(node, bias) if bias is not None else None
    offsets = constant(own)
    name = own.name if own is not None and offsets is not None and offsets.ndim == 1 else None
    return Layer(node, x.name or "", w.name or "", np.asarray(numbers, np.float32), name)
