"""What edgeq does around Apple's runtime. Apple's part itself runs on macOS only."""

from __future__ import annotations

import asyncio
import inspect
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgeq.benchmarks.budgets import parse_budget
from edgeq.benchmarks.measurement import Measurement, Measurements
from edgeq.benchmarks.verdicts import judge
from edgeq.errors import DataError, TargetError
from edgeq.targets.coreml import macos
from edgeq.targets.coreml.frontend.signature import ImagePort, Signature
from edgeq.targets.coreml.interpreter.engine import Interpreter
from edgeq.targets.coreml.interpreter.program import read_package
from edgeq.targets.coreml.options import COMPUTE_UNITS, CoreMLOptions, ImageInput
from edgeq.targets.coreml.package.folder import read_spec
from edgeq.targets.coreml.package.write import write_package
from edgeq.targets.coreml.placement import OperationPlacement, Placement, read_plan
from edgeq.targets.coreml.predict import arrays, class_labels, features
from edgeq.targets.coreml.toolkit import coremltools
from tests.support.coreml_kernels import normal
from tests.support.coreml_ops import Op, by_onnxruntime, lower_ops, model_of

not_on_macos = pytest.mark.skipif(sys.platform == "darwin", reason="Core ML is there")


def package(
    folder: Path, ops: list[Op], inputs: dict[str, np.ndarray], options: CoreMLOptions | None = None
) -> tuple[Path, Signature, list[np.ndarray]]:
    """A float32 package of the ops, its signature, and ONNX Runtime's results."""
    model = model_of(ops, inputs, {})
    wanted = by_onnxruntime(model, inputs)
    lowered = lower_ops(model, wanted)
    path = folder / "model.mlpackage"
    write_package(lowered, path, ios=18, arithmetic="float32", options=options)
    return path, lowered.signature, wanted


class InterpretedModel:
    """The methods of MLModel that the runner calls, computed by the interpreter."""

    def __init__(self, path: Path) -> None:
        self._spec = read_spec(path)
        self._interpreter = Interpreter(read_package(path))
        self.given: dict[str, Any] = {}

    def get_spec(self) -> Any:
        return self._spec

    def predict(self, data: dict[str, Any]) -> dict[str, Any]:
        self.given = data
        if any(array.max() > 1e6 for array in data.values()):
            raise RuntimeError("Error computing NN outputs.\n  (code -1)")
        return dict(self._interpreter.run(data))


@pytest.fixture
def interpreted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(macos, "load_model", lambda path, units: InterpretedModel(path))


INPUTS = {
    "x": normal(2, 3),
    "i": np.array([1, -7], np.int64),
    "b": np.array([True, False]),
    "s": np.array(2.5, np.float32),
}
OPS = [Op("Mul", ["x", "s"]), Op("Neg", ["i"]), Op("Not", ["b"]), Op("Add", ["s", "s"])]


@pytest.mark.usefixtures("interpreted")
def test_the_runner_speaks_the_onnx_models_names_dtypes_and_ranks(tmp_path: Path) -> None:
    path, signature, wanted = package(tmp_path, OPS, INPUTS)
    with macos.CoreMLRunner(path, signature) as runner:
        found = runner.run(INPUTS)
        assert [spec.name for spec in runner.inputs] == ["x", "i", "b", "s"]
        assert [spec.name for spec in runner.outputs] == list(found) == ["y0", "y1", "y2", "y3"]
        for spec, mine, theirs in zip(runner.outputs, found.values(), wanted, strict=True):
            assert (mine.dtype, mine.shape) == (theirs.dtype, theirs.shape) == (spec.dtype, theirs.shape)
            np.testing.assert_array_equal(mine, theirs)
        given = runner._model.given
        assert given["i"].dtype == given["b"].dtype == np.int32
        assert given["s"].shape == (1,)


