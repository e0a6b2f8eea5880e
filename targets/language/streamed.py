"""A model of transformers whose weights are read when a module runs, and dropped behind it.

Memory is that of one matrix and the activations, however deep the model is.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from edgeq.targets.language.model import ReadTensor, empty_model, other_shape, refuse_unfit


def streamed_model(folder: Path, architecture: str, names: Collection[str], read: ReadTensor) -> Any:
    """The model that ``folder``'s configuration describes, in float32; ``read`` gives the tensors ``names``.

    Raises:
        MissingExtraError: PyTorch or transformers is not installed.
        ModelError: configuration and tensors do not fit.
    """
    model = empty_model(folder, architecture)
    places = _places(model, names)
    for module in model.modules():
        own = {key: places[id(value)] for key, value in module._parameters.items() if value is not None}
        if own:
            _stream(module, own, read)
    return model.eval()


def _places(model: Any, names: Collection[str]) -> dict[int, str]:
    """Parameter → its tensor; of several names of one parameter, that which is stored."""
    found: dict[int, str] = {}
    parameters = dict(model.named_parameters(remove_duplicate=False))
    for name, value in parameters.items():
        if name in names:
            found[id(value)] = name
    missing = [name for name, value in parameters.items() if id(value) not in found]
    refuse_unfit(missing, [name for name in names if name not in parameters])
    return found


def _stream(module: Any, own: dict[str, str], read: ReadTensor) -> None:
    import torch

    def load(*_: Any) -> None:
        for key, name in own.items():
            # PyTorch shares the memory, and takes none that is mapped to be read only.
            values = np.require(read(name), np.float32, ["C", "W"])
            wanted = module._parameters[key].shape
            if tuple(values.shape) != tuple(wanted):
                raise other_shape(name, values.shape, tuple(wanted))
            module._parameters[key] = torch.nn.Parameter(torch.from_numpy(values), requires_grad=False)

    def drop(*_: Any) -> None:
        for key in own:
            value = module._parameters[key]
            module._parameters[key] = torch.nn.Parameter(value.to("meta"), requires_grad=False)

    drop()
    module.register_forward_pre_hook(load)
    module.register_forward_hook(drop, always_call=True)
