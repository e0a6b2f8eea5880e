"""Where scales of inputs go: what makes inputs is divided by what columns that read them are multiplied by.

A norm before the layers that read it; v_proj before o_proj, where heads that share a value head share its
scales; up_proj before down_proj, between which values are only multiplied.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq.compiler.weights.collecting import Readers
from edgeq.compiler.weights.spec import Floats

# Name of the layer that makes, name of the layer that reads, inside one module.
_PAIRS = (("v_proj", "o_proj"), ("up_proj", "down_proj"), ("w3", "w2"))
# A fold that changes the layer's output by more is no identity; float32 sums in another order are below.
_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Fold:
    """``source`` makes what ``readers`` read; all names are those inside the decoder layer.

    ``shared`` int64 [K]: which channel of the source each input comes from; None: one each, in order.
    """

    source: str
    readers: Readers
    shared: npt.NDArray[np.int64] | None = None


def find_folds(layer: Any, groups: Sequence[Readers], run: Callable[[], Any]) -> list[Fold]:
    """The folds of a decoder layer; ``groups`` are its linear layers by the tensor that they read."""
    norms = _norm_outputs(layer, groups, run)
    found = []
    for readers in groups:
        pair = _pair(layer, readers[0]) if len(readers) == 1 else None
        if readers in norms:
            found.append(Fold(norms[readers], readers))
        elif pair is not None:
            found.append(pair)
    return found


def _pair(layer: Any, reader: str) -> Fold | None:
    parent, _, own = reader.rpartition(".")
    for source, name in _PAIRS:
        full = f"{parent}.{source}" if parent else source
        if own != name or full not in dict(layer.named_modules()):
            continue
        made, read = layer.get_submodule(full).out_features, layer.get_submodule(reader).in_features
        if made == read:
            return Fold(full, (reader,))
        size = getattr(layer.get_submodule(parent), "head_dim", 0)
        if name == "o_proj" and size and not (read % made or made % size):
            heads = np.arange(read) // size // (read // made)
            return Fold(full, (reader,), heads * size + np.arange(read) % size)
    return None


def _norm_outputs(layer: Any, groups: Sequence[Readers], run: Callable[[], Any]) -> dict[Readers, str]:
    """Readers → the norm whose output they read."""
    import torch

    made: dict[int, tuple[str, Any]] = {}
    read: dict[Readers, Any] = {}

    def note_made(name: str) -> Callable[..., None]:
        return lambda _module, _args, output: made.update({id(output): (name, output)})

    def note_read(readers: Readers) -> Callable[..., None]:
        return lambda _module, args: read.update({readers: args[0]})

    handles = [
        module.register_forward_hook(note_made(name))
        for name, module in layer.named_modules()
        if isinstance(getattr(module, "weight", None), torch.Tensor) and module.weight.dim() == 1
    ]
    handles += [
        layer.get_submodule(readers[0]).register_forward_pre_hook(note_read(readers)) for readers in groups
    ]
    try:
        run()
    finally:
        for handle in handles:
            handle.remove()
    return {readers: made[id(tensor)][0] for readers, tensor in read.items() if id(tensor) in made}


def apply_fold(layer: Any, fold: Fold, scales: Floats) -> None:
    """Multiply the readers' columns by ``scales`` float32 [K], and divide what makes their inputs."""
    import torch

    factors = torch.from_numpy(scales)
    for reader in fold.readers:
        layer.get_submodule(reader).weight.mul_(factors)
    source = layer.get_submodule(fold.source)
    if fold.shared is None:
        own = factors
    else:
        own = torch.empty(source.out_features)
        own[torch.from_numpy(fold.shared)] = factors
    offset = _offset(source) if source.weight.dim() == 1 else 0.0
    divisor = own if source.weight.dim() == 1 else own[:, None]
    source.weight.copy_((source.weight + offset) / divisor - offset)
    if getattr(source, "bias", None) is not None:
        source.bias.div_(own)


def storable_scales(layer: Any, fold: Fold, scales: Floats, dtype: np.dtype[Any]) -> Floats:
    """``scales`` [K] moved a little, so that a norm that is divided by them is exact in ``dtype``."""
    norm = layer.get_submodule(fold.source)
    if norm.weight.dim() != 1:
        return scales
    offset = np.float32(_offset(norm))
    before = norm.weight.numpy() + offset
    after = (before / scales - offset).astype(dtype).astype(np.float32) + offset
    found = np.divide(before, after, out=scales.copy(), where=after != 0)
    return np.where((found > 0) & np.isfinite(found), found, scales)


def _offset(norm: Any) -> float:
    """1 where the norm multiplies by 1 + weight (Gemma), else 0: told by what it does with weights of 0."""
    import torch

    ramp = torch.linspace(-1, 2, len(norm.weight))[None]
    kept, bias = norm.weight.clone(), getattr(norm, "bias", None)
    norm.weight.zero_()
    output = norm(ramp)
    norm.weight.copy_(kept)
    rest = output if bias is None else output - bias
    return 1.0 if float(rest.abs().max()) > 0 else 0.0


def changed_tensors(layer: Any, fold: Fold, quantized: Collection[str]) -> Iterator[tuple[str, Floats]]:
    """Names inside the layer and values of the tensors that a fold has changed and that stay float."""
    for name in (fold.source, *fold.readers):
        for key, value in layer.get_submodule(name).named_parameters(recurse=False):
            if key != "weight" or name not in quantized:
                yield f"{name}.{key}", value.numpy()


def differs(before: Floats, after: Floats) -> bool:
    """Whether the layer computes something else than before."""
    size = float(np.abs(before).max(initial=0))
    return not float(np.abs(before - after).max(initial=0)) <= _TOLERANCE * max(size, 1e-30)