@pytest.mark.usefixtures("interpreted")
def test_the_runners_errors(tmp_path: Path) -> None:
    path, signature, _ = package(tmp_path, OPS, INPUTS)
    runner = macos.CoreMLRunner(path, signature)
    with pytest.raises(DataError, match="'i' holds integers outside int32"):
        runner.run({**INPUTS, "i": np.array([2**31, 0])})
    with pytest.raises(DataError, match="'s' is missing"):
        runner.run({name: array for name, array in INPUTS.items() if name != "s"})
    with pytest.raises(DataError, match="no input 'z'"):
        runner.run({**INPUTS, "z": INPUTS["x"]})
    with pytest.raises(DataError, match="'x' is float64"):
        runner.run({**INPUTS, "x": INPUTS["x"].astype(np.float64)})
    with pytest.raises(DataError, match=r"'x' has the shape \[3, 2\]"):
        runner.run({**INPUTS, "x": INPUTS["x"].T})
    with pytest.raises(TargetError, match=r"fails on the inputs: Error computing NN outputs\. \(code -1\)$"):
        runner.run({**INPUTS, "x": INPUTS["x"] + np.float32(1e7)})
    runner.close()
    with pytest.raises(TargetError, match="closed"):
        runner.run(INPUTS)


@not_on_macos
@pytest.mark.parametrize(
    "call",
    [
        lambda path, signature: macos.CoreMLRunner(path, signature),
        lambda path, signature: macos.latency(path, signature, INPUTS),
        lambda path, signature: macos.placement(path),
        lambda path, signature: macos.placement_table(path),
    ],
)
def test_other_systems_are_refused_in_one_sentence(call: Callable[[Path, Signature], Any]) -> None:
    with pytest.raises(TargetError) as refused:
        call(Path("model.mlpackage"), Signature((), ()))
    assert refused.value.what == "model.mlpackage cannot be run here: Core ML exists on macOS only."
    assert refused.value.fix == "Run on macOS, or use the interpreter on this machine."


def test_what_loading_refuses(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(macos, "_on_macos", lambda: True)
    with pytest.raises(TargetError, match="There is no package"):
        macos.load_model(tmp_path / "no.mlpackage", "all")
    with pytest.raises(TargetError, match="Choose one of: all, cpu, cpu-and-gpu, cpu-and-ne"):
        macos.load_model(tmp_path, "npu")


@not_on_macos
def test_what_coremltools_says_becomes_a_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path, _, _ = package(tmp_path, OPS, INPUTS)
    monkeypatch.setattr(macos, "_on_macos", lambda: True)
    with pytest.raises(TargetError, match=r"Core ML does not load .*: This model was not loaded or compiled"):
        macos.load_model(path, "all")


def test_every_option_has_a_compute_unit_of_coremltools() -> None:
    assert tuple(macos.COMPUTE_UNITS) == COMPUTE_UNITS
    assert set(macos.COMPUTE_UNITS.values()) == {unit.name for unit in coremltools().ComputeUnit}


# --- images and class labels ----------------------------------------------------------------------------


@pytest.mark.parametrize(("color", "mode"), [("RGB", "RGB"), ("BGR", "RGB"), ("grayscale", "L")])
def test_image_inputs_become_pictures(tmp_path: Path, color: Any, mode: str) -> None:
    channels = 1 if color == "grayscale" else 3
    pixels = np.random.default_rng(0).integers(0, 256, (1, channels, 2, 4))
    bias = (-1.0, -0.5, 0.25)[:channels]
    x = (pixels / 127.5 + np.reshape(bias, (-1, 1, 1))).astype(np.float32)
    options = CoreMLOptions(image_input=(ImageInput(name="x", color=color, scale=1 / 127.5, bias=bias),))
    path, signature, _ = package(tmp_path, [Op("Relu", ["x"])], {"x": x}, options)
    port = replace(signature.inputs[0], image=ImagePort(1 / 127.5, bias))
    given = features(read_spec(path), replace(signature, inputs=(port,)), {"x": x})["x"]
    assert isinstance(given, Image.Image)
    assert (given.mode, given.size) == (mode, (4, 2))
    shown = np.asarray(given).reshape(2, 4, channels)
    np.testing.assert_array_equal(shown[..., ::-1] if color == "BGR" else shown, pixels[0].transpose(1, 2, 0))


def test_class_probabilities_become_the_models_output(tmp_path: Path) -> None:
    labels = tmp_path / "labels.txt"
    labels.write_text("pear\napple\nfig\n")
    x = normal(1, 3)
    options = CoreMLOptions(class_labels=labels)
    path, signature, wanted = package(tmp_path, [Op("Softmax", ["x"], {"axis": 1})], {"x": x}, options)
    spec = read_spec(path)
    assert class_labels(spec) == ["pear", "apple", "fig"]
    by_label = dict(zip(["pear", "apple", "fig"], wanted[0][0].tolist(), strict=True))
    shuffled = {label: by_label[label] for label in ("fig", "pear", "apple")}
    name = spec.description.predictedProbabilitiesName
    found = arrays(spec, signature, {"classLabel": "fig", name: shuffled})["y0"]
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, wanted[0])


