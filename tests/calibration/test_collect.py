"""The collecting run against ONNX Runtime itself: exact values, any batching, errors in words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from edgeq.calibration.collect import Statistics, collect
from edgeq.calibration.sketch import Sketch
from edgeq.errors import DataError, ModelError, UsageError
from tests.support.calibration_models import ArraysInMemory, model_bytes, small_cnn

INNER = ["x", "b", "d", "joined", "turned", "mean", "y"]
IDENTITY = "(float[N, 3] x) => (float[N, 3] y)"


def images(count: int = 10, seed: int = 0) -> ArraysInMemory:
    x = np.random.default_rng(seed).standard_normal((count, 2, 8, 8)).astype(np.float32)
    return ArraysInMemory({"x": x})


def reference(model: bytes, source: ArraysInMemory, names: list[str]) -> dict[str, Sketch]:
    """Sketches of all values, with every tensor fetched without optimization."""
    proto = onnx.load_from_string(model)
    known = {o.name for o in proto.graph.output}
    proto.graph.output.extend(onnx.ValueInfoProto(name=n) for n in names if n not in known and n != "x")
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    computed = [n for n in names if n != "x"]
    arrays = dict(zip(computed, session.run(computed, source.arrays), strict=True)) | source.arrays
    sketches = {n: Sketch() for n in names}
    for name in names:
        sketches[name].update(arrays[name])
    return sketches


def assert_close(found: Sketch, expected: Sketch) -> None:
    assert (found.count, found.zeros) == (expected.count, expected.zeros)
    for q in (0, 0.1, 0.5, 0.9, 1):
        assert found.quantile(q) == pytest.approx(expected.quantile(q), rel=1e-2, abs=1e-5)


@pytest.mark.parametrize("batch_size", [1, 3, 10, None])
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_every_tensor_gets_all_its_values(batch_size: int | None, threads: int) -> None:
    model, source = small_cnn(), images()
    found = collect(model, INNER, source, samples=100, batch_size=batch_size, threads=threads)
    assert found.samples == 10
    expected = reference(model, source, INNER)
    assert list(found.sketches) == INNER
    for name in INNER:
        assert_close(found.sketches[name], expected[name])


def test_the_result_does_not_depend_on_threads() -> None:
    runs = [collect(small_cnn(), INNER, images(), samples=10, batch_size=2, threads=t) for t in (1, 2, 4)]
    for run in runs[1:]:
        assert run.sketches == runs[0].sketches


def test_samples_limit_the_data() -> None:
    assert collect(small_cnn(), ["b"], images(), samples=4).samples == 4
    source = ArraysInMemory(images().arrays, known_size=False)
    found = collect(small_cnn(), ["b"], source, samples=7, batch_size=3)
    assert (found.samples, found.sketches["b"].count) == (7, 7 * 3 * 64)


def test_rearranged_tensors_are_not_fetched() -> None:
    """Concat and Transpose hold the values of tensors that are counted anyway."""
    from edgeq.calibration.instrument import plan_fetches, read_graph

    graph = read_graph(small_cnn())
    assert plan_fetches(graph, INNER).fetched == ("x", "b", "d", "mean", "y")
    assert plan_fetches(graph, INNER, ["turned"]).fetched == ("x", "b", "d", "turned", "mean", "y")
    assert plan_fetches(graph, ["b", "turned"]).fetched == ("b", "turned")


def test_concat_with_a_constant_or_with_itself_counts_right() -> None:
    model = model_bytes(
        """
        g (float[N, 2] x) => (float[N, 6] y) {
            shape = Shape<start = 0, end = 1>(x)
            rows = Concat<axis = 0>(shape, two)
            c = Expand(value, rows)
            y = Concat<axis = 1>(x, x, c)
        }
        """,
        {"two": np.array([2], np.int64), "value": np.array([[7.0, 8.0]], np.float32)},
    )
    source = ArraysInMemory({"x": np.arange(10, dtype=np.float32).reshape(5, 2)})
    found = collect(model, ["x", "c", "y"], source, samples=5, batch_size=2)
    assert found.sketches["y"].count == 30
    assert found.sketches["y"].zeros == 2
    assert found.sketches["c"].count == 10


def test_constant_tensors_are_counted_once() -> None:
    model = model_bytes(
        f"g {IDENTITY} {{ c = Mul(w, w) d = Concat<axis = 0>(w, w) y = Mul(x, c) }}",
        {"w": np.array([1, 2, 3], np.float32)},
    )
    source = ArraysInMemory({"x": np.ones((20, 3), np.float32)})
    found = collect(model, ["w", "c", "d", "y"], source, samples=20, batch_size=5)
    assert [found.sketches[n].count for n in ("w", "c", "d", "y")] == [3, 3, 6, 60]
    assert found.sketches["c"].max == 9


def test_fused_models_stay_fused() -> None:
    """Asking for the output of Relu alone leaves Conv + Relu one kernel: nothing in between is computed."""
    from edgeq.calibration.instrument import open_session, plan_fetches, read_graph

    model = small_cnn()
    session = open_session(model, plan_fetches(read_graph(model), ["x", "b", "d"]), 1)
    assert [o.name for o in session.get_outputs()] == ["y", "b", "d"]


def test_batch_size_follows_the_model() -> None:
    free, fixed, varying = images(), images(), images()
    collect(small_cnn(), ["b"], free, samples=100)
    assert free.asked == [1, 32]
    text = f"g {IDENTITY.replace('N', '4')} {{ y = Relu(x) }}"
    fixed = ArraysInMemory({"x": np.arange(30, dtype=np.float32).reshape(10, 3)})
    found = collect(model_bytes(text), ["y"], fixed, samples=100)
    assert fixed.asked == [4, 4]
    # The last batch of two is filled up to four by repeating its samples.
    assert (found.samples, found.sketches["y"].count, found.sketches["y"].max) == (10, 36, 29)
    varying = ArraysInMemory({"x": np.ones((4, 3), np.float32)})
    collect(model_bytes("g (float[N, T] x) => (float[N, T] y) { y = Relu(x) }"), ["y"], varying, samples=4)
    assert varying.asked == [1, 1]


def test_inputs_that_disagree_about_the_batch_run_one_by_one() -> None:
    model = model_bytes("g (float[N, 3] x, float[1, 3] state) => (float[N, 3] y) { y = Add(x, state) }")
    source = ArraysInMemory({"x": np.ones((5, 3), np.float32), "state": np.ones((5, 3), np.float32)})
    assert collect(model, ["y"], source, samples=5).sketches["y"].count == 15
    assert source.asked == [1, 1]


def test_large_activations_come_in_small_batches() -> None:
    image = "float[N, 1, 512, 512]"
    text = f"g ({image} x) => ({image} y) {{ a = Relu(x) b = Neg(a) c = Neg(b) y = Neg(c) }}"
    source = ArraysInMemory({"x": np.ones((3, 1, 512, 512), np.float32)})
    collect(model_bytes(text), ["x", "a", "b", "c", "y"], source, samples=3)
    assert source.asked == [1, 1]


class Recorder:
    """An observer that keeps what it sees."""

    def __init__(self, *tensors: str) -> None:
        self.tensors = tensors
        self.seen: list[tuple[str, np.ndarray]] = []

    def observe(self, name: str, array: np.ndarray) -> None:
        self.seen.append((name, array.copy()))


def test_observers_share_the_pass_in_order() -> None:
    source, recorder = images(9), Recorder("joined", "x", "w1")
    collect(small_cnn(), ["b"], source, samples=9, batch_size=2, threads=3, observers=[recorder])
    inputs = np.concatenate([a for name, a in recorder.seen if name == "x"])
    np.testing.assert_array_equal(inputs, source.arrays["x"])
    assert [name for name, _ in recorder.seen].count("w1") == 1
    assert recorder.seen[0][0] == "w1"
    assert sum(a.shape[0] for name, a in recorder.seen if name == "joined") == 9


def test_observers_alone() -> None:
    recorder = Recorder("d")
    found = collect(small_cnn(), [], images(3), samples=3, observers=[recorder])
    assert found == Statistics({}, 3)
    assert recorder.seen


class Shown:
    """A progress that remembers."""

    def __init__(self) -> None:
        self.total: int | None = None
        self.done = 0

    @contextmanager
    def task(self, description: str, total: int | None = None) -> Iterator:
        self.total = total

        def advance(steps: int) -> None:
            self.done += steps

        yield advance

    def note(self, message: str) -> None: ...


def test_progress_counts_samples() -> None:
    shown = Shown()
    collect(small_cnn(), ["b"], images(10), samples=8, batch_size=3, progress=shown)
    assert (shown.total, shown.done) == (8, 8)


def external(folder: Path) -> Path:
    path = folder / "model.onnx"
    onnx.save_model(
        onnx.load_from_string(small_cnn()),
        path,
        save_as_external_data=True,
        location="weights.bin",
        size_threshold=64,  # ONNX Runtime wants the axes of ReduceMean inside
    )
    assert (folder / "weights.bin").exists()
    return path


def test_paths_and_external_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = collect(small_cnn(), INNER, images(), samples=10, batch_size=2).sketches
    plain = tmp_path / "plain.onnx"
    plain.write_bytes(small_cnn())
    before = sorted(p.name for p in tmp_path.iterdir())
    assert collect(plain, INNER, images(), samples=10, batch_size=2).sketches == expected
    assert sorted(p.name for p in tmp_path.iterdir()) == before
    path = external(tmp_path)
    assert collect(path, INNER, images(), samples=10, batch_size=2).sketches == expected
    monkeypatch.chdir(tmp_path)
    assert collect(Path("model.onnx"), INNER, images(), samples=10, batch_size=2).sketches == expected


def test_missing_external_data_is_a_model_error(tmp_path: Path) -> None:
    path = external(tmp_path)
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(ModelError, match="ONNX Runtime cannot load the model for calibration"):
        collect(path, ["b"], images(), samples=1)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("batch_size", [1, 4])
def test_non_finite_activations_name_tensor_and_sample(value: float, batch_size: int) -> None:
    source = images(10)
    source.arrays["x"][6, 1, 0, 0] = value
    with pytest.raises(DataError) as error:
        collect(small_cnn(), INNER, source, samples=10, batch_size=batch_size, threads=2)
    kind = "NaN" if np.isnan(value) else "infinite"
    assert str(error.value) == (
        f"Tensor 'x' has {kind} values for calibration sample 6. "
        "Check that sample and the preprocessing, or leave the nodes around the tensor in float."
    )


def test_the_first_tensor_that_is_not_finite_is_named() -> None:
    model = model_bytes(f"g {IDENTITY} {{ a = Log(x) b = Relu(a) y = Mul(b, b) }}")
    source = ArraysInMemory({"x": np.float32([[1, 2, 3], [1, -1, 1]])})
    with pytest.raises(DataError, match="Tensor 'a' has NaN values for calibration sample 1"):
        collect(model, ["y", "b", "a", "x"], source, samples=2)
    counted = collect(model, ["a", "x"], source, samples=2, non_finite="count").sketches
    assert (counted["a"].nan, counted["a"].count, counted["x"].nan) == (1, 5, 0)


def test_empty_data() -> None:
    with pytest.raises(DataError) as error:
        collect(small_cnn(), ["b"], images(0), samples=5)
    assert str(error.value) == "The calibration data is empty. Give at least one sample."


@pytest.mark.parametrize("options", [{"samples": 0}, {"samples": 1, "batch_size": 0}])
def test_no_samples_asked(options) -> None:
    with pytest.raises(UsageError) as error:
        collect(small_cnn(), ["b"], images(), **options)
    assert str(error.value) == "The number of samples and the batch size must be at least 1."


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (
            {"x": np.zeros((2, 3, 8, 8), np.float32)},
            "The model cannot take calibration sample 0: Got invalid dimensions",
        ),
        (
            {"x": np.zeros((2, 2, 8, 8), np.float64)},
            "The model cannot take calibration sample 0: Unexpected input data",
        ),
        (
            {"pixels": np.zeros((2, 2, 8, 8), np.float32)},
            "The calibration data has no array for input 'x'. It has: 'pixels'. The names must be the model",
        ),
    ],
)
def test_data_that_does_not_fit(arrays, message: str) -> None:
    with pytest.raises(DataError) as error:
        collect(small_cnn(), ["b"], ArraysInMemory(arrays), samples=2)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)
    assert "ONNXRuntimeError" not in str(error.value)


def test_unknown_and_hidden_tensors() -> None:
    with pytest.raises(ModelError) as error:
        collect(small_cnn(), ["b", "nowhere"], images(), samples=1)
    assert str(error.value) == (
        "Tensor 'nowhere' cannot be observed: the model's main graph has none of that name. "
        "Tensors inside of If, Loop, Scan and function bodies cannot be calibrated."
    )


@pytest.mark.parametrize("content", [b"", b"not a model", small_cnn()[:200]])
def test_what_is_no_model(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(content)
    for model in (content, path):
        with pytest.raises(ModelError):
            collect(model, ["x"], images(), samples=1)
    with pytest.raises(ModelError, match="cannot be read"):
        collect(tmp_path / "none.onnx", ["x"], images(), samples=1)


def test_an_interrupt_stops_the_run() -> None:
    class Interrupted(ArraysInMemory):
        def batches(self, batch_size: int, limit: int | None = None) -> Iterator:
            for index, batch in enumerate(super().batches(batch_size, limit)):
                if index == 3:
                    raise KeyboardInterrupt
                yield batch

    import threading

    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        collect(small_cnn(), ["b"], Interrupted(images(100).arrays), samples=100, batch_size=1, threads=2)
    assert threading.active_count() == before


def test_an_observer_that_fails_stops_the_run() -> None:
    class Failing(Recorder):
        def observe(self, name: str, array: np.ndarray) -> None:
            raise DataError("Enough.")

    with pytest.raises(DataError, match="Enough"):
        collect(small_cnn(), ["b"], images(), samples=10, observers=[Failing("d")])


def test_half_precision_models() -> None:
    model = model_bytes("g (float16[N, 3] x) => (float16[N, 3] y) { y = Relu(x) }")
    source = ArraysInMemory({"x": np.float16([[1, -2, 3]])})
    sketch = collect(model, ["x", "y"], source, samples=1).sketches["y"]
    assert (sketch.count, sketch.min, sketch.max) == (3, 0, 3)
