"""Types that are made from float weights, not from edgeq's codes: the plan, and which layer gets which."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from edgeq.compiler.load.checkpoint import Checkpoint
from edgeq.compiler.plan import NodePlan, Precision
from edgeq.compiler.quantize.dispatch import Request
from edgeq.compiler.quantize.result import Quantized
from edgeq.compiler.weights.decoder import Decoder
from edgeq.compiler.weights.planning import plan_weights
from edgeq.compiler.weights.spec import BITS
from edgeq.targets.base import Quantizer
from edgeq.targets.gguf.types import LLAMA_OVERRIDES, PACKAGE_OVERRIDES, FileType

_FLOATS: dict[str, tuple[Precision, str]] = {
    "f32": ("fp32", "float32, as the scheme says"),
    "f16": ("fp16", "float16, as the scheme says"),
    "bf16": ("bf16", "bfloat16, as the type says"),
}
_OWN = {"int8-weight": "int8", "int4-weight": "int4", "int3-weight": "int3", "int2-weight": "int2"}


def float_quantizer(file_type: FileType) -> Quantizer:
    """What plans a file of ``file_type``; nothing is rounded before it is written."""

    def quantize(request: Request) -> Quantized:
        checkpoint = Checkpoint(Path(request.model.source.location))
        rules = request.capabilities.weights
        assert rules is not None
        planned = plan_weights(Decoder(checkpoint).linear_layers(), request.recipe, rules)
        for name, node in planned.plan.nodes.items():
            if file_type.maker == "float" and not node.pinned:
                kept, said = _FLOATS[file_type.name]
                planned.plan.nodes[name] = replace(node, precision=kept, reason=said)
            elif node.precision in BITS:
                planned.plan.nodes[name] = replace(node, reason=_reason(node, file_type))
        return Quantized(request.model, planned.plan)

    return quantize


def overridden(file_type: FileType, nodes: Mapping[str, NodePlan]) -> dict[str, str]:
    """Layer → the type that an override gives it, where that is not the file's own choice."""
    types = LLAMA_OVERRIDES if file_type.maker == "llama.cpp" else PACKAGE_OVERRIDES
    own = _OWN.get(file_type.scheme)
    found = {}
    for name, node in nodes.items():
        if file_type.maker == "float" and not node.pinned:
            continue
        if node.precision != own and node.precision in types:
            found[name] = types[node.precision]
    return found


def _reason(node: NodePlan, file_type: FileType) -> str:
    if node.precision != _OWN.get(file_type.scheme):
        return f"an override asks for {node.precision}"
    who = "llama.cpp" if file_type.maker == "llama.cpp" else "the gguf package"
    return f"{file_type.name}, rounded by {who}"
