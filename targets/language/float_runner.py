"""The checkpoint that artefacts are compared with, in float32."""

from __future__ import annotations

from pathlib import Path

from edgeq.targets.language.model import build_model
from edgeq.targets.language.runner import LanguageRunner


def open_float(path: Path, *, threads: int | None = None) -> LanguageRunner:
    """The model in ``path``; raises ModelError."""
    from edgeq.compiler.load.checkpoint import Checkpoint

    checkpoint = Checkpoint(path)
    model = build_model(path, checkpoint.architecture, list(checkpoint.tensors), checkpoint.read)
    return LanguageRunner(model, threads=threads)
