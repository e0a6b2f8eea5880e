from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sk

from edgeq.benchmarks.metrics import (
    METRIC_NAMES,
    Accumulator,
    NonFiniteOutputError,
    default_metrics,
    get_metric,
)
from edgeq.benchmarks.metrics.windows import WindowMetric
from edgeq.calibration.types import Array
from edgeq.errors import DataError, UsageError
from tests.support.metric_data import batch, fidelity, output, source, value

CLASSES = 7
seeds = st.integers(0, 10_000)


def problem(seed: int, classes: int = CLASSES, samples: int = 40) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(samples, classes)).astype(np.float32), rng.integers(0, classes, samples)


@given(seeds)
def test_like_scikit_learn(seed: int) -> None:
    logits, labels = problem(seed)
    predicted = logits.argmax(1)
    assert value("top1", logits, labels, 3) == pytest.approx(sk.accuracy_score(labels, predicted))
    assert value("accuracy", logits, labels) == pytest.approx(sk.accuracy_score(labels, predicted))
    top5 = sk.top_k_accuracy_score(labels, logits, k=5, labels=range(CLASSES))
    assert value("top5", logits, labels, 4) == pytest.approx(top5)
    macro = sk.f1_score(labels, predicted, average="macro")
    assert value("f1_macro", logits, labels, 2) == pytest.approx(macro)


@given(seeds)
def test_binary_f1_like_scikit_learn(seed: int) -> None:
    logits, labels = problem(seed, classes=2, samples=12)
    expected = sk.f1_score(labels, logits.argmax(1), zero_division=0.0)
    assert value("f1", logits, labels, 2) == pytest.approx(expected)


@given(seeds)
def test_logits_and_probabilities_agree(seed: int) -> None:
    logits, labels = problem(seed)
    wide = logits.astype(np.float64)
    probabilities = np.exp(wide) / np.exp(wide).sum(1, keepdims=True)
    for name in ("top1", "top5", "f1_macro"):
        assert value(name, logits, labels) == value(name, probabilities, labels)


@pytest.mark.parametrize("shape", [(5,), (5, 1), (5, 1, 1, 1)])
@pytest.mark.parametrize(
    "scores", [[-3.0, 4.0, 0.2, -0.1, 0.9], [0.1, 0.9, 0.6, 0.4, 0.7]], ids=["logits", "probabilities"]
)
def test_single_output_is_binary(shape: tuple[int, ...], scores: list[float]) -> None:
    out = np.array(scores, np.float32).reshape(shape)
    labels = [0, 1, 1, 1, 1]
    for parts in (1, 5):
        # In parts, a batch of logits within 0..1 must not be taken for probabilities.
        assert value("accuracy", out, labels, parts) == pytest.approx(0.8)
        assert value("f1", out, labels, parts) == pytest.approx(6 / 7)


def test_trailing_axes_of_one() -> None:
    logits, labels = problem(1)
    assert value("top1", logits[:, :, None, None], labels) == value("top1", logits, labels)


def test_ties_go_to_the_lowest_class() -> None:
    out = np.zeros((2, 8), np.float32)
    assert value("top1", out, [0, 1]) == 0.5
    assert value("top5", out, [4, 5]) == 0.5


def test_output_by_name() -> None:
    outputs = {"boxes": np.zeros((2, 4)), "classes": np.eye(2)}
    accumulator = Accumulator(get_metric("top1", output="classes"))
    accumulator.update(outputs, batch(2, [0, 1]))
    assert accumulator.value() == 1.0
    with pytest.raises(UsageError) as error:
        get_metric("top1", output="nope").scores(outputs, batch(2, [0, 1]), None)
    assert str(error.value) == (
        "Metric 'top1' reads output 'nope', which the model does not have. "
        "Its outputs are: 'boxes', 'classes'."
    )


# Perplexity.


def nll(logits: Array, ids: Array, mask: Array) -> tuple[float, int]:
    total, count = 0.0, 0
    for i in range(len(ids)):
        for t in range(ids.shape[1] - 1):
            if mask[i, t] and mask[i, t + 1]:
                row = logits[i, t].astype(np.float64)
                total += float(np.log(np.exp(row).sum()) - row[ids[i, t + 1]])
                count += 1
    return total, count


