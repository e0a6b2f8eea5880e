"""The target ``openvino``: OpenVINO IR for Intel (and other x86 and ARM) CPUs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeq.targets.base import Availability, BuildJob, BuildResult, Check, Measurable, NodeResult
from edgeq.targets.capabilities import Capabilities
from edgeq.targets.openvino.runner import OpenVINORunner

# Only types: a fresh process that opens a runner must not pay for importing the compiler.
if TYPE_CHECKING:
    from edgeq.compiler.model import Model
    from edgeq.compiler.plan import Plan
    from edgeq.compiler.recipe import Recipe, Scheme
    from edgeq.targets.base import Quantizer
    from edgeq.targets.openvino.options import OpenVINOOptions

_INSTALL = "pip install 'edgeq[openvino]'"


class OpenVINOTarget:
    """OpenVINO's CPU plugin; the artefact is an IR of two files, small as the quantized model is."""

    name = "openvino"
    title = "OpenVINO (CPU)"
    extra: str | None = "openvino"

    def availability(self) -> Availability:
        from importlib.metadata import PackageNotFoundError, version

        try:
            found = version("openvino")
        except PackageNotFoundError:
            return Availability(False, "openvino is not installed", _INSTALL)
        return Availability(True, f"openvino {found}, CPU")

    def capabilities(self, options: OpenVINOOptions | None = None) -> Capabilities:
        from edgeq.targets.openvino.capabilities import CAPABILITIES, NNCF_CAPABILITIES

        return NNCF_CAPABILITIES if options is not None and options.quantizer == "nncf" else CAPABILITIES

    def options(self, given: Mapping[str, str], recipe: Recipe) -> OpenVINOOptions:
        """Mode, precision of the arithmetic, form of float weights, dimensions; see ``docs/openvino.md``."""
        from edgeq.targets.openvino.options import parse_options

        options = parse_options(given)
        options.refuse_unused(recipe.scheme)
        if options.quantizer == "nncf":
            from edgeq.targets.openvino.nncf.library import require_nncf
            from edgeq.targets.openvino.nncf.parameters import refuse

            refuse(recipe, options)
            require_nncf()
        return options

    def lint(self, model: Model, options: Any) -> None:
        """None: what the target cannot run is found by its build alone."""

    def check_model(self, model: Model, options: OpenVINOOptions) -> None:
        """Refuse sizes of dimensions that ``model`` does not have; raises ConfigError."""
        from edgeq.targets.dimensions import refuse_unknown

        refuse_unknown(model, options.dimensions)

    def quantizer(self, options: OpenVINOOptions) -> Quantizer | None:
        """NNCF where the options say so; None: edgeq quantizes."""
        if options.quantizer == "edgeq":
            return None
        from edgeq.targets.openvino.nncf.quantizer import nncf_quantizer

        return nncf_quantizer(options)

    def build(self, job: BuildJob, folder: Path) -> BuildResult:
        """Write ``model.xml``, ``model.bin`` and the evidence that proves them; raises TargetError."""
        from edgeq.targets.openvino.build import build

        return build(job, folder)

    def verify(self, folder: Path, plan: Plan) -> list[NodeResult]:
        """Read OpenVINO's execution graph; raises TargetError when the model does not compile."""
        from edgeq.targets.openvino.verify import verify

        return verify(folder, plan)

    def check(self, folder: Path, *, threads: int | None = None) -> list[Check]:
        """The files written again, and their numbers."""
        from edgeq.targets.openvino.prove import prove_again

        return prove_again(folder, threads)

    def measurable(self) -> Measurable:
        """Everything."""
        return Measurable(frozenset({"size", "load", "latency", "memory", "accuracy"}))

    def shares(self, folder: Path) -> Mapping[str, float]:
        """None: everything runs on the CPU."""
        return {}

    def runner(self, folder: Path, *, threads: int | None = None) -> OpenVINORunner:
        """The compiled IR in ``folder``; raises TargetError."""
        return OpenVINORunner(folder, threads=threads)

    def machine_note(self, scheme: Scheme) -> str | None:
        """None: what runs in INT8 is in the table of nodes."""
        return None

    def runner_kind(self) -> str:
        return "runtime"
