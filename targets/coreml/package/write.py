"""From a lowered program to an ``.mlpackage`` on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from edgeq.targets.coreml.frontend.lower import Lowered
from edgeq.targets.coreml.toolkit import coremltools

Arithmetic = Literal["float16", "float32"]


def write_package(lowered: Lowered, path: Path, *, ios: int, arithmetic: Arithmetic = "float16") -> Any:
    """Write ``path`` (``….mlpackage``) and return coremltools' MLModel of it (not loaded)."""
    ct = coremltools()
    model = ct.convert(
        lowered.program,
        source="milinternal",
        convert_to="mlprogram",
        minimum_deployment_target=getattr(ct.target, f"iOS{ios}"),
        compute_precision=ct.precision.FLOAT16 if arithmetic == "float16" else ct.precision.FLOAT32,
        skip_model_load=True,
    )
    model.save(str(path))
    return model
