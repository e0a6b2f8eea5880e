"""The target ``neural-compressor``: PyTorch programs in INT8 through Intel Neural Compressor (x86 CPUs)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeq.targets.base import Availability, BuildJob, BuildResult, Check, Measurable, NodeResult, Runner
from edgeq.targets.capabilities import Capabilities

# Only types: a fresh process that opens a runner must not pay for importing the compiler.
if TYPE_CHECKING:
    from edgeq.compiler.model import Model
    from edgeq.compiler.plan import Plan
    from edgeq.compiler.quantize.dispatch import Request
    from edgeq.compiler.quantize.result import Quantized
    from edgeq.compiler.recipe import Recipe, Scheme
    from edgeq.targets.base import Quantizer
    from edgeq.targets.neural_compressor.options import NeuralCompressorOptions

_INSTALL = "pip install 'edgeq[inc]'"


class NeuralCompressorTarget:
    """A package of machine code that PyTorch loads without tracing, or a folder of INT4 weights."""

    name = "neural-compressor"
    title = "Intel Neural Compressor (PyTorch, CPU)"
    extra: str | None = "inc"

    def availability(self) -> Availability:
        from importlib.metadata import PackageNotFoundError, version

        try:
            found = version("neural-compressor")
        except PackageNotFoundError:
            return Availability(False, "neural-compressor is not installed", _INSTALL)
        return Availability(True, f"neural-compressor {found}, PyTorch {version('torch')}, CPU")

    def capabilities(self, options: NeuralCompressorOptions | None = None) -> Capabilities:
        from edgeq.targets.neural_compressor.capabilities import CAPABILITIES

        return CAPABILITIES

    def options(self, given: Mapping[str, str], recipe: Recipe) -> NeuralCompressorOptions:
        """See ``docs/neural-compressor.md``."""
        from edgeq.targets.neural_compressor.options import parse_options

        options = parse_options(given)
        options.refuse_unused(recipe.scheme)
        if recipe.scheme != "int4-weight":
            from edgeq.targets.neural_compressor.compiler import require_compiler

            require_compiler()
        return options

    def lint(self, model: Model, options: Any) -> None:
        """None: the target takes no quantized ONNX models."""

    def check_model(self, model: Model, options: NeuralCompressorOptions) -> None:
        """Refuse models that PyTorch did not make; raises TargetError."""
        from edgeq.targets.neural_compressor.program import refuse_onnx

        refuse_onnx(model)

    def quantizer(self, options: NeuralCompressorOptions) -> Quantizer:
        """The model as it is: the build quantizes the PyTorch program."""

        def unchanged(request: Request) -> Quantized:
            from edgeq.compiler.plan import Plan
            from edgeq.compiler.quantize.result import Quantized

            return Quantized(request.model, Plan())

        return unchanged

    def build(self, job: BuildJob, folder: Path) -> BuildResult:
        """Quantize and compile the program; raises TargetError."""
        from edgeq.targets.neural_compressor.build import build

        return build(job, folder)

    def verify(self, folder: Path, plan: Plan) -> list[NodeResult]:
        """What PyTorch's compiler made of every planned node; raises TargetError."""
        from edgeq.targets.neural_compressor.verify import verify

        return verify(folder, plan)

    def check(self, folder: Path, *, threads: int | None = None) -> list[Check]:
        """The artefact's numbers against what it was compiled from."""
        from edgeq.targets.neural_compressor.prove import prove_again

        return prove_again(folder, threads)

    def measurable(self) -> Measurable:
        """Everything."""
        return Measurable(frozenset({"size", "load", "latency", "memory", "accuracy"}))

    def shares(self, folder: Path) -> Mapping[str, float]:
        """None: everything runs on the CPU."""
        return {}

    def runner(self, folder: Path, *, threads: int | None = None) -> Runner:
        """The artefact in ``folder``; raises TargetError."""
        from edgeq.targets.neural_compressor.runner import open_runner

        return open_runner(folder, threads=threads)

    def machine_note(self, scheme: Scheme) -> str | None:
        """None: what runs in INT8 is in the table of nodes."""
        return None

    def runner_kind(self) -> str:
        return "runtime"
