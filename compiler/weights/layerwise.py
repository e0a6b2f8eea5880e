"""Quantize a checkpoint layer by layer into a store: one decoder layer is in memory at a time."""

from __future__ import annotations

from pathlib import Path

from edgeq.compiler.load.checkpoint import Checkpoint
from edgeq.compiler.quantize.dispatch import Request
from edgeq.compiler.quantize.result import Quantized
from edgeq.compiler.weights.planning import LinearLayer, plan_weights
from edgeq.compiler.weights.rtn import quantize_rtn
from edgeq.compiler.weights.store import WeightStore


def quantize_checkpoint(request: Request, work: Path) -> Quantized:
    """The weights of ``request.model`` as its recipe says, in a folder below ``work``.

    Raises:
        TargetError: the format cannot store what the recipe asks for.
        UsageError: an option that does nothing, or an override that matches nothing.
        DataError: a method that needs calibration data has none.
    """
    checkpoint = Checkpoint(Path(request.model.source.location))
    rules = request.capabilities.weights
    assert rules is not None
    layers = [
        LinearLayer(
            name.removesuffix(".weight"), *tensor.shape, "Embedding" if "embed_tokens" in name else "Linear"
        )
        for name, tensor in checkpoint.tensors.items()
        if len(tensor.shape) == 2 and name.endswith(".weight")
    ]
    planned = plan_weights(layers, request.recipe, rules)
    store = WeightStore(work / "thin", checkpoint)
    for name, spec in planned.specs.items():
        if not store.has(name):
            weight = quantize_rtn(
                checkpoint.float32(f"{name}.weight"), spec, negative_scales=rules.negative_scales
            )
            store.write(name, {name: weight}, {}, {"layers": {}})
    return Quantized(request.model, planned.plan, weights=store)
