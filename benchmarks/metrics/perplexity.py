"""Perplexity of language models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from edgeq.benchmarks.metrics.base import Metric, Scores
from edgeq.calibration.types import Array, Arrays, Batch, DataSource, TensorSpec
from edgeq.errors import DataError, UsageError

# Logits that are widened to float64 at a time, so that large vocabularies do not multiply memory.
_ELEMENTS = 1 << 22


class Perplexity(Metric):
    """exp of the mean negative log-likelihood (nat) per predicted token; lower is better.

    Logits ``[N, T, V]`` at position t predict token t+1 of the same window, so a window of T tokens has T-1
    predictions. Positions where ``attention_mask`` is 0 do not count. A sample is a window; intervals
    resample windows. Token ids are the input ``input_ids``, else the only two-dimensional integer input.
    """

    name = "perplexity"
    higher_is_better = False
    tasks: ClassVar[frozenset[str] | None] = frozenset({"language-model"})

    def check(self, source: DataSource, outputs: Sequence[TensorSpec]) -> None:
        super().check(source, outputs)
        spec = self.output_spec(outputs)
        if spec.shape is not None:
            self._require_logits(spec.name, spec.shape)

    def scores(self, outputs: Arrays, batch: Batch, baseline: Arrays | None) -> Scores:
        """[samples, 2]: summed nll of the window's predicted tokens, and their number."""
        logits = self.select(outputs)
        name = self.output if self.output is not None else next(iter(outputs))
        self._require_logits(name, logits.shape)
        ids = token_ids(batch)
        if logits.shape[:2] != ids.shape:
            raise UsageError(
                f"Metric 'perplexity' needs logits for every token: output {name!r} has shape "
                f"{list(logits.shape)} for token ids of shape {list(ids.shape)}.",
                fix="Export the model without reducing its logits to the last token.",
            )
        if ids.size and not 0 <= ids.min() <= ids.max() < logits.shape[2]:
            raise DataError(
                f"Token id {int(ids.max())} is beyond the model's vocabulary of {logits.shape[2]}.",
                fix="Use the tokenizer that belongs to the model.",
            )
        keep = _predicted(batch, ids)
        rows = [_window_nll(logits[i, :-1], ids[i, 1:], keep[i]) for i in range(len(ids))]
        return np.stack([np.asarray(rows), keep.sum(axis=1)], axis=1).astype(np.float64)

    def aggregate(self, scores: Scores) -> float:
        nll, tokens = scores.sum(axis=0)
        if tokens == 0:
            raise DataError("Perplexity has no token to predict.", fix="Use windows of two tokens or more.")
        # exp overflows beyond 709; a model that bad has a perplexity of "too large to matter".
        return float(np.exp(min(nll / tokens, 700.0)))

    def _require_logits(self, output: str, shape: Sequence[int | str | None]) -> None:
        if len(shape) == 3:
            return
        raise UsageError(
            f"Metric 'perplexity' needs logits [samples, tokens, vocabulary], "
            f"but output {output!r} has {len(shape)} dimensions.",
            fix="Name the output that holds the logits.",
        )


def token_ids(batch: Batch) -> Array:
    """The token ids [samples, tokens] of a batch.

    Raises:
        UsageError: no input, or more than one, can be them.
    """
    ids = batch.inputs.get("input_ids")
    if ids is not None:
        return ids
    auxiliary = ("attention_mask", "position_ids", "token_type_ids")
    candidates = [
        name
        for name, array in batch.inputs.items()
        if array.ndim == 2 and np.issubdtype(array.dtype, np.integer) and name not in auxiliary
    ]
    if len(candidates) != 1:
        raise UsageError(
            "Metric 'perplexity' cannot tell which input holds the token ids.", fix="Name it input_ids."
        )
    return batch.inputs[candidates[0]]


def _predicted(batch: Batch, ids: Array) -> Array:
    mask = batch.inputs.get("attention_mask")
    if mask is None:
        return np.ones((len(ids), max(ids.shape[1] - 1, 0)), dtype=bool)
    # With a cache the mask also covers past tokens; the last T entries belong to this window.
    own = mask[:, -ids.shape[1] :] != 0
    return np.asarray(own[:, 1:] & own[:, :-1])


def _window_nll(logits: Array, targets: Array, keep: Array) -> float:
    """Summed nll (nat) of one window, in float64."""
    rows = max(1, _ELEMENTS // logits.shape[1])
    parts = (slice(start, start + rows) for start in range(0, len(logits), rows))
    return float(sum((_nll(logits[part], targets[part]) * keep[part]).sum() for part in parts))


def _nll(logits: Array, targets: Array) -> Array:
    wide = logits.astype(np.float64)
    peak = wide.max(axis=1, keepdims=True)
    norm = np.log(np.exp(wide - peak).sum(axis=1)) + peak[:, 0]
    own = np.take_along_axis(wide, targets.astype(np.int64)[:, None], axis=1)[:, 0]
    return np.asarray(norm - own)