@pytest.mark.parametrize("masked", [False, True])
def test_perplexity(masked: bool) -> None:
    rng = np.random.default_rng(3)
    logits = rng.normal(size=(4, 6, 9)).astype(np.float32) * 3
    ids = rng.integers(0, 9, (4, 6))
    mask = np.ones((4, 6), np.int64)
    if masked:
        mask[1, 4:] = mask[2, 2:] = 0
    inputs = {"input_ids": ids, **({"attention_mask": mask} if masked else {})}
    accumulator = Accumulator(get_metric("perplexity"))
    for rows in (slice(0, 3), slice(3, 4)):
        part = {name: array[rows] for name, array in inputs.items()}
        accumulator.update({"logits": logits[rows]}, batch(len(part["input_ids"]), None, **part))
    total, count = nll(logits, ids, mask)
    assert accumulator.value() == pytest.approx(np.exp(total / count), rel=1e-12)
    assert accumulator.scores[:, 1].sum() == count


def test_perplexity_of_certain_and_uniform_predictions() -> None:
    ids = np.array([[0, 1, 2, 3]])
    uniform = np.zeros((1, 4, 5), np.float32)
    certain = np.zeros((1, 4, 5), np.float32)
    certain[0, [0, 1, 2], [1, 2, 3]] = 1e4
    for logits, expected in ((uniform, 5.0), (certain, 1.0), (-certain, np.exp(700))):
        accumulator = Accumulator(get_metric("perplexity"))
        accumulator.update({"logits": logits}, batch(1, None, ids=ids))
        assert accumulator.value() == pytest.approx(expected)


def test_perplexity_needs_logits_of_all_tokens() -> None:
    metric = get_metric("perplexity")
    ids = np.zeros((1, 4), np.int64)
    with pytest.raises(UsageError, match=r"output 'o' has shape \[1, 1, 5\] for token ids of shape \[1, 4\]"):
        metric.scores({"o": np.zeros((1, 1, 5))}, batch(1, None, input_ids=ids), None)
    with pytest.raises(UsageError, match="cannot tell which input holds the token ids"):
        metric.scores({"o": np.zeros((1, 4, 5))}, batch(1, None, a=ids, b=ids), None)
    with pytest.raises(UsageError, match="output 'out' has 2 dimensions"):
        metric.check(source(task="language-model"), [output(("N", 5))])
    with pytest.raises(DataError, match="Token id 9 is beyond the model's vocabulary of 5"):
        metric.scores({"o": np.zeros((1, 4, 5))}, batch(1, None, input_ids=ids + 9), None)
    with pytest.raises(DataError, match="Metric 'perplexity' has no token to predict"):
        metric.aggregate(np.zeros((3, 2)))


# Against the baseline's outputs.


@given(seeds, st.floats(1e-4, 1.0))
def test_fidelity_formulas(seed: int, noise: float) -> None:
    rng = np.random.default_rng(seed)
    theirs = rng.normal(size=(6, 3, 4)).astype(np.float32)
    ours = (theirs + noise * rng.normal(size=theirs.shape)).astype(np.float32)
    a, b = ours.astype(np.float64), theirs.astype(np.float64)
    mse = np.mean((a - b) ** 2)
    assert fidelity("mse", ours, theirs) == pytest.approx(mse)
    assert fidelity("sqnr", ours, theirs) == pytest.approx(10 * np.log10(np.mean(b**2) / mse))
    assert fidelity("psnr", ours, theirs) == pytest.approx(10 * np.log10((b.max() - b.min()) ** 2 / mse))
    cosine = [(x * y).sum() / np.sqrt((x * x).sum() * (y * y).sum()) for x, y in zip(a, b, strict=True)]
    assert fidelity("cosine", ours, theirs) == pytest.approx(np.mean(cosine))


@pytest.mark.parametrize(
    ("name", "same", "zero"), [("sqnr", 200, -200), ("psnr", 200, -200), ("cosine", 1, 0), ("mse", 0, 1)]
)
def test_fidelity_at_the_ends(name: str, same: float, zero: float) -> None:
    x = np.ones((2, 3), np.float32)
    assert fidelity(name, x, x) == same
    assert fidelity(name, x, 0 * x) == zero


def test_fidelity_of_integer_outputs() -> None:
    x = np.array([[255, 0]], np.uint8)
    assert fidelity("mse", x, np.array([[0, 255]], np.uint8)) == 255.0**2


def test_shapes_that_differ_from_the_baselines() -> None:
    with pytest.raises(
        UsageError, match=r"cannot compare an output of shape \[1, 3\] with the baseline's \[1, 4\]"
    ):
        fidelity("cosine", np.zeros((1, 3)), np.zeros((1, 4)))


# What is refused.


def test_unknown_metric() -> None:
    with pytest.raises(UsageError) as error:
        get_metric("top2")
    assert str(error.value) == (
        "Unknown metric 'top2'. Known metrics: top1, top5, accuracy, f1, f1_macro, perplexity, kl, "
        "kl_p99, top1_agreement, psnr, cosine, sqnr, mse, or module:callable."
    )


