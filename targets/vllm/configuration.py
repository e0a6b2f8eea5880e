"""``quantization_config`` as compressed-tensors and vLLM read it: groups of layers that share a scheme."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from edgeq.compiler.weights.spec import PER_CHANNEL, WeightSpec
from edgeq.targets.language.format import QuantizedLayers


def quantization_config(
    layers: QuantizedLayers, form: str, activations: Mapping[str, Any] | None
) -> dict[str, Any]:
    """The configuration of ``layers`` in the format ``form``; ``activations``: how these are quantized."""
    kinds: dict[WeightSpec, list[str]] = {}
    for name, spec in layers.specs.items():
        kinds.setdefault(spec, []).append(name)
    return {
        "quant_method": "compressed-tensors",
        "format": form,
        "quantization_status": "compressed",
        "version": version("compressed-tensors"),
        "config_groups": {
            f"group_{index}": _group(spec, names if len(kinds) > 1 else ["Linear"], form, activations)
            for index, (spec, names) in enumerate(kinds.items())
        },
        "ignore": list(layers.floats),
        "kv_cache_scheme": None,
        "global_compression_ratio": None,
    }


def _group(
    spec: WeightSpec, targets: list[str], form: str, activations: Mapping[str, Any] | None
) -> dict[str, Any]:
    return {
        "targets": targets,
        "format": form,
        "weights": _weights(spec),
        "input_activations": None if activations is None else dict(activations),
        "output_activations": None,
    }


def _weights(spec: WeightSpec) -> dict[str, Any]:
    per_channel = spec.group_size == PER_CHANNEL
    return {
        "num_bits": spec.bits,
        "type": "int",
        "symmetric": spec.symmetric,
        "strategy": "channel" if per_channel else "group",
        "group_size": None if per_channel else spec.group_size,
        "dynamic": False,
        "observer": "minmax",
    }
