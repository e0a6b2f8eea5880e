"""Observers of Neural Compressor's prepared graphs that keep edgeq's sketch of each tensor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from edgeq.calibration.affine import Range, quant_params
from edgeq.calibration.ranges import choose_range
from edgeq.calibration.sketch import Sketch
from edgeq.compiler.recipe import RangeMethod

if TYPE_CHECKING:
    import torch


Mode = Literal["collect", "pass", "simulate"]


class Ranges:
    """Distribution and range of one tensor, which all of its observers share.

    ``mode``: observers collect values, only pass them on, or round them as the quantized model will.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.sketch = Sketch()
        self.mode: Mode = "collect"
        self.replaced: list[Any] = []
        self.scale = np.float32(1)
        self.zero_point = 0

    def choose(self, method: RangeMethod, percentile: float) -> None:
        """Take scale and zero point from the distribution.

        Raises:
            DataError: the tensor had no values, or some that are not finite.
        """
        span = choose_range(self.sketch, method, percentile=percentile, tensor=self.name)
        self.cover(span)

    def cover(self, span: Range) -> None:
        """Take scale and zero point that cover ``span``."""
        self.scale, self.zero_point = quant_params(span, "uint8", symmetric=False)


def activation_observer(ranges: Ranges) -> torch.nn.Module:
    """An observer of uint8 activations that fills ``ranges``, and whose parameters are theirs."""
    import torch
    from torchao.quantization.pt2e.observer import ObserverBase

    class ActivationObserver(ObserverBase):  # type: ignore[misc]  # torchao has no types
        qscheme = torch.per_tensor_affine
        quant_min, quant_max = 0, 255

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if ranges.mode == "collect":
                ranges.sketch.update(x.detach().numpy())
            if ranges.mode != "simulate":
                return x
            scale, zero_point = float(ranges.scale), ranges.zero_point
            return torch.fake_quantize_per_tensor_affine(x, scale, zero_point, 0, 255)

        def calculate_qparams(self) -> tuple[torch.Tensor, torch.Tensor]:
            return torch.tensor([ranges.scale]), torch.tensor([ranges.zero_point])

    return ActivationObserver(dtype=torch.uint8)


def is_observer(argument: Any) -> bool:
    """Whether a node, or an argument of one, is an observer of a prepared graph."""
    if getattr(argument, "op", "") != "call_module":
        return False
    return "activation_post_process" in str(argument.target)


def weight_observer(scales: npt.NDArray[np.float32]) -> torch.nn.Module:
    """An observer of int8 weights that are multiples of their ``scales`` [output channels] already."""
    import torch
    from torchao.quantization.pt2e.observer import ObserverBase

    class WeightObserver(ObserverBase):  # type: ignore[misc]  # torchao has no types
        qscheme = torch.per_channel_symmetric
        quant_min, quant_max = -128, 127
        ch_axis = 0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x

        def calculate_qparams(self) -> tuple[torch.Tensor, torch.Tensor]:
            return torch.from_numpy(scales.copy()), torch.zeros(len(scales), dtype=torch.int64)

    return WeightObserver(dtype=torch.int8)