def test_names_units_and_directions() -> None:
    made = {name: get_metric(name) for name in METRIC_NAMES}
    assert {name for name, m in made.items() if not m.higher_is_better} == {
        "perplexity", "kl", "kl_p99", "mse",
    }  # fmt: skip
    assert {name for name, m in made.items() if m.needs_baseline} == {
        "kl", "kl_p99", "top1_agreement", "psnr", "cosine", "sqnr", "mse",
    }  # fmt: skip
    assert made["top1"].format(0.73692) == "73.69 %"
    assert made["sqnr"].format(31.27) == "31.3 dB"
    assert made["perplexity"].format(53.34501) == "53.345"
    assert made["cosine"].format(0.99912) == "0.9991"


LABELS = np.array([0, 1, 1])


@pytest.mark.parametrize(
    ("name", "labels", "task", "shape", "message"),
    [
        ("perplexity", LABELS, None, ("N", 10),
         "Metric 'perplexity' needs running text for a language model, but the evaluation data is labelled "
         "classification data. Use a metric that fits this data: top1, accuracy, f1_macro."),
        ("top1", None, None, ("N", 10),
         "Metric 'top1' needs labelled classification data, but the evaluation data is data without labels. "
         "Use a metric that fits this data: cosine, sqnr, psnr."),
        ("top1", None, "classification", ("N", 10),
         "Metric 'top1' needs labels and the evaluation data has none. "
         "Add labels to the data, or use a metric without labels: cosine, sqnr, psnr."),
        ("accuracy", None, "language-model", ("N", "T", 10),
         "Metric 'accuracy' needs labelled classification data, but the evaluation data is running text for "
         "a language model. Use a metric that fits this data: perplexity."),
        ("f1", LABELS, None, ("N", 1000),
         "Metric 'f1' is for two classes, but the model has 1000. "
         "Use f1_macro, the mean F1 over all classes."),
        ("top5", LABELS, None, ("N", 2),
         "Metric 'top5' is always 100 % for a model with 2 classes. Use top1 or accuracy."),
        ("top1", LABELS, None, ("N", 1),
         "Metric 'top1' needs a score per class, but output 'out' has a single one. "
         "Use accuracy or f1 for a binary classifier."),
        ("top1", LABELS, None, ("N", 21, 64, 64),
         "Metric 'top1' needs class scores [samples, classes], but output 'out' has shape [N, 21, 64, 64]. "
         "Name the output that holds the class scores, or use cosine, sqnr or psnr."),
    ],
)  # fmt: skip
def test_wrong_metric_for_the_task(
    name: str, labels: Array | None, task: Any, shape: Any, message: str
) -> None:
    with pytest.raises(UsageError) as error:
        get_metric(name).check(source(labels, task), [output(shape)])
    assert str(error.value) == message


def test_shape_that_is_known_only_when_run() -> None:
    get_metric("f1").check(source(LABELS), [output(("N", "C"))])
    with pytest.raises(UsageError, match="'f1' is for two classes, but the model has 4"):
        value("f1", np.zeros((3, 4)), LABELS)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 7, 1], "Label 7 is out of range: the model has 7 classes. "
                    "Labels must be 0..6 in the order of the model's outputs."),
        ([0, -1, 1], "Label -1 is out of range: the model has 7 classes. "
                     "Labels must be 0..6 in the order of the model's outputs."),
        ([0.5, 1.0, 2.0], "Metric 'top1' needs one class number per sample, but the labels have shape [3] "
                          "and dtype float64. Give labels as integers 0..classes-1, one per sample."),
        ([0, 1], "Metric 'top1' needs one class number per sample, but the labels have shape [2] and "
                 "dtype int64. Give labels as integers 0..classes-1, one per sample."),
        (None, "Metric 'top1' needs labels and this batch has none. Add labels."),
    ],
)  # fmt: skip
def test_labels_that_do_not_fit(labels: Any, message: str) -> None:
    with pytest.raises(DataError) as error:
        get_metric("top1").scores({"out": np.zeros((3, 7))}, batch(3, labels), None)
    assert str(error.value) == message


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("name", [n for n in METRIC_NAMES if n != "f1"])
def test_outputs_that_are_not_finite_fail_in_words(name: str, bad: float) -> None:
    metric = get_metric(name)
    shape = (4, 6, 9) if isinstance(metric, WindowMetric) else (4, 9)
    accumulator = Accumulator(metric)
    good = np.random.default_rng(0).normal(size=shape)
    one = batch(4, [0, 1, 2, 3], input_ids=np.zeros((4, 6), np.int64))
    accumulator.update({"out": good}, one, {"out": good})
    broken = good.copy()
    broken[2].flat[1] = bad
    with pytest.raises(NonFiniteOutputError) as error:
        accumulator.update({"out": broken}, one, {"out": good})
    assert str(error.value) == (
        f"Metric {name!r} failed: output 'out' holds NaN or Inf for sample 6. "
        "The model or its quantization overflows there; run that sample in FP32 to tell which."
    )


