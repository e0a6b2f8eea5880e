"""Slice and Pad as Core ML packages, against ONNX Runtime: index algebra on known and dynamic sizes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from edgeq.calibration.types import Array
from edgeq.targets.coreml.frontend.node import RefusedNodeError
from edgeq.targets.coreml.ops.slicing import window
from edgeq.targets.dimensions import Dimension
from tests.support.coreml_ops import Op, by_onnxruntime, lower_ops, model_of, refusal, run_ops
from tests.support.coreml_sizes import SizedPackage

INT64 = np.iinfo(np.int64)
DYNAMIC = {"n": Dimension(1, 12)}


def i64(*numbers: int) -> Array:
    return np.array(numbers, np.int64)


def expected(size: int, start: int, end: int, step: int) -> list[int]:
    """ONNX's definition of Slice, in words: add the size to negative bounds, clamp, step."""
    start, end = (bound + size if bound < 0 else bound for bound in (start, end))
    if step > 0:
        return list(range(min(max(start, 0), size), min(max(end, 0), size), step))
    return list(range(min(max(start, 0), size - 1), min(max(end, -1), size - 1), step))


bounds = st.one_of(
    st.integers(-14, 14), st.sampled_from([INT64.max, INT64.min, INT64.max - 1, 2**31, -(2**31) - 5])
)
steps = st.sampled_from([1, 2, 3, 20, -1, -2, -3, -20])


@given(size=st.integers(1, 9), start=bounds, end=bounds, step=steps)
def test_the_window_of_a_known_size(size: int, start: int, end: int, step: int) -> None:
    found = window(size, 0, start, end, step)
    axis = np.arange(size)[::-1] if step < 0 else np.arange(size)
    begin, stop = (found.begin or 0), (size if found.end is None else found.end)
    assert begin >= 0
    assert stop >= 0 or not expected(size, start, end, step)
    taken = axis[begin : stop : found.step] if stop > begin else axis[:0]
    assert taken.tolist() == expected(size, start, end, step)


# --- whole packages ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def computed_bounds(tmp_path_factory: pytest.TempPathFactory) -> SizedPackage:
    """Bounds only known at run time; y0 steps by 1, y1 by 2, y2 has a known end, y3 a known start."""
    inputs = {"x": np.zeros((5, 3), np.float32), "s": i64(0), "e": i64(5)}
    ops = [
        Op("Slice", ["x", "s", "e", "axis"]),
        Op("Slice", ["x", "s", "e", "axis", "two"]),
        Op("Slice", ["x", "s", "end", "axis"]),
        Op("Slice", ["x", "start", "e", "axis"]),
    ]
    constants = {"axis": i64(0), "two": i64(2), "end": i64(INT64.max), "start": i64(0)}
    folder = tmp_path_factory.mktemp("slice")
    return SizedPackage(ops, inputs, {"x": ["n", 3]}, DYNAMIC, folder, constants)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(size=st.integers(1, 12), start=st.integers(-14, 14), end=st.integers(-14, 14))
def test_bounds_computed_at_run_time(computed_bounds: SizedPackage, size: int, start: int, end: int) -> None:
    whole = [expected(size, start, end, 1), expected(size, start, end, 2)]
    whole += [expected(size, start, INT64.max, 1), expected(size, 0, end, 1)]
    assume(all(whole))
    x = np.arange(size * 3, dtype=np.float32).reshape(size, 3)
    for got, rows in zip(computed_bounds.run({"x": x, "s": i64(start), "e": i64(end)}), whole, strict=True):
        np.testing.assert_array_equal(got, x[rows])


# Bounds that leave something of every size from 1 to 12.
KEPT = [(0, 5, 1), (-4, INT64.max, 1), (-1, INT64.max, 1), (-9, 7, 1), (0, 11, 3), (INT64.min, INT64.max, 2)]
KEPT += [
    (-1, INT64.min, -1),
    (INT64.max, INT64.min, -2),
    (5, INT64.min, -1),
    (-4, INT64.min, -1),
    (20, -13, -1),
]
# Bounds that leave something of sizes from 4 to 12.
LARGE = [
    (1, INT64.max, 1),
    (2, -1, 1),
    (-3, -1, 1),
    (0, -1, 2),
    (1, 9, 1),
    (3, 0, -1),
    (-1, 1, -1),
    (-2, -4, -1),
]


