"""The target ``onnxruntime``: ONNX Runtime on the CPU."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeq.targets.base import Availability, BuildJob, BuildResult, Check, Measurable, NodeResult
from edgeq.targets.capabilities import Capabilities
from edgeq.targets.onnxruntime.files import MODEL_FILE
from edgeq.targets.onnxruntime.runner import OnnxRuntimeRunner

# Only types: a fresh process that opens a runner must not pay for importing the compiler.
if TYPE_CHECKING:
    from edgeq.compiler.model import Model
    from edgeq.compiler.plan import Plan
    from edgeq.compiler.recipe import Recipe, Scheme
    from edgeq.targets.onnxruntime.options import OnnxRuntimeOptions


class OnnxRuntimeTarget:
    """ONNX Runtime with its default CPU kernels (MLAS).

    The artefact is a QDQ or float ONNX file, with operators of ONNX Runtime's own where they are faster.
    """

    name = "onnxruntime"
    title = "ONNX Runtime (CPU)"
    extra: str | None = None

    def availability(self) -> Availability:
        try:
            import onnxruntime as ort
        except ImportError as error:
            return Availability(False, f"onnxruntime cannot be imported: {error}", "pip install onnxruntime")
        if "CPUExecutionProvider" not in ort.get_available_providers():
            return Availability(
                False, f"onnxruntime {ort.__version__} has no CPU provider", "pip install onnxruntime"
            )
        return Availability(True, f"onnxruntime {ort.__version__}, CPU")

    def capabilities(self, options: OnnxRuntimeOptions | None = None) -> Capabilities:
        from edgeq.targets.onnxruntime.capabilities import CAPABILITIES

        return CAPABILITIES

    def options(self, given: Mapping[str, str], recipe: Recipe) -> OnnxRuntimeOptions:
        """Whether kernels are fused; raises UnknownOptionError, or ConfigError for what is no value."""
        from edgeq.targets.onnxruntime.options import parse_options

        return parse_options(given)

    def lint(self, model: Model, options: Any) -> None:
        """None: what the target cannot run is found by its build alone."""

    def check_model(self, model: Model, options: Any) -> None:
        """Nothing: its options fit every model."""

    def quantizer(self, options: Any) -> None:
        """None: edgeq quantizes."""

    def build(self, job: BuildJob, folder: Path) -> BuildResult:
        """Write ``model.onnx`` (and its data file) and what proves it into ``folder``; raises TargetError."""
        from edgeq.targets.onnxruntime.build import build

        return build(job, folder)

    def verify(self, folder: Path, plan: Plan) -> list[NodeResult]:
        """Read ONNX Runtime's own optimized graph; raises TargetError when the model does not load."""
        from edgeq.targets.onnxruntime.verify import verify

        return verify(folder / MODEL_FILE, plan)

    def check(self, folder: Path, *, threads: int | None = None) -> list[Check]:
        """Whether ONNX Runtime loads the model, and the numbers of fused kernels; raises TargetError."""
        from edgeq.targets.onnxruntime.prove import prove

        return prove(folder, threads)

    def measurable(self) -> Measurable:
        """Everything."""
        return Measurable(frozenset({"size", "load", "latency", "memory", "accuracy"}))

    def shares(self, folder: Path) -> Mapping[str, float]:
        """None: everything runs on the CPU."""
        return {}

    def runner(self, folder: Path, *, threads: int | None = None) -> OnnxRuntimeRunner:
        """A session on the artefact in ``folder``; raises TargetError."""
        return OnnxRuntimeRunner(folder / MODEL_FILE, threads=threads)

    def machine_note(self, scheme: Scheme) -> str | None:
        """Whether INT8 kernels pay on this CPU, from a probe of about half a second."""
        if scheme not in ("int8-static", "int8-dynamic"):
            return None
        from edgeq.targets.onnxruntime.probe import probe

        return probe().sentence

    def runner_kind(self) -> str:
        return "runtime"
