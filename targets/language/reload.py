"""A folder as transformers loads it, with whatever library its quantization is of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgeq.errors import MissingExtraError, ModelError
from edgeq.quiet import quiet, reason


def reload_model(folder: Path, extra: str) -> Any:
    """``AutoModelForCausalLM.from_pretrained``, in float32, from local files alone.

    Raises:
        MissingExtraError: a package of the ``extra`` is not installed.
        ModelError: the folder is damaged, or tensors of it are missing or not read.
    """
    try:
        with quiet():
            import safetensors
            import torch
            import transformers

            model, found = transformers.AutoModelForCausalLM.from_pretrained(
                str(folder), dtype=torch.float32, local_files_only=True, output_loading_info=True
            )
    except ImportError as error:
        raise MissingExtraError(f"Loading {folder}", extra) from error
    except (
        OSError, ValueError, KeyError, AttributeError, RuntimeError, TypeError, safetensors.SafetensorError
    ) as error:  # fmt: skip
        raise ModelError(
            f"{folder} cannot be loaded: {reason(error)}.", fix="Compile the model again."
        ) from error
    unfit = [*found["missing_keys"], *found["unexpected_keys"], *found["mismatched_keys"]]
    if unfit:
        raise ModelError(
            f"{folder} does not fit its configuration, first {str(sorted(map(str, unfit))[0])!r}.",
            fix="Compile the model again.",
        )
    return model.eval()
