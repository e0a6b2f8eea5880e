"""The target ``tensorrt``: engines for NVIDIA GPUs, by TensorRT or ahead of time by TensorRT for RTX."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from edgeq.targets.base import (
    Availability,
    BuildJob,
    BuildResult,
    Check,
    Finding,
    Measurable,
    NodeResult,
    Runner,
)
from edgeq.targets.capabilities import Capabilities
from edgeq.targets.tensorrt.files import measured_model

# Only types: a fresh process that opens a runner must not pay for importing the compiler.
if TYPE_CHECKING:
    from edgeq.compiler.model import Model
    from edgeq.compiler.plan import Plan
    from edgeq.compiler.recipe import Recipe, Scheme
    from edgeq.targets.tensorrt.options import TensorRTOptions

_NEEDS_GPU = (
    "an engine runs on an NVIDIA GPU, and this machine has none; accuracy is that of the quantized model it "
    "was built from, in ONNX Runtime on the CPU"
)


class TensorRTTarget:
    """TensorRT 10, 11 and TensorRT for RTX: one explicitly quantized, strongly typed network for all."""

    name = "tensorrt"
    title = "NVIDIA TensorRT"
    extra: str | None = "tensorrt-rtx"

    def availability(self) -> Availability:
        from edgeq.targets.tensorrt.backend.choose import availability

        return availability()

    def capabilities(self, options: TensorRTOptions | None = None) -> Capabilities:
        from edgeq.targets.tensorrt.capabilities import capabilities
        from edgeq.targets.tensorrt.options import TensorRTOptions

        return capabilities(options or TensorRTOptions())

    def options(self, given: Mapping[str, str], recipe: Recipe) -> TensorRTOptions:
        """Backend, compute capabilities, precision of the rest, dimensions; see ``docs/tensorrt.md``."""
        from edgeq.targets.tensorrt.backend.choose import compute_capabilities
        from edgeq.targets.tensorrt.options import parse_options
        from edgeq.targets.tensorrt.scheme_needs import refuse_older

        options = parse_options(given)
        options.refuse_unused(recipe.scheme)
        refuse_older(recipe.scheme, compute_capabilities(options))
        return options

    def lint(self, model: Model, options: TensorRTOptions) -> list[Finding]:
        """Every rule of explicit quantization that ``model`` breaks, without building."""
        from edgeq.targets.tensorrt.backend.choose import compute_capabilities
        from edgeq.targets.tensorrt.lint.run import lint

        return lint(model, options, compute_capabilities(options))

    def check_model(self, model: Model, options: TensorRTOptions) -> None:
        """Refuse sizes of dimensions that ``model`` does not have, and a backend that is not here."""
        from edgeq.targets.dimensions import refuse_unknown
        from edgeq.targets.tensorrt.backend.choose import choose

        choose(options)
        refuse_unknown(model, options.dimensions)

    def quantizer(self, options: TensorRTOptions) -> None:
        """None: edgeq quantizes."""

    def build(self, job: BuildJob, folder: Path) -> BuildResult:
        """Write the engine, its layer table and the ONNX model it came from; raises TargetError."""
        from edgeq.targets.tensorrt.build import build

        return build(job, folder)

    def verify(self, folder: Path, plan: Plan) -> list[NodeResult]:
        """Read the compiler's layer table."""
        from edgeq.targets.tensorrt.build import verify

        return verify(folder, plan)

    def check(self, folder: Path, *, threads: int | None = None) -> list[Check]:
        """Build the engine again and compare the layer tables."""
        from edgeq.targets.tensorrt.build import check_again

        return check_again(folder)

    def measurable(self) -> Measurable:
        """Everything on a machine with a GPU, else size and accuracy."""
        from edgeq.targets.tensorrt.gpu.device import present

        if present():
            return Measurable(frozenset({"size", "load", "latency", "memory", "accuracy"}))
        return Measurable(frozenset({"size", "accuracy"}), _NEEDS_GPU)

    def shares(self, folder: Path) -> Mapping[str, float]:
        """None: everything runs on the GPU."""
        return {}

    def runner(self, folder: Path, *, threads: int | None = None) -> Runner:
        """The engine on a GPU; without one, the quantized ONNX model in ONNX Runtime on the CPU."""
        from edgeq.targets.tensorrt.gpu.device import present

        if present():
            from edgeq.targets.tensorrt.gpu.runner import EngineRunner

            return EngineRunner(folder)
        from edgeq.targets.onnxruntime.runner import OnnxRuntimeRunner

        return OnnxRuntimeRunner(measured_model(folder), threads=threads, in_float=True)

    def machine_note(self, scheme: Scheme) -> str | None:
        """Nothing: an engine usually runs on another machine."""
        return None

    def runner_kind(self) -> str:
        from edgeq.targets.tensorrt.gpu.device import present

        return "runtime" if present() else "the quantized ONNX model in ONNX Runtime CPU, not the engine"
