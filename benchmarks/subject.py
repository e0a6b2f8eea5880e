"""What is measured: a model, its target and its threads, as a value that a fresh process can be given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, cast

from edgeq.errors import UsageError

if TYPE_CHECKING:  # Fresh processes start in half the time without what the contract imports.
    from edgeq.targets.base import Runner


@dataclass(frozen=True)
class Subject:
    """A model to measure: the artefact, or its FP32 baseline.

    Attributes:
        target: a registered target, or ``module:callable`` that is called as ``callable(path, threads=n)``.
        path: the artefact folder; for the target ``onnxruntime`` also any ``.onnx`` file.
        files: the files that ship, relative to the folder; left out where ``path`` is an ``.onnx`` file,
            which ships with its external data.
        threads: of the runtime, None for every CPU that this process may use.
        states: a folder for what its runner has computed, where the runner can keep that (for accuracy).
    """

    target: str
    path: Path
    files: tuple[str, ...] = ()
    threads: int | None = None
    states: Path | None = None

    def open(self) -> Runner:
        """Load it.

        Raises:
            UsageError: unknown target, or the callable cannot be imported.
            TargetError: the runtime cannot load it.
        """
        if ":" in self.target:
            return _imported(self.target)(self.path, threads=self.threads)
        if self.path.suffix == ".onnx":
            return self._open_onnx()
        from edgeq.targets.registry import get_target

        return get_target(self.target).runner(self.path, threads=self.threads)

    def _open_onnx(self) -> Runner:
        if self.target != "onnxruntime":
            raise UsageError(
                f"Target {self.target!r} cannot run {self.path.name}.",
                fix="Give the artefact folder, or run .onnx files with the target onnxruntime.",
            )
        from edgeq.targets.onnxruntime.runner import OnnxRuntimeRunner

        return OnnxRuntimeRunner(self.path, threads=self.threads)


def require_same_threads(artefact: Subject, baseline: Subject | None) -> None:
    """Raises UsageError where two models that are compared have different numbers of threads."""
    if baseline is None or baseline.threads == artefact.threads:
        return
    raise UsageError(
        f"The artefact has {artefact.threads} threads and the baseline {baseline.threads}.",
        fix="Give both the same number.",
    )


def _imported(spec: str) -> Callable[..., Runner]:
    module, _, name = spec.partition(":")
    try:
        return cast("Callable[..., Runner]", getattr(import_module(module), name))
    except (ImportError, AttributeError, ValueError) as error:
        raise UsageError(
            f"The runner {spec!r} cannot be imported: {error}.", fix="Give module:callable."
        ) from error
