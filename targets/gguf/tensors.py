"""Which tensors a GGUF file has: their names, types and places in the checkpoint, before any is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from edgeq.calibration.types import Array
from edgeq.compiler.load.checkpoint import Checkpoint
from edgeq.compiler.weights.spec import QuantizedWeight
from edgeq.errors import TargetError
from edgeq.targets.gguf.architectures import Architecture, Config


@dataclass(frozen=True)
class TensorPlace:
    """A tensor of the file: ``source`` is its name in the checkpoint.

    ``heads``: so many heads whose rows change places, 0 none. ``offset`` is added to the values.
    """

    name: str
    source: str
    shape: tuple[int, ...]
    heads: int = 0
    offset: float = 0.0

    @property
    def layer(self) -> str:
        """The name of the layer whose weight it is."""
        return self.source.removesuffix(".weight")

    def rows(self) -> Array | None:
        """The order of the checkpoint's rows in the file; None: their own.

        A head's rows (i, i + half), which transformers' rotary embedding turns together, become neighbours.
        """
        if not self.heads:
            return None
        index = np.arange(self.shape[0]).reshape(self.heads, 2, -1)
        return np.asarray(index.swapaxes(1, 2).reshape(-1))

    def to_file(self, values: Array) -> Array:
        """Float values as the file has them."""
        order = self.rows()
        moved = values if order is None else values[order]
        return moved + np.float32(self.offset) if self.offset else moved

    def from_file(self, values: Array) -> Array:
        """Float values of the file as the checkpoint has them."""
        if self.offset:
            values = values - np.float32(self.offset)
        order = self.rows()
        return values if order is None else values[np.argsort(order)]

    def codes_to_file(self, weight: QuantizedWeight) -> QuantizedWeight:
        """Quantized rows as the file has them."""
        order = self.rows()
        if order is None:
            return weight
        zeros = None if weight.zero_points is None else weight.zero_points[order]
        return replace(weight, codes=weight.codes[order], scales=weight.scales[order], zero_points=zeros)


def places(checkpoint: Checkpoint, config: Config, architecture: Architecture) -> list[TensorPlace]:
    """Every tensor of ``checkpoint`` that GGUF stores, in the checkpoint's order.

    Raises:
        TargetError: llama.cpp's model has no such tensor.
    """
    shapes = {name: tensor.shape for name, tensor in checkpoint.tensors.items()}
    return places_of(shapes, config, architecture)


def places_of(
    shapes: Mapping[str, tuple[int, ...]], config: Config, architecture: Architecture
) -> list[TensorPlace]:
    """:func:`places` of tensors by name and shape."""
    import gguf

    kind = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture.name)
    names = gguf.get_tensor_name_map(kind, config["num_hidden_layers"])
    found = []
    for source, shape in shapes.items():
        if is_derived(source, config):
            continue
        name = names.get_name(source, try_suffixes=(".weight", ".bias"))
        if name is None:
            raise TargetError(
                f"The model has a tensor {source!r}, and llama.cpp's {architecture.name} has none such.",
                fix="Take --target hf-gptq, hf-awq or vllm.",
            )
        offset = architecture.norm_offset if "norm" in source else 0.0
        found.append(TensorPlace(name, source, shape, _heads(source, config, architecture), offset))
    return found


def is_derived(source: str, config: Config) -> bool:
    """Tensors that a checkpoint may hold and no model reads: a tied output layer, frequencies."""
    tied = bool(config.get("tie_word_embeddings")) and source == "lm_head.weight"
    return tied or source.endswith("rotary_emb.inv_freq")


def _heads(source: str, config: Config, architecture: Architecture) -> int:
    if not architecture.paired:
        return 0
    if ".q_proj." in source:
        return int(config["num_attention_heads"])
    if ".k_proj." in source:
        return int(config.get("num_key_value_heads") or config["num_attention_heads"])
    return 0
