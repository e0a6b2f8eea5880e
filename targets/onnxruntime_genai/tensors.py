"""The initializers of a graph: read from the store when they are written, one at a time."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from edgeq.calibration.types import Array
from edgeq.compiler.quantize.blocks import pack
from edgeq.compiler.weights.spec import QuantizedWeight
from edgeq.compiler.weights.store import WeightStore
from edgeq.errors import ModelError

_HALF_MAX = float(np.finfo(np.float16).max)
# Values that are looked at together.
_CHUNK = 1 << 22


def lazy(name: str, dtype: ir.DataType, shape: tuple[int, ...], read: Callable[[], Array]) -> ir.LazyTensor:
    """A tensor that ``read`` makes when it is written, and again should it be read twice."""

    def make() -> ir.TensorProtocol:
        array = np.ascontiguousarray(read())
        assert array.shape == shape, (name, array.shape, shape)
        return ir.Tensor(array, name=name)

    return ir.LazyTensor(make, dtype, ir.Shape(shape), name=name)


def packed_codes(weight: QuantizedWeight) -> Array:
    """uint8 [N, blocks, bytes], as com.microsoft.MatMulNBits reads them; the last block is padded."""
    spec, (outputs, inputs) = weight.spec, weight.codes.shape
    blocks = spec.groups(inputs)
    padded = np.full((outputs, blocks * spec.group_size), spec.centre, np.uint8)
    padded[:, :inputs] = weight.codes
    return pack(padded.reshape(outputs, blocks, spec.group_size), spec.bits)


def packed_zero_points(weight: QuantizedWeight) -> Array:
    """uint8 [N, bytes] of asymmetric weights, packed like the codes."""
    assert weight.zero_points is not None
    return pack(weight.zero_points, weight.spec.bits)


class StoredTensors:
    """The tensors of ``store`` in the types of the artefact; ``full``: all of them in float32."""

    def __init__(self, store: WeightStore, *, full: bool) -> None:
        self.store = store
        self.full = full
        self.used: set[str] = set()

    def has(self, name: str) -> bool:
        return name in self.store.checkpoint.tensors

    def shape(self, name: str) -> tuple[int, ...]:
        """Raises ModelError when the checkpoint has no such tensor."""
        found = self.store.checkpoint.tensors.get(name)
        if found is None:
            raise ModelError(
                f"{self.store.checkpoint.path} has no tensor {name!r}.",
                fix="Download or save the model again.",
            )
        return found.shape

    def is_half(self, name: str) -> bool:
        """Whether a float weight is stored in float16: where its values allow it."""
        if self.full:
            return False
        stored = self.store.tensor(name)
        if stored.dtype == np.float16:
            return True
        rows = max(_CHUNK // max(stored.shape[-1], 1), 1)
        parts = (stored[start : start + rows].astype(np.float32) for start in range(0, len(stored), rows))
        return all(bool(np.abs(part).max() <= _HALF_MAX) for part in parts)

    def matrix(self, name: str, *, transposed: bool) -> ir.LazyTensor:
        """A float weight [N, K], or [K, N], in float16 where :meth:`is_half` says so."""
        self.used.add(name)
        shape = self.shape(name)
        half = self.is_half(name)
        numpy_type = np.float16 if half else np.float32

        def read() -> Array:
            stored = self.store.tensor(name).astype(numpy_type)
            return stored.T if transposed else stored

        dtype = ir.DataType.FLOAT16 if half else ir.DataType.FLOAT
        return lazy(name, dtype, shape[::-1] if transposed else shape, read)

    def vector(self, name: str, offset: float = 0.0) -> ir.LazyTensor:
        """A norm's weights or a bias in float32."""
        self.used.add(name)
        add = np.float32(offset)
        return lazy(
            name,
            ir.DataType.FLOAT,
            self.shape(name),
            lambda: self.store.tensor(name).astype(np.float32) + add,
        )

    def blocks(self, layer: str) -> tuple[ir.LazyTensor, ir.LazyTensor, ir.LazyTensor | None]:
        """Codes, scales and zero points of a quantized layer; None: it is symmetric."""
        self.used.add(f"{layer}.weight")
        spec = self.store.spec(layer)
        assert spec is not None
        outputs, inputs = self.shape(f"{layer}.weight")
        blocks = spec.groups(inputs)
        read = self.store.quantized
        codes = lazy(
            f"{layer}.codes",
            ir.DataType.UINT8,
            (outputs, blocks, spec.group_size * spec.bits // 8),
            lambda: packed_codes(read(layer)),
        )
        scales = lazy(
            f"{layer}.scales",
            ir.DataType.FLOAT16,
            (outputs, blocks),
            lambda: read(layer).scales.astype(np.float16),
        )
        if spec.symmetric:
            return codes, scales, None
        zeros = lazy(
            f"{layer}.zero_points",
            ir.DataType.UINT8,
            (outputs, -(-blocks * spec.bits // 8)),
            lambda: packed_zero_points(read(layer)),
        )
        return codes, scales, zeros

    def values(self, name: str) -> Array:
        """float32: what the artefact holds of one of the checkpoint's tensors."""
        layer = name.removesuffix(".weight")
        matrix = len(self.shape(name)) == 2
        if matrix and self.store.spec(layer) is None and self.is_half(name):
            rounded: Array = self.store.tensor(name).astype(np.float16).astype(np.float32)
            return rounded
        return self.store.float32(name)

    def unused(self) -> list[str]:
        """Tensors of the checkpoint that no node reads; frequencies of rotations are computed."""
        names = self.store.checkpoint.tensors
        return [name for name in names if name not in self.used and not name.endswith("rotary_emb.inv_freq")]
