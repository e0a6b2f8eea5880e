"""Runs a folder of INT4 weights with PyTorch and transformers; Neural Compressor is not needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from edgeq.calibration.types import Array, Arrays
from edgeq.errors import MissingExtraError, ModelError, TargetError
from edgeq.machine import usable_cores
from edgeq.targets.inputs import check_threads, sizes_text
from edgeq.targets.loaded import LoadedRunner
from edgeq.targets.neural_compressor.runner import computing_threads, first_line, tensor
from edgeq.targets.neural_compressor.weight_only.files import G_IDX, QWEIGHT, QZEROS, SCALES, WEIGHTS
from edgeq.targets.neural_compressor.weight_only.packing import dequantized
from edgeq.targets.neural_compressor.weight_only.settings import WeightSettings


class WeightOnlyRunner(LoadedRunner):
    """The model of a folder, its INT4 weights expanded to float32 once."""

    def __init__(self, folder: Path, *, threads: int | None = None) -> None:
        """Load the weights in ``folder``; it computes with ``threads`` (None: every usable CPU).

        Raises:
            UsageError: ``threads`` is not positive.
            ModelError: the artefact is damaged.
            MissingExtraError: PyTorch or transformers is not installed.
        """
        check_threads(threads)
        settings = WeightSettings.read(folder)
        super().__init__(
            _load(folder, settings.architecture),
            [port.spec for port in settings.inputs],
            [port.spec for port in settings.outputs],
        )
        self._threads = threads or usable_cores()

    def _run(self, inputs: Arrays) -> dict[str, Array]:
        import torch

        given = {spec.name: tensor(inputs[spec.name]) for spec in self._inputs}
        try:
            with computing_threads(self._threads), torch.inference_mode():
                found = self._model(**given)
        except (RuntimeError, IndexError, ValueError) as error:
            raise TargetError(
                f"The model fails on the inputs {sizes_text(inputs)}: {first_line(error)}"
            ) from error
        return {spec.name: np.array(found[spec.name].numpy()) for spec in self._outputs}


def _load(folder: Path, architecture: str) -> Any:
    """The model in float32, built from its configuration and filled with the folder's weights."""
    try:
        import transformers
        from safetensors import SafetensorError
        from safetensors.torch import load_file
        from transformers.modeling_utils import no_init_weights
    except ImportError as error:
        raise MissingExtraError("Running a folder of INT4 weights", "hf") from error
    try:
        config = transformers.AutoConfig.from_pretrained(str(folder), local_files_only=True)
        config.use_cache = False
        with no_init_weights():
            model = getattr(transformers, architecture)(config)
        missing, unknown = _fill(model, load_file(folder / WEIGHTS))
    except (OSError, ValueError, KeyError, AttributeError, RuntimeError, SafetensorError) as error:
        raise ModelError(
            f"{folder} cannot be loaded: {first_line(error)}", fix="Compile the model again."
        ) from error
    if missing or unknown:
        raise ModelError(
            f"{folder / WEIGHTS} does not fit its configuration, first {(missing or unknown)[0]!r}.",
            fix="Compile the model again.",
        )
    return model.eval()


def _fill(model: Any, stored: dict[str, Any]) -> tuple[list[str], list[str]]:
    """Give ``model`` the weights; returns the names that are missing, and those that it does not know."""
    import torch

    weights = {}
    for name in list(stored):
        layer, _, part = name.rpartition(".")
        if part == QWEIGHT:
            parts = [stored.pop(f"{layer}.{key}") for key in (QWEIGHT, QZEROS, SCALES, G_IDX)]
            weights[f"{layer}.weight"] = dequantized(*parts)
    for name, value in stored.items():
        weights[name] = value.to(torch.float32) if value.is_floating_point() else value
    keys = model.load_state_dict(weights, strict=False, assign=True)
    model.tie_weights()
    tied = set(getattr(model, "_tied_weights_keys", None) or ())
    return [name for name in keys.missing_keys if name not in tied], list(keys.unexpected_keys)