def test_an_output_that_is_not_there(tmp_path: Path) -> None:
    path, signature, _ = package(tmp_path, OPS, INPUTS)
    with pytest.raises(TargetError, match="no output for 'y0'; it returned: other"):
        arrays(read_spec(path), signature, {"other": INPUTS["x"]})


# --- times ----------------------------------------------------------------------------------------------


class Benchmarker:
    """MLModelBenchmarker's methods, with its own result type."""

    async def benchmark_load(self, iterations: int = 1) -> Any:
        return self._measurement([50.0 + i for i in range(iterations)])

    async def benchmark_predict(self, inputs: Any = None, iterations: int = 1, warmup: bool = False) -> Any:
        assert list(inputs) == ["x"]
        assert warmup
        return self._measurement([1.0 + i for i in range(iterations)])

    @staticmethod
    def _measurement(samples: list[float]) -> Any:
        coremltools()
        from coremltools.models.ml_program.experimental.perf_utils import MLModelBenchmarker

        return MLModelBenchmarker.Measurement.from_samples(samples)


def test_times_and_their_percentiles() -> None:
    times = asyncio.run(macos.measure(Benchmarker(), {"x": INPUTS["x"]}, 101, 3))
    assert times.load.milliseconds == (50.0, 51.0, 52.0)
    assert [times.predict.percentile(p) for p in (0, 50, 90, 100)] == [1.0, 51.0, 91.0, 101.0]


# --- placement ------------------------------------------------------------------------------------------

DEVICES = {"ane": "MLNeuralEngineComputeDevice", "gpu": "MLGPUComputeDevice", "cpu": "MLCPUComputeDevice"}


def operation(name: str, unit: str | None, cost: float | None = None, *blocks: Any) -> Any:
    """An operation of a compute plan; what the framework would know of it is in its proxy."""
    coremltools()
    from coremltools.models import compute_plan as cp

    output = cp.MLModelStructureProgramNamedValueType(f"{name}_0", cp.MLModelStructureProgramValueType())
    return cp.MLModelStructureProgramOperation({}, name, [output], list(blocks), (unit, cost))


def block(*operations: Any) -> Any:
    from coremltools.models import compute_plan as cp

    return cp.MLModelStructureProgramBlock([], list(operations), [])


class PlanProxy:
    """What coremltools' MLComputePlan asks Apple's framework."""

    def __init__(self, structure: Any) -> None:
        self.model_structure = structure

    def get_compute_device_usage_for_mlprogram_operation(self, operation: Any) -> Any:
        from coremltools.models import compute_device as cd
        from coremltools.models import compute_plan as cp

        unit, _ = operation.__proxy__
        if unit is None:
            return None
        # the constructors want objects of Apple's framework
        devices = {key: object.__new__(getattr(cd, name)) for key, name in DEVICES.items()}
        return cp.MLComputePlanDeviceUsage(devices[unit], [devices["cpu"], devices[unit]])

    def get_estimated_cost_for_mlprogram_operation(self, operation: Any) -> Any:
        from coremltools.models import compute_plan as cp

        _, cost = operation.__proxy__
        return None if cost is None else cp.MLComputePlanCost(cost)


def plan(*operations: Any) -> Any:
    """A real MLComputePlan over a stand-in for the framework."""
    coremltools()
    from coremltools.models import compute_plan as cp

    function = cp.MLModelStructureProgramFunction([], block(*operations))
    program = cp.MLModelStructureProgram({"main": function})
    made = object.__new__(cp.MLComputePlan)
    made.__proxy__ = PlanProxy(cp.MLModelStructure(None, program, None))
    return made


