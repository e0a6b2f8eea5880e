"""SmoothQuant on a PyTorch program: outlier channels move from activations into the weights that read them.

The scales are edgeq's (``compiler/quantize/smooth.py``). The division is one product behind the activation,
which PyTorch's compiler computes within the loop that makes or rounds it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeq.calibration.types import DataSource, TensorSpec
from edgeq.compiler.quantize.smooth import SMOOTHING_SAMPLES, ChannelStatistics, best_scales
from edgeq.compiler.recipe import Recipe
from edgeq.targets.neural_compressor.annotate import mark_float
from edgeq.targets.neural_compressor.calibrate import some_batches
from edgeq.targets.neural_compressor.constants import constant, insert_constant, is_constant
from edgeq.targets.neural_compressor.interpret import watch
from edgeq.targets.neural_compressor.names import Named

if TYPE_CHECKING:
    from torch.fx import GraphModule, Node


@dataclass(frozen=True)
class Group:
    """The fully connected layers that read one activation: it is divided once for all of them."""

    source: Node
    layers: list[Node] = field(default_factory=list)


def smooth(
    module: GraphModule,
    nodes: Sequence[Named],
    kept: dict[str, str],
    inputs: Sequence[TensorSpec],
    source: DataSource,
    recipe: Recipe,
) -> str | None:
    """Scale activations of ``module`` where that pays; returns what the user is told, None: nothing to do.

    ``kept``: names of the nodes that stay in float.
    """
    groups = find_groups([named.node for named in nodes if named.name not in kept])
    if not groups:
        return None
    statistics = _statistics(module, groups, inputs, source, recipe)
    done = sum(_scale(module, group, index, statistics) for index, group in enumerate(groups))
    module.recompile()
    return (
        f"Smoothing: outlier channels of {done} of {len(groups)} activations before fully connected layers "
        "were moved into the weights."
    )


def find_groups(nodes: Sequence[Node]) -> list[Group]:
    """Fully connected layers with constant weights, by the activation that they read."""
    import torch

    found: dict[Node, Group] = {}
    for node in nodes:
        if node.target is torch.ops.aten.linear.default and is_constant(node.args[1]):
            found.setdefault(node.args[0], Group(node.args[0])).layers.append(node)
    return list(found.values())


def _statistics(
    module: GraphModule,
    groups: Sequence[Group],
    inputs: Sequence[TensorSpec],
    source: DataSource,
    recipe: Recipe,
) -> ChannelStatistics:
    names = {group.source: group.source.name for group in groups}
    statistics = ChannelStatistics(list(names.values()))

    def see(node: Node, value: Any) -> Any:
        if node in names:
            statistics.observe(names[node], value.numpy())
        return value

    for batch in some_batches(inputs, source, min(SMOOTHING_SAMPLES, recipe.calibration_samples)):
        watch(module, see, batch)
    return statistics


def _scale(module: GraphModule, group: Group, index: int, statistics: ChannelStatistics) -> bool:
    import torch

    name = group.source.name
    weights = [constant(module, node.args[1]) for node in group.layers]
    rows = np.concatenate([weight.numpy().T for weight in weights], axis=1).astype(np.float64)
    low, high = statistics.low[name], statistics.high[name]
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        return False  # said by the ranges, with the tensor's name
    scales = best_scales(low, high, statistics.squares[name] / statistics.rows[name], rows)
    if scales is None:
        return False
    factors = f"_edgeq_smoothing_{index}"
    read = insert_constant(module, factors, torch.from_numpy(1 / scales), group.layers[0])
    with module.graph.inserting_before(group.layers[0]):
        product = module.graph.call_function(torch.ops.aten.mul.Tensor, (group.source, read))
    product.meta = {"val": group.source.meta["val"]}
    mark_float(product)
    for number, (node, weight) in enumerate(zip(group.layers, weights, strict=True)):
        scaled = weight * torch.from_numpy(scales)
        made = insert_constant(module, f"{factors}_weight_{number}", scaled, node)
        node.args = (product, made, *node.args[2:])
    return True
