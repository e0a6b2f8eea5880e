"""What transformers and compressed-tensors make of a folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgeq.compiler.weights.spec import Floats
from edgeq.errors import MissingExtraError, ModelError
from edgeq.quiet import quiet, reason
from edgeq.targets.language.reload import reload_model
from edgeq.targets.language.runner import LanguageRunner
from edgeq.targets.language.stored import StoredFolder
from edgeq.targets.language.torch_arrays import tensor_of

PROVED_BY = "transformers with compressed-tensors, from the folder as it ships"


def open_folder(folder: Path, threads: int | None) -> LanguageRunner:
    """The model as ``AutoModelForCausalLM.from_pretrained`` loads it, in float32.

    Raises:
        MissingExtraError: compressed-tensors is not installed.
        ModelError: the folder is damaged.
    """
    model = reload_model(folder, "vllm")
    with quiet():
        # The first forward would do it too, and tell of its progress.
        model.hf_quantizer.compressor.decompress_model(model)
    return LanguageRunner(model, threads=threads)


def decompressed(stored: StoredFolder, layer: str, parts: Sequence[str]) -> Floats:
    """float32 [N, K]: a layer's values by the library's decompressor and the folder's configuration.

    Raises:
        ModelError: the configuration names no such layer, or its tensors do not fit.
    """
    try:
        with quiet():
            from compressed_tensors.compressors import BaseCompressor
    except ImportError as error:
        raise MissingExtraError("Reading a compressed-tensors folder", "vllm") from error
    state = {part: tensor_of(stored.array(f"{layer}.{part}")) for part in parts}
    state["weight_scale"] = state["weight_scale"].float()
    try:
        with quiet():
            scheme = _scheme(stored, layer)
            compressor = BaseCompressor.get_value_from_registry(scheme.format)
            found = compressor.decompress(state, scheme)["weight"]
    except (ValueError, KeyError, RuntimeError, TypeError, AttributeError) as error:
        raise ModelError(f"{layer!r} in {stored.path} cannot be read: {reason(error)}.") from error
    values: Floats = np.ascontiguousarray(found.float().numpy())
    return values


def _scheme(stored: StoredFolder, layer: str) -> Any:
    from compressed_tensors.quantization import QuantizationScheme

    groups = stored.quantization.get("config_groups", {})
    for group in groups.values():
        if layer in group["targets"] or group["targets"] == ["Linear"]:
            return QuantizationScheme.model_validate(group)
    raise ModelError(f"The configuration of {stored.path} has no group for {layer!r}.")
