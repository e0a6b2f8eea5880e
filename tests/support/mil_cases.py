"""One MIL operation at a time: by coremltools' value inference and by the interpreter's kernel."""

from __future__ import annotations

import contextlib
import copy
import gc
import io
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgeq.calibration.types import Array
from edgeq.targets.coreml.interpreter.call import Call, TensorType
from edgeq.targets.coreml.interpreter.table import KERNELS
from edgeq.targets.coreml.toolkit import builder, coremltools, mil_types


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
            # copies: the value inference of thresholded_relu writes into its argument
            found.append(getattr(mb, self.op_type)(**copy.deepcopy(dict(self.inputs))))

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


class Batch:
    """Many cases as one program: arrays that may be computed at run time are its inputs."""

    def __init__(self, cases: Sequence[Mil], opset: int) -> None:
        self.cases, self.opset = cases, opset
        self.feeds: dict[str, Array] = {}

    def placeholders(self) -> dict[str, Any]:
        """The inputs of the function."""
        mb, types = builder(), mil_types()
        for case in self.cases:
            self._arguments(case, lambda name, array: array)
        kinds = {"f": types.fp32, "i": types.int32}
        return {n: mb.placeholder(a.shape, dtype=kinds[a.dtype.kind]) for n, a in self.feeds.items()}

    def make(self, function: Any) -> list[Any]:
        """The outputs ``y0``, ``y1`` …, as a package can have them: int32 or float32, not rank 0."""
        mb, outputs = builder(), []
        for case in self.cases:
            arguments = self._arguments(case, lambda name, array: function.inputs[name])
            found = getattr(mb, case.op_type)(**arguments)
            outputs += found if isinstance(found, (list, tuple)) else [found]
        return [self._port(output, f"y{index}") for index, output in enumerate(outputs)]

    def wanted(self) -> list[tuple[Mil, Array]]:
        """What coremltools folds the cases to, in the order of the outputs."""
        return [(case, np.atleast_1d(array)) for case in self.cases for array in case.by_coremltools()]

    def _arguments(self, case: Mil, bind: Callable[[str, Array], Any]) -> dict[str, Any]:
        from coremltools.converters.mil.mil.ops.registry import SSAOpRegistry

        versions = SSAOpRegistry.core_ops[case.op_type]
        spec = versions[max(v for v in versions if v.name <= f"iOS{self.opset}")].input_spec.input_types

        def one(value: Any) -> Any:
            dynamic = isinstance(value, np.ndarray) and value.ndim and value.dtype in (np.float32, np.int32)
            return bind(self._feed(value), value) if dynamic else value

        return {
            name: value
            if getattr(spec[name], "const", False)
            else [one(v) for v in value]
            if isinstance(value, list)
            else one(value)
            for name, value in case.inputs.items()
        }

    def _feed(self, array: Array) -> str:
        for name, known in self.feeds.items():
            if known is array:
                return name
        self.feeds[f"x{len(self.feeds)}"] = array
        return f"x{len(self.feeds) - 1}"

    def _port(self, output: Any, name: str) -> Any:
        mb, types = builder(), mil_types()
        if output.dtype not in (types.fp32, types.int32):
            output = mb.cast(x=output, dtype="int32")
        if output.rank == 0:
            return mb.expand_dims(x=output, axes=[0], name=name)
        return mb.identity(x=output, name=name)


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
