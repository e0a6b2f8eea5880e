"""Finding the constant weights of a node."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Weight:
    """A constant float32 tensor that a node reads, perhaps through a Transpose.

    ``root`` holds the stored tensor; ``perm`` is how the node sees it (None: as stored).
    """

    root: ir.Value
    tensor: ir.TensorProtocol
    perm: tuple[int, ...] | None = None

    @property
    def name(self) -> str:
        return self.root.name or ""

    @property
    def shape(self) -> tuple[int, ...]:
        stored = tuple(int(d) for d in self.tensor.shape.numpy())
        return stored if self.perm is None else tuple(stored[i] for i in self.perm)

    @property
    def size(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64))

    def finite(self) -> bool:
        """Whether no value is NaN or infinite."""
        return bool(np.isfinite(self.tensor.numpy()).all())

    def array(self) -> Floats:
        """The values as the node sees them. Read anew at each call: nothing keeps them in memory."""
        stored = np.asarray(self.tensor.numpy(), dtype=np.float32)
        return stored if self.perm is None else stored.transpose(self.perm)


def find_weight(value: ir.Value | None) -> Weight | None:
    """The constant float32 tensor behind ``value``, else None.

    An initializer that is a graph input as well is not constant: the caller of the model may replace it.
    """
    if value is None:
        return None
    producer = value.producer()
    if producer is not None and producer.op_type == "Transpose" and producer.domain == "":
        return _transposed(producer)
    tensor = ir.convenience.get_const_tensor(value)
    if tensor is None or value.is_graph_input() or tensor.dtype != ir.DataType.FLOAT:
        return None
    return Weight(value, tensor)


def _transposed(node: ir.Node) -> Weight | None:
    inner = find_weight(node.inputs[0])
    if inner is None or inner.perm is not None:
        return None
    rank = len(inner.shape)
    given = node.attributes.get("perm")
    perm = tuple(reversed(range(rank))) if given is None else tuple(given.as_ints())
    return Weight(inner.root, inner.tensor, perm)


@dataclass(frozen=True)
class Refusal:
    """Why a node is not quantized. ``asked``: the scheme means such nodes to be quantized."""

    reason: str
    asked: bool


def why_not_constant(value: ir.Value | None) -> Refusal:
    """Words for a weight that :func:`find_weight` does not find."""
    if value is None:
        return Refusal("it has no weights", asked=False)
    if value.is_graph_input():
        if value.is_initializer():
            return Refusal("its weights are a graph input as well, so callers may replace them", asked=True)
        return Refusal("its second operand is a model input, not a constant", asked=False)
    tensor = ir.convenience.get_const_tensor(value)
    if tensor is not None:
        return Refusal(f"its weights are {tensor.dtype.name.lower()}, not float32", asked=False)
    producer = value.producer()
    if producer is not None and producer.op_type == "DequantizeLinear":
        return Refusal("its weights are quantized already", asked=False)
    return Refusal("its second operand is computed at run time, not a constant", asked=False)


NOT_FINITE = Refusal("its weights contain NaN or Inf", asked=True)
TOO_FEW = Refusal("its weights are so few that quantizing would not make the file smaller", asked=False)
