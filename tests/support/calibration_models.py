"""Small graphs and a data source for the tests of the collecting run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import onnx
from onnx import parser

from edgeq.calibration.types import Array, Batch


class ArraysInMemory:
    """A data source over arrays whose first axis is samples. It records the batch sizes asked for."""

    has_labels = False
    task = "unknown"

    def __init__(self, arrays: Mapping[str, Array], *, known_size: bool = True) -> None:
        self.arrays = {name: np.asarray(array) for name, array in arrays.items()}
        self._count = len(next(iter(self.arrays.values())))
        self._known_size = known_size
        self.asked: list[int] = []

    @property
    def size(self) -> int | None:
        return self._count if self._known_size else None

    def batches(self, batch_size: int, limit: int | None = None) -> Iterator[Batch]:
        self.asked.append(batch_size)
        stop = self._count if limit is None else min(limit, self._count)
        for start in range(0, stop, batch_size):
            end = min(start + batch_size, stop)
            yield Batch({n: a[start:end] for n, a in self.arrays.items()}, None, end - start)

    def describe(self) -> dict[str, Any]:
        return {"kind": "memory"}


def model_bytes(text: str, weights: Mapping[str, Array] | None = None) -> bytes:
    """A serialized model from ONNX text and initializers."""
    model = parser.parse_model('<ir_version: 10, opset_import: ["" : 21]>\n' + text)
    for name, array in (weights or {}).items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def small_cnn(seed: int = 0) -> bytes:
    """Two convolutions with ReLU, joined by Concat, reshaped and pooled: x [N, 2, 8, 8] → y [N, 6]."""
    generator = np.random.default_rng(seed)
    return model_bytes(
        """
        small (float[N, 2, 8, 8] x) => (float[N, 6] y) {
            a = Conv<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(x, w1)
            b = Relu(a)
            c = Conv<kernel_shape = [1, 1]>(b, w2)
            d = Relu(c)
            joined = Concat<axis = 1>(b, d)
            turned = Transpose<perm = [0, 2, 3, 1]>(joined)
            mean = ReduceMean<keepdims = 0>(turned, axes)
            y = Relu(mean)
        }
        """,
        {
            "w1": generator.standard_normal((3, 2, 3, 3)).astype(np.float32),
            "w2": generator.standard_normal((3, 3, 1, 1)).astype(np.float32),
            "axes": np.array([1, 2], np.int64),
        },
    )
