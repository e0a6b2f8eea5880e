"""What any runner's outputs are worth: the metric on every sample, and their distance from float32's."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from intel_models import IntelModel

from edgeq.benchmarks.metrics import get_metric
from edgeq.calibration.types import Array, Arrays, Batch

# Samples that are compared with float32, spread over the set.
COMPARED = 200
Run = Callable[[Arrays], Array]


def judged(run: Run, float32: Run, data: IntelModel) -> dict[str, float | str]:
    """``value`` of the metric on every sample, one by one; ``sqnr_db`` of some outputs against ``float32``.

    Both take one sample by input name and return its logits.
    """
    metric = get_metric(data.metric)
    count = len(next(iter(data.evaluation.values())))
    compared = set(np.linspace(0, count - 1, min(COMPARED, count)).astype(int).tolist())
    scores, signal, noise = [], 0.0, 0.0
    for index, sample in enumerate(samples(data.evaluation)):
        labels = sample.pop("label", None)
        logits = run(sample)
        scores.append(metric.scores({"logits": logits}, Batch(sample, labels, 1), None))
        if index in compared:
            reference = float32(sample).astype(np.float64)
            signal += float((reference**2).sum())
            noise += float(((logits - reference) ** 2).sum())
    value = metric.aggregate(np.concatenate(scores))
    distance = 10 * float(np.log10(signal / max(noise, 1e-30)))
    return {"metric": data.metric, "value": value, "sqnr_db": distance}


def samples(arrays: Arrays) -> Iterator[Arrays]:
    """Batches of one."""
    for index in range(len(next(iter(arrays.values())))):
        yield {name: values[index : index + 1] for name, values in arrays.items()}
