"""Whether a PyTorch program computes what the ONNX model does that all other targets compile."""

from __future__ import annotations

from collections.abc import Sequence

from edgeq.calibration.types import Array, Arrays
from edgeq.compiler.model import Model
from edgeq.targets.base import Check
from edgeq.targets.numbers import distance, exact_check
from edgeq.targets.reference import REFERENCE, Reference

# Sums in another order: programs of this size leave 85 dB and more between one and another implementation.
_SQNR = 80.0


def same_as_graph(
    model: Model, samples: Sequence[Arrays], results: Sequence[dict[str, Array]], sampled_from: str
) -> Check:
    """Compare the program's ``results`` of ``samples`` with those of its ONNX model in ONNX Runtime."""
    from pathlib import Path
    from tempfile import TemporaryDirectory

    from edgeq.compiler.model import save

    with TemporaryDirectory(prefix="edgeq-reference-") as name:
        path = Path(name) / REFERENCE
        save(model, path)
        reference = Reference(path)
        wanted = [reference.run(sample) for sample in samples]
    found = distance(wanted, list(results))
    close = f"{found.sqnr:.0f} dB, as float sums in another order leave"
    explained = close if not found.wrong and found.sqnr >= _SQNR else ""
    check = exact_check(found, (explained, ""), sampled_from, "the ONNX model of the same source")
    return Check("program", check.passed, check.found, check.wanted)