def test_large_finite_outputs_are_no_failure() -> None:
    out = np.full((2, 3), np.finfo(np.float64).max)
    out[:, 1] = 0
    assert value("top1", out, [0, 1]) == 0.5


def test_no_samples() -> None:
    with pytest.raises(DataError, match="'top1' was given no samples"):
        Accumulator(get_metric("top1")).value()


@pytest.mark.parametrize(
    ("labels", "task", "shape", "expected"),
    [
        (LABELS, None, ("N", 1000), ["top1", "top5", "sqnr"]),
        (LABELS, None, ("N", 2), ["top1", "f1", "sqnr"]),
        (LABELS, None, ("N", 1), ["accuracy", "f1", "sqnr"]),
        (LABELS, None, ("N", 4, 7, 7), ["sqnr"]),
        (None, None, ("N", 1000), ["sqnr"]),
        (None, "language-model", ("N", "T", 100), ["perplexity", "kl", "kl_p99", "top1_agreement"]),
        (None, "language-model", ("N", 100), ["sqnr"]),
    ],
)
def test_defaults(labels: Array | None, task: Any, shape: Any, expected: list[str]) -> None:
    assert default_metrics(source(labels, task), [output(shape)]) == expected


# A user's own.


def mean_error(outputs: dict[str, Array], labels: Array) -> Array:
    return np.abs(outputs["out"] - labels[:, None]).mean(axis=1)


mean_error.higher_is_better = False  # type: ignore[attr-defined]


class Rms:
    unit = "mm"
    needs_labels = True

    def __call__(self, outputs: dict[str, Array], labels: Array) -> Array:
        return np.stack([((outputs["out"] - labels[:, None]) ** 2).sum(1), np.full(len(labels), 2)], 1)

    def aggregate(self, scores: Array) -> float:
        return float(np.sqrt(scores[:, 0].sum() / scores[:, 1].sum()))


rms = Rms()


def test_users_metric() -> None:
    out, labels = np.array([[1.0, 2], [3, 5], [0, 0]]), np.array([1.0, 3, 2])
    assert value(f"{__name__}:mean_error", out, labels, 2) == pytest.approx((0.5 + 1 + 2) / 3)
    assert value(f"{__name__}:rms", out, labels, 2) == pytest.approx(np.sqrt((1 + 4 + 8) / 6))
    assert get_metric(f"{__name__}:mean_error").higher_is_better is False
    assert get_metric(f"{__name__}:rms").unit == "mm"
    with pytest.raises(UsageError, match="needs labels and the evaluation data has none"):
        get_metric(f"{__name__}:rms").check(source(), [output((3,))])


def scalar(outputs: Any, labels: Any) -> float:
    return 0.5


def table(outputs: Any, labels: Any) -> Array:
    return np.zeros((2, 3))


def broken(outputs: Any, labels: Any) -> Array:
    raise KeyError("no such output")


def not_a_number(outputs: Any, labels: Any) -> Array:
    return np.full(2, np.nan)


BAD_USER: list[tuple[Callable[..., Any], str]] = [
    (scalar, "returned shape [] for 2 samples. "
             "Return one score per sample, [samples], or statistics [samples, k] with `aggregate`."),
    (table, "returned statistics [samples, k] but has no `aggregate`. "
            "Set the attribute aggregate(scores) -> float, or return one score per sample."),
    (broken, "failed: KeyError: 'no such output'. Correct the callable."),
    (not_a_number, "returned NaN or Inf. Return finite scores."),
]  # fmt: skip


@pytest.mark.parametrize(("function", "message"), BAD_USER)
def test_users_metric_that_is_wrong(function: Callable[..., Any], message: str) -> None:
    name = f"{__name__}:{function.__name__}"
    with pytest.raises(UsageError) as error:
        get_metric(name).scores({"out": np.zeros((2, 2))}, batch(2), None)
    assert str(error.value) == f"Metric {name!r} {message}"


@pytest.mark.parametrize("name", ["nowhere_at_all:f", "json:nothing", "json:__name__", ":f", "json:"])
def test_users_metric_that_cannot_be_imported(name: str) -> None:
    with pytest.raises(UsageError, match=r"cannot be imported|is no callable"):
        get_metric(name)
