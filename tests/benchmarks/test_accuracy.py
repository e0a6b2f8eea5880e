from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeq.benchmarks.accuracy import measure_accuracy
from edgeq.benchmarks.measurement import Measurements
from edgeq.benchmarks.metrics import get_metric
from edgeq.benchmarks.options import BenchOptions
from edgeq.benchmarks.subject import Subject
from edgeq.calibration.data import open_data
from edgeq.errors import UsageError
from edgeq.progress import SilentProgress
from tests.support.bench_models import IDENTITY, linear, one_hot

LABELS = [0, 1, 2, 0, 1, 2, 0, 1, 2, 0]
# Takes class 2 for class 0.
SWAPPED = IDENTITY[:, [0, 1, 0]] * np.array([1, 1, 2], np.float32)


def evaluate(
    folder: Path,
    names: list[str],
    *,
    batch: int | str = "N",
    asked: int = 1,
    weights: Any = SWAPPED,
    baseline: Any = IDENTITY,
    state: bool = False,
    x: Any = None,
) -> Measurements:
    ours = Subject("onnxruntime", linear(folder / "ours.onnx", weights, batch=batch, state=state)).open()
    theirs = None
    if baseline is not None:
        path = linear(folder / "fp32.onnx", baseline, batch=batch, state=state)
        theirs = Subject("onnxruntime", path).open()
    source = open_data({"x": one_hot(LABELS) if x is None else x, "label": np.array(LABELS)}, ours.inputs)
    return measure_accuracy(
        ours,
        theirs,
        source,
        [get_metric(name) for name in names],
        options=BenchOptions(batch_size=asked),
        progress=SilentProgress(),
    )


def test_flips_and_interval_are_paired(tmp_path: Path) -> None:
    found = evaluate(tmp_path, ["top1"])["top1"]
    assert (found.value, found.baseline) == (0.3, 1.0)
    assert found.detail["flips"] == {"changed": 7, "lost": 7, "gained": 0}
    assert found.detail["samples"] == 10
    assert found.interval_of == "difference"
    assert found.interval is not None
    assert found.interval[0] < -0.7 < found.interval[1] < 0


@pytest.mark.parametrize(
    ("batch", "asked"), [("N", 1), ("N", 4), ("N", 100), (1, 1), (4, 1), (8, 3), (10, 1)]
)
def test_every_batching_measures_the_same(tmp_path: Path, batch: int | str, asked: int) -> None:
    found = evaluate(tmp_path, ["top1", "f1_macro", "sqnr"], batch=batch, asked=asked)
    assert found["top1"].value == 0.3
    assert found["top1"].detail["samples"] == 10
    assert found["top1"].detail["batch"] == (batch if isinstance(batch, int) else asked)
    assert found["f1_macro"].baseline == 1.0
    reference = evaluate(tmp_path, ["f1_macro", "sqnr"])
    assert found["f1_macro"].value == reference["f1_macro"].value
    assert found["sqnr"].value == pytest.approx(reference["sqnr"].value, rel=1e-6)


def test_nan_is_a_failure_in_words_and_the_others_go_on(tmp_path: Path) -> None:
    broken = IDENTITY.copy()
    broken[2] = np.nan
    x = np.where(one_hot(LABELS) > 0, one_hot(LABELS), 0)
    found = evaluate(tmp_path, ["top1", "sqnr"], weights=broken, x=x)
    assert not found.by_metric
    assert found.failures["top1"].startswith(
        "Metric 'top1' failed: output 'y' holds NaN or Inf for sample 0."
    )
    found = evaluate(tmp_path, ["top1"], weights=IDENTITY, baseline=broken)
    assert found.failures["top1"].startswith("In the FP32 baseline: Metric 'top1' failed: output 'y'")


def test_metrics_against_fp32_need_it(tmp_path: Path) -> None:
    found = evaluate(tmp_path, ["top1", "sqnr"], baseline=None)
    assert found["top1"].value == 0.3
    assert found["top1"].baseline is None
    assert found["top1"].interval is None
    assert found.failures == {"sqnr": "It compares with the FP32 baseline, and there is none."}


def test_metric_that_makes_no_sense_is_refused_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="perplexity"):
        evaluate(tmp_path, ["perplexity"])


def test_output_without_samples_cannot_be_cut(tmp_path: Path) -> None:
    """The first output is a sum over the batch."""
    found = evaluate(tmp_path, ["cosine"], batch=8, state=True)
    assert found.failures == {"cosine": "The output 'total' is a single number without an axis of samples."}
    found = evaluate(tmp_path, ["cosine"], batch=16, state=True)
    assert found.failures == {
        "cosine": "The output 'total' has no axis of samples, so the padding of the last batch cannot be "
        "cut off."
    }
