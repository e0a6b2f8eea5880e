"""The comparison of the normalized model with the original."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from edgeq.calibration.types import Array, Batch
from edgeq.compiler.model import Model, Source
from edgeq.compiler.normalize import normalize
from edgeq.compiler.normalize.differences import difference
from edgeq.compiler.normalize.equivalence import Equivalence, check_equivalent
from edgeq.errors import ModelError
from tests.support.normalize_models import content, from_text, values

LINEAR = "(float[N, 4] x) => (float[N, 3] y) { y = MatMul(x, w) }"
WEIGHTS = {"w": values(4, 3)}


def _batches(*arrays: Array) -> list[Batch]:
    return [Batch({"x": a}, None, len(a)) for a in arrays]


def test_equal_models_are_equal_on_real_and_random_inputs() -> None:
    model = from_text(LINEAR, weights=WEIGHTS)
    assert check_equivalent(model, model, None) == Equivalence(0.0, 0.0, "random")
    assert check_equivalent(model, model, _batches(values(5, 4))) == Equivalence(0.0, 0.0, "real")


@pytest.mark.parametrize("real", [True, False])
def test_a_changed_weight_is_found_and_named(real: bool) -> None:
    model, changed = (
        from_text(LINEAR, weights=WEIGHTS),
        from_text(LINEAR, weights={"w": WEIGHTS["w"] * 1.001}),
    )
    with pytest.raises(ModelError) as caught:
        check_equivalent(model, changed, _batches(values(5, 4)) if real else None)
    assert "Normalizing changed output 'y': largest difference 0.00" in str(caught.value)
    assert str(caught.value).endswith("This is a defect of normalization: please report the model.")


def test_only_a_few_batches_are_read() -> None:
    model = from_text(LINEAR, weights=WEIGHTS)
    read = []

    def endless() -> object:
        while True:
            read.append(1)
            yield from _batches(values(1, 4))

    check_equivalent(model, model, endless())  # type: ignore[arg-type]
    assert len(read) <= 5


def test_a_rounding_difference_passes() -> None:
    model = from_text(LINEAR, weights=WEIGHTS)
    changed = from_text(LINEAR, weights={"w": WEIGHTS["w"] * np.float32(1 + 1e-6)})
    assert 0 < check_equivalent(model, changed, None).max_rel < 1e-5


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("(float[N, 4] x) => (float[N, 3] y) { m = MatMul(x, w) y = Sqrt(m) }", "it is NaN at other places"),
        (
            "(float[N, 4] x) => (float y) { m = MatMul(x, w) y = Transpose(m) }",
            "float32[2, 3] became float32[3, 2]",
        ),
        ("(float[N, 4] x) => (float16 y) { m = MatMul(x, w) y = Cast<to = 10>(m) }", "became float16[2, 3]"),
    ],
)
def test_other_shapes_types_and_nans_are_found(body: str, message: str) -> None:
    model, changed = from_text(LINEAR, weights=WEIGHTS), from_text(body, weights=WEIGHTS)
    changed.ir.graph.outputs[0].shape = None
    with pytest.raises(ModelError, match="Normalizing changed output 'y'") as caught:
        check_equivalent(model, changed, None)
    assert message in str(caught.value)


def test_equal_nans_are_equal() -> None:
    model = from_text("(float[N, 4] x) => (float[N, 4] y) { y = Sqrt(x) }")
    assert check_equivalent(model, model, None).max_abs == 0


def test_integer_outputs_must_be_equal() -> None:
    body = "(float[N, 4] x) => (int64[N] y) {{ y = ArgMax<axis = 1, keepdims = 0{}>(x) }}"
    with pytest.raises(ModelError, match="Normalizing changed output 'y': 2 elements differ"):
        check_equivalent(
            from_text(body.format("")),
            from_text("(float[N, 4] x) => (int64[N] y) { n = Neg(x) y = ArgMax<axis = 1, keepdims = 0>(n) }"),
            None,
        )


def test_a_model_that_amplifies_rounding_is_judged_by_its_own_noise() -> None:
    body = "(float[N, 4] x) => (float[N, 4] y) {{ m = Mul(x, big) s = Add(m, {}) y = Sin(s) }}"
    big = {"big": np.array(1e5, np.float32)}
    model = from_text(body.format("m"), weights=big)
    changed = from_text(body.format("m"), weights={"big": np.array(1e5 + 0.01, np.float32)})
    assert check_equivalent(model, changed, None).note == (
        "Rounding changes these outputs as much as the difference found: y."
    )


def test_larger_free_dimensions_are_tried_when_the_model_wants_them() -> None:
    body = "(float[N, samples] x) => (float y) { u = Unsqueeze(x, one) y = Conv(u, w) }"
    model = from_text(body, weights={"w": values(1, 1, 400), "one": np.array([1])})
    model.ir.graph.outputs[0].shape = None
    result = check_equivalent(model, normalize(model).model, None)
    assert result.note is None


def test_a_model_that_takes_no_random_inputs_is_said_to_be_uncompared() -> None:
    body = "(float[2, 4] x, int64[K] s) => (float y) { y = Reshape(x, s) }"
    model = from_text(body)
    model.ir.graph.outputs[0].shape = None
    note = check_equivalent(model, model, None).note
    assert note is not None
    assert note.startswith("Not compared: the model does not accept random inputs (")


def test_random_inputs_do_not_fill_the_memory() -> None:
    """No size is right for all of four free dimensions, and 1024 of each would be 8 GB."""
    body = "(float[a, b, c, d] x) => (float[a, 4, e, f] y) { y = Conv(x, w) }"
    model = from_text(body, weights={"w": values(4, 3, 3, 3)})
    tracemalloc.start()
    try:
        note = check_equivalent(model, model, None).note
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert note is not None
    assert note.startswith("Not compared: the model does not accept random inputs")
    assert peak < 2**29


def test_data_that_the_model_does_not_take_is_an_error() -> None:
    model = from_text(LINEAR, weights=WEIGHTS)
    with pytest.raises(ModelError, match="The model cannot be run on the given data"):
        check_equivalent(model, model, _batches(values(5, 7)))


def test_inputs_of_a_batch_that_the_model_does_not_have_are_left_out() -> None:
    model = from_text(LINEAR, weights=WEIGHTS)
    batch = Batch({"x": values(2, 4), "other": values(2, 2)}, None, 2)
    assert check_equivalent(model, model, [batch]).max_abs == 0


def test_differences_of_sequences_and_infinities() -> None:
    one, inf = np.ones(2, np.float32), np.array([1, np.inf], np.float32)
    assert difference([one, one], [one, one]).is_rounding
    assert difference([one], [one, one]).structure == "1 elements became 2"
    assert difference(inf, inf).is_rounding
    assert difference(one, inf).structure == "it is infinite at other places"
    assert difference(np.array(["a"]), np.array(["b"])).mismatches == 1


@pytest.mark.slow
def test_real_models_keep_their_numbers(edgeq_data: Path) -> None:
    paths = sorted((edgeq_data / "zoo").glob("*.onnx")) + sorted((edgeq_data / "models").glob("*.onnx"))
    assert paths
    for path in paths:
        model = Model(ir.load(path), Source("onnx", str(path), "0" * 64))
        result = normalize(model)
        equivalence = check_equivalent(model, result.model, None)
        assert equivalence.note is None, path.name
        assert equivalence.max_rel < 1e-4, path.name
        again = normalize(result.model)
        assert content(again.model) == content(result.model), f"{path.name}: not idempotent"
        assert content(normalize(model).model) == content(result.model), f"{path.name}: not deterministic"
