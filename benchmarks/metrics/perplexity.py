"""Perplexity of language models."""

from __future__ import annotations

import numpy as np

from edgeq.benchmarks.metrics.base import Scores
from edgeq.benchmarks.metrics.windows import MeanOfPredictions, parts, predicted
from edgeq.calibration.types import Array, Arrays, Batch
from edgeq.errors import DataError


class Perplexity(MeanOfPredictions):
    """exp of the mean negative log-likelihood (nat) per predicted token; lower is better."""

    name = "perplexity"
    higher_is_better = False

    def scores(self, outputs: Arrays, batch: Batch, baseline: Arrays | None) -> Scores:
        """[samples, 2]: summed nll of the window's predicted tokens, and their number."""
        ids = self.token_ids(batch)
        logits = self.logits(outputs, ids)
        if ids.size and not 0 <= ids.min() <= ids.max() < logits.shape[2]:
            raise DataError(
                f"Token id {int(ids.max())} is beyond the model's vocabulary of {logits.shape[2]}.",
                fix="Use the tokenizer that belongs to the model.",
            )
        nll = np.stack([_nll(logits[i, :-1], ids[i, 1:]) for i in range(len(ids))])
        return self.rows(nll, predicted(batch, ids))

    def value(self, totals: Scores) -> float:
        # exp overflows beyond 709; a model that bad has a perplexity of "too large to matter".
        return float(np.exp(min(self.mean(totals), 700.0)))


def _nll(logits: Array, targets: Array) -> Array:
    """The nll (nat) of every target, float64 [tokens]."""
    found = np.empty(len(logits))
    for part in parts(*logits.shape):
        wide = logits[part].astype(np.float64)
        own = np.take_along_axis(wide, targets[part].astype(np.int64)[:, None], axis=1)[:, 0]
        peak = wide.max(axis=1, keepdims=True)
        wide -= peak
        np.exp(wide, out=wide)
        found[part] = np.log(wide.sum(axis=1)) + peak[:, 0] - own
    return found
