"""How far a language model's predictions are from its FP32 baseline's, over the whole vocabulary."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any
from weakref import ref

import numpy as np

from edgeq.benchmarks.metrics.base import Metric, Scores
from edgeq.benchmarks.metrics.windows import MeanOfPredictions, WindowMetric, parts, predicted
from edgeq.calibration.types import Array, Arrays, Batch
from edgeq.errors import InternalError, UsageError

# Bins of the histogram of divergences: so many for each doubling, from 2**LOWEST to 2**HIGHEST nat. A bin is
# 2**(1/16) = 1.044 wide, which bounds the error of a percentile. Below are rounding errors of the logits.
PER_DOUBLING, LOWEST, HIGHEST = 16, -27, 8
BINS = (HIGHEST - LOWEST) * PER_DOUBLING
PERCENTILE = 0.99


@dataclass
class Divergences:
    """The divergences of the last batch, for several metrics that read the same outputs of it."""

    _known: tuple[Callable[[], object], ...] = ()
    _found: Array = field(default_factory=lambda: np.empty(0))

    def of(self, ours: Array, theirs: Array, batch: Batch) -> Array:
        """KL(theirs ‖ ours) in nat of all positions but the last: float64 [N, T-1]."""
        key = (ours, theirs, batch)
        if [known() is one for known, one in zip(self._known, key, strict=False)] != [True] * len(key):
            # Weak, since the outputs of a batch are large and the next batch needs their memory.
            self._known = tuple(map(ref, key))
            self._found = np.stack([kl(a[:-1], b[:-1]) for a, b in zip(ours, theirs, strict=True)])
        return self._found


class Divergence(WindowMetric):
    """Base: a metric of both models' predictions at the same positions."""

    higher_is_better = False
    needs_baseline = True

    def __init__(self, output: str | None = None) -> None:
        super().__init__(output)
        self.divergences = Divergences()

    def pair(self, outputs: Arrays, baseline: Arrays | None, ids: Array) -> tuple[Array, Array]:
        """The artefact's and the baseline's logits [N, T, V].

        Raises:
            UsageError: the vocabularies differ.
        """
        if baseline is None:
            raise InternalError(f"Metric {self.name!r} was not given the baseline's outputs.")
        ours, theirs = self.logits(outputs, ids), self.logits(baseline, ids)
        if ours.shape != theirs.shape:
            raise UsageError(
                f"Metric {self.name!r} cannot compare a vocabulary of {ours.shape[2]} tokens with the "
                f"baseline's {theirs.shape[2]}.",
                fix="Compare models of the same vocabulary.",
            )
        return ours, theirs

    def divergence(self, outputs: Arrays, baseline: Arrays | None, batch: Batch) -> tuple[Array, Array]:
        """The divergences [N, T-1] of the windows, and which of them count."""
        ids = self.token_ids(batch)
        return self.divergences.of(*self.pair(outputs, baseline, ids), batch), predicted(batch, ids)


class Kl(Divergence, MeanOfPredictions):
    """Mean over the predicted positions of KL(FP32 ‖ artefact) in nat, over the whole vocabulary."""

    name = "kl"

    def scores(self, outputs: Arrays, batch: Batch, baseline: Arrays | None) -> Scores:
        """[samples, 2]: summed divergence of the window's predictions, and their number."""
        return self.rows(*self.divergence(outputs, baseline, batch))

    def value(self, totals: Scores) -> float:
        return self.mean(totals)


class KlP99(Divergence):
    """The KL(FP32 ‖ artefact) in nat that 99 % of the predicted positions keep.

    Read from a histogram with logarithmic bins (:data:`PER_DOUBLING`), which adds up over windows: it is
    within 4.5 % of the exact percentile, and 0 where that is below 2**-27 nat (7e-9).
    """

    name = "kl_p99"

    def scores(self, outputs: Arrays, batch: Batch, baseline: Arrays | None) -> Scores:
        """[samples, BINS + 2]: how many predictions lie below, in each bin, and above."""
        found, keep = self.divergence(outputs, baseline, batch)
        return np.stack([_histogram(row[kept]) for row, kept in zip(found, keep, strict=True)])

    def value(self, totals: Scores) -> float:
        if not totals.sum():
            raise self.no_prediction()
        return _quantile(totals, PERCENTILE)

    def seen(self, scores: Scores) -> dict[str, Any]:
        return {"predictions": int(scores.sum())}


class Top1Agreement(MeanOfPredictions):
    """Share of the predicted positions where artefact and FP32 baseline rank the same token first."""

    name = "top1_agreement"
    unit = "share"
    needs_baseline = True

    def scores(self, outputs: Arrays, batch: Batch, baseline: Arrays | None) -> Scores:
        """[samples, 2]: predictions of the window with the same first token, and all of them."""
        if baseline is None:
            raise InternalError(f"Metric {self.name!r} was not given the baseline's outputs.")
        ids = self.token_ids(batch)
        first = [self.logits(found, ids)[:, :-1].argmax(axis=2) for found in (outputs, baseline)]
        return self.rows(first[0] == first[1], predicted(batch, ids))

    def value(self, totals: Scores) -> float:
        return self.mean(totals)

    def seen(self, scores: Scores) -> dict[str, Any]:
        same, predictions = scores.sum(axis=0)
        return {"predictions": int(predictions), "changed": int(predictions - same)}


def share_divergences(metrics: Iterable[Metric]) -> None:
    """Let the metrics that need the divergences of the same outputs compute them once."""
    common: dict[str | None, Divergences] = {}
    for metric in metrics:
        if isinstance(metric, Divergence):
            metric.divergences = common.setdefault(metric.output, metric.divergences)


def kl(ours: Array, theirs: Array) -> Array:
    """KL(theirs ‖ ours) of the softmax of logits [tokens, vocabulary], in nat: float64 [tokens].

    With p = softmax(theirs): the sum of p (theirs - ours), minus the logarithm of the first normalizer, plus
    that of the second. Exactly 0 for equal logits.
    """
    found = np.empty(len(ours))
    for part in parts(*ours.shape):
        p, q = theirs[part].astype(np.float64), ours[part].astype(np.float64)
        p -= p.max(axis=1, keepdims=True)
        q -= q.max(axis=1, keepdims=True)
        gap = p - q
        np.exp(p, out=p)
        np.exp(q, out=q)
        sum_p, sum_q = p.sum(axis=1), q.sum(axis=1)
        found[part] = np.einsum("tv,tv->t", p, gap) / sum_p - np.log(sum_p) + np.log(sum_q)
    # Gibbs: never negative but for rounding.
    return np.maximum(found, 0.0)


def _histogram(numbers: Array) -> Scores:
    with np.errstate(divide="ignore"):
        place = np.floor((np.log2(numbers) - LOWEST) * PER_DOUBLING)
    inside = np.clip(place, -1, BINS).astype(np.int64) + 1
    return np.bincount(inside, minlength=BINS + 2).astype(np.float64)


def _quantile(counts: Scores, share: float) -> float:
    """The number that a ``share`` of the counted ones does not exceed, at its place within the bin."""
    ranks = np.cumsum(counts)
    rank = share * ranks[-1]
    place = int(np.searchsorted(ranks, rank - 1e-9))
    if place == 0:
        return 0.0
    within = (rank - ranks[place - 1]) / counts[place]
    return float(2.0 ** (LOWEST + (place - 1 + within) / PER_DOUBLING))