def test_shares_of_operations_and_of_cost() -> None:
    made = plan(
        operation("const", None),
        operation("conv", "ane", 0.7),
        operation(
            "cond", "cpu", 0.05, block(operation("add", "gpu", 0.1)), block(operation("mul", "ane", 0.1))
        ),
        operation("softmax", "cpu", 0.05),
    )
    found = read_plan(made)
    assert [o.operator for o in found.operations] == ["conv", "cond", "add", "mul", "softmax"]
    assert found.operations[0] == OperationPlacement("conv", ("conv_0",), "ane", ("cpu", "ane"), 0.7)
    assert found.shares() == {"ane_share": 40.0, "gpu_share": 20.0, "cpu_share": 40.0}
    assert found.cost_shares() == pytest.approx({"ane_share": 80.0, "gpu_share": 10.0, "cpu_share": 10.0})


def test_without_estimates_there_are_no_cost_shares() -> None:
    assert read_plan(plan(operation("relu", "cpu"))).cost_shares() is None


def test_plans_that_say_nothing() -> None:
    with pytest.raises(TargetError, match="does not say where any operation runs"):
        read_plan(plan(operation("const", None)))
    with pytest.raises(TargetError, match="not one of an ML program"):
        read_plan(SimpleNamespace(model_structure=SimpleNamespace(program=None)))
    strange = SimpleNamespace(preferred_compute_device=object(), supported_compute_devices=[])
    made = plan(operation("relu", "cpu"))
    made.__proxy__.get_compute_device_usage_for_mlprogram_operation = lambda _: strange
    with pytest.raises(TargetError, match="unknown compute device 'object'"):
        read_plan(made)


def test_shares_add_up() -> None:
    units = ("ane", "ane", "gpu", "cpu", "ane", "cpu", "cpu")
    operations = tuple(OperationPlacement("op", (), unit, (unit,), 0.1) for unit in units)
    assert sum(Placement(operations).shares().values()) == pytest.approx(100)


# --- coremltools has what is called ---------------------------------------------------------------------


def parameters(function: Callable[..., Any]) -> list[str]:
    return list(inspect.signature(function).parameters)


def test_coremltools_has_every_name_with_these_parameters() -> None:
    ct = coremltools()
    from coremltools.models import compute_device as cd
    from coremltools.models import compute_plan as cp
    from coremltools.models.ml_program.experimental.perf_utils import MLModelBenchmarker as Benchmark

    model = ct.models.MLModel
    assert {"model", "compute_units"} <= set(parameters(model))
    assert parameters(model.predict)[:2] == ["self", "data"]
    assert parameters(model.get_spec) == parameters(model.get_compiled_model_path) == ["self"]
    assert parameters(cp.MLComputePlan.load_from_path) == ["path", "compute_units"]
    for name in ("device_usage", "estimated_cost"):
        method = {"device_usage": "get_compute_device_usage", "estimated_cost": "get_estimated_cost"}[name]
        assert parameters(getattr(cp.MLComputePlan, f"{method}_for_mlprogram_operation")) == [
            "self",
            "operation",
        ]
    assert isinstance(cp.MLComputePlan.model_structure, property)
    assert all(hasattr(cd, name) for name in DEVICES.values())
    assert parameters(Benchmark)[0] == "model"
    assert parameters(Benchmark.benchmark_load) == ["self", "iterations"]
    assert parameters(Benchmark.benchmark_predict) == ["self", "inputs", "iterations", "warmup"]
    assert inspect.iscoroutinefunction(Benchmark.benchmark_load)
    assert inspect.iscoroutinefunction(Benchmark.benchmark_predict)


def test_a_budget_on_a_share_is_judged_by_the_measured_one(monkeypatch: pytest.MonkeyPatch) -> None:
    table = read_plan(plan(*(operation("relu", unit) for unit in ("ane", "ane", "gpu", "cpu", "cpu"))))
    monkeypatch.setattr(macos, "placement_table", lambda _path, _units: table)
    shares = macos.placement(Path("model.mlpackage"))
    assert shares == pytest.approx({"ane_share": 0.4, "gpu_share": 0.2, "cpu_share": 0.4})
    found = Measurements()
    found.add(*(Measurement(name, value, unit="share") for name, value in shares.items()))
    budgets = [parse_budget("ane_share >= 90%"), parse_budget("ane_share >= 40%")]
    assert [verdict.passed for verdict in judge(budgets, found)] == [False, True]
