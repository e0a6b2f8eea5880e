"""Metrics that users bring: ``module:callable``."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np

from edgeq.benchmarks.metrics.base import Metric, Scores
from edgeq.calibration.types import Arrays, Batch
from edgeq.errors import UsageError


class UserMetric(Metric):
    """A user's ``callable(outputs, labels)``, called once per batch.

    ``outputs`` is a dict of arrays by output name, ``labels`` the batch's labels or None. It returns one
    score per sample: an array [samples], whose mean is the value. For values that are no mean of per-sample
    scores it returns [samples, k] statistics and has an attribute ``aggregate(scores) -> float``, which gets
    the rows of all samples. Further optional attributes: ``higher_is_better`` (True), ``unit`` (""),
    ``needs_labels`` (False).

    Example::

        def mean_error(outputs, labels):
            return abs(outputs["depth"] - labels).mean(axis=(1, 2, 3))

        mean_error.higher_is_better = False
    """

    def __init__(self, spec: str, output: str | None = None) -> None:
        if output is not None:
            raise UsageError(
                f"Metric {spec!r} gets all outputs, so naming one has no effect.",
                fix="Select the output inside the callable.",
            )
        super().__init__()
        self.name = spec
        self._callable = load_callable(spec)
        self.higher_is_better = bool(getattr(self._callable, "higher_is_better", True))
        self.unit = str(getattr(self._callable, "unit", ""))
        self.needs_labels = bool(getattr(self._callable, "needs_labels", False))

    def scores(self, outputs: Arrays, batch: Batch, baseline: Arrays | None) -> Scores:
        """What the callable returned, checked.

        Raises:
            UsageError: the callable raised, or did not return finite scores for every sample.
        """
        result = self._call(dict(outputs), batch)
        if result.ndim not in (1, 2) or len(result) != batch.size:
            raise UsageError(
                f"Metric {self.name!r} returned shape {list(result.shape)} for {batch.size} samples.",
                fix="Return one score per sample, [samples], or statistics [samples, k] with `aggregate`.",
            )
        if result.ndim == 2 and not hasattr(self._callable, "aggregate"):
            raise UsageError(
                f"Metric {self.name!r} returned statistics [samples, k] but has no `aggregate`.",
                fix="Set the attribute aggregate(scores) -> float, or return one score per sample.",
            )
        if not np.isfinite(result).all():
            raise UsageError(f"Metric {self.name!r} returned NaN or Inf.", fix="Return finite scores.")
        return result

    def _call(self, outputs: dict[str, Any], batch: Batch) -> Scores:
        try:
            return np.asarray(self._callable(outputs, batch.labels), dtype=np.float64)
        except Exception as error:  # whatever the user's code raises
            raise UsageError(
                f"Metric {self.name!r} failed: {type(error).__name__}: {error}.", fix="Correct the callable."
            ) from error

    def aggregate(self, scores: Scores) -> float:
        aggregate = getattr(self._callable, "aggregate", None)
        return float(np.mean(scores)) if aggregate is None else float(aggregate(scores))


def load_callable(spec: str) -> Callable[..., Any]:
    """Import ``module:callable``.

    Raises:
        UsageError: the module or the name is not there, or it is no callable.
    """
    module, _, name = spec.partition(":")
    try:
        found = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UsageError(
            f"Metric {spec!r} cannot be imported: {error}.",
            fix="Give module:callable of something that Python can import from here.",
        ) from error
    if not callable(found):
        raise UsageError(f"Metric {spec!r} is no callable.", fix="Give module:callable.")
    made: Callable[..., Any] = found
    return made
