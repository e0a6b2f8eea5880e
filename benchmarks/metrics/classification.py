"""Metrics of classifiers: top1, top5, accuracy, binary and macro F1.

Outputs may be logits or probabilities: only their order counts. ``[N, C]``, also with trailing axes of
length one (``[N, C, 1, 1]``, global pooling without flatten). A classifier with a single output (``[N]`` or
``[N, 1]``) is binary: probabilities are compared with 0.5, logits with 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from edgeq.benchmarks.metrics.base import Flips, Metric, Scores
from edgeq.calibration.types import Array, Arrays, Batch, DataSource, TensorSpec
from edgeq.errors import DataError, UsageError

Classes = npt.NDArray[np.int64]


class Classification(Metric):
    """Base of the metrics over a predicted and a true class per sample."""

    unit = "fraction"
    needs_labels = True
    tasks: ClassVar[frozenset[str] | None] = frozenset({"classification"})
    binary_allowed: ClassVar[bool] = True

    def check(self, source: DataSource, outputs: Sequence[TensorSpec]) -> None:
        super().check(source, outputs)
        spec = self.output_spec(outputs)
        if spec.shape is not None:
            self.class_count(spec.shape, spec.name)

    def class_count(self, shape: Sequence[int | str | None], output: str) -> int | str | None:
        """The number of classes of an output of this shape; 1 for a single logit or probability.

        Raises:
            UsageError: the shape is not that of a classifier, or this metric cannot use it.
        """
        extra = [d for d in shape[2:] if isinstance(d, int) and d != 1]
        if not shape or extra:
            raise UsageError(
                f"Metric {self.name!r} needs class scores [samples, classes], "
                f"but output {output!r} has shape {_text(shape)}.",
                fix="Name the output that holds the class scores, or use cosine, sqnr or psnr.",
            )
        count = 1 if len(shape) == 1 else shape[1]
        if count == 1 and not self.binary_allowed:
            raise UsageError(
                f"Metric {self.name!r} needs a score per class, but output {output!r} has a single one.",
                fix="Use accuracy or f1 for a binary classifier.",
            )
        return count

    def table(self, outputs: Arrays) -> Array:
        """The class scores as [samples, classes]."""
        array = self.select(outputs)
        name = self.output if self.output is not None else next(iter(outputs))
        self.class_count(array.shape, name)
        return array.reshape(len(array), -1)

    def labels(self, batch: Batch, classes: int) -> Classes:
        """The true classes, checked to be in range.

        Raises:
            DataError: no labels, another number of them than samples, or a class that the model lacks.
        """
        labels = batch.labels
        if labels is None:
            raise DataError(f"Metric {self.name!r} needs labels and this batch has none.", fix="Add labels.")
        if labels.shape != (batch.size,) or not np.issubdtype(labels.dtype, np.integer):
            raise DataError(
                f"Metric {self.name!r} needs one class number per sample, "
                f"but the labels have shape {_text(labels.shape)} and dtype {labels.dtype}.",
                fix="Give labels as integers 0..classes-1, one per sample.",
            )
        known = max(classes, 2)
        wrong = (labels < 0) | (labels >= known)
        if wrong.any():
            raise DataError(
                f"Label {int(labels[wrong][0])} is out of range: the model has {known} classes.",
                fix=f"Labels must be 0..{known - 1} in the order of the model's outputs.",
            )
        return labels.astype(np.int64)

    def scores(self, outputs: Arrays, batch: Batch, baseline: Arrays | None) -> Scores:
        """[samples, 3]: predicted class (the raw score when there is a single one), true class, classes."""
        table = self.table(outputs)
        classes = table.shape[1]
        labels = self.labels(batch, classes)
        predicted = np.argmax(table, axis=1) if classes > 1 else table[:, 0]
        return np.stack([predicted, labels, np.full(len(labels), classes)], axis=1).astype(np.float64)

    def finish(self, scores: Scores) -> Scores:
        """Raw binary scores become classes: the whole set tells logits from probabilities."""
        single = scores[:, 2] == 1
        if not single.any():
            return scores
        raw = scores[:, 0]
        threshold = 0.5 if ((raw >= 0) & (raw <= 1)).all() else 0.0
        return np.stack([np.where(single, raw > threshold, raw), scores[:, 1], scores[:, 2] + single], axis=1)

    def flips(self, baseline: Scores, scores: Scores) -> Flips:
        before, after = self.right(baseline), self.right(scores)
        changed = int(np.sum(baseline[:, 0] != scores[:, 0]))
        return Flips(changed, lost=int(np.sum(before & ~after)), gained=int(np.sum(~before & after)))

    def right(self, scores: Scores) -> npt.NDArray[np.bool_]:
        """Which samples were classified right."""
        return np.asarray(scores[:, 0] == scores[:, 1])


class Accuracy(Classification):
    """Share of samples whose highest score is the true class; binary classifiers too."""

    name = "accuracy"

    def aggregate(self, scores: Scores) -> float:
        return float(np.mean(self.right(scores)))

    def correct(self, baseline: Scores, scores: Scores) -> tuple[Scores, Scores]:
        return self.right(baseline).astype(np.float64), self.right(scores).astype(np.float64)


class Top1(Accuracy):
    """Accuracy of a classifier with a score per class."""

    name = "top1"
    binary_allowed = False


class Top5(Top1):
    """Share of samples whose true class is among the five highest scores.

    Ties are broken towards the lower class, so that top5 is the same on every machine.
    """

    name = "top5"
    k: ClassVar[int] = 5

    def class_count(self, shape: Sequence[int | str | None], output: str) -> int | str | None:
        count = super().class_count(shape, output)
        if isinstance(count, int) and count <= self.k:
            raise UsageError(
                f"Metric 'top5' is always 100 % for a model with {count} classes.",
                fix="Use top1 or accuracy.",
            )
        return count

    def scores(self, outputs: Arrays, batch: Batch, baseline: Arrays | None) -> Scores:
        """[samples, 2]: 1 when the true class is among the first five, and 1."""
        table = self.table(outputs)
        labels = self.labels(batch, table.shape[1])
        own = np.take_along_axis(table, labels[:, None], axis=1)
        lower = np.arange(table.shape[1])[None, :] < labels[:, None]
        rank = np.sum((table > own) | ((table == own) & lower), axis=1)
        hit = (rank < self.k).astype(np.float64)
        return np.stack([hit, np.ones(len(hit)), np.full(len(hit), table.shape[1])], axis=1)


class F1(Classification):
    """F1 of class 1 of a binary classifier: harmonic mean of precision and recall, 2tp / (2tp + fp + fn).

    0 when class 1 neither occurs nor is predicted, as in scikit-learn's ``zero_division=0``.
    """

    name = "f1"

    def class_count(self, shape: Sequence[int | str | None], output: str) -> int | str | None:
        count = super().class_count(shape, output)
        if isinstance(count, int) and count > 2:
            raise UsageError(
                f"Metric 'f1' is for two classes, but the model has {count}.",
                fix="Use f1_macro, the mean F1 over all classes.",
            )
        return count

    def aggregate(self, scores: Scores) -> float:
        predicted, true = scores[:, 0] == 1, scores[:, 1] == 1
        total = np.sum(predicted) + np.sum(true)
        return float(2 * np.sum(predicted & true) / total) if total else 0.0


class F1Macro(Classification):
    """Mean F1 over the classes that occur in the labels or the predictions (scikit-learn's ``macro``)."""

    name = "f1_macro"

    def aggregate(self, scores: Scores) -> float:
        predicted, true = scores[:, 0].astype(np.int64), scores[:, 1].astype(np.int64)
        classes = int(scores[:, 2].max())
        hits = np.bincount(true[predicted == true], minlength=classes)
        total = np.bincount(predicted, minlength=classes) + np.bincount(true, minlength=classes)
        present = total > 0
        return float(np.mean(2 * hits[present] / total[present]))


def _text(shape: Sequence[int | str | None]) -> str:
    return "[" + ", ".join("?" if d is None else str(d) for d in shape) + "]"
