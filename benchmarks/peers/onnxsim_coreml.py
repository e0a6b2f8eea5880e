"""The peer ``onnxsim.export_coreml`` on the same cases, its packages run by the same interpreter."""

from __future__ import annotations

import io
import shutil
import tempfile
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import onnx

from edgeq.calibration.types import Array
from tests.support.coreml_cases import Case, Outcome, difference_of


def run_peer_case(case: Case) -> Outcome:
    """Convert by onnxsim, interpret, compare."""
    folder = Path(tempfile.mkdtemp(prefix="edgeq-peer-"))
    try:
        return _run(case, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _run(case: Case, folder: Path) -> Outcome:
    try:
        convert(case.model, folder / "model.mlpackage")
    except Exception as error:  # noqa: BLE001  whatever it raises is its refusal
        return Outcome(case, "refused", f"{type(error).__name__}: {error}"[:200])
    try:
        results = _interpret(case, folder / "model.mlpackage")
    except Exception as error:  # noqa: BLE001  a package that cannot be run is counted apart
        return Outcome(case, "error", f"{type(error).__name__}: {error}"[:200])
    difference = difference_of(case, results)
    return Outcome(case, "wrong" if difference else "passed", difference)


def convert(model: onnx.ModelProto, path: Path) -> None:
    """``onnxsim.simplify`` and ``export_coreml`` in float32 for iOS 18, without its chatter."""
    import coremltools as ct
    import onnxsim

    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        model, _ = onnxsim.simplify(model)
        package = onnxsim.export_coreml(
            model, minimum_deployment_target=ct.target.iOS18, compute_precision=ct.precision.FLOAT32
        )
        package.save(str(path))


def _interpret(case: Case, path: Path) -> dict[str, Array]:
    from edgeq.targets.coreml.interpreter.engine import Interpreter
    from edgeq.targets.coreml.interpreter.program import read_package

    program = read_package(path)
    named = dict(zip((feature.name for feature in program.inputs), case.inputs.values(), strict=True))
    feeds = {
        feature.name: _as(named[feature.name], feature.dtype, feature.shape) for feature in program.inputs
    }
    found = Interpreter(program).run(feeds)
    results = [found[feature.name] for feature in program.outputs]
    wanted = case.outputs
    return {
        name: array.astype(expected.dtype).reshape(
            expected.shape if array.size == expected.size else array.shape
        )
        for (name, expected), array in zip(wanted.items(), results, strict=True)
    }


def _as(array: Array, dtype: str, shape: tuple[int, ...]) -> Array:
    return np.asarray(array).astype(dtype).reshape(shape)
