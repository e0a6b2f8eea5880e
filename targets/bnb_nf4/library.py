"""What transformers and bitsandbytes make of a folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgeq.compiler.weights.spec import Floats
from edgeq.errors import MissingExtraError, ModelError
from edgeq.quiet import quiet, reason
from edgeq.targets.language.reload import reload_model
from edgeq.targets.language.runner import LanguageRunner
from edgeq.targets.language.stored import StoredFolder
from edgeq.targets.language.torch_arrays import tensor_of

PROVED_BY = "transformers with bitsandbytes, from the folder as it ships"


def open_folder(folder: Path, threads: int | None) -> LanguageRunner:
    """The model as ``AutoModelForCausalLM.from_pretrained`` loads it, made to compute in float32.

    Raises:
        MissingExtraError: bitsandbytes is not installed.
        ModelError: the folder is damaged.
    """
    model = reload_model(folder, "bnb")
    import torch
    from bitsandbytes.nn import Linear4bit

    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.compute_dtype = torch.float32
            # Else it computes in bfloat16 on CPUs that have instructions for it.
            module.support_avx512bf16_for_cpu = False
    return LanguageRunner(model, threads=threads)


def dequantized(stored: StoredFolder, layer: str, parts: Sequence[str]) -> Floats:
    """float32 [N, K]: a layer's values by bitsandbytes.

    Raises:
        ModelError: the layer's tensors do not fit.
    """
    try:
        with quiet():
            import torch
            from bitsandbytes.functional import QuantState, dequantize_4bit
    except ImportError as error:
        raise MissingExtraError("Reading an NF4 folder", "bnb") from error
    tensors = {part: tensor_of(stored.array(f"{layer}.{part}")) for part in parts}
    codes = tensors.pop("weight")
    try:
        with quiet():
            state = QuantState.from_dict(tensors, device=torch.device("cpu"))
            # It would round to the type of the model's floats.
            state.dtype = torch.float32
            found = dequantize_4bit(codes, state)
    except (ValueError, KeyError, RuntimeError, AssertionError, TypeError) as error:
        raise ModelError(f"{layer!r} in {stored.path} cannot be read: {reason(error)}.") from error
    values: Floats = np.ascontiguousarray(found.numpy())
    return values
