"""Which layer of a block can absorb the input scales of which Linear layers, found by trying.

AWQ multiplies columns of weights by scales and divides what makes their inputs. Neural Compressor looks for
that layer in a traced graph, finds none in today's transformers, and then rounds as RTN does without a word.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

# Scaling there and back leaves the last bits of float32; a wrong pair moves the output by a tenth and more.
_TOLERANCE = 1e-3


@dataclass(frozen=True)
class _Seen:
    """One call of the first block: what it was given, and its layers in the order in which they ran.

    ``readers``: the Linear layers that read one tensor.
    """

    block: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    order: list[str]
    readers: list[list[str]]


def absorbing_layers(module: Any, sample: Mapping[str, Any]) -> dict[str, list[str]]:
    """Layer → the Linear layers whose input scales it absorbs; names are relative to each of the blocks.

    Empty when the model has no repeated blocks, or nothing in them absorbs. ``module`` stays as it is.
    """
    import torch

    from edgeq.targets.neural_compressor.weight_only.layers import blocks_of

    blocks = blocks_of(module)
    if not blocks:
        return {}
    with torch.no_grad():
        seen = _watch(module, blocks[0], sample)
        wanted = _output(seen)
        found: dict[str, list[str]] = {}
        for readers in seen.readers:
            layer = _absorbing(seen, readers, wanted)
            if layer is not None and layer not in found:
                found[layer] = readers
    return found


def _absorbing(seen: _Seen, readers: list[str], wanted: Any) -> str | None:
    """The last layer before ``readers`` that can take their scales."""
    before = seen.order[: seen.order.index(readers[0])]
    inputs = seen.block.get_submodule(readers[0]).in_features
    for name in reversed(before):
        if seen.block.get_submodule(name).weight.shape[0] != inputs:
            continue
        with _scaled(seen.block, name, readers):
            error = (_output(seen) - wanted).abs().max()
        if float(error) <= _TOLERANCE * float(wanted.abs().max()):
            return name
    return None


@contextlib.contextmanager
def _scaled(block: Any, name: str, readers: list[str]) -> Iterator[None]:
    import torch

    layer = block.get_submodule(name)
    scales = torch.linspace(0.5, 1.5, layer.weight.shape[0])
    columns = scales if layer.weight.dim() == 1 else scales.unsqueeze(1)
    changed = [(layer.weight, 1 / columns)]
    if getattr(layer, "bias", None) is not None:
        changed.append((layer.bias, 1 / scales))
    changed += [(block.get_submodule(reader).weight, scales) for reader in readers]
    before = [parameter.clone() for parameter, _ in changed]
    try:
        for parameter, factor in changed:
            parameter.mul_(factor)
        yield
    finally:
        for (parameter, _), value in zip(changed, before, strict=True):
            parameter.copy_(value)


def _watch(module: Any, block: Any, sample: Mapping[str, Any]) -> _Seen:
    import torch

    order: list[str] = []
    readers: dict[int, list[str]] = {}
    held: list[Any] = []
    call: list[tuple[Any, Any]] = []

    def entered(_: Any, args: Any, kwargs: Any) -> None:
        call.append((args, kwargs))

    def ran(name: str) -> Any:
        def hook(layer: Any, args: Any, _: Any) -> None:
            order.append(name)
            if isinstance(layer, torch.nn.Linear):
                # kept alive, so that another tensor cannot have its id
                held.append(args[0])
                readers.setdefault(id(args[0]), []).append(name)

        return hook

    hooks = [block.register_forward_pre_hook(entered, with_kwargs=True)]
    for name, layer in block.named_modules():
        weight = getattr(layer, "weight", None)
        if weight is not None and weight.dim() <= 2:
            hooks.append(layer.register_forward_hook(ran(name)))
    try:
        module(**sample)
    finally:
        for hook in hooks:
            hook.remove()
    args, kwargs = call[0]
    return _Seen(block, args, kwargs, order, list(readers.values()))


def _output(seen: _Seen) -> Any:
    found = seen.block(*seen.args, **seen.kwargs)
    return found[0] if isinstance(found, tuple) else found
