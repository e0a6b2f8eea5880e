"""A language model of transformers in float32 with any weights: the reference of all formats."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgeq.calibration.types import Array
from edgeq.errors import MissingExtraError, ModelError

ReadTensor = Callable[[str], Array]


def build_model(folder: Path, architecture: str, names: list[str], read: ReadTensor) -> Any:
    """The model that ``folder``'s configuration describes, in float32, with the tensors that ``read`` gives.

    Raises:
        MissingExtraError: PyTorch or transformers is not installed.
        ModelError: configuration and tensors do not fit.
    """
    try:
        import torch
        import transformers
        from transformers.modeling_utils import no_init_weights
    except ImportError as error:
        raise MissingExtraError("Running a language model", "hf") from error
    try:
        config = transformers.AutoConfig.from_pretrained(str(folder), local_files_only=True)
        if hasattr(config, "quantization_config"):
            del config.quantization_config
        with no_init_weights():
            model = getattr(transformers, architecture)._from_config(config, dtype=torch.float32)
        state = {name: torch.from_numpy(read(name).astype("float32")) for name in names}
        keys = model.load_state_dict(state, strict=False, assign=True)
        model.tie_weights()
    except (OSError, ValueError, KeyError, AttributeError, RuntimeError) as error:
        raise ModelError(f"{folder} cannot be loaded: {str(error).splitlines()[0]}.") from error
    tied = set(getattr(model, "_tied_weights_keys", None) or ())
    missing = [name for name in keys.missing_keys if name not in tied]
    if missing or keys.unexpected_keys:
        first = (missing or keys.unexpected_keys)[0]
        raise ModelError(f"The tensors of {folder} do not fit its configuration, first {first!r}.")
    return model.eval()
