"""The target ``coreml``: ``.mlpackage`` for iOS and macOS, verified on any machine."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeq.targets.base import Availability, BuildJob, BuildResult, Check, Measurable, NodeResult, Runner
from edgeq.targets.capabilities import Capabilities
from edgeq.targets.coreml.files import PACKAGE

# Only types: a fresh process that opens a runner must not pay for importing the compiler.
if TYPE_CHECKING:
    from edgeq.compiler.model import Model
    from edgeq.compiler.plan import Plan
    from edgeq.compiler.recipe import Recipe, Scheme
    from edgeq.targets.coreml.options import CoreMLOptions

_INSTALL = "pip install 'edgeq[coreml]'"
_ONLY_MACOS = "Core ML runs on macOS; on this machine the package is verified by an interpreter"


class CoreMLTarget:
    """Core ML packages (ML programs, iOS 16 and later) written by coremltools from our own lowering."""

    name = "coreml"
    title = "Core ML"
    extra: str | None = "coreml"

    def availability(self) -> Availability:
        from importlib.metadata import PackageNotFoundError, version

        try:
            found = version("coremltools")
        except PackageNotFoundError:
            return Availability(False, "coremltools is not installed", _INSTALL)
        where = "runs packages" if _on_macos() else "builds and verifies packages (running them needs macOS)"
        return Availability(True, f"coremltools {found}, {where}")

    def capabilities(self, options: CoreMLOptions | None = None) -> Capabilities:
        from edgeq.targets.coreml.capabilities import CAPABILITIES, SYMMETRIC

        return SYMMETRIC if options is not None and options.activations == "symmetric" else CAPABILITIES

    def options(self, given: Mapping[str, str], recipe: Recipe) -> CoreMLOptions:
        """Deployment target, dimensions, image inputs, class labels, metadata; see ``docs/coreml.md``."""
        from edgeq.targets.coreml.options import parse_options

        options = parse_options(given)
        options.ios(recipe.scheme)
        options.refuse_unused(recipe.scheme)
        return options

    def lint(self, model: Model, options: Any) -> None:
        """None: what the target cannot run is found by its build alone."""

    def check_model(self, model: Model, options: CoreMLOptions) -> None:
        """Refuse sizes of dimensions that ``model`` does not have; raises ConfigError."""
        from edgeq.targets.dimensions import refuse_unknown

        refuse_unknown(model, options.dimensions)

    def quantizer(self, options: Any) -> None:
        """None: edgeq quantizes."""

    def build(self, job: BuildJob, folder: Path) -> BuildResult:
        """Write ``model.mlpackage`` and the evidence that proves it; raises TargetError."""
        from edgeq.targets.coreml.build import build

        return build(job, folder)

    def verify(self, folder: Path, plan: Plan) -> list[NodeResult]:
        """Read the written spec; raises ModelError when it is damaged."""
        from edgeq.targets.coreml.interpreter.program import read_package
        from edgeq.targets.coreml.verification.precision import node_results
        from edgeq.targets.reference import load_reference

        return node_results(read_package(folder / PACKAGE), load_reference(folder).ir, plan)

    def check(self, folder: Path, *, threads: int | None = None) -> list[Check]:
        """The program built again, its contents, its numbers in float32 and in float16.

        They are computed in one thread whatever ``threads`` says: sums are split by the number of threads,
        and then their last bits differ.
        """
        from edgeq.targets.coreml.verification.prove import prove_again

        return prove_again(folder)

    def measurable(self) -> Measurable:
        """Everything on macOS, else what does not need Apple's runtime."""
        if _on_macos():
            return Measurable(frozenset({"size", "load", "latency", "memory", "placement", "accuracy"}))
        return Measurable(frozenset({"size", "accuracy"}), _ONLY_MACOS)

    def shares(self, folder: Path) -> Mapping[str, float]:
        """Share of the operations on each compute unit, from ``MLComputePlan``; empty where not on macOS."""
        if not _on_macos():
            return {}
        from edgeq.targets.coreml.macos import placement
        from edgeq.targets.coreml.settings import Settings

        return placement(folder / PACKAGE, Settings.read(folder).options.compute_units)

    def runner(self, folder: Path, *, threads: int | None = None) -> Runner:
        """``MLModel.predict`` on macOS, elsewhere the interpreter (``threads`` are numpy's own there)."""
        if not _on_macos():
            from edgeq.targets.coreml.runner import InterpreterRunner

            return InterpreterRunner(folder / PACKAGE)
        from edgeq.targets.coreml.macos import CoreMLRunner
        from edgeq.targets.coreml.package.metadata import read_metadata
        from edgeq.targets.coreml.settings import Settings

        signature = read_metadata(folder / PACKAGE).signature
        assert signature is not None, "every artefact's package was written by edgeq"
        return CoreMLRunner(folder / PACKAGE, signature, Settings.read(folder).options.compute_units)

    def machine_note(self, scheme: Scheme) -> str | None:
        """Nothing: a package runs on another machine."""
        return None

    def runner_kind(self) -> str:
        if _on_macos():
            return "runtime"
        from edgeq.targets.coreml.runner import KIND

        return KIND


def _on_macos() -> bool:
    return sys.platform == "darwin"
