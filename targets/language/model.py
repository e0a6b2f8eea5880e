"""A language model of transformers in float32 with any weights: the reference of all formats."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from edgeq.calibration.types import Array
from edgeq.compiler.load.activation import refuse_unknown_activation
from edgeq.errors import MissingExtraError, ModelError
from edgeq.lean_imports import import_transformers
from edgeq.quiet import quiet, reason

ReadTensor = Callable[[str], Array]


def build_model(folder: Path, architecture: str, names: list[str], read: ReadTensor) -> Any:
    """The model that ``folder``'s configuration describes, in float32, with the tensors that ``read`` gives.

    Raises:
        MissingExtraError: PyTorch or transformers is not installed.
        ModelError: configuration and tensors do not fit.
    """
    model = empty_model(folder, architecture)
    import torch

    try:
        state = {name: torch.from_numpy(read(name).astype("float32")) for name in names}
        keys = model.load_state_dict(state, strict=False, assign=True)
        model.tie_weights()
    except (ValueError, KeyError, RuntimeError) as error:
        raise ModelError(f"{folder} cannot be loaded: {reason(error)}.") from error
    tied = set(getattr(model, "_tied_weights_keys", None) or ())
    refuse_unfit([name for name in keys.missing_keys if name not in tied], keys.unexpected_keys)
    return model.eval()


def empty_model(folder: Path, architecture: str) -> Any:
    """The model that ``folder``'s configuration describes, in float32, without values.

    Raises:
        MissingExtraError: PyTorch or transformers is not installed.
        ModelError: transformers cannot build it.
    """
    config = read_config(folder)
    try:
        with quiet():
            import_transformers()
            import torch
            import transformers
            from transformers.modeling_utils import no_init_weights

        with quiet(), no_init_weights():
            if hasattr(config, "quantization_config"):
                del config.quantization_config
            model = getattr(transformers, architecture)._from_config(config, dtype=torch.float32)
            # Without initial values it was left out.
            model.tie_weights()
            return model
    except ImportError as error:
        raise MissingExtraError("Running a language model", "llm") from error
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RuntimeError) as error:
        raise ModelError(f"{folder} cannot be loaded: {reason(error)}.") from error


def read_config(folder: Path, extra: str = "llm") -> Any:
    """The configuration in ``folder`` as transformers reads it, with the defaults that the file leaves out.

    Raises:
        MissingExtraError: transformers, which the ``extra`` installs, is not there.
        ModelError: transformers does not know the model, or the file is damaged.
    """
    try:
        # What transformers imports talks of its own missing parts.
        with quiet():
            import transformers
    except ImportError as error:
        raise MissingExtraError("Reading a language model's configuration", extra) from error
    try:
        with quiet():
            config = transformers.AutoConfig.from_pretrained(str(folder), local_files_only=True)
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise ModelError(f"The configuration in {folder} cannot be read: {reason(error)}.") from error
    refuse_unknown_activation(folder, config)
    return config


def refuse_unfit(missing: Sequence[str], unknown: Sequence[str]) -> None:
    """Refuse tensors that a configuration lacks or does not know.

    Raises:
        ModelError: naming the first of them.
    """
    if missing:
        raise ModelError(f"The tensors do not fit the configuration: {missing[0]!r} is missing.")
    if unknown:
        raise ModelError(f"The tensors do not fit the configuration: it has no {unknown[0]!r}.")


def other_shape(name: str, found: Sequence[int], wanted: Sequence[int]) -> ModelError:
    """What is raised for a tensor of another shape than its model's."""
    return ModelError(
        f"The tensors do not fit the configuration: {name!r} is {list(found)}, not {list(wanted)}."
    )
