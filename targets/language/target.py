"""What all targets that store language models as checkpoints have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from edgeq.errors import TargetError, UnknownOptionError
from edgeq.targets.base import Availability, Check, Measurable, NodeResult

if TYPE_CHECKING:
    from edgeq.compiler.model import Model
    from edgeq.compiler.plan import Plan
    from edgeq.compiler.recipe import Recipe, Scheme
    from edgeq.targets.base import Quantizer


# Options of recipes that formats have no use for.
NO_KERNELS: Mapping[str, str] = MappingProxyType({"accuracy_level": "it is of kernels of ONNX Runtime"})


class CheckpointTarget(ABC):
    """The parts of :class:`edgeq.targets.base.Target` that do not differ between formats of checkpoints.

    A format adds ``name``, ``title``, ``extra``, ``capabilities``, ``build``, ``runner``, and ``check``.
    ``packages``: the distributions that building and running need.
    """

    name: str
    title: str
    extra: str | None
    packages: tuple[str, ...] = ()

    def availability(self) -> Availability:
        found = []
        for package in self.packages:
            try:
                found.append(f"{package} {version(package)}")
            except PackageNotFoundError:
                return Availability(
                    False, f"{package} is not installed", f"pip install 'edgeq[{self.extra}]'"
                )
        return Availability(True, ", ".join(found))

    def options(self, given: Mapping[str, str], recipe: Recipe) -> Any:
        """None: the format has no options of its own."""
        for key in given:
            raise UnknownOptionError(f"The target {self.name!r} has no option {key!r}.", fix="Leave it out.")

    def lint(self, model: Model, options: Any) -> None:
        """None: the target takes no quantized ONNX models."""
        return

    def check_model(self, model: Model, options: Any) -> None:
        """Refuse what is no checkpoint; raises TargetError."""
        if not model.is_checkpoint:
            raise TargetError(
                f"Target {self.name!r} stores language models, and {model.source.location} is a graph.",
                fix="Give the Hugging Face folder of the model.",
            )

    def quantizer(self, options: Any) -> Quantizer | None:
        """None: edgeq's methods quantize."""
        return None

    @abstractmethod
    def verify(self, folder: Path, plan: Plan) -> list[NodeResult]:
        """What the files hold of every planned layer; raises TargetError."""

    @abstractmethod
    def check(self, folder: Path, *, threads: int | None = None) -> list[Check]:
        """The artefact's numbers against what it was compiled from; raises ModelError."""

    def measurable(self) -> Measurable:
        """Everything."""
        return Measurable(frozenset({"size", "load", "latency", "generation", "memory", "accuracy"}))

    def shares(self, folder: Path) -> Mapping[str, float]:
        """None: everything runs on the CPU."""
        return {}

    def machine_note(self, scheme: Scheme) -> str | None:
        """None: checkpoints are run by engines elsewhere."""
        return None

    def runner_kind(self) -> str:
        return "runtime"