@pytest.mark.parametrize(("ios", "kept", "sizes"), [(18, KEPT, (1, 2, 5, 12)), (16, LARGE, (4, 5, 12))])
def test_constant_bounds_of_a_dynamic_size(
    ios: int, kept: list[tuple[int, int, int]], sizes: tuple[int, ...], tmp_path: Path
) -> None:
    constants: dict[str, Array] = {"axis": i64(-2)}
    ops = []
    for index, (start, end, step) in enumerate(kept):
        constants |= {f"s{index}": i64(start), f"e{index}": i64(end), f"t{index}": i64(step)}
        ops.append(Op("Slice", ["x", f"s{index}", f"e{index}", "axis", f"t{index}"]))
    first = np.zeros((2, sizes[0], 3), np.float32)
    package = SizedPackage(ops, {"x": first}, {"x": [2, "n", 3]}, DYNAMIC, tmp_path, constants, ios)
    for size in sizes:
        package.check({"x": np.arange(2 * size * 3, dtype=np.float32).reshape(2, size, 3)})


@pytest.mark.parametrize("ios", [16, 18])
def test_slices_of_all_types_and_axes(ios: int, tmp_path: Path) -> None:
    x = np.arange(60).reshape(3, 4, 5)
    inputs = {"x": x.astype(np.float32), "i": x, "b": x % 3 == 0}
    constants = {
        "s": i64(1, -1),
        "e": i64(3, INT64.min),
        "a": i64(2, 0),
        "t": i64(1, -1),
        "s3": i64(0, 1, 0),
        "e3": i64(2, 99, -1),
        "s1": i64(-3),
        "e1": i64(INT64.max),
        "a1": i64(-1),
        "t1": i64(2),
        "all_s": i64(0),
        "all_e": i64(99),
    }
    parameters = [["s", "e", "a", "t"], ["s3", "e3"], ["s1", "e1", "a1", "t1"], ["all_s", "all_e"]]
    ops = [Op("Slice", [name, *p]) for name in inputs for p in parameters]
    run_ops(ops, inputs, tmp_path, constants=constants, ios=ios).check(rtol=0, atol=0)


def test_an_empty_slice_is_refused() -> None:
    constants = {"s": i64(3), "e": i64(3)}
    assert "empty" in refusal(Op("Slice", ["x", "s", "e"]), {"x": np.zeros((5, 2), np.float32)}, constants)


# --- Pad --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ios", [16, 18])
def test_pads(ios: int, tmp_path: Path) -> None:
    x = np.arange(24).reshape(2, 3, 4)
    inputs = {"x": x.astype(np.float32), "i": x, "b": x % 3 == 0, "v": np.array(7.5, np.float32)}
    constants = {
        "p": i64(0, 1, 2, 1, 0, 1),
        "last": i64(1, 2),
        "axis": i64(-1),
        "two": i64(1, 2, 0, 1),
        "axes": i64(2, 0),
        "crop": i64(-1, 1, -2, 0, -1, 3),
        "vx": np.array(-2.5, np.float32),
        "vi": np.array(-3),
        "vb": np.array(True),
        "wide": i64(0, 4, 0, 0, 5, 0),
        "none": i64(0, 0, 0, 0, 0, 0),
        "first": i64(1, 0, 0, 1, 0, 0),
        "small": i64(0, 2, 3, 0, 1, 3),
        "one": i64(1, 1, 1, 1, 1, 1),
    }
    ops = []
    for name in ("x", "i", "b"):
        value = f"v{name}"
        ops += [Op("Pad", [name, "p"]), Op("Pad", [name, "p", value]), Op("Pad", [name, "crop", value])]
        ops += [Op("Pad", [name, "last", "", "axis"]), Op("Pad", [name, "two", value, "axes"])]
        ops += [Op("Pad", [name, pads], {"mode": "edge"}) for pads in ("p", "wide", "first", "none")]
        ops += [Op("Pad", [name, pads], {"mode": "reflect"}) for pads in ("small", "one")]
        ops += [Op("Pad", [name, pads], {"mode": "wrap"}) for pads in ("p", "small", "first")]
    ops.append(Op("Pad", ["x", "p", "v"]))
    run_ops(ops, inputs, tmp_path, constants=constants, ios=ios).check(rtol=0, atol=0)


