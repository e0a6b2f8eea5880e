"""The target ``gguf``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from edgeq.errors import MissingExtraError
from edgeq.targets.base import Availability, BuildJob, BuildResult, Check, NodeResult, Runner
from edgeq.targets.capabilities import Capabilities
from edgeq.targets.language.target import CheckpointTarget

if TYPE_CHECKING:
    from edgeq.compiler.model import Model
    from edgeq.compiler.plan import Plan
    from edgeq.compiler.recipe import Recipe
    from edgeq.targets.base import Quantizer
    from edgeq.targets.gguf.options import GgufOptions


class GgufTarget(CheckpointTarget):
    """One file for llama.cpp, Ollama and what is built on them."""

    name = "gguf"
    title = "GGUF (llama.cpp, Ollama)"
    extra: str | None = "gguf"
    packages = ("gguf", "transformers", "torch", "tokenizers")

    def availability(self) -> Availability:
        """Ready without llama.cpp, which runs the files and makes K- and IQ-quants."""
        from edgeq.targets.gguf.llama import installed_version

        found = super().availability()
        if not found.ready:
            return found
        llama = installed_version()
        if llama is None:
            return Availability(True, f"{found.detail}; without llama-cpp-python (extra llama-cpp)")
        return Availability(True, f"{found.detail}, llama-cpp-python {llama}")

    def capabilities(self, options: GgufOptions | None = None) -> Capabilities:
        from edgeq.targets.gguf.capabilities import capabilities_of

        return capabilities_of(None if options is None else options.file_type)

    def options(self, given: Mapping[str, str], recipe: Recipe) -> GgufOptions:
        """The type of the file; see ``docs/gguf.md``."""
        from edgeq.targets.gguf.options import parse_options

        return parse_options(given, recipe)

    def check_model(self, model: Model, options: GgufOptions) -> None:
        """Refuse models and tokenizers that llama.cpp has not; raises TargetError."""
        super().check_model(model, options)
        try:
            import gguf  # noqa: F401 (the first use of the package, which may be there and not load)
        except ImportError as error:
            raise MissingExtraError("Writing GGUF files", "gguf") from error
        from edgeq.targets.gguf.convert import Conversion

        Conversion.of(Path(model.source.location))

    def quantizer(self, options: GgufOptions) -> Quantizer | None:
        """A plan without rounding for types that are made from floats; None: edgeq quantizes."""
        if options.file_type.maker == "codes":
            return None
        from edgeq.targets.gguf.floats import float_quantizer

        return float_quantizer(options.file_type)

    def build(self, job: BuildJob, folder: Path) -> BuildResult:
        """Write ``model.gguf``, and prove it; raises TargetError."""
        from edgeq.targets.gguf.build import build_file

        return build_file(job, folder)

    def verify(self, folder: Path, plan: Plan) -> list[NodeResult]:
        """The type of every layer in the file; raises ModelError."""
        from edgeq.targets.gguf.verify import verify_file

        return verify_file(folder, plan)

    def check(self, folder: Path, *, threads: int | None = None) -> list[Check]:
        """The tokenizer and the numbers again."""
        from edgeq.targets.gguf.prove import prove

        return prove(folder, threads)

    def runner(self, folder: Path, *, threads: int | None = None) -> Runner:
        """llama.cpp where llama-cpp-python is installed, else the file's values in PyTorch."""
        from edgeq.targets.gguf.files import MODEL
        from edgeq.targets.gguf.llama import is_installed

        if is_installed():
            from edgeq.targets.gguf.runner import LlamaRunner

            return LlamaRunner(folder / MODEL, threads=threads)
        from edgeq.targets.gguf.read import open_reference

        return open_reference(folder, threads=threads)

    def runner_kind(self) -> str:
        from edgeq.targets.gguf.llama import is_installed

        if is_installed():
            return "runtime"
        return "PyTorch on the file's dequantized values; llama-cpp-python is not installed"
