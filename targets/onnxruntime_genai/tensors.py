"""The initializers of a graph: read from the store when they are written, one at a time."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from edgeq.calibration.types import Array
from edgeq.compiler.quantize.blocks import pack
from edgeq.compiler.weights.spec import QuantizedWeight
from edgeq.compiler.weights.store import WeightStore

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


def blocks_of(weight: QuantizedWeight) -> tuple[Array, Array, Array | None]:
    """Codes uint8 [N, blocks, bytes], scales float16 [N, blocks], zero points uint8 [N, bytes] or None.

    As com.microsoft.MatMulNBits reads them: the last block is padded with the code of zero.
    """
    spec, (outputs, inputs) = weight.spec, weight.codes.shape
    blocks = spec.groups(inputs)
    padded = np.full((outputs, blocks * spec.group_size), spec.centre, np.uint8)
    padded[:, :inputs] = weight.codes
    codes = pack(padded.reshape(outputs, blocks, spec.group_size), spec.bits)
    zeros = None if weight.zero_points is None else pack(weight.zero_points, spec.bits)
    return codes, weight.scales.astype(np.float16), zeros


class StoredTensors:
    """The tensors of ``store`` in the types of the artefact; ``full``: all of them in float32."""

    def __init__(self, store: WeightStore, *, full: bool) -> None:
        self.store = store
        self.full = full
        self.used: set[str] = set()

    def has(self, name: str) -> bool:
        return name in self.store.checkpoint.tensors

    def shape(self, name: str) -> tuple[int, ...]:
        return self.store.checkpoint.tensors[name].shape

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
        half = self.is_half(name)
        shape = self.shape(name)
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
        codes = lazy(
            f"{layer}.codes",
            ir.DataType.UINT8,
            (outputs, blocks, spec.group_size * spec.bits // 8),
            lambda: blocks_of(self.store.quantized(layer))[0],
        )
        scales = lazy(
            f"{layer}.scales",
            ir.DataType.FLOAT16,
            (outputs, blocks),
            lambda: blocks_of(self.store.quantized(layer))[1],
        )
        if spec.symmetric:
            return codes, scales, None

        def zeros() -> Array:
            found = blocks_of(self.store.quantized(layer))[2]
            assert found is not None
            return found

        shape = (outputs, -(-blocks * spec.bits // 8))
        return codes, scales, lazy(f"{layer}.zero_points", ir.DataType.UINT8, shape, zeros)

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
