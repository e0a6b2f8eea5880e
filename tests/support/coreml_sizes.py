"""One Core ML package with dynamic dimensions, interpreted with inputs of several sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from edgeq.calibration.types import Array
from edgeq.targets.coreml.frontend.lowering import known_dimension
from edgeq.targets.coreml.interpreter.engine import Interpreter
from edgeq.targets.coreml.interpreter.program import read_package
from edgeq.targets.coreml.options import CoreMLOptions
from edgeq.targets.coreml.package.write import write_package
from edgeq.targets.coreml.ports import from_package, to_package
from edgeq.targets.dimensions import Dimension
from tests.support.coreml_ops import Axes, Op, by_onnxruntime, lower_ops, model_of


class SizedPackage:
    """The package of ``ops``; ``example`` gives dtypes and ranks of the inputs, ``axes`` what is dynamic."""

    def __init__(
        self,
        ops: Sequence[Op],
        example: Mapping[str, Array],
        axes: Axes,
        dimensions: Mapping[str, Dimension],
        folder: Path,
        constants: Mapping[str, Array] | None = None,
        ios: int = 18,
    ) -> None:
        read = {name for op in ops for name in op.inputs}
        used = {name: array for name, array in (constants or {}).items() if name in read}
        self.ops = ops
        self.model = model_of(ops, example, used, axes)
        # lowering declares the outputs' types: ONNX Runtime gets a model without them
        self.lowered = lower_ops(
            model_of(ops, example, used, axes),
            by_onnxruntime(self.model, example),
            ios=ios,
            dimensions=dimensions,
        )
        outputs = self.lowered.program["main"].outputs
        self.declared = [[known_dimension(size) for size in output.shape] for output in outputs]
        path = folder / "ops.mlpackage"
        options = CoreMLOptions(dimensions=dict(dimensions))
        write_package(self.lowered, path, ios=ios, arithmetic="float32", options=options)
        self._interpreter = Interpreter(read_package(path))

    def run(self, inputs: Mapping[str, Array]) -> list[Array]:
        """The results of all ops."""
        feeds = to_package(self.lowered.signature, dict(inputs))
        results = from_package(self.lowered.signature, self._interpreter.run(feeds))
        return [results[f"y{index}"] for index in range(len(self.ops))]

    def check(self, inputs: Mapping[str, Array]) -> None:
        """Shapes and numbers equal ONNX Runtime's, and MIL's type inference does not contradict them."""
        wanted = by_onnxruntime(self.model, inputs)
        sizes = {name: array.shape for name, array in inputs.items()}
        for op, got, right, declared in zip(self.ops, self.run(inputs), wanted, self.declared, strict=True):
            assert got.shape == right.shape, f"{op} of {sizes}: {got.shape} instead of {right.shape}"
            np.testing.assert_array_equal(got, right, err_msg=f"{op} of {sizes}")
            assert len(declared) == max(right.ndim, 1), f"{op}: declared {declared}, is {right.shape}"
            pairs = zip(declared, right.shape or (1,), strict=True)
            assert all(known in (None, size) for known, size in pairs), f"{op}: {declared}, is {right.shape}"
