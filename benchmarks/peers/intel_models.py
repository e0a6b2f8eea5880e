"""The labelled models for CPUs: every file of ``labelled.py``, and those that PyTorch runs.

Targets that take PyTorch models get the same source and the same arrays as the others.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from labelled import CALIBRATION_SAMPLES, DATA, SETS, Arrays, _sst2

ROOT = Path(__file__).resolve().parents[2]
DIGITS = ROOT / "build" / "digits"
WINDOW = 256
# The first tokens of the held-out books are judged, windows from further on calibrate.
JUDGED_TOKENS, FIRST_CALIBRATION_TOKEN, CALIBRATION_WINDOWS = 40_000, 100_000, 64


@dataclass(frozen=True)
class IntelModel:
    """A source, calibration inputs, evaluation inputs (with ``label``) and the metric that judges them."""

    source: str | Path
    calibration: Arrays
    evaluation: Arrays
    metric: str
    task: str = "classification"

    def feed(self) -> Arrays:
        """One sample without its label."""
        return {name: values[:1] for name, values in self.evaluation.items() if name != "label"}


def _labelled(name: str) -> IntelModel:
    data = SETS[name]()
    return IntelModel(data.model, data.calibration, data.labelled_evaluation(), data.metric)


def _minilm() -> IntelModel:
    calibration, _ = _sst2("train.tsv", CALIBRATION_SAMPLES)
    evaluation, labels = _sst2("test.tsv")
    source = DATA / "models" / "minilm-sst2"
    return IntelModel(source, calibration, {**evaluation, "label": labels}, "f1")


def _books() -> IntelModel:
    os.environ["HF_HUB_OFFLINE"] = "1"
    from transformers import AutoTokenizer

    source = DATA / "models" / "books-llama"
    text = (DATA / "text" / "books-valid.txt").read_text()
    encoded = AutoTokenizer.from_pretrained(source)(text, add_special_tokens=False, verbose=False)
    tokens = np.array(encoded["input_ids"], np.int64)
    judged = _windows(tokens[:JUDGED_TOKENS])
    calibration = _windows(tokens[FIRST_CALIBRATION_TOKEN:])[:CALIBRATION_WINDOWS]
    return IntelModel(source, _decoder(calibration), _decoder(judged), "perplexity", "language-model")


def _windows(
    tokens: np.ndarray[tuple[int], np.dtype[np.int64]],
) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
    return tokens[: len(tokens) // WINDOW * WINDOW].reshape(-1, WINDOW)


def _decoder(ids: np.ndarray[tuple[int, int], np.dtype[np.int64]]) -> Arrays:
    positions = np.broadcast_to(np.arange(WINDOW), ids.shape).copy()
    return {"input_ids": ids, "attention_mask": np.ones_like(ids), "position_ids": positions}


def _digits() -> IntelModel:
    calibration = dict(np.load(DIGITS / "calibration.npz"))
    evaluation = dict(np.load(DIGITS / "evaluation.npz"))
    return IntelModel("examples.digits.network:trained", calibration, evaluation, "top1")


MODELS: dict[str, Callable[[], IntelModel]] = {
    **{name: partial(_labelled, name) for name in SETS if name != "minilm-sst2"},
    "digits": _digits,
    "minilm-sst2": _minilm,
    "books-llama": _books,
}
