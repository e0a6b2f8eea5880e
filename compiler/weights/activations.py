"""Activations as engines of W8A8 round them: INT8, with a scale for every token that is found at run time.

The scale is compressed-tensors': a token's largest value / 127.5.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

_LOWEST, _HIGHEST = -128.0, 127.0


def round_tokens(x: Any) -> Any:
    """A tensor [..., K] rounded, in float; what stands before K are tokens."""
    import torch

    largest = x.abs().amax(dim=-1, keepdim=True)
    scale = torch.where(largest == 0, torch.finfo(x.dtype).eps, largest / ((_HIGHEST - _LOWEST) / 2))
    return torch.clamp(torch.round(x / scale), _LOWEST, _HIGHEST) * scale


@contextmanager
def rounded_inputs(model: Any, layers: Iterable[str]) -> Iterator[None]:
    """The ``layers`` of ``model``, by name, round what they read as long as the block lasts."""
    handles = [model.get_submodule(name).register_forward_pre_hook(_round_first) for name in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _round_first(_module: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
    return (round_tokens(args[0]), *args[1:])
