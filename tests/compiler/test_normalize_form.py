"""Constants, names, functions, subgraphs, dead code, no-ops, shapes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper

from edgeq.calibration.types import Array
from edgeq.compiler.load import load
from edgeq.compiler.normalize import normalize
from edgeq.compiler.normalize.equivalence import check_equivalent
from tests.support.normalize_models import content, from_text, normalized, ops, run, values, wrap

X = values(2, 3, 4, 4)


def test_constant_nodes_become_initializers() -> None:
    body = """(float[N] x) => (float[N] y) {
        a = Constant<value_float = 2.0>()
        b = Constant<value = float[1] {3.0}>()
        c = Constant<value_floats = [4.0]>()
        p = Mul(x, a)
        r = Pow(p, b)
        y = Sub(r, c)
    }"""
    result = normalized(from_text(body), {"x": values(5)})
    assert "Constant" not in ops(result.model)
    assert len(result.model.ir.graph.initializers) == 3


def test_a_constant_that_is_an_output_stays() -> None:
    body = "(float[2] x) => (float[2] y, int64[1] k) { y = Relu(x) k = Constant<value_ints = [7]>() }"
    result = normalized(from_text(body), {"x": values(2)})
    assert run(result.model, {"x": values(2)})[1] == 7


def test_equal_initializers_become_one_and_unequal_ones_do_not() -> None:
    weights = {
        "a": np.arange(2000, dtype=np.float32).reshape(1000, 2),
        "b": np.arange(2000, dtype=np.float32).reshape(1000, 2),
        "c": np.append(np.arange(1999, dtype=np.float32), np.float32(5)).reshape(1000, 2),
        "d": np.arange(2000, dtype=np.float32).reshape(2, 1000),
    }
    body = """(float[1000, 2] x, float[2, 1000] z) => (float[1000, 2] y, float[2, 1000] w) {
        p = Mul(x, a) q = Sub(p, b) y = Div(q, c) w = Mul(z, d)
    }"""
    model = from_text(body, weights=weights)
    result = normalized(model, {"x": values(1000, 2), "z": values(2, 1000)}, 1e-3)
    assert sorted(result.model.ir.graph.initializers) == ["a", "c", "d"]


def test_negative_zero_and_zero_are_not_merged() -> None:
    weights = {"a": np.array([0.0], np.float32), "b": np.array([-0.0], np.float32)}
    body = "(float[1] x) => (float[1] y, float[1] z) { y = Div(x, a) z = Div(x, b) }"
    result = normalized(from_text(body, weights=weights), {"x": np.ones(1, np.float32)})
    assert len(result.model.ir.graph.initializers) == 2


def test_defaults_of_inputs_become_constants_and_it_says_so() -> None:
    model = from_text("(float[2] x, float[2] k) => (float[2] y) { m = Mul(x, k) y = Sub(m, c) }", weights={
        "k": np.array([2, 3], np.float32), "c": np.array([1, 1], np.float32),
    })  # fmt: skip
    result = normalized(model, {"x": values(2)})
    assert result.notes == ["1 inputs with a default value are constants now: k."]
    assert [v.name for v in result.model.ir.graph.inputs] == ["x"]


def test_weights_are_shared_with_the_given_model() -> None:
    weights = {"w": values(4, 3, 3, 3)}
    model = from_text("(float[N, 3, 4, 4] x) => (float[N, 4, 2, 2] y) { y = Conv(x, w) }", weights=weights)
    result = normalize(model)
    old, new = (m.ir.graph.initializers["w"].const_value for m in (model, result.model))
    assert old is new


def test_names_are_made_unique_and_inputs_and_outputs_keep_theirs() -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["a"], name="same"),
        helper.make_node("Exp", ["a"], ["b"], name="same"),
        helper.make_node("Neg", ["b"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes, "g",
        [helper.make_tensor_value_info("x", 1, [3])], [helper.make_tensor_value_info("y", 1, [3])],
    )  # fmt: skip
    model = wrap(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))
    result = normalize(model)
    assert [n.name for n in result.model.ir.graph] == ["same", "same_1", "Neg_y"]
    # ONNX Runtime refuses equal node names; the comparison gives the original unique ones, too.
    assert check_equivalent(model, result.model, None).note is None


def test_metadata_and_doc_strings_of_nodes_go_and_the_models_stay() -> None:
    model = from_text("(float[2] x) => (float[2] y) { y = Relu(x) }")
    node = model.ir.graph.node(0)
    node.doc_string = "/home/somebody/model.py"
    node.metadata_props["pkg.torch.onnx.stack_trace"] = "File /home/somebody"
    model.ir.metadata_props["classes"] = "cat,dog"
    data = content(normalized(model, {"x": values(2)}).model)
    assert b"somebody" not in data
    assert b"cat,dog" in data


FUNCTIONS = """<ir_version: 8, opset_import: ["": 17, "local": 1]>
g (float[N] x) => (float[N] y) { h = local.twice(x) y = local.twice(h) }
<opset_import: ["": 17], domain: "local">
twice (v) => (w) { two = Constant<value_float = 2.0>() w = Mul(v, two) }
"""


def test_functions_are_inlined() -> None:
    result = normalized(wrap(onnx.parser.parse_model(FUNCTIONS)), {"x": values(4)})
    assert not result.model.ir.functions
    assert ops(result.model) == {"Mul": 2}
    assert set(result.model.ir.opset_imports) == {""}


IF = """(float[2, 3] x, bool c) => (float[2, 3] y) {
    y = If (c) <
        then_branch = t () => (float[2, 3] a) {
            k = Constant<value_float = 2.0>() i = Identity(x) m = Mul(i, k) a = Add(m, w)
        },
        else_branch = e () => (float[2, 3] b) {
            k = Constant<value_float = 3.0>() m = Mul(x, k) z = Dropout(m) b = Identity(z)
        }
    >
}"""


@pytest.mark.parametrize("choice", [True, False])
def test_branches_are_cleaned_and_keep_their_meaning(choice: bool) -> None:
    feed = {"x": values(2, 3), "c": np.array(choice)}
    result = normalized(from_text(IF, weights={"w": values(2, 3)}), feed)
    assert ops(result.model) == {"If": 1, "Mul": 2, "Add": 1}
    names = [n.name for n in result.model.ir.graph.all_nodes()]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("choice", [True, False])
def test_a_known_condition_leaves_one_branch(choice: bool) -> None:
    body = IF.replace(", bool c", "").replace(
        "y = If", f"c = Constant<value = bool {{{int(choice)}}}>()\n y = If"
    )
    result = normalized(from_text(body, weights={"w": values(2, 3)}), {"x": values(2, 3)})
    assert ops(result.model) == ({"Mul": 1, "Add": 1} if choice else {"Mul": 1})
    # Nothing of the other branch is left, not even its constants.
    assert len(result.model.ir.graph.initializers) == (2 if choice else 1)


def test_an_if_in_an_if_and_outer_values_as_branch_outputs() -> None:
    body = """(float[2] x, bool c, bool d) => (float[2] y) {
        r = Relu(x)
        y = If (c) <
            then_branch = t () => (float[2] a) {
                a = If (d) <
                    then_branch = u () => (float[2] p) { p = Identity(r) },
                    else_branch = v () => (float[2] q) { q = Neg(r) }
                >
            },
            else_branch = e () => (float[2] b) { b = Identity(x) }
        >
    }"""
    for c in (True, False):
        for d in (True, False):
            normalized(from_text(body), {"x": values(2), "c": np.array(c), "d": np.array(d)})


def test_loop_bodies_are_normalized() -> None:
    body = """(float[3] x, int64 n) => (float[3] y) {
        t = Constant<value = bool {1}>()
        y = Loop (n, t, x) <body = b (int64 i, bool k, float[3] s) => (bool o, float[3] z) {
            o = Identity(k) two = Constant<value_float = 2.0>() d = Dropout(s) z = Mul(d, two)
        }>
    }"""
    result = normalized(from_text(body, 13), {"x": values(3), "n": np.array(3)})
    assert "Dropout" not in ops(result.model)


def test_dead_code_goes_and_unused_inputs_stay() -> None:
    body = """(float[2] x, float[2] unused) => (float[2] y) {
        y = Relu(x) a = Exp(x) b = Add(a, w)
    }"""
    result = normalized(from_text(body, weights={"w": values(2)}), {"x": values(2), "unused": values(2)})
    assert ops(result.model) == {"Relu": 1}
    assert not result.model.ir.graph.initializers
    assert [v.name for v in result.model.ir.graph.inputs] == ["x", "unused"]


NO_OPS = [
    "y = Relu(x) z = Identity(y)",
    "d = Dropout(x) z = Relu(d)",
    "c = Cast<to = 1>(x) z = Relu(c)",
    "t = Transpose<perm = [0, 2, 3, 1]>(x) r = Relu(t) z = Transpose<perm = [0, 3, 1, 2]>(r)",
    "t = Transpose<perm = [0, 2, 3, 1]>(x) u = Transpose<perm = [0, 3, 1, 2]>(t) z = Relu(u)",
    "c = Concat<axis = 1>(x) z = Relu(c)",
    "s = Sum(x) z = Relu(s)",
    "m = Mul(one, x) a = Add(m, zero) v = Div(a, one) b = Sub(v, zero) z = Relu(b)",
    "p = Pad(x, pads) z = Relu(p)",
    "s = Slice(x, starts, ends) z = Relu(s)",
    "e = Expand(x, shape1) z = Relu(e)",
    "r = Reshape(x, same) z = Relu(r)",
    "f = Reshape(x, flat) r = Reshape(f, same) z = Relu(r)",
    "u = Unsqueeze(x, axis) s = Squeeze(u, axis) z = Relu(s)",
    "d = Cast<to = 11>(x) f = Cast<to = 1>(d) z = Relu(f)",
    "a = Relu(x) b = Relu(x) c = Neg(a) d = Neg(b) z = Max(c, d)",
]
CONSTANTS: dict[str, Array] = {
    "one": np.array(1, np.float32), "zero": np.zeros((1, 1), np.float32), "pads": np.zeros(8, np.int64),
    "starts": np.array([0, 0]), "ends": np.array([2**31 - 1, 2**62]), "shape1": np.array([1, 3, 4, 4]),
    "same": np.array([2, 3, 4, 4]), "flat": np.array([2, -1]), "axis": np.array([1]),
}  # fmt: skip


@pytest.mark.parametrize("body", NO_OPS)
def test_nodes_that_change_nothing_go(body: str) -> None:
    used = {name: a for name, a in CONSTANTS.items() if name in body}
    result = normalized(
        from_text(f"(float[2, 3, 4, 4] x) => (float[2, 3, 4, 4] z) {{ {body} }}", weights=used), {"x": X}
    )
    counts = ops(result.model)
    assert set(counts) <= {"Relu", "Transpose", "Neg", "Max"}
    assert counts["Relu"] == 1


@pytest.mark.parametrize(
    "body",
    [
        "d = Cast<to = 10>(x) f = Cast<to = 1>(d) z = Relu(f)",
        "a = Add(x, big) z = Relu(a)",
        "m = Mul(x, grow) z = Relu(m)",
        "d = Cast<to = 7>(x) f = Cast<to = 1>(d) z = Relu(f)",
        "s = Slice(x, starts, ends) z = Relu(s)",
    ],
)
def test_nodes_that_change_something_stay(body: str) -> None:
    constants = {
        "big": np.zeros((1, 1, 1, 1, 1), np.float32), "grow": np.ones((5, 1, 1, 1, 1), np.float32),
        "starts": np.array([0]), "ends": np.array([1]),
    }  # fmt: skip
    used = {name: a for name, a in constants.items() if name in body}
    model = from_text(f"(float[2, 3, 4, 4] x) => (float z) {{ {body} }}", weights=used)
    model.ir.graph.outputs[0].shape = None
    result = normalized(model, {"x": X})
    assert ops(result.model) == ops(model)


def test_an_identity_between_input_and_output_stays() -> None:
    body = """(float[2] x) => (float[2] y, float[2] z, float[2] w) {
        y = Identity(x) r = Relu(x) z = Identity(r) w = Identity(r)
    }"""
    result = normalized(from_text(body), {"x": values(2)})
    assert ops(result.model) == {"Identity": 2, "Relu": 1}


def test_transposes_are_merged() -> None:
    body = """(float[2, 3, 4, 5] x) => (float[5, 4, 2, 3] z) {
        a = Transpose<perm = [0, 2, 3, 1]>(x) b = Transpose<perm = [2, 1, 0, 3]>(a) z = Relu(b)
    }"""
    result = normalized(from_text(body), {"x": values(2, 3, 4, 5)})
    assert ops(result.model) == {"Transpose": 1, "Relu": 1}


def test_random_nodes_are_not_merged_or_folded() -> None:
    body = """(float[2] x) => (float[100] d) {
        a = RandomNormal<shape = [100]>() b = RandomNormal<shape = [100]>() d = Sub(a, b)
    }"""
    result = normalize(from_text(body))
    assert ops(result.model)["RandomNormal"] == 2


def test_constants_are_folded_with_the_runtimes_numbers() -> None:
    body = """(float[N, 4] x) => (float[N, 4] y) {
        e = Exp(w) t = Tanh(e) s = ReduceSum<keepdims = 0>(t, axis) p = Sqrt(s) y = Div(x, p)
    }"""
    weights = {"w": values(3, 4), "axis": np.array([0])}
    result = normalized(from_text(body, weights=weights), {"x": values(2, 4)})
    assert ops(result.model) == {"Div": 1}


@pytest.mark.parametrize("op", ["Expand(w, big)", "Tile(w, big)"])
def test_folding_does_not_blow_up_the_model(op: str) -> None:
    body = f"(float[256, 256] x) => (float[256, 256] y) {{ e = {op} y = Add(x, e) }}"
    weights = {"w": np.ones((1, 1), np.float32), "big": np.array([256, 256])}
    result = normalized(from_text(body, weights=weights), {"x": values(256, 256)})
    assert ops(result.model)["Add"] == 1
    assert len(content(result.model)) < 2000


def test_rearranged_weights_are_folded_also_when_large() -> None:
    body = """(float[N, 256] x) => (float[N, 256] y) {
        a = Slice(w, zero, half) b = Slice(w, half, end) c = Concat<axis = 0>(b, a)
        t = Transpose<perm = [1, 0]>(c) y = MatMul(x, t)
    }"""
    weights = {"w": values(256, 256), "zero": np.array([0]), "half": np.array([128]), "end": np.array([256])}
    result = normalized(from_text(body, weights=weights), {"x": values(2, 256)}, 1e-4)
    assert ops(result.model) == {"MatMul": 1}


def test_a_weight_that_is_read_elsewhere_is_not_stored_twice() -> None:
    body = """(float[N, 256] x, int64[N] i) => (float[N, 256] y, float[N, 256] g) {
        t = Transpose<perm = [1, 0]>(w) y = MatMul(x, t) g = Gather(w, i)
    }"""
    feed = {"x": values(2, 256), "i": np.array([3, 7])}
    result = normalized(from_text(body, weights={"w": values(256, 256)}), feed, 1e-4)
    assert ops(result.model)["Transpose"] == 1


def test_quantized_weights_keep_their_dequantize() -> None:
    weights = {"w": np.ones((4, 4), np.int8), "s": np.array(0.1, np.float32), "z": np.array(0, np.int8)}
    body = "(float[N, 4] x) => (float[N, 4] y) { d = DequantizeLinear(w, s, z) y = MatMul(x, d) }"
    assert (
        ops(normalized(from_text(body, weights=weights), {"x": values(2, 4)}).model)["DequantizeLinear"] == 1
    )


RESHAPES = {
    "heads": """(float[B, S, 12] x) => (float y) {
        s = Shape(x) b0 = Gather(s, i0) b = Unsqueeze(b0, a0) q0 = Gather(s, i1) q = Unsqueeze(q0, a0)
        t = Concat<axis = 0>(b, q, three, four) y = Reshape(x, t)
    }""",
    "flatten": """(float[B, S, 12] x) => (float y) {
        s = Shape(x) b = Gather(s, i0v) t = Concat<axis = 0>(b, minus) y = Reshape(x, t)
    }""",
    "product": """(float[B, S, 12] x) => (float y) {
        s = Shape(x) b = Gather(s, i0) q = Gather(s, i1) p = Mul(b, q) u = Unsqueeze(p, a0)
        t = Concat<axis = 0>(u, minus) y = Reshape(x, t)
    }""",
    "slice of shape": """(float[B, S, 12] x) => (float y) {
        s = Shape(x) h = Slice(s, zero, two, a0) t = Concat<axis = 0>(h, three, four) y = Reshape(x, t)
    }""",
    "divided": """(float[B, S, 12] x) => (float y) {
        s = Shape<start = 2>(x) h = Div(s, three) bs = Shape<end = 2>(x)
        t = Concat<axis = 0>(bs, three, h) y = Reshape(x, t)
    }""",
}


@pytest.mark.parametrize("name", RESHAPES)
def test_shape_arithmetic_becomes_a_constant(name: str) -> None:
    constants = {
        "i0": np.array(0), "i1": np.array(1), "a0": np.array([0]), "three": np.array([3]),
        "four": np.array([4]), "i0v": np.array([0]), "minus": np.array([-1]),
        "zero": np.array([0]), "two": np.array([2]),
    }  # fmt: skip
    used = {n: a for n, a in constants.items() if n in RESHAPES[name]}
    model = from_text(RESHAPES[name], weights=used)
    model.ir.graph.outputs[0].shape = None
    result = normalized(model, {"x": values(2, 5, 12)})
    assert ops(result.model) == {"Reshape": 1}
    for shape in ((1, 1, 12), (3, 7, 12)):
        feed = {"x": values(*shape)}
        assert run(model, feed)[0].shape == run(result.model, feed)[0].shape


def test_expand_to_a_shape_of_the_same_names_is_constant() -> None:
    body = """(float[B, 1, 4] x, float[B, S, 4] z) => (float[B, 3, 4] y) {
        s = Shape<end = 1>(z) t = Concat<axis = 0>(s, r) y = Expand(x, t)
    }"""
    feed = {"x": values(2, 1, 4), "z": values(2, 5, 4)}
    result = normalized(from_text(body, weights={"r": np.array([3, 4])}), feed)
    assert ops(result.model) == {"Expand": 1}


def test_different_names_are_not_taken_for_equal() -> None:
    body = """(float[A, B, 4] x, float[C, D] z) => (float y) {
        s = Shape(z) t = Concat<axis = 0>(s, four) y = Reshape(x, t)
    }"""
    model = from_text(body, weights={"four": np.array([4])})
    model.ir.graph.outputs[0].shape = None
    result = normalized(model, {"x": values(2, 6, 4), "z": values(3, 4)})
    assert ops(result.model)["Shape"] == 1


def test_wrong_declared_shapes_inside_the_graph_are_not_believed() -> None:
    body = """(float[N, 4] x) => (float[M] y) <float[1, 4] r> {
        r = Relu(x) s = Shape(r) n = Gather(s, i) m = Mul(n, four) y = Reshape(r, m)
    }"""
    model = from_text(body, weights={"i": np.array([0]), "four": np.array([4])})
    next(n for n in model.ir.graph if n.op_type == "Relu").outputs[0].shape = ir.Shape([1, 4])
    # ONNX Runtime believes them and fails on three rows.
    assert run(normalize(model).model, {"x": values(3, 4)})[0].shape == (12,)


def test_declared_output_shapes_and_names_of_dimensions_stay() -> None:
    body = "(float[batch, 3] x) => (float[samples, 3] y) { y = Relu(x) }"
    result = normalized(from_text(body), {"x": values(2, 3)})
    assert result.model.outputs[0].shape == ("samples", 3)


def test_every_value_of_a_network_gets_a_type_and_rank() -> None:
    body = """(float[N, 3, H, W] x) => (float y) {
        c = Conv<kernel_shape = [3, 3]>(x, w) r = Relu(c) g = GlobalAveragePool(r) f = Flatten(g)
        y = Softmax<axis = 1>(f)
    }"""
    model = from_text(body, weights={"w": values(4, 3, 3, 3)})
    model.ir.graph.outputs[0].shape = None
    for node in normalize(model).model.ir.graph:
        for value in node.outputs:
            assert value.dtype == ir.DataType.FLOAT
            assert value.shape is not None
            assert value.shape[0] == "N"


def test_names_that_are_no_expressions_do_no_harm() -> None:
    body = RESHAPES["product"]
    constants = {"i0": np.array(0), "i1": np.array(1), "a0": np.array([0]), "minus": np.array([-1])}
    model = from_text(body, weights=constants)
    model.ir.graph.inputs[0].shape = ir.Shape(["batch size", "input:0", 12])
    model.ir.graph.outputs[0].shape = None
    normalized(model, {"x": values(2, 5, 12)})


def test_a_constant_condition_of_where_leaves_its_choice() -> None:
    body = """(float[N, 3] x, float[N, 3] z) => (float[N, 3] y) { w = Where(c, x, z) y = Relu(w) }"""
    feed = {"x": values(2, 3), "z": values(2, 3, seed=1)}
    for choice in (True, False):
        weights = {"c": np.full((1, 3), choice)}
        assert ops(normalized(from_text(body, weights=weights), feed).model) == {"Relu": 1}
    mixed = {"c": np.array([True, False, True])}
    assert ops(normalized(from_text(body, weights=mixed), feed).model) == {"Where": 1, "Relu": 1}


def test_a_constant_condition_that_enlarges_stays() -> None:
    body = """(float[1, 3] x, float[4, 3] z) => (float[4, 3] y) { w = Where(c, x, z) y = Relu(w) }"""
    result = normalized(
        from_text(body, weights={"c": np.full((1, 1), True)}), {"x": values(1, 3), "z": values(4, 3)}
    )
    assert ops(result.model) == {"Where": 1, "Relu": 1}


POSITIONS = """(int64[B, S] ids) => (float y) {
    s = Shape(ids) n = Gather(s, i1) u = Unsqueeze(n, a0) p = Slice(positions, a0, u, a1)
    w = Gather(words, ids) e = Gather(places, p) h = Add(w, e)
    t = Shape(h) b = Gather(t, i0v) m = Gather(t, i1v) c = Concat<axis = 0>(b, m, two, three)
    y = Reshape(h, c)
}"""


def test_sliced_positions_do_not_hide_the_names_of_dimensions() -> None:
    weights = {
        "i1": np.array(1), "a0": np.array([0]), "a1": np.array([1]), "positions": np.arange(16)[None],
        "words": values(20, 6), "places": values(16, 6), "i0v": np.array([0]), "i1v": np.array([1]),
        "two": np.array([2]), "three": np.array([3]),
    }  # fmt: skip
    model = from_text(POSITIONS, weights=weights)
    model.ir.graph.outputs[0].shape = None
    result = normalized(model, {"ids": np.array([[1, 2, 3], [4, 5, 6]])})
    assert ops(result.model)["Shape"] == 1
    assert ops(result.model)["Concat"] == 0
    (reshape,) = [n for n in result.model.ir.graph if n.op_type == "Reshape"]
    assert list(reshape.inputs[0].shape) == ["B", "S", 6]
    assert list(reshape.outputs[0].shape) == ["B", "S", 2, 3]


def test_an_expand_guarded_against_minus_one() -> None:
    # What the TorchScript exporter writes for x.expand(n, -1, 4).
    body = """(float[B, 1, 4] x, float[B, S] z) => (float y) {
        s = Shape(z) t = Concat<axis = 0>(s, four) o = ConstantOfShape<value = int64[1] {1}>(three)
        m = Mul(o, minus) e = Equal(t, m) w = Where(e, o, t) y = Expand(x, w)
    }"""
    constants = {"four": np.array([4]), "three": np.array([3]), "minus": np.array(-1)}
    model = from_text(body, weights=constants)
    model.ir.graph.outputs[0].shape = None
    result = normalized(model, {"x": values(2, 1, 4), "z": values(2, 5)})
    assert ops(result.model) == {"Shape": 1, "Concat": 1, "Expand": 1}


def test_shapes_of_many_operators_by_name() -> None:
    body = """(float[B, S] x, float[B, P] z, int64 n) => (float y) {
        c = Concat<axis = 1>(x, z) f = Flatten<axis = 0>(x) s = Shape(x) k = ConstantOfShape(s) a = Add(k, x)
        y = Concat<axis = 1>(a, z)
    }"""
    model = from_text(body)
    model.ir.graph.outputs[0].shape = None
    result = normalized(model, {"x": values(2, 3), "z": values(2, 4), "n": np.array(3)})
    assert list(result.model.ir.graph.outputs[0].shape) == ["B", "P + S"]


def test_the_same_bytes_in_every_process() -> None:
    program = (
        "import sys, hashlib; sys.path.insert(0, '.')\n"
        "from tests.compiler.test_normalize_form import *\n"
        "model = from_text(IF, weights={'w': values(2, 3)})\n"
        "print(hashlib.sha256(content(normalize(model).model)).hexdigest())\n"
    )
    root = Path(__file__).resolve().parents[2]
    digests = {
        subprocess.run(
            [sys.executable, "-c", program],
            cwd=root, env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True,
        ).stdout
        for seed in ("1", "2")
    }  # fmt: skip
    assert len(digests) == 1


def test_external_weights_stay_mapped(tmp_path: Path) -> None:
    body = "(float[N, 64] x) => (float[N, 64] y) { p = MatMul(x, w) y = Add(p, b) }"
    ir.save(
        from_text(body, weights={"w": values(64, 64), "b": values(64)}).ir,
        tmp_path / "m.onnx",
        external_data="m.data",
        size_threshold_bytes=0,
    )
    model = load(tmp_path / "m.onnx")
    result = normalize(model)
    assert ops(result.model) == {"Gemm": 1}
    # Loading maps the file; normalizing passes the map on.
    old, new = (m.ir.graph.initializers["w"].const_value for m in (model, result.model))
    assert old is new
    assert check_equivalent(model, result.model, None).note is None
