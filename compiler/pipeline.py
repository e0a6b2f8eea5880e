"""The whole way of a model from its loaded form to the native files, as one function."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from edgeq.calibration.types import Array, Arrays, Batch, DataSource
from edgeq.compiler.load.checkpoint import Checkpoint
from edgeq.compiler.model import Model
from edgeq.compiler.normalize import Normalized, normalize
from edgeq.compiler.normalize.equivalence import Equivalence, check_equivalent
from edgeq.compiler.plan import Plan
from edgeq.compiler.quantize.dispatch import Request, quantize
from edgeq.compiler.quantize.result import Quantized
from edgeq.compiler.recipe import Recipe
from edgeq.compiler.weights.finite import largest_values, refuse_beyond
from edgeq.compiler.weights.layerwise import quantize_checkpoint
from edgeq.compiler.weights.rules import refuse_unjudged
from edgeq.compiler.weights.store import WeightStore
from edgeq.errors import StrictError
from edgeq.progress import Progress
from edgeq.targets.base import BuildJob, BuildResult, NodeResult, Quantizer, Target

# Normalizing is compared on this many real samples: a wrong rewrite shows on the first.
EQUIVALENCE_SAMPLES = 2
# A target's build compares the numbers of what it has written on this many.
BUILD_SAMPLES = 4


@dataclass(frozen=True)
class Compiled:
    """What every step of the way returned."""

    normalized: Normalized
    equivalence: Equivalence | None
    quantized: Quantized
    build: BuildResult
    nodes: list[NodeResult]

    @property
    def notes(self) -> list[str]:
        """Everything the steps want the user to know, in the order of the way."""
        return [
            *self.normalized.notes,
            *self.quantized.notes,
            *self.quantized.plan.notes,
            *self.build.notes,
        ]


@dataclass(frozen=True)
class Prepared:
    """A model on the part of its way that all targets share: loaded, with its data, and normalized.

    ``largest``: the largest magnitude of every tensor of a checkpoint.
    ``finished``: the quantized weights of checkpoints that a build has written; formats may share them.
    """

    original: Model
    normalized: Normalized
    equivalence: Equivalence | None
    calibration: DataSource | None
    evaluation: DataSource | None
    largest: dict[str, float] = field(default_factory=dict)
    finished: dict[Path, WeightStore] = field(default_factory=dict)

    def discard(self) -> None:
        """Remove the weights of checkpoints from the disk: they are in artefacts now."""
        while self.finished:
            self.finished.popitem()[1].remove()


def prepare(
    original: Model, calibration: DataSource | None, evaluation: DataSource | None, progress: Progress
) -> Prepared:
    """Normalize ``original``; a checkpoint has no graph that could be.

    Raises:
        ModelError: normalizing would change the model's results, or a checkpoint's weights are no numbers.
    """
    if original.is_checkpoint:
        largest = largest_values(Checkpoint(Path(original.source.location)), progress)
        unchanged = Normalized(original, [])
        return Prepared(original, unchanged, None, calibration, evaluation, largest)
    normalized = normalize(original)
    samples = None if calibration is None else _singles(original, calibration, EQUIVALENCE_SAMPLES)
    equivalence = check_equivalent(original, normalized.model, samples, progress)
    return Prepared(original, normalized, equivalence, calibration, evaluation)


def compile_model(
    prepared: Prepared,
    target: Target,
    recipe: Recipe,
    folder: Path,
    *,
    work: Path,
    options: Any,
    strict: bool,
    threads: int | None,
    progress: Progress,
) -> Compiled:
    """Quantize and build a model into ``folder``, then ask the runtime what it really runs.

    ``work`` keeps what a killed run has finished of a checkpoint.

    Raises:
        DataError: the calibration data is missing or cannot be used.
        TargetError: the target cannot do what the recipe asks; with ``strict`` also when it did less.
    """
    normalized, calibration, evaluation = prepared.normalized, prepared.calibration, prepared.evaluation
    request = Request(normalized.model, target.capabilities(options), recipe, calibration, threads, progress)
    if prepared.original.is_checkpoint:
        refuse_unjudged(recipe, data=calibration is not None or evaluation is not None)
    accept = partial(_accept, prepared, request, strict)
    quantized = _quantized(request, target.quantizer(options), work, accept)
    sampled, origin = build_samples(quantized.model, calibration, evaluation)
    job = BuildJob(
        quantized.model,
        quantized.plan,
        recipe,
        options,
        sampled,
        origin,
        data=calibration or evaluation,
        original=prepared.original,
        weights=quantized.weights,
        calibration=calibration,
        evaluation=evaluation,
        threads=threads,
        progress=progress,
    )
    build = target.build(job, folder)
    if build.plan is not None:
        quantized = replace(quantized, plan=build.plan)
    nodes = target.verify(folder, quantized.plan)
    if strict:
        refuse_missed(nodes)
    if quantized.weights is not None:
        prepared.finished[quantized.weights.folder] = quantized.weights
    return Compiled(normalized, prepared.equivalence, quantized, build, nodes)


def _quantized(
    request: Request, own: Quantizer | None, work: Path, accept: Callable[[Plan], None]
) -> Quantized:
    """By the target's own methods, or by edgeq's for graphs or checkpoints."""
    if not request.model.is_checkpoint:
        return (own or quantize)(request)
    if own is None:
        return quantize_checkpoint(request, work, accept)
    planned = own(request)
    accept(planned.plan)
    return planned


def _accept(prepared: Prepared, request: Request, strict: bool, plan: Plan) -> None:
    """Refuse a plan for a checkpoint that will not do, before its work.

    Raises:
        StrictError: with ``strict``, when layers that were to be quantized would stay float.
        TargetError: the format cannot hold the model's values.
    """
    if strict:
        refuse_float(plan)
    rules = request.capabilities.weights
    assert rules is not None
    checkpoint = Checkpoint(Path(request.model.source.location))
    refuse_beyond(checkpoint, prepared.largest, plan, rules, request.capabilities.target)


def build_samples(
    model: Model, calibration: DataSource | None, evaluation: DataSource | None
) -> tuple[tuple[Arrays, ...], str]:
    """Inputs of a few single inferences from the data that was given, and where they come from."""
    for source, origin in ((calibration, "calibration"), (evaluation, "evaluation")):
        if source is not None:
            found = tuple(batch.inputs for batch in _singles(model, source, BUILD_SAMPLES))
            return found, f"{len(found)} samples of the {origin} data"
    return (), ""


def _singles(model: Model, source: DataSource, limit: int) -> Iterator[Batch]:
    """Single samples, repeated along the first axis of inputs that take a fixed number of them at a time."""
    fixed = {spec.name: spec.fixed_batch for spec in model.inputs}
    for batch in source.batches(1, limit):
        inputs = {name: _repeated(array, batch.size, fixed.get(name)) for name, array in batch.inputs.items()}
        yield Batch(inputs, batch.labels, batch.size)


def _repeated(array: Array, size: int, fixed: int | None) -> Array:
    # Samples that are whole inputs, of models without a batch axis, have the model's sizes already.
    if fixed is None or fixed <= size or array.shape[:1] != (size,):
        return array
    repeated: Array = array[np.arange(fixed) % size]
    return repeated


def refuse_float(plan: Plan) -> None:
    """Raise when a layer was asked to be quantized and is planned in float.

    Raises:
        StrictError: naming the first layers, and why.
    """
    refuse_missed(
        [
            NodeResult(node.name, node.op_type, node.precision, node.precision, "", node.reason, node.asked)
            for node in plan.nodes.values()
        ]
    )


def refuse_missed(nodes: list[NodeResult]) -> None:
    """Raise when a node was asked to be quantized and is not.

    Raises:
        StrictError: naming the first nodes, what they run as, and why.
    """
    missed = [n for n in nodes if n.missed or (n.asked and n.planned in ("fp32", "fp16"))]
    if not missed:
        return
    shown = "; ".join(f"{n.op_type} {n.name!r} runs in {n.actual}: {n.reason}" for n in missed[:3])
    more = f" (and {len(missed) - 3} more)" if len(missed) > 3 else ""
    raise StrictError(
        f"--strict: {len(missed)} node(s) asked to be quantized are not: {shown}{more}.",
        fix="Exclude them in the recipe (--exclude NODE) or compile without --strict.",
    )
