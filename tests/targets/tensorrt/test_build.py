"""What ends a build before the compiler sees the model, and what the compiler is asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeq.errors import TargetError
from edgeq.targets.base import Finding, Outcome
from edgeq.targets.tensorrt.backend.request import BuildRequest
from edgeq.targets.tensorrt.build import refuse
from edgeq.targets.tensorrt.files import measured_model
from edgeq.targets.tensorrt.options import TensorRTOptions
from edgeq.targets.tensorrt.settings import Settings
from tests.support.tensorrt import sizes


def finding(outcome: Outcome, node: str) -> Finding:
    return Finding("a-rule", outcome, node, "Conv", f"it is what {outcome!r} means", f"Mend {node}.")


@pytest.mark.parametrize("outcome", ["fails", "wrong"])
def test_what_would_not_be_the_model_is_refused(outcome: Outcome) -> None:
    found = [finding("note", "first"), finding(outcome, "second"), finding(outcome, "third")]
    with pytest.raises(TargetError) as refused:
        refuse(found)
    assert refused.value.what == (
        f"TensorRT cannot take Conv 'second': it is what {outcome!r} means (and 1 more: edgeq lint)."
    )
    assert refused.value.fix == "Mend second."


def test_what_only_costs_time_is_built() -> None:
    refuse([finding("float", "first"), finding("slow", "second"), finding("note", "third")])


def test_every_option_of_the_compiler_is_in_the_request(tmp_path: Path) -> None:
    """Of what is stored, so that the same engine can be built again."""
    options = TensorRTOptions(
        weight_streaming=True, optimization_level=2, workspace_mb=64, timing_cache=tmp_path / "times"
    )
    profiles = ({"x": sizes((1, 3), (2, 3), (4, 3))},)
    settings = Settings(
        backend="tensorrt", version="10.9", scheme="fp16", sm=(86,), profiles=profiles, options=options
    )
    settings.write(tmp_path)
    asked = Settings.read(tmp_path).request(tmp_path, engine=True)
    assert asked == BuildRequest(
        backend="tensorrt",
        model=tmp_path / "model.onnx",
        engine=tmp_path / "model.engine",
        sm=(86,),
        profiles=profiles,
        weight_streaming=True,
        optimization_level=2,
        workspace_mb=64,
        timing_cache=tmp_path / "times",
    )
    assert settings.request(tmp_path, engine=False).engine is None


def test_accuracy_is_that_of_the_reference_where_there_is_one(tmp_path: Path) -> None:
    """ONNX Runtime has few bfloat16 kernels: such an artefact has a model of its own to measure."""
    (tmp_path / "model.onnx").touch()
    assert measured_model(tmp_path).name == "model.onnx"
    (tmp_path / "reference.onnx").touch()
    assert measured_model(tmp_path).name == "reference.onnx"
