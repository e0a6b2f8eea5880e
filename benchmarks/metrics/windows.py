"""What metrics of language models share: windows of tokens, and the logits that predict the next token."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import numpy as np

from edgeq.benchmarks.metrics.base import Scores, SummedMetric
from edgeq.calibration.types import Array, Arrays, Batch, DataSource, TensorSpec
from edgeq.errors import DataError, UsageError

# Logits that are widened to float64 at a time: 2 MiB stay in the cache, and large vocabularies do not
# multiply memory.
_ELEMENTS = 1 << 18
# Columns of the scores of a mean over predictions.
_TOTAL, _PREDICTIONS = 0, 1


class WindowMetric(SummedMetric):
    """Base: logits ``[N, T, V]`` at position t predict token t+1 of the same window of T tokens.

    So a window has T-1 predictions. Positions where ``attention_mask`` is 0 do not count. A sample is a
    window; intervals resample windows. Token ids are the input ``input_ids``, else the only two-dimensional
    integer input.
    """

    tasks: ClassVar[frozenset[str] | None] = frozenset({"language-model"})

    def check(self, source: DataSource, outputs: Sequence[TensorSpec]) -> None:
        super().check(source, outputs)
        spec = self.output_spec(outputs)
        if spec.shape is not None:
            self._require_logits(spec.name, spec.shape)

    def logits(self, outputs: Arrays, ids: Array) -> Array:
        """The finite logits [N, T, V] for the token ids [N, T].

        Raises:
            NonFiniteOutputError: they hold NaN or Inf.
            UsageError: the output is of another shape.
        """
        logits = self.select(outputs)
        name = self.output if self.output is not None else next(iter(outputs))
        self._require_logits(name, logits.shape)
        if logits.shape[:2] != ids.shape:
            raise UsageError(
                f"Metric {self.name!r} needs logits for every token: output {name!r} has shape "
                f"{list(logits.shape)} for token ids of shape {list(ids.shape)}.",
                fix="Export the model without reducing its logits to the last token.",
            )
        return logits

    def token_ids(self, batch: Batch) -> Array:
        """The token ids [samples, tokens] of a batch.

        Raises:
            UsageError: no input, or more than one, can be them.
        """
        name = token_input(batch.inputs)
        if name is None:
            raise UsageError(
                f"Metric {self.name!r} cannot tell which input holds the token ids.", fix="Name it input_ids."
            )
        return batch.inputs[name]

    def _require_logits(self, output: str, shape: Sequence[int | str | None]) -> None:
        if len(shape) == 3:
            return
        raise UsageError(
            f"Metric {self.name!r} needs logits [samples, tokens, vocabulary], "
            f"but output {output!r} has {len(shape)} dimensions.",
            fix="Name the output that holds the logits.",
        )

    def no_prediction(self) -> DataError:
        """The error of windows without anything to predict."""
        return DataError(
            f"Metric {self.name!r} has no token to predict.", fix="Use windows of two tokens or more."
        )


class MeanOfPredictions(WindowMetric):
    """Base: the mean of a number per prediction. Scores [samples, 2]: the window's sum, its predictions."""

    def rows(self, numbers: Array, keep: Array) -> Scores:
        """The scores of numbers [N, T-1], of which those in ``keep`` count."""
        sums = np.where(keep, numbers, 0.0).sum(axis=1)
        return np.stack([sums, keep.sum(axis=1)], axis=1).astype(np.float64)

    def mean(self, totals: Scores) -> float:
        """The mean over all predictions; raises DataError where there is none."""
        if totals[_PREDICTIONS] == 0:
            raise self.no_prediction()
        return float(totals[_TOTAL] / totals[_PREDICTIONS])

    def seen(self, scores: Scores) -> dict[str, Any]:
        return {"predictions": int(scores[:, _PREDICTIONS].sum())}


def token_input(inputs: Arrays) -> str | None:
    """The name of the input that holds the token ids, None where several or none can be it."""
    if "input_ids" in inputs:
        return "input_ids"
    auxiliary = ("attention_mask", "position_ids", "token_type_ids")
    candidates = [
        name
        for name, array in inputs.items()
        if array.ndim == 2 and np.issubdtype(array.dtype, np.integer) and name not in auxiliary
    ]
    return candidates[0] if len(candidates) == 1 else None


def predicted(batch: Batch, ids: Array) -> Array:
    """Which predictions of the windows count: bool [N, T-1]."""
    mask = batch.inputs.get("attention_mask")
    if mask is None:
        return np.ones((len(ids), max(ids.shape[1] - 1, 0)), dtype=bool)
    # With a cache the mask also covers past tokens; the last T entries belong to this window.
    own = mask[:, -ids.shape[1] :] != 0
    return np.asarray(own[:, 1:] & own[:, :-1])


def parts(positions: int, vocabulary: int) -> Iterator[slice]:
    """Slices of positions, each of which is small enough to be widened to float64."""
    rows = max(1, _ELEMENTS // max(vocabulary, 1))
    return (slice(start, start + rows) for start in range(0, positions, rows))
