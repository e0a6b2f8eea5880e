"""What a metric is: scores per sample, and one number made of them.

A metric never sees the whole set at once. It turns each batch into *scores*, one row per sample (a number,
or sufficient statistics such as "sum of nll, tokens"), and :meth:`Metric.aggregate` turns any selection of
rows into the value. So the FP32 baseline and the artefact are paired sample by sample, and an interval of
their difference comes from aggregating resampled rows (:func:`edgeq.benchmarks.metrics.compare`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from edgeq.calibration.types import Array, Arrays, Batch, DataSource, TensorSpec
from edgeq.errors import ModelError, UsageError

Scores = npt.NDArray[np.float64]

TASK_NAMES = {
    "classification": "labelled classification data",
    "language-model": "running text for a language model",
    "unknown": "data without labels",
}


class NonFiniteOutputError(ModelError):
    """A model's output holds NaN or Inf, so that a metric has no value. ``sample`` counts from 0."""

    def __init__(self, metric: str, output: str, sample: int) -> None:
        super().__init__(
            f"Metric {metric!r} failed: output {output!r} holds NaN or Inf for sample {sample}.",
            fix="The model or its quantization overflows there; run that sample in FP32 to tell which.",
        )
        self.metric = metric
        self.output = output
        self.sample = sample


@dataclass(frozen=True)
class Flips:
    """How many samples changed between the baseline and the artefact.

    ``changed``: another prediction; ``lost``: right before, wrong now; ``gained``: wrong before, right now.
    """

    changed: int
    lost: int
    gained: int


class Metric(ABC):
    """One number that says how good a model is.

    Attributes:
        name: what budgets and reports call it.
        unit: ``fraction`` (0..1, shown as percent), ``share`` (the same of a whole, whose budgets are in
            percent), ``dB`` or empty.
        higher_is_better: the direction in which it improves.
        needs_labels: whether batches must carry labels.
        needs_baseline: it compares the artefact's outputs with the FP32 baseline's (PSNR, cosine, SQNR),
            so the baseline has no value of its own.
        tasks: the ``DataSource.task`` values it makes sense for, None for any.
        output: the name of the output that it reads, None for the first one.
    """

    name: str
    unit: str = ""
    higher_is_better: bool = True
    needs_labels: bool = False
    needs_baseline: bool = False
    tasks: ClassVar[frozenset[str] | None] = None

    def __init__(self, output: str | None = None) -> None:
        self.output = output

    @abstractmethod
    def scores(self, outputs: Arrays, batch: Batch, baseline: Arrays | None) -> Scores:
        """The scores of a batch: float64 [samples] or [samples, k].

        ``outputs`` hold exactly ``batch.size`` samples (padding of fixed-batch models is cut off before).
        ``baseline`` are the FP32 model's outputs for the same batch; only read if ``needs_baseline``.

        Raises:
            NonFiniteOutputError: NaN or Inf in the output; its ``sample`` counts within the batch.
            DataError: labels do not fit the output.
            UsageError: the output's shape is not one that this metric can read.
        """

    @abstractmethod
    def aggregate(self, scores: Scores) -> float:
        """The value for the given rows of scores; order does not matter."""

    def finish(self, scores: Scores) -> Scores:
        """Complete the rows of all samples, once, where a decision needs the whole set."""
        return scores

    def seen(self, scores: Scores) -> dict[str, Any]:
        """What else the rows tell and the report shows; JSON values only."""
        return {}

    def flips(self, baseline: Scores, scores: Scores) -> Flips | None:
        """How many samples changed, from both models' scores; None where a sample cannot flip."""
        return None

    def correct(self, baseline: Scores, scores: Scores) -> tuple[Scores, Scores] | None:
        """Both models' scores as right/wrong (1/0) per sample if the metric is a proportion, else None."""
        return None

    def check(self, source: DataSource, outputs: Sequence[TensorSpec]) -> None:
        """Refuse a metric that makes no sense for the data or the model, before anything runs.

        Raises:
            UsageError: says what to use instead.
        """
        if self.tasks is not None and source.task not in self.tasks:
            self._wrong_task(source)
        if self.needs_labels and not source.has_labels:
            raise UsageError(
                f"Metric {self.name!r} needs labels and the evaluation data has none.",
                fix="Add labels to the data, or use a metric without labels: cosine, sqnr, psnr.",
            )
        self.output_spec(outputs)

    def _wrong_task(self, source: DataSource) -> None:
        wanted = " or ".join(TASK_NAMES.get(task, task) for task in sorted(self.tasks or ()))
        got = TASK_NAMES.get(source.task, source.task)
        others = "perplexity" if source.task == "language-model" else "cosine, sqnr, psnr"
        if source.has_labels and source.task == "classification":
            others = "top1, accuracy, f1_macro"
        raise UsageError(
            f"Metric {self.name!r} needs {wanted}, but the evaluation data is {got}.",
            fix=f"Use a metric that fits this data: {others}.",
        )

    def output_spec(self, outputs: Sequence[TensorSpec]) -> TensorSpec:
        """The output that this metric reads.

        Raises:
            UsageError: the model has no output of that name.
        """
        if not outputs:
            raise UsageError(f"Metric {self.name!r} needs an output and the model has none.")
        if self.output is None:
            return outputs[0]
        for spec in outputs:
            if spec.name == self.output:
                return spec
        names = ", ".join(repr(spec.name) for spec in outputs)
        raise UsageError(
            f"Metric {self.name!r} reads output {self.output!r}, which the model does not have.",
            fix=f"Its outputs are: {names}.",
        )

    def format(self, value: float) -> str:
        """The value as people read it: ``73.69 %``, ``41.2 dB``, ``53.345``."""
        if self.unit in ("fraction", "share"):
            return f"{100 * value:.2f} %"
        if self.unit:
            return f"{value:.1f} {self.unit}"
        return f"{value:.4g}" if abs(value) < 1 else f"{value:.3f}"

    def select(self, outputs: Arrays) -> Array:
        """The array of the output that this metric reads, checked to be finite.

        Raises:
            NonFiniteOutputError: it holds NaN or Inf.
            UsageError: there is no output of that name.
        """
        name = self.output if self.output is not None else next(iter(outputs))
        if name not in outputs:
            raise UsageError(
                f"Metric {self.name!r} reads output {name!r}, which the model does not have.",
                fix=f"Its outputs are: {', '.join(map(repr, outputs))}.",
            )
        array = outputs[name]
        if np.issubdtype(array.dtype, np.floating):
            self._refuse_non_finite(name, array)
        return array

    def _refuse_non_finite(self, name: str, array: Array) -> None:
        # A sum is NaN or Inf when any element is; only then is the slow element-wise test needed.
        with np.errstate(over="ignore", invalid="ignore"):
            total = np.sum(array, dtype=np.float64)
        if np.isfinite(total):
            return
        bad = ~np.isfinite(array).reshape(len(array), -1).all(axis=1)
        if bad.any():
            raise NonFiniteOutputError(self.name, name, int(np.argmax(bad)))


class SummedMetric(Metric):
    """A metric that reads only the sum of its rows, so that resampling them is a product of matrices."""

    @abstractmethod
    def value(self, totals: Scores) -> float:
        """The value for the rows' sum: float64 [k]."""

    def aggregate(self, scores: Scores) -> float:
        return self.value(scores.sum(axis=0))
