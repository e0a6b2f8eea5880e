"""A quantized model as a Hugging Face folder in the format of GPTQ checkpoints."""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeq.targets.neural_compressor.weight_only.files import (
    CONFIG,
    G_IDX,
    QUANTIZE_CONFIG,
    QWEIGHT,
    QZEROS,
    SCALES,
    WEIGHTS,
)
from edgeq.targets.neural_compressor.weight_only.packing import BITS, group_index

if TYPE_CHECKING:
    import torch

# What belongs to a model besides its weights, when the source has it.
_COMPANIONS = (
    "tokenizer.json", "tokenizer_config.json", "tokenizer.model", "special_tokens_map.json",
    "added_tokens.json", "vocab.json", "vocab.txt", "merges.txt", "spiece.model",
    "chat_template.jinja", "generation_config.json", "preprocessor_config.json",
)  # fmt: skip
_LARGEST_HALF = 65504.0


def halve_rest(module: torch.nn.Module) -> int:
    """Round the matrices that stay float to float16's values; returns the number of those out of its range.

    Vectors (biases, norms) stay as they are: they are small, and readers compute with them directly.
    """
    import torch

    kept = 0
    with torch.no_grad():
        for tensor in module.parameters():
            if tensor.dim() < 2 or not tensor.is_floating_point():
                continue
            if float(tensor.abs().max()) > _LARGEST_HALF:
                kept += 1
                continue
            tensor.copy_(tensor.half().float())
    return kept


def write_folder(
    module: Any, source: Path, block: int, symmetric: bool, biased: Collection[str], folder: Path
) -> tuple[str, ...]:
    """Write weights, configuration and tokenizer into ``folder``; returns the names of the files.

    ``biased`` names the layers that have a bias.
    """
    from safetensors.torch import save_file

    tensors = dict(_tensors(module, block, biased))
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    quantization = _quantization(block, symmetric)
    config = json.loads((source / CONFIG).read_text(encoding="utf-8"))
    config = {key: value for key, value in config.items() if key not in ("torch_dtype", "_name_or_path")}
    config |= {
        "architectures": [type(module).__name__],
        "dtype": "float16",
        "quantization_config": quantization,
    }
    _write_json(folder / CONFIG, config)
    _write_json(folder / QUANTIZE_CONFIG, quantization)
    copied = [name for name in _COMPANIONS if (source / name).is_file()]
    for name in copied:
        shutil.copyfile(source / name, folder / name)
    return (WEIGHTS, CONFIG, QUANTIZE_CONFIG, *copied)


def _quantization(block: int, symmetric: bool) -> dict[str, Any]:
    return {
        "quant_method": "gptq",
        "checkpoint_format": "gptq",
        "bits": BITS,
        "group_size": block,
        "sym": symmetric,
        "desc_act": False,
        "damp_percent": 0.01,
        "true_sequential": False,
    }


def _tensors(module: Any, block: int, biased: Collection[str]) -> Iterator[tuple[str, Any]]:
    from neural_compressor.torch.algorithms.weight_only.modules import INCWeightOnlyLinear

    packed = {name: part for name, part in module.named_modules() if isinstance(part, INCWeightOnlyLinear)}
    for name, layer in packed.items():
        for key in (QWEIGHT, QZEROS, SCALES):
            yield f"{name}.{key}", getattr(layer, key).contiguous()
        # Neural Compressor leaves it out; readers need it, and take zeros for it where it is missing.
        yield f"{name}.{G_IDX}", group_index(layer.in_features, block)
        # It gives every layer a bias, also those that have none.
        if name in biased:
            yield f"{name}.bias", layer.bias.contiguous()
    # of tensors that the model uses twice, only the first is here
    rest = dict(module.named_parameters()) | _buffers(module)
    for name, tensor in rest.items():
        if name.rpartition(".")[0] not in packed:
            yield name, _stored(tensor.detach())


def _buffers(module: Any) -> dict[str, Any]:
    stored = module.state_dict()
    return {name: tensor for name, tensor in module.named_buffers() if name in stored}


def _stored(tensor: Any) -> Any:
    if tensor.dim() < 2 or not tensor.is_floating_point():
        return tensor.contiguous()
    half = tensor.half()
    return (half if bool(half.isfinite().all()) else tensor).contiguous()


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8", newline="\n")
