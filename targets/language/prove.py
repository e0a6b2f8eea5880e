"""What is checked of a written folder: every layer's values, and what the consumer's reload computes.

The reference is the model with edgeq's dequantized weights, in float32. It is computed before the folder is
loaded, its weights read one module at a time, and its logits are kept as evidence: two models are never in
memory together, and the artefact can be proved again without what it was made of.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgeq.calibration.types import Array, Arrays
from edgeq.targets.base import BuildJob, Check
from edgeq.targets.language.files import EXPECTED
from edgeq.targets.language.format import Format
from edgeq.targets.language.model import ReadTensor
from edgeq.targets.language.read import float32_bytes, layer_shapes
from edgeq.targets.language.runner import LanguageRunner
from edgeq.targets.language.settings import LanguageSettings
from edgeq.targets.language.stored import StoredFolder
from edgeq.targets.language.streamed import streamed_model
from edgeq.targets.language.values import values_sha256
from edgeq.targets.numbers import distance, exact_check, reordered_sums, rounded_check
from edgeq.targets.reference import SAMPLES, load_samples, save_samples

VALUES = "the values that edgeq has quantized to, in every layer"
REFERENCE = "edgeq's dequantized weights in float32"
# Texts and tokens that numbers are compared on, and how many logits of each text are kept as evidence.
_TEXTS, _TOKENS, _LOGITS = 2, 64, 1 << 18
# A model that its consumer loads whole, in float32, is run up to this size.
RELOADED_BYTES = 6 << 30


def save_reference(
    job: BuildJob, form: Format | None, read: ReadTensor, folder: Path
) -> tuple[tuple[str, ...], str]:
    """Write token ids and the reference's logits into ``folder``; the files, and whose ids they are.

    ``read`` gives the values of the checkpoint's tensors as the artefact has them. ``form`` matters where
    its engines round inputs.

    Raises:
        ModelError: the checkpoint's configuration and tensors do not fit.
    """
    assert job.weights is not None
    checkpoint = job.weights.checkpoint
    ids, sampled_from = _sample(job, int(checkpoint.config["vocab_size"]))
    model = streamed_model(checkpoint.path, checkpoint.architecture, list(checkpoint.tensors), read)
    if form is not None and form.rounds_inputs:
        _round_inputs(model, form, job.weights.layers)
    expected = _last(LanguageRunner(model, threads=job.threads).run({"input_ids": ids})["logits"])
    files = (
        save_samples([{"input_ids": ids}], folder, SAMPLES),
        save_samples([{"logits": expected}], folder, EXPECTED),
    )
    return files, sampled_from


def prove(folder: Path, form: Format, threads: int | None) -> list[Check]:
    """Compare the values of every layer in the folder and the logits that its consumer computes.

    Raises:
        ModelError: the artefact is damaged.
        TargetError: the consumer cannot run it.
    """
    settings = LanguageSettings.read(folder)
    wanted, samples = load_samples(folder, EXPECTED), load_samples(folder)
    return [_layers(folder, form, settings), _numbers(folder, form, wanted, samples, settings, threads)]


def _layers(folder: Path, form: Format, settings: LanguageSettings) -> Check:
    stored = StoredFolder(folder)
    wrong = [
        name
        for name, (spec, shape) in layer_shapes(settings).items()
        if values_sha256(form.read(stored, name, spec, shape)) != settings.layers[name].sha256
    ]
    return values_check(wrong, len(settings.layers))


def values_check(wrong: Sequence[str], count: int) -> Check:
    """The check of ``count`` layers' values; those of the layers ``wrong`` are others."""
    text = f"{wrong[0]!r} and {len(wrong) - 1} more have others" if wrong else f"those of all {count} layers"
    return Check("weights", not wrong, text, VALUES)


def _numbers(
    folder: Path,
    form: Format,
    wanted: Sequence[Arrays],
    samples: Sequence[Arrays],
    settings: LanguageSettings,
    threads: int | None,
) -> Check:
    runner = form.streamed(folder, threads=threads)
    if runner is None:
        size = float32_bytes(StoredFolder(folder), settings)
        if size > RELOADED_BYTES:
            text = f"not compared: {form.proved_by} would take {size / 2**30:.0f} GiB of memory"
            return Check("numbers", None, text, f"the numbers of {REFERENCE}")
        runner = form.open(folder, threads=threads)
    try:
        got = [{"logits": _last(runner.run(sample)["logits"])} for sample in samples]
    finally:
        runner.close()
    found = distance(wanted, got)
    if form.rounds_inputs:
        return rounded_check(found, settings.sampled_from, REFERENCE)
    return exact_check(found, (reordered_sums(found), ""), settings.sampled_from, REFERENCE)


def _round_inputs(model: Any, form: Format, layers: Sequence[str]) -> None:
    def rounded(_: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return (form.round_inputs(args[0]), *args[1:])

    for name in layers:
        model.get_submodule(name).register_forward_pre_hook(rounded)


def _last(logits: Array) -> Array:
    """Of every text the last positions, as many as are kept."""
    kept = max(_LOGITS // logits.shape[-1], 1)
    return np.ascontiguousarray(logits[:, -kept:])


def _sample(job: BuildJob, vocabulary: int) -> tuple[Any, str]:
    """int64 [texts, tokens], and where they come from."""
    texts = [sample["input_ids"].reshape(-1) for sample in job.samples if "input_ids" in sample][:_TEXTS]
    length = min((len(text) for text in texts), default=0)
    if not length:
        ids = np.random.default_rng(0).integers(0, vocabulary, (_TEXTS, _TOKENS), dtype=np.int64)
        return ids, f"{_TEXTS} texts of random tokens"
    ids = np.stack([text[: min(length, _TOKENS)] for text in texts]).astype(np.int64)
    return ids, f"{len(texts)} texts from the {_origin(job)}"


def _origin(job: BuildJob) -> str:
    return "calibration data" if "calibration" in job.sampled_from else "evaluation data"
