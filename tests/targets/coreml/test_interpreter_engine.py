"""The engine: rounding to declared dtypes, the border, control flow, freeing, errors."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgeq.calibration.types import Array
from edgeq.errors import EdgeqError, ModelError, TargetError
from edgeq.targets.coreml.interpreter import steps
from edgeq.targets.coreml.interpreter.call import TensorType
from edgeq.targets.coreml.interpreter.engine import Interpreter
from edgeq.targets.coreml.interpreter.half import round_half
from edgeq.targets.coreml.interpreter.program import read_package
from edgeq.targets.coreml.interpreter.rounding import finisher
from edgeq.targets.coreml.interpreter.structure import Result
from edgeq.targets.coreml.toolkit import builder, coremltools, mil_types
from tests.support.mil_cases import Batch, in_function, write
from tests.support.mil_folded import CASES

# --- rounding ---------------------------------------------------------------------------------------------


def reference(array: Array) -> Array:
    with np.errstate(all="ignore"):
        return array.astype(np.float16).astype(np.float32)


def test_rounding_is_that_of_numpy_for_every_exponent_and_tie() -> None:
    bits = np.arange(0, 2**32, 4093, dtype=np.uint64).astype(np.uint32)
    halves = np.arange(0x7C00, dtype=np.uint16).view(np.float16).astype(np.float32)
    ties = (halves[1:] + halves[:-1]) / 2
    for values in (bits.view(np.float32), halves, ties, np.nextafter(ties, np.float32(0)), -ties):
        want = reference(values)
        got = round_half(values, [values])
        np.testing.assert_array_equal(np.isnan(got), np.isnan(want))
        known = ~np.isnan(want)
        np.testing.assert_array_equal(got[known].view(np.uint32), want[known].view(np.uint32))


@settings(max_examples=60, deadline=None)
@given(
    array=hnp.arrays(
        np.float32, hnp.array_shapes(min_dims=0, max_dims=4, max_side=5), elements=st.floats(width=32)
    ),
    data=st.data(),
)
def test_rounding_keeps_layouts_and_shared_memory(array: Array, data: st.DataObject) -> None:
    view = array.transpose(data.draw(st.permutations(range(array.ndim))))
    if view.ndim and data.draw(st.booleans()):
        view = view[..., :: data.draw(st.sampled_from([1, -1, 2]))]
    before, want = array.copy(), reference(view)
    np.testing.assert_array_equal(round_half(view, [array]), want)
    np.testing.assert_array_equal(array, before)
    np.testing.assert_array_equal(round_half(view), want)
    np.testing.assert_array_equal(round_half(np.broadcast_to(view, (2, *view.shape))), np.stack([want, want]))


def test_results_must_be_what_the_package_declares() -> None:
    finish = finisher(TensorType("int8", (2, None)), "The operation 'q'", rounds=True)
    assert finish(np.array([[1], [-128]]), []).dtype == np.int8
    with pytest.raises(ModelError, match="outside int8"):
        finish(np.array([[1], [128]]), [])
    with pytest.raises(ModelError, match=r"gives the shape \(3, 1\), the package declares \(2, None\)"):
        finish(np.zeros((3, 1), np.int8), [])
    with pytest.raises(ModelError, match="gives float32, the package declares int8"):
        finish(np.zeros((2, 1), np.float32), [])


# --- whole packages ---------------------------------------------------------------------------------------

Make = Callable[[Any], list[Any]]


def package(
    make: Make,
    placeholders: Mapping[str, Any],
    path: Path,
    *,
    opset: int = 18,
    arithmetic: str = "float32",
    **options: Any,
) -> Interpreter:
    write(in_function(make, placeholders, opset), path, opset=opset, arithmetic=arithmetic, **options)
    return Interpreter(read_package(path))


@pytest.mark.parametrize("opset", [15, 16, 17, 18])
def test_every_operation_survives_a_written_package(tmp_path: Path, opset: int) -> None:
    """The cases of the value inference test in one package, fed at run time."""
    batch = Batch([case for case in CASES if case.opset == opset], opset)
    run = package(batch.make, batch.placeholders(), tmp_path / "m.mlpackage", opset=opset)
    found, wanted = run.run(batch.feeds), batch.wanted()
    assert len(found) == len(wanted) > 1
    for index, (case, want) in enumerate(wanted):
        np.testing.assert_allclose(found[f"y{index}"], want, rtol=3e-6, atol=1e-6, err_msg=str(case))


def test_float16_results_are_rounded_after_every_operation(tmp_path: Path) -> None:
    mb = builder()

    def make(function: Any) -> list[Any]:
        scaled = mb.mul(x=function.inputs["x"], y=np.float32(300.0), name="scaled")
        return [mb.add(x=scaled, y=np.float32(0.126), name="out")]

    path = tmp_path / "m.mlpackage"
    declared = package(make, {"x": mb.placeholder((4,))}, path, arithmetic="float16")
    exact = Interpreter(read_package(path), arithmetic="float32")
    x = np.array([0.1, 1.0, -217.0, 300.0], np.float32)
    half = np.float16
    with np.errstate(over="ignore"):
        want = (x.astype(half) * half(300)).astype(half) + half(0.126)
    found = declared.run({"x": x}, watch=["scaled_cast_fp16"])
    np.testing.assert_array_equal(found["out"], want.astype(np.float32))
    assert np.isposinf(found["out"][3])
    assert found["scaled_cast_fp16"].dtype == np.float32
    unrounded = x * np.float32(300.0) + np.float32(half(0.126))
    np.testing.assert_allclose(exact.run({"x": x})["out"], unrounded, rtol=1e-6)


def test_float16_ports_are_float16(tmp_path: Path) -> None:
    mb = builder()
    run = package(
        lambda f: [mb.mul(x=f.inputs["x"], y=np.float16(3.0), name="out")],
        {"x": mb.placeholder((3,), dtype=mil_types().fp16)},
        tmp_path / "m.mlpackage",
    )
    x = np.array([0.1, 2.0005, 30000.0], np.float32)
    with np.errstate(over="ignore"):
        want = x.astype(np.float16) * np.float16(3)
    found = run.run({"x": x})["out"]
    assert found.dtype == np.float16
    np.testing.assert_array_equal(found, want)
    np.testing.assert_array_equal(run.run({"x": x.astype(np.float16)})["out"], want)


def control_flow(function: Any) -> list[Any]:
    """Doubles x until its sum reaches 100, then a branch on the number of steps."""
    mb = builder()
    zero = mb.mul(x=mb.cast(x=mb.reduce_sum(x=function.inputs["x"]), dtype="int32"), y=np.int32(0))
    count, grown = mb.while_loop(
        _cond=lambda i, v: mb.less(x=mb.reduce_sum(x=v), y=np.float32(100)),
        _body=lambda i, v: (mb.add(x=i, y=np.int32(1)), mb.mul(x=v, y=np.float32(2))),
        loop_vars=(zero, function.inputs["x"]),
    )
    odd = mb.equal(x=mb.mod(x=count, y=np.int32(2)), y=np.int32(1))
    chosen = mb.cond(
        pred=odd,
        _true_fn=lambda: mb.mul(x=grown, y=np.float32(-1)),
        _false_fn=lambda: mb.add(x=grown, y=function.inputs["x"]),
    )
    return [mb.identity(x=chosen, name="out"), mb.expand_dims(x=count, axes=[0], name="steps")]


@pytest.mark.parametrize("start", [0.5, 1.0, 3.0, 60.0])
def test_loops_and_branches(tmp_path: Path, start: float) -> None:
    run = package(control_flow, {"x": builder().placeholder((2,))}, tmp_path / "m.mlpackage")
    x = np.full(2, start, np.float32)
    grown, count = x, 0
    while grown.sum() < 100:
        grown, count = grown * 2, count + 1
    found = run.run({"x": x})
    assert found["steps"].tolist() == [count]
    np.testing.assert_array_equal(found["out"], -grown if count % 2 else grown + x)


def chain(function: Any) -> list[Any]:
    mb, value = builder(), function.inputs["x"]
    for index in range(4):
        value = mb.add(x=value, y=np.float32(index + 1), name=f"v{index}")
    return [mb.identity(x=value, name="out")]


def test_values_are_freed_after_their_last_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = package(chain, {"x": builder().placeholder((1000,))}, tmp_path / "m.mlpackage")
    alive: list[int] = []
    results: list[weakref.ref[Any]] = []
    compute = steps.KernelStep._compute

    def watched(self: steps.KernelStep, call: Any) -> tuple[Array, ...]:
        found = compute(self, call)
        results.append(weakref.ref(found[0]))
        alive.append(sum(result() is not None for result in results))
        return found

    monkeypatch.setattr(steps.KernelStep, "_compute", watched)
    run.run({"x": np.zeros(1000, np.float32)})
    assert max(alive) <= 3  # argument, result, and what the last step still names
    found = run.run({"x": np.zeros(1000, np.float32)}, watch=["v0", "v2"])
    assert (found["v0"][0], found["v2"][0], found["out"][0]) == (1, 6, 10)
    with pytest.raises(TargetError, match="computes no value 'v9'"):
        run.run({"x": np.zeros(1000, np.float32)}, watch=["v9"])


def test_outputs_and_inputs_share_no_memory(tmp_path: Path) -> None:
    mb = builder()
    run = package(
        lambda f: [mb.identity(x=f.inputs["x"], name="a"), mb.identity(x=f.inputs["x"], name="b")],
        {"x": mb.placeholder((3,))},
        tmp_path / "m.mlpackage",
    )
    x = np.ones(3, np.float32)
    first, second = (run.run({"x": x}) for _ in range(2))
    first["a"][:] = 7
    assert x.tolist() == second["a"].tolist() == second["b"].tolist() == [1, 1, 1]


def dynamic(path: Path) -> Interpreter:
    from coremltools.converters.mil.mil import get_new_symbol

    mb, ct = builder(), coremltools()
    ports = [
        ct.TensorType(name="x", shape=(ct.RangeDim(1, 7, default=2), 4)),
        ct.TensorType(name="n", shape=(1,), dtype=np.int32),
    ]
    placeholders = {
        "x": mb.placeholder((get_new_symbol(), 4)),
        "n": mb.placeholder((1,), dtype=mil_types().int32),
    }

    def make(function: Any) -> list[Any]:
        flat = mb.reshape(x=function.inputs["x"], shape=[-1], name="flat")
        return [flat, mb.add(x=function.inputs["n"], y=np.int32(1), name="next")]

    return package(make, placeholders, path, opset=17, inputs=ports)


@pytest.fixture(scope="module")
def flexible(tmp_path_factory: pytest.TempPathFactory) -> Interpreter:
    return dynamic(tmp_path_factory.mktemp("flexible") / "m.mlpackage")


def test_dynamic_sizes_come_from_the_inputs(flexible: Interpreter) -> None:
    for size in (1, 5, 7):
        found = flexible.run({"x": np.ones((size, 4), np.float32), "n": np.array([4])})
        assert found["flat"].shape == (size * 4,)
        assert (found["next"].tolist(), found["next"].dtype) == ([5], np.int32)


def test_enumerated_shapes_are_the_only_ones(tmp_path: Path) -> None:
    from coremltools.converters.mil.mil import get_new_symbol

    mb, ct = builder(), coremltools()
    shapes = ct.EnumeratedShapes([[2, 4], [5, 4]], default=[2, 4])
    run = package(
        lambda f: [mb.relu(x=f.inputs["x"], name="y")],
        {"x": mb.placeholder((get_new_symbol(), 4))},
        tmp_path / "m.mlpackage",
        inputs=[ct.TensorType(name="x", shape=shapes)],
    )
    assert run.run({"x": np.ones((5, 4), np.float32)})["y"].shape == (5, 4)
    with pytest.raises(TargetError, match=r"takes \(2, 4\) or \(5, 4\)|takes \(5, 4\) or \(2, 4\)"):
        run.run({"x": np.ones((3, 4), np.float32)})


GOOD: dict[str, Any] = {"x": np.ones((2, 4), np.float32), "n": np.array([1], np.int32)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": None}, "'x' of the package is missing"),
        ({"extra": np.zeros(1)}, "no input 'extra'"),
        ({"x": np.ones((1, 2, 4), np.float32)}, "rank 3"),
        ({"x": np.ones((8, 4), np.float32)}, "takes 1..7x4"),
        ({"x": np.ones((2, 5), np.float32)}, "takes 1..7x4"),
        ({"x": np.ones((2, 4), np.int32)}, "is int32, the package takes float32"),
        ({"n": np.ones(1, np.float32)}, "is float32, the package takes int32"),
        ({"n": np.array([2**31])}, "integers outside int32"),
    ],
)
def test_wrong_inputs_are_refused(flexible: Interpreter, change: dict[str, Any], message: str) -> None:
    inputs = {name: value for name, value in {**GOOD, **change}.items() if value is not None}
    with pytest.raises(TargetError) as error:
        flexible.run(inputs)
    assert message in str(error.value)


def test_images_are_pixels(tmp_path: Path) -> None:
    mb, ct = builder(), coremltools()
    image = ct.ImageType(name="x", shape=(1, 3, 2, 2), scale=1 / 255.0, bias=[-0.5, 0, 0.5])
    run = package(
        lambda f: [mb.identity(x=f.inputs["x"], name="out")],
        {"x": mb.placeholder((1, 3, 2, 2))},
        tmp_path / "m.mlpackage",
        arithmetic="float16",
        inputs=[image],
    )
    pixels = np.arange(0, 240, 20, dtype=np.uint8).reshape(1, 3, 2, 2)
    want = pixels / 255.0 + np.array([-0.5, 0, 0.5]).reshape(3, 1, 1)
    np.testing.assert_allclose(run.run({"x": pixels})["out"], want, atol=1e-3)
    with pytest.raises(TargetError, match="outside 0 to 255"):
        run.run({"x": pixels.astype(np.float32) + 100})


def test_classifiers_give_labels_and_probabilities(tmp_path: Path) -> None:
    mb, ct = builder(), coremltools()
    labels = ["pear", "apple", "fig", "plum"]
    run = package(
        lambda f: [mb.softmax(x=f.inputs["x"], name="probs"), mb.relu(x=f.inputs["x"], name="other")],
        {"x": mb.placeholder((1, 4))},
        tmp_path / "m.mlpackage",
        classifier_config=ct.ClassifierConfig(labels, "fruit", predicted_probabilities_output="probs"),
    )
    x = np.array([[0.5, -1.0, 3.0, 1.0]], np.float32)
    found = run.run({"x": x})
    powers = np.exp(x)
    assert set(found) == {"fruit", "fruit_probs", "other", "probs"}
    assert found["fruit"].item() == "fig"
    np.testing.assert_allclose(found["probs"], powers / powers.sum(), rtol=1e-6)
    np.testing.assert_array_equal(found["fruit_probs"], found["probs"][0])


def test_ranks_that_core_ml_cannot_run_are_refused(tmp_path: Path) -> None:
    """coremltools refuses to write them: the program is changed after reading."""
    mb = builder()
    path = tmp_path / "m.mlpackage"
    package(lambda f: [mb.relu(x=f.inputs["x"], name="y")], {"x": mb.placeholder((2, 2))}, path)
    program = read_package(path)
    block = program.main.block
    relu = replace(block.operations[0], outputs=(Result("y", TensorType("float32", (1, 1, 1, 1, 2, 2))),))
    function = replace(program.main, block=replace(block, operations=(relu,)))
    with pytest.raises(TargetError, match=r"'y' \(relu\) gives a tensor of rank 6, and Core ML runs rank 5"):
        Interpreter(replace(program, functions={"main": function}))


def test_operations_without_a_kernel_are_named(tmp_path: Path) -> None:
    mb = builder()
    with pytest.raises(TargetError, match=r"no kernel for the operation 'dice' \(random_normal\)"):
        package(
            lambda f: [mb.add(x=f.inputs["x"], y=mb.random_normal(shape=[2], name="dice"), name="out")],
            {"x": mb.placeholder((2,))},
            tmp_path / "m.mlpackage",
        )


def test_numpy_errors_become_errors_of_the_operation(tmp_path: Path) -> None:
    mb = builder()
    run = package(
        lambda f: [mb.gather(x=np.arange(3, dtype=np.float32), indices=f.inputs["i"], name="out")],
        {"i": mb.placeholder((1,), dtype=mil_types().int32)},
        tmp_path / "m.mlpackage",
    )
    assert run.run({"i": np.array([2])})["out"].tolist() == [2]
    for index in (3, -1):
        with pytest.raises(EdgeqError, match=r"'out' \(gather\)"):
            run.run({"i": np.array([index])})
