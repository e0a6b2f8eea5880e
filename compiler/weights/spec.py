"""How the weights of a linear layer are quantized, and the result: the one form that all methods return."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from edgeq.compiler.plan import Precision
from edgeq.compiler.recipe import Precision as Asked
from edgeq.compiler.recipe import Scheme

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]
Form = Literal["int", "nf4"]

# Bits of a code, and what a scheme of weights alone gives every layer.
BITS: dict[Asked, int] = {"int8": 8, "int4": 4, "int3": 3, "int2": 2, "nf4": 4}
OF_SCHEME: dict[Scheme, Asked] = {
    "int8-weight": "int8",
    "int4-weight": "int4",
    "int3-weight": "int3",
    "int2-weight": "int2",
    "nf4-weight": "nf4",
}

# A group size: all inputs of an output channel share one scale.
PER_CHANNEL = -1

# Weights that are dequantized at a time: what that takes besides the result.
_AT_ONCE = 1 << 22

# The 16 values of NormalFloat4: quantiles of the normal distribution, scaled to [-1, 1] (Dettmers et al.,
# "QLoRA", 2023, appendix E); the order is that of bitsandbytes' codes.
NF4_VALUES: Floats = np.array(
    [
        -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
        -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
        0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941,
        0.7229568362236023, 1.0,
    ],
    np.float32,
)  # fmt: skip


@dataclass(frozen=True)
class WeightSpec:
    """``group_size`` neighbouring inputs of an output share a scale; :data:`PER_CHANNEL`: all of them.

    ``form`` ``int``: value = (code - zero point) * scale, where the zero point of symmetric weights is
    2^(bits-1). ``nf4``: value = :data:`NF4_VALUES` [code] * scale, always 4 bits and symmetric.
    """

    bits: int
    group_size: int
    symmetric: bool = True
    form: Form = "int"

    @property
    def precision(self) -> Precision:
        """What plans and tables call it: ``int4``, ``nf4``."""
        return "nf4" if self.form == "nf4" else _INTEGERS[self.bits]

    @property
    def centre(self) -> int:
        """The code of zero in symmetric weights."""
        return 1 << (self.bits - 1)

    def group_of(self, inputs: int) -> int:
        """Inputs per group of a layer that has ``inputs`` of them."""
        return inputs if self.group_size == PER_CHANNEL else self.group_size

    def groups(self, inputs: int) -> int:
        """Groups in a row; the last one may be smaller."""
        return -(-inputs // self.group_of(inputs))


_INTEGERS: dict[int, Precision] = {bits: name for name, bits in BITS.items() if name != "nf4"}


@dataclass(frozen=True)
class QuantizedWeight:
    """Weights [N outputs, K inputs]: ``codes`` uint8 [N, K], ``scales`` float32 [N, groups].

    ``scales`` are values that the target's scale type holds exactly. ``zero_points`` uint8 [N, groups], None
    for symmetric weights.
    """

    spec: WeightSpec
    codes: Bytes
    scales: Floats
    zero_points: Bytes | None = None

    def rows(self, rows: npt.NDArray[np.int64]) -> QuantizedWeight:
        """Some outputs of it."""
        zeros = None if self.zero_points is None else self.zero_points[rows]
        return QuantizedWeight(self.spec, self.codes[rows], self.scales[rows], zeros)

    def dequantize(self) -> Floats:
        """float32 [N, K]: the values that every artefact made of this holds."""
        outputs, inputs = self.codes.shape
        found = np.empty((outputs, inputs), np.float32)
        step = max(_AT_ONCE // max(inputs, 1), 1)
        for start in range(0, outputs, step):
            self._dequantize(slice(start, start + step), found[start : start + step])
        return found

    def _dequantize(self, rows: slice, found: Floats) -> None:
        """Set ``found`` to the values of ``rows``."""
        inputs = self.codes.shape[1]
        group = self.spec.group_of(inputs)
        if self.spec.form == "nf4":
            np.take(NF4_VALUES, self.codes[rows], out=found)
        elif self.zero_points is None:
            np.subtract(self.codes[rows], np.float32(self.spec.centre), out=found)
        else:
            zeros = np.repeat(self.zero_points[rows], group, axis=1)[:, :inputs]
            np.subtract(self.codes[rows], zeros, out=found, dtype=np.float32)
        found *= np.repeat(self.scales[rows], group, axis=1)[:, :inputs]
