"""Conversion to the canonical opset: the numbers of each old operator against the converted one."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from edgeq.compiler.normalize import normalize
from edgeq.compiler.normalize.adapters import ADAPTERS
from edgeq.compiler.normalize.opset import CANONICAL_OPSET, MIN_OPSET
from edgeq.errors import ModelError
from tests.support.normalize_models import from_text, normalized, one_node, ops, run, values

X = values(2, 3, 4, 6)
BN = {name: np.random.default_rng(i).uniform(0.5, 1.5, 3).astype(np.float32) for i, name in enumerate("abcd")}
# Changed without a change of meaning for a valid inference model of the older opset: new attributes whose
# default is the old behaviour, inputs that became optional, renamed outputs.
COMPATIBLE = frozenset(
    {
        "ArgMax", "ArgMin", "AveragePool", "Cast", "CastLike", "Constant", "DepthToSpace", "DequantizeLinear",
        "GRU", "GatherND", "Gemm", "LSTM", "LpPool", "MaxPool", "OptionalHasElement", "QuantizeLinear", "RNN",
        "Reshape", "ScatterElements", "ScatterND", "Shape",
    }
)  # fmt: skip


def _signature(schema: onnx.defs.OpSchema) -> tuple[object, ...]:
    return (
        [(i.name, i.option) for i in schema.inputs],
        [(o.name, o.option) for o in schema.outputs],
        sorted((a, v.required, str(v.default_value)) for a, v in schema.attributes.items()),
        schema.deprecated,
    )


def test_every_operator_that_changed_has_an_adapter_or_is_known_to_be_compatible() -> None:
    history: dict[str, list[onnx.defs.OpSchema]] = {}
    for schema in onnx.defs.get_all_schemas_with_history():
        if schema.domain == "" and schema.since_version <= CANONICAL_OPSET:
            history.setdefault(schema.name, []).append(schema)
    changed = set()
    for name, schemas in history.items():
        schemas.sort(key=lambda s: s.since_version)
        old = [s for s in schemas if s.since_version <= MIN_OPSET][-1:]
        valid = old + [s for s in schemas if s.since_version > MIN_OPSET]
        if any(_signature(a) != _signature(b) for a, b in pairwise(valid)):
            changed.add(name)
    assert changed - set(ADAPTERS) - COMPATIBLE == set()
    assert set(ADAPTERS) - changed == set()


@pytest.mark.parametrize("opset", range(7, 25))
def test_a_small_network_of_every_opset(opset: int) -> None:
    body = """(float[N, 3, 8, 8] x) => (float[N, 5] y) {
        c = Conv<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(x, w, b)
        r = Relu(c)
        p = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(r)
        g = GlobalAveragePool(p)
        f = Flatten(g)
        o = Gemm<transB = 1>(f, v, u)
        y = Softmax<axis = 1>(o)
    }"""
    weights = {"w": values(4, 3, 3, 3), "b": values(4), "v": values(5, 4), "u": values(5)}
    result = normalized(from_text(body, opset, weights), {"x": values(2, 3, 8, 8)})
    assert result.model.ir.opset_imports[""] == max(opset, CANONICAL_OPSET)
    assert result.model.ir.ir_version >= 10


@pytest.mark.parametrize("opset", [7, 8, 9])
@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize("factors", [(2.0, 2.0), (3.0, 1.0), (1.5, 2.5)])
def test_upsample(opset: int, mode: str, factors: tuple[float, float]) -> None:
    scales = [1.0, 1.0, *factors]
    if opset < 9:
        model = one_node("Upsample", ["x"], opset=opset, x=X, mode=mode, scales=scales)
    else:
        constants = {"s": np.array(scales, np.float32)}
        model = one_node("Upsample", ["x", "s"], opset=opset, x=X, constants=constants, mode=mode)
    assert "Upsample" not in ops(normalized(model, {"x": X}).model)


@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize("factors", [(2.0, 2.0), (1.7, 0.5), (0.4, 3.0)])
def test_resize_10(mode: str, factors: tuple[float, float]) -> None:
    constants = {"s": np.array([1, 1, *factors], np.float32)}
    normalized(one_node("Resize", ["x", "s"], opset=10, x=X, constants=constants, mode=mode), {"x": X})


@pytest.mark.parametrize("opset", [11, 12])
@pytest.mark.parametrize("mode", ["asymmetric", "half_pixel", "align_corners", "pytorch_half_pixel"])
def test_resize_with_empty_roi_and_scales(opset: int, mode: str) -> None:
    constants = {
        "roi": np.array([], np.float32),
        "scales": np.array([], np.float32),
        "sizes": np.array([2, 3, 7, 9], np.int64),
    }
    model = one_node(
        "Resize", ["x", "roi", "scales", "sizes"], opset=opset, x=X, constants=constants,
        mode="linear", coordinate_transformation_mode=mode,
    )  # fmt: skip
    normalized(model, {"x": X})


@pytest.mark.parametrize("opset", [7, 8, 9, 13])
def test_batch_normalization(opset: int) -> None:
    model = one_node("BatchNormalization", ["x", *"abcd"], opset=opset, x=X, constants=BN, epsilon=1e-3)
    normalized(model, {"x": X})


@pytest.mark.parametrize("opset", [7, 10, 11])
def test_dropout_goes(opset: int) -> None:
    model = one_node("Dropout", ["x"], opset=opset, x=X, ratio=0.3)
    assert ops(normalized(model, {"x": X}).model) == {"Identity": 1}


@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax", "Hardmax"])
@pytest.mark.parametrize("opset", [7, 11, 12, 13])
@pytest.mark.parametrize("axis", [None, 0, 1, 2, 3])
@pytest.mark.parametrize("shape", [(2, 3, 4, 6), ("a", "b", "c", "d")])
def test_softmax_flattens_before_13(
    op: str, opset: int, axis: int | None, shape: tuple[int | str, ...]
) -> None:
    attributes = {} if axis is None else {"axis": axis}
    model = one_node(op, ["x"], opset=opset, x=X, shape=shape, **attributes)
    normalized(model, {"x": X})


def test_softmax_over_the_last_axis_stays_one_node() -> None:
    x = values(2, 5)
    assert ops(normalized(one_node("Softmax", ["x"], opset=9, x=x), {"x": x}).model) == {"Softmax": 1}


@pytest.mark.parametrize("opset", [7, 10])
@pytest.mark.parametrize("bounds", [{"min": -0.5, "max": 0.5}, {"min": -0.3}, {"max": 0.3}, {}])
def test_clip(opset: int, bounds: dict[str, float]) -> None:
    normalized(one_node("Clip", ["x"], opset=opset, x=X, **bounds), {"x": X})


@pytest.mark.parametrize("opset", [7, 10])
@pytest.mark.parametrize("how", [{"value": 1.5}, {}, {"mode": "reflect"}, {"mode": "edge"}])
def test_pad(opset: int, how: dict[str, object]) -> None:
    normalized(one_node("Pad", ["x"], opset=opset, x=X, pads=[0, 0, 1, 2, 0, 0, 2, 1], **how), {"x": X})


@pytest.mark.parametrize("opset", [7, 11, 12])
@pytest.mark.parametrize(
    ("op", "attributes"), [("Squeeze", {"axes": [0]}), ("Squeeze", {}), ("Unsqueeze", {"axes": [0, 2]})]
)
def test_squeeze_and_unsqueeze(opset: int, op: str, attributes: dict[str, list[int]]) -> None:
    x = values(1, 3, 4)
    normalized(one_node(op, ["x"], opset=opset, x=x, **attributes), {"x": x})


@pytest.mark.parametrize("opset", [7, 9])
@pytest.mark.parametrize("axes", [{"axes": [1, 2]}, {}, {"axes": [2, 3]}])
def test_slice(opset: int, axes: dict[str, list[int]]) -> None:
    normalized(one_node("Slice", ["x"], opset=opset, x=X, starts=[1, -3], ends=[3, 100], **axes), {"x": X})


@pytest.mark.parametrize("opset", [7, 9])
def test_topk(opset: int) -> None:
    normalized(one_node("TopK", ["x"], opset=opset, x=X, outputs=2, k=2, axis=1), {"x": X})


@pytest.mark.parametrize("opset", [7, 12, 13, 17])
@pytest.mark.parametrize(
    "op", ["ReduceMean", "ReduceMax", "ReduceMin", "ReduceL1", "ReduceL2", "ReduceLogSumExp", "ReduceProd"]
)
@pytest.mark.parametrize("how", [{"axes": [1], "keepdims": 0}, {"keepdims": 1}, {"axes": [-1, 1]}])
def test_reductions(opset: int, op: str, how: dict[str, Any]) -> None:
    if opset < 11:  # Negative axes came with opset 11.
        how = {**how, "axes": [a % 4 for a in how["axes"]]} if "axes" in how else how
    normalized(one_node(op, ["x"], opset=opset, x=X, **how), {"x": X})


@pytest.mark.parametrize("opset", [7, 11])
def test_reduce_sum(opset: int) -> None:
    normalized(one_node("ReduceSum", ["x"], opset=opset, x=X, axes=[2, 3], keepdims=0), {"x": X})


@pytest.mark.parametrize("opset", [7, 12, 13, 17])
@pytest.mark.parametrize("even", [True, False])
def test_split(opset: int, even: bool) -> None:
    if even:
        model = one_node("Split", ["x"], opset=opset, x=X, outputs=2, axis=2)
    elif opset < 13:
        model = one_node("Split", ["x"], opset=opset, x=X, outputs=2, axis=1, split=[1, 2])
    else:
        constants = {"s": np.array([1, 2])}
        model = one_node("Split", ["x", "s"], opset=opset, x=X, outputs=2, axis=1, constants=constants)
    normalized(model, {"x": X})


def test_scatter() -> None:
    x = values(2, 3)
    constants = {"i": np.array([[1]]), "u": np.ones((1, 1), np.float32)}
    model = one_node("Scatter", ["x", "i", "u"], opset=9, x=x, constants=constants, axis=1)
    assert ops(normalized(model, {"x": x}).model) == {"ScatterElements": 1}


@pytest.mark.parametrize("opset", [10, 15])
def test_roi_align(opset: int) -> None:
    constants = {"r": np.array([[0, 0, 3, 3], [1, 0.5, 4, 2]], np.float32), "i": np.array([0, 1])}
    model = one_node(
        "RoiAlign", ["x", "r", "i"], opset=opset, x=X, constants=constants, output_height=2, output_width=2,
        sampling_ratio=2,
    )  # fmt: skip
    normalized(model, {"x": X})


@pytest.mark.parametrize("opset", [16, 19])
@pytest.mark.parametrize("mode", ["bilinear", "bicubic", "nearest"])
def test_grid_sample(opset: int, mode: str) -> None:
    constants = {"g": np.random.default_rng(0).uniform(-1, 1, (2, 3, 3, 2)).astype(np.float32)}
    model = one_node("GridSample", ["x", "g"], opset=opset, x=X, constants=constants, mode=mode)
    normalized(model, {"x": X})


@pytest.mark.parametrize("attributes", [{}, {"axis": 2}, {"onesided": 1, "axis": 1}])
def test_dft(attributes: dict[str, int]) -> None:
    x = values(2, 4, 6, 1)
    normalized(one_node("DFT", ["x"], opset=17, x=x, **attributes), {"x": x}, 1e-4)


def test_group_normalization_against_its_definition() -> None:
    # ONNX Runtime has no GroupNormalization-18 kernel that takes a scale per group correctly.
    x = values(2, 6, 5)
    constants = {"s": np.array([1.5, 0.5], np.float32), "b": np.array([0.1, -0.2], np.float32)}
    model = one_node(
        "GroupNormalization", ["x", "s", "b"], opset=18, x=x, constants=constants, num_groups=2
    )  # fmt: skip
    result = normalize(model)
    grouped = x.reshape(2, 2, 15)
    wanted = (grouped - grouped.mean(2, keepdims=True)) / np.sqrt(grouped.var(2, keepdims=True) + 1e-5)
    wanted = wanted.reshape(2, 2, 3, 5) * constants["s"].reshape(2, 1, 1) + constants["b"].reshape(2, 1, 1)
    (got,) = run(result.model, {"x": x})
    np.testing.assert_allclose(got, wanted.reshape(x.shape), atol=1e-5)


def test_operators_in_subgraphs_are_converted() -> None:
    body = """(float[1, 3] x, bool c) => (float[N] y) {
        y = If (c) <
            then_branch = t () => (float[3] a) { a = Squeeze<axes = [0]>(x) },
            else_branch = e () => (float[M] b) { z = Squeeze<axes = [0]>(x) b = Clip<min = 0.1>(z) }
        >
    }"""
    model = from_text(body, 10)
    for choice in (True, False):
        normalized(model, {"x": values(1, 3), "c": np.array(choice)})


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            one_node("BatchNormalization", ["x", *"abcd"], opset=8, x=X, constants=BN, spatial=0),
            "Node 'node' (BatchNormalization) cannot be brought to a newer opset: spatial=0 (statistics per "
            "element) does not exist any more. Export the model again with opset 21.",
        ),
        (
            one_node("Dropout", ["x"], opset=10, x=X, outputs=2),
            "Node 'node' (Dropout) cannot be brought to a newer opset: its mask output is used. "
            "Export the model again with opset 21.",
        ),
    ],
)
def test_what_has_no_newer_form_is_refused(model: object, message: str) -> None:
    with pytest.raises(ModelError) as caught:
        normalize(model)  # type: ignore[arg-type]
    assert str(caught.value) == message


def test_unsupported_opsets_are_refused() -> None:
    model = from_text("(float[2] x) => (float[2] y) { y = Relu(x) }", 21)
    model.ir.opset_imports[""] = 99
    with pytest.raises(ModelError, match="uses ONNX opset 99; supported are opsets 7 to 24"):
        normalize(model)


def test_weights_do_not_go_through_protobuf() -> None:
    """A tensor that cannot be serialized (as one over 2 GiB) passes through the whole of normalization."""

    class Unserializable(ir.Tensor):  # type: ignore[type-arg]
        def tobytes(self) -> bytes:
            raise AssertionError("the weight was serialized")

        def tofile(self, file: object) -> None:
            raise AssertionError("the weight was serialized")

    body = """(float[N, 64] x) => (float[N, 64] y) {
        m = MatMul(x, w)
        s = Squeeze<axes = [0]>(u)
        a = Add(m, s)
        y = Softmax<axis = 1>(a)
    }"""
    model = from_text(body, 9, {"w": values(64, 64), "u": values(1, 64)})
    weight = model.ir.graph.initializers["w"]
    weight.const_value = Unserializable(values(64, 64), name="w")
    result = normalize(model)
    kept = result.model.ir.graph.initializers["w"].const_value
    assert kept is weight.const_value
    assert ops(result.model) == {"Gemm": 1, "Softmax": 1}
