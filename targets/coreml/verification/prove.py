"""All checks of a written package, from the evidence beside it."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeq.calibration.types import Array, Arrays
from edgeq.compiler.model import Model
from edgeq.targets.base import Check
from edgeq.targets.coreml.files import PACKAGE
from edgeq.targets.coreml.runner import InterpreterRunner
from edgeq.targets.coreml.settings import Settings
from edgeq.targets.coreml.verification.contents import package_contents
from edgeq.targets.coreml.verification.explain import culprit, differences, explain, sensitivity
from edgeq.targets.coreml.verification.rebuilt import first_difference
from edgeq.targets.numbers import (
    FLOAT32_TOLERANCE,
    Distance,
    distance,
    exact_check,
    half_check,
)
from edgeq.targets.reference import REFERENCE, Reference, load_reference, load_samples

# The last bits of all float operations of a net, against those of its inputs alone.
AMPLIFIED = 10


def prove(folder: Path) -> list[Check]:
    """Check the package in the artefact ``folder`` against its reference model and samples.

    Raises:
        ModelError: the package or the evidence is damaged.
        TargetError: the package holds what the interpreter does not know.
    """
    settings = Settings.read(folder)
    samples = load_samples(folder)
    # one thread: ONNX Runtime splits sums by the number of threads, and then their last bits differ
    reference = Reference(folder / REFERENCE, threads=1)
    wanted = [reference.run(sample) for sample in samples]
    model = load_reference(folder)
    checks = [_contents(folder / PACKAGE)]
    with tempfile.TemporaryDirectory(prefix="edgeq-coreml-") as temporary:
        exact = folder / PACKAGE
        if settings.arithmetic != "float32":
            exact = _float32_build(model, settings, Path(temporary))
        checks.append(_exact(model, exact, _Wanted(reference, samples, wanted), settings))
    if settings.arithmetic == "float16":
        found = distance(wanted, _outputs(folder / PACKAGE, samples), floats_only=True)
        rounded = settings.scheme == "int8-static"
        checks.append(half_check(found, settings.sampled_from, rounded=rounded))
    return checks


def prove_again(folder: Path) -> list[Check]:
    """:func:`prove`, and that building the package again from its reference gives the same program.

    Raises:
        ModelError: the package or the evidence is damaged.
        TargetError: the package holds what the interpreter does not know.
    """
    return [_rebuilt(folder), *prove(folder)]


def _rebuilt(folder: Path) -> Check:
    from edgeq.targets.coreml.build import write

    settings = Settings.read(folder)
    wanted = "every operation and constant as built from the reference model"
    with tempfile.TemporaryDirectory(prefix="edgeq-coreml-") as temporary:
        again = Path(temporary) / PACKAGE
        write(load_reference(folder), settings, again)
        found = first_difference(folder / PACKAGE, again)
    return Check("program", not found, found or "every operation and constant as built again", wanted)


def _outputs(package: Path, samples: Sequence[Arrays]) -> list[dict[str, Array]]:
    with InterpreterRunner(package) as runner:
        return [runner.run(sample) for sample in samples]


def _float32_build(model: Model, settings: Settings, folder: Path) -> Path:
    from edgeq.targets.coreml.build import write

    write(model, settings, folder / PACKAGE, "float32")
    return folder / PACKAGE


@dataclass(frozen=True)
class _Wanted:
    """The reference session, its inputs and its results."""

    reference: Reference
    samples: Sequence[Arrays]
    results: Sequence[Arrays]


def _exact(model: Model, package: Path, wanted: _Wanted, settings: Settings) -> Check:
    found = distance(wanted.results, _outputs(package, wanted.samples))
    return exact_check(found, _why(found, model, package, wanted), settings.sampled_from)


def _why(found: Distance, model: Model, package: Path, wanted: _Wanted) -> tuple[str, str]:
    """Why the numbers differ although the package is right, and where they go wrong when it is not."""
    if found.tolerable:
        return "", ""
    with InterpreterRunner(package) as runner:
        signature = runner.signature
    moves = sensitivity(wanted.reference, wanted.samples, wanted.results)
    if not found.wrong and found.relative <= AMPLIFIED * moves:
        return f"ONNX Runtime's own result moves by {moves:.1g} when inputs change in their last bit", ""
    # every sample for itself: one may be rounded as in ONNX Runtime where another is not
    seen = [differences(model, package, signature, [sample]) for sample in wanted.samples]
    beyond = [d for d in seen if any(x.rounds or x.relative > FLOAT32_TOLERANCE for x in d)]
    reasons = [explain(d) for d in beyond]
    explained = reasons[0] if reasons and all(reasons) else ""
    return explained, next((where for d in beyond if (where := culprit(d))), "")


def _contents(package: Path) -> Check:
    contents = package_contents(package)
    stored = [f"{found.tensors} {name}" for name, found in contents.weights.items()]
    rounded = sum(contents.roundings.get("quantize", {}).values())
    text = f"weights: {', '.join(stored) or 'none'}; quantized activations: {rounded}"
    small = contents.small_scales
    if small:
        text = f"the scale of {small[0].operation!r} is {small[0].scale:.3g}"
    return Check("contents", not small, text, "no scale below the normal numbers of float16 (6.1e-5)")
