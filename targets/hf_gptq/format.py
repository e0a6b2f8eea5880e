"""The layout of GPTQ checkpoints, version 1, as AutoGPTQ defined it and its successors read it.

Of a layer with K inputs, N outputs and G groups: ``qweight`` int32 [K * bits / 32, N], codes packed along
the inputs; ``qzeros`` int32 [G, N * bits / 32], zero points minus one, packed along the outputs; ``scales``
[G, N]; ``g_idx`` int32 [K], the group of every input.

``dynamic`` is gptqmodel's extension, which vLLM reads too: patterns of layers that differ from the rest,
``-:`` before those that are not quantized; the first that matches counts.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from edgeq.calibration.types import Array
from edgeq.compiler.weights.joined import joined_apart
from edgeq.compiler.weights.spec import Bytes, Floats, QuantizedWeight, WeightSpec
from edgeq.errors import ModelError
from edgeq.targets.base import Runner
from edgeq.targets.language.companions import write_json
from edgeq.targets.language.format import Format, Part, QuantizedLayers, Shape
from edgeq.targets.language.packing import pack, packed_words, unpack
from edgeq.targets.language.stored import StoredFolder

# The settings of config.json again, where older readers look for them.
QUANTIZE_CONFIG = "quantize_config.json"
_INT32 = np.dtype(np.int32)
_ASYMMETRIC = (
    "The weights are asymmetric: vLLM, TGI and ExLlamaV2 read that, while gptqmodel loads asymmetric folders "
    "of this layout only when it has written them itself."
)
_DYNAMIC = (
    'Layers differ in bits or stay float, which gptqmodel and vLLM read ("dynamic"), and TGI and ExLlamaV2 '
    "do not."
)
_APART = "vLLM joins q, k and v, and gate and up, and does not load the folder where these are not alike."


class GptqFormat(Format):
    """Reads folders by itself, in PyTorch: no kernels for GPTQ are needed to prove them."""

    packages: ClassVar[tuple[str, ...]] = ("transformers", "torch")
    proved_by: ClassVar[str] = "edgeq's own reader of GPTQ folders, in PyTorch"

    def parts(self, spec: WeightSpec, shape: Shape) -> dict[str, Part]:
        n, k, groups = shape.outputs, shape.inputs, spec.groups(shape.inputs)
        return {
            "qweight": Part(_INT32, (packed_words(k, spec.bits), n), _qweight),
            "qzeros": Part(_INT32, (groups, packed_words(n, spec.bits)), _qzeros),
            "scales": Part(shape.floats, (groups, n), lambda w: w.scales.T.astype(shape.floats)),
            "g_idx": Part(_INT32, (k,), lambda w: _group_of_inputs(w.spec, k)),
        }

    def quantization(self, layers: QuantizedLayers) -> dict[str, Any]:
        spec = _common(layers.specs.values())
        found = {
            "quant_method": "gptq",
            "checkpoint_format": "gptq",
            "bits": spec.bits,
            "group_size": spec.group_size,
            "sym": spec.symmetric,
            "desc_act": False,
            "static_groups": True,
            "true_sequential": True,
            "lm_head": "lm_head" in layers.specs,
            "pack_dtype": "int32",
            "meta": {"quantizer": [f"edgeq:{version('edgeq')}"]},
        }
        different = _different(layers, spec)
        return {**found, "dynamic": different} if different else found

    def extra_files(self, quantization: Mapping[str, Any], folder: Path) -> tuple[str, ...]:
        return (write_json(folder / QUANTIZE_CONFIG, quantization),)

    def read(self, stored: StoredFolder, layer: str, spec: WeightSpec, shape: Shape) -> Floats:
        """By what the folder itself says of bits and groups; see :meth:`Format.read`."""
        bits = _bits_of(layer, stored)
        codes = unpack(stored.array(f"{layer}.qweight").T, bits, shape.inputs)
        zeros = unpack(stored.array(f"{layer}.qzeros"), bits, shape.outputs).T.astype(np.float32) + 1
        scales = stored.array(f"{layer}.scales").T.astype(np.float32)
        groups = stored.array(f"{layer}.g_idx")
        values: Floats = (codes.astype(np.float32) - zeros[:, groups]) * scales[:, groups]
        return values

    def open(self, folder: Path, *, threads: int | None = None) -> Runner:
        from edgeq.targets.language.read import open_runner

        return open_runner(folder, self, threads)

    def streamed(self, folder: Path, *, threads: int | None = None) -> Runner | None:
        from edgeq.targets.language.read import open_runner

        return open_runner(folder, self, threads, streamed=True)

    def notes(self, layers: QuantizedLayers) -> tuple[str, ...]:
        asymmetric = any(not spec.symmetric for spec in layers.specs.values())
        different = _different(layers, _common(layers.specs.values()))
        apart = joined_apart(layers.specs, (*layers.specs, *layers.floats))
        said = {_ASYMMETRIC: asymmetric, _DYNAMIC: bool(different), _APART: bool(apart)}
        return tuple(text for text, holds in said.items() if holds)


def _common(specs: Iterable[WeightSpec]) -> WeightSpec:
    """What most of the layers have; the first of several."""
    return Counter(specs).most_common(1)[0][0]


def _different(layers: QuantizedLayers, common: WeightSpec) -> dict[str, dict[str, Any]]:
    """Pattern → what is other than in ``common``, of every layer that differs."""
    found: dict[str, dict[str, Any]] = {}
    for name in layers.floats:
        if name != "lm_head":
            found[f"-:^{re.escape(name)}$"] = {}
    for name, spec in layers.specs.items():
        if spec != common:
            found[f"+:^{re.escape(name)}$"] = {
                "bits": spec.bits,
                "group_size": spec.group_size,
                "sym": spec.symmetric,
            }
    return found


def _bits_of(layer: str, stored: StoredFolder) -> int:
    config = stored.quantization
    found = config.get("bits")
    for pattern, other in config.get("dynamic", {}).items():
        if pattern.startswith("+:") and re.match(pattern[2:], layer):
            found = other.get("bits", found)
            break
    if found not in (2, 3, 4, 8):
        raise ModelError(f"The configuration of {stored.path} names no bits of {layer!r}.")
    return int(found)


def _qweight(weight: QuantizedWeight) -> Array:
    return pack(weight.codes, weight.spec.bits).T


def _qzeros(weight: QuantizedWeight) -> Array:
    zeros: Bytes = np.full(weight.scales.shape, weight.spec.centre, np.uint8)
    if weight.zero_points is not None:
        zeros = weight.zero_points
    return pack(np.ascontiguousarray(zeros.T - 1), weight.spec.bits)


def _group_of_inputs(spec: WeightSpec, inputs: int) -> Array:
    return (np.arange(inputs) // spec.group_of(inputs)).astype(np.int32)