pads = st.lists(st.integers(0, 3), min_size=6, max_size=6)


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_pads(tmp_path: Path, data: st.DataObject) -> None:
    x = np.arange(64, dtype=np.float32).reshape(4, 4, 4)
    inputs = {"x": x, "i": x.astype(np.int64)}
    constants: dict[str, Array] = {}
    ops = []
    for index in range(12):
        mode = data.draw(st.sampled_from(["constant", "edge", "reflect", "wrap"]))
        signs = data.draw(st.integers(0, 63)) if mode == "constant" else 0
        drawn = data.draw(pads)
        # not both sides of an axis are cropped by 2 or more: something is left
        constants[f"p{index}"] = i64(*(-min(p, 1) if signs >> k & 1 else p for k, p in enumerate(drawn)))
        ops.append(Op("Pad", [data.draw(st.sampled_from(["x", "i"])), f"p{index}"], {"mode": mode}))
    run_ops(ops, inputs, tmp_path, constants=constants).check(rtol=0, atol=0)


def test_pads_of_a_dynamic_size(tmp_path: Path) -> None:
    constants = {
        "p": i64(1, 2, 0, 1),
        "row": i64(1, 0, 1, 0),
        "col": i64(0, 2, 0, 1),
        "crop": i64(-1, 0, 2, -1),
        "v": np.array(2),
        "vf": np.array(0.5, np.float32),
    }
    ops = [
        Op("Pad", ["x", "p", "vf"]),
        Op("Pad", ["i", "p", "v"]),
        Op("Pad", ["x", "crop"]),
        Op("Pad", ["x", "row"], {"mode": "edge"}),
        Op("Pad", ["x", "p"], {"mode": "reflect"}),
        Op("Pad", ["i", "col"], {"mode": "wrap"}),
    ]

    def inputs(size: int) -> dict[str, Array]:
        x = np.arange(size * 4).reshape(size, 4)
        return {"x": x.astype(np.float32), "i": x}

    package = SizedPackage(ops, inputs(5), {"x": ["n", 4], "i": ["n", 4]}, DYNAMIC, tmp_path, constants)
    for size in (2, 5, 12):
        package.check(inputs(size))


@pytest.mark.parametrize(
    ("op", "reason"),
    [
        (Op("Pad", ["x", "negative"], {"mode": "edge"}), "negative pads"),
        (Op("Pad", ["x", "everything"]), "empty"),
        (Op("Pad", ["x", "computed"]), "pads is computed at run time"),
    ],
)
def test_pads_that_core_ml_cannot_have(op: Op, reason: str) -> None:
    inputs: dict[str, Array] = {"x": np.ones((2, 4), np.float32)}
    constants = {"negative": i64(0, -1, 0, 1), "everything": i64(-1, 0, -1, 0)}
    if op.inputs[1] == "computed":
        inputs["computed"] = i64(0, 1, 0, 1)
    assert reason in refusal(op, inputs, {k: v for k, v in constants.items() if k in op.inputs})


def test_wrapping_a_dynamic_axis_is_refused() -> None:
    constants = {"p": i64(1, 0, 0, 0)}
    x = np.ones((2, 4), np.float32)
    model = model_of([Op("Pad", ["x", "p"], {"mode": "wrap"})], {"x": x}, constants, {"x": ["n", 4]})
    with pytest.raises(RefusedNodeError, match="dynamic axis 0 in mode 'wrap'"):
        lower_ops(model, by_onnxruntime(model, {"x": x}), dimensions=DYNAMIC)
