"""One MIL operation at a time: by coremltools' value inference and by the interpreter's kernel."""

from __future__ import annotations

import contextlib
import gc
import io
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgeq.calibration.types import Array
from edgeq.targets.coreml.interpreter.call import Call, TensorType
from edgeq.targets.coreml.interpreter.table import KERNELS
from edgeq.targets.coreml.toolkit import builder, coremltools


@dataclass(frozen=True)
class Mil:
    """An operation and its arguments; those it leaves out have MIL's defaults."""

    op_type: str
    inputs: Mapping[str, Any] = field(default_factory=dict)
    opset: int = 18

    def __str__(self) -> str:
        shown = ",".join(f"{k}={_shown(v)}" for k, v in self.inputs.items())
        return f"{self.op_type}-{self.opset}({shown})"

    def by_coremltools(self) -> list[Array]:
        """What coremltools folds the operation to."""
        mb, found = builder(), []

        def make(function: Any) -> None:
            found.append(getattr(mb, self.op_type)(**self.inputs))

        in_function(make, {}, self.opset)
        outputs = found[0] if isinstance(found[0], (list, tuple)) else [found[0]]
        assert all(output.val is not None for output in outputs), f"coremltools does not fold {self}"
        return [np.asarray(output.val) for output in outputs]

    def by_kernel(self, wanted: list[Array]) -> list[Array]:
        """What the kernel gives; ``wanted`` say how the program would declare the outputs."""
        inputs = {name: as_argument(value) for name, value in self.inputs.items()}
        types = tuple(TensorType(_declared(array), array.shape) for array in wanted)
        with np.errstate(all="ignore"):
            found = KERNELS[self.op_type](Call(self.op_type, "test", inputs, types, self.opset))
        return list(found) if isinstance(found, tuple) else [found]


def _shown(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return f"[{'|'.join(map(_shown, value))}]"
    array = np.asarray(value)
    return str(value) if array.size <= 4 and array.ndim < 2 else f"{array.dtype}{list(array.shape)}"


def _declared(array: Array) -> str:
    names = {"float64": "float32", "int64": "int32"}
    return names.get(array.dtype.name, array.dtype.name)


def as_argument(value: Any) -> Any:
    """A Python or numpy value as the engine gives it to kernels."""
    if isinstance(value, str):
        return value
    if isinstance(value, (list, tuple)) and any(isinstance(v, np.ndarray) for v in value):
        return [as_argument(v) for v in value]
    array = np.asarray(value)
    narrow = {"float64": np.float32, "float16": np.float32, "int64": np.int32}
    return array.astype(narrow.get(array.dtype.name, array.dtype))


def in_function(make: Callable[[Any], Any], placeholders: Mapping[str, Any], opset: int) -> Any:
    """A MIL program whose function ``make`` fills; what it returns are the outputs."""
    target = getattr(coremltools().target, f"iOS{opset}")
    from coremltools.converters.mil.mil import Function, Program

    program = Program()
    with (
        contextlib.redirect_stdout(io.StringIO()),
        np.errstate(all="ignore"),
        Function(dict(placeholders), opset_version=target) as function,
    ):
        outputs = make(function)
        if outputs:
            function.set_outputs(outputs)
    program.add_function("main", function)
    return program


def write(program: Any, path: Path, *, opset: int = 18, arithmetic: str = "float32", **options: Any) -> None:
    """Write the program as a package by coremltools alone; float32 packages keep every operation as it is."""
    ct = coremltools()
    half = arithmetic == "float16"
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore", ResourceWarning)  # coremltools' temporary folders
        model = ct.convert(
            program,
            source="milinternal",
            convert_to="mlprogram",
            minimum_deployment_target=getattr(ct.target, f"iOS{opset}"),
            compute_precision=ct.precision.FLOAT16 if half else ct.precision.FLOAT32,
            skip_model_load=True,
            pass_pipeline=ct.PassPipeline.DEFAULT if half else ct.PassPipeline.EMPTY,
            **options,
        )
        model.save(str(path))
        del model
        gc.collect()
