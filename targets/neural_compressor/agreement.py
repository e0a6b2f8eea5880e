"""Whether a PyTorch program computes what the ONNX model does that all other targets compile."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from edgeq.calibration.types import Array, Arrays
from edgeq.compiler.model import Model, save
from edgeq.targets.base import Check
from edgeq.targets.numbers import distance, exact_check, reordered_sums
from edgeq.targets.reference import REFERENCE, Reference


def same_as_graph(
    model: Model, samples: Sequence[Arrays], results: Sequence[dict[str, Array]], sampled_from: str
) -> Check:
    """Compare the program's ``results`` of ``samples`` with those of its ONNX model in ONNX Runtime."""
    with TemporaryDirectory(prefix="edgeq-reference-") as name:
        path = Path(name) / REFERENCE
        save(model, path)
        reference = Reference(path)
        wanted = [reference.run(sample) for sample in samples]
    found = distance(wanted, list(results))
    why = (reordered_sums(found), "")
    check = exact_check(found, why, sampled_from, "the ONNX model of the same source")
    return Check("program", check.passed, check.found, check.wanted)
