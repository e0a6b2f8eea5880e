"""What is checked of an artefact: its weights, its logits, and that onnxruntime-genai generates with it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgeq.calibration.types import Array, Arrays
from edgeq.targets.base import Check
from edgeq.targets.language.files import EXPECTED
from edgeq.targets.language.prove import REFERENCE, VALUES, values_check
from edgeq.targets.language.values import values_sha256
from edgeq.targets.numbers import distance, exact_check, reordered_sums, rounded_check
from edgeq.targets.onnxruntime_genai.runner import GenaiRunner
from edgeq.targets.onnxruntime_genai.settings import GenaiSettings
from edgeq.targets.onnxruntime_genai.stored import StoredGraph
from edgeq.targets.reference import load_samples

# Tokens that are generated, and how far below the likeliest one a generated token may be, relative to the
# largest logit: sums are ordered otherwise for single tokens. Level 4 rounds activations besides.
_NEW_TOKENS = 8
_TIE = {0: 1e-4, 4: 2e-2}


def prove(folder: Path, threads: int | None) -> list[Check]:
    """Compare the artefact in ``folder`` with its evidence.

    Raises:
        ModelError: the artefact is damaged.
        TargetError: ONNX Runtime or onnxruntime-genai cannot run it.
    """
    settings = GenaiSettings.read(folder)
    samples, wanted = load_samples(folder), load_samples(folder, EXPECTED)
    checks = [_weights(folder, settings)] if settings.layers else []
    runner = GenaiRunner(folder, threads=threads)
    try:
        checks.append(_numbers(runner, samples, wanted, settings))
        checks.append(_generation(runner, samples[0]["input_ids"][0], settings))
    finally:
        runner.close()
    return checks


def _weights(folder: Path, settings: GenaiSettings) -> Check:
    graph = StoredGraph(folder)
    if set(graph.layers) != set(settings.layers):
        other = sorted(set(graph.layers) ^ set(settings.layers))[0]
        return Check("weights", False, f"{other!r} is quantized in one of graph and settings only", VALUES)
    wrong = [n for n, layer in settings.layers.items() if values_sha256(graph.values(n)) != layer.sha256]
    return values_check(wrong, len(settings.layers))


def _numbers(
    runner: GenaiRunner, samples: Sequence[Arrays], wanted: Sequence[Arrays], settings: GenaiSettings
) -> Check:
    got = [
        {"logits": runner.run(sample)["logits"][:, -expected["logits"].shape[1] :]}
        for sample, expected in zip(samples, wanted, strict=True)
    ]
    found = distance(wanted, got)
    if settings.accuracy_level == 4:
        return rounded_check(found, settings.sampled_from, REFERENCE)
    return exact_check(found, (reordered_sums(found), ""), settings.sampled_from, REFERENCE)


def _generation(runner: GenaiRunner, ids: Array, settings: GenaiSettings) -> Check:
    """Whether onnxruntime-genai chooses what the logits of ONNX Runtime say, token by token."""
    # One token of the context stays free: onnxruntime-genai asks for it.
    prompt = ids[: max(len(ids) - _NEW_TOKENS - 1, 1)]
    made = runner.generate(prompt, _NEW_TOKENS)
    wanted = "the likeliest token at every step"
    text = np.concatenate([prompt, made]).astype(np.int64)
    logits = runner.run({"input_ids": text[None]})["logits"][0, len(prompt) - 1 : -1]
    best, chosen = logits.max(axis=-1), logits[np.arange(len(made)), made]
    below = (best - chosen) / np.abs(logits).max()
    wrong = np.flatnonzero(below > _TIE[settings.accuracy_level])
    if len(wrong) or not len(made):
        step = int(wrong[0]) + 1 if len(wrong) else 1
        return Check("generation", False, f"another token at step {step} of {_NEW_TOKENS}", wanted)
    return Check("generation", True, f"{len(made)} tokens of onnxruntime-genai are the likeliest", wanted)
