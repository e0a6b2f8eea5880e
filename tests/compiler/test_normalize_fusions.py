"""Affine folding, padding, pooling, activations and normalizations: numbers, and what must stay."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeq.calibration.types import Array
from edgeq.compiler.model import Model
from tests.support.normalize_models import from_text, normalized, one_node, ops, values

X = values(2, 4, 6, 6)


def _bn(channels: int, seed: int = 1) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    return {
        "g": rng.uniform(-1.5, 1.5, channels).astype(np.float32),
        "h": rng.normal(size=channels).astype(np.float32),
        "m": rng.normal(size=channels).astype(np.float32),
        "v": rng.uniform(0.1, 2, channels).astype(np.float32),
    }


LAYERS = {
    "conv": (
        "Conv<pads = [1, 1, 1, 1], kernel_shape = [3, 3]>(x, w, b)",
        {"w": values(6, 4, 3, 3), "b": values(6)},
    ),
    "conv without bias": ("Conv<kernel_shape = [3, 3]>(x, w)", {"w": values(6, 4, 3, 3)}),
    "grouped conv": ("Conv<group = 2, kernel_shape = [3, 3]>(x, w)", {"w": values(6, 2, 3, 3)}),
    "depthwise conv": ("Conv<group = 4, kernel_shape = [3, 3]>(x, w)", {"w": values(4, 1, 3, 3)}),
    "transposed": (
        "ConvTranspose<kernel_shape = [3, 3], strides = [2, 2]>(x, w, b)",
        {"w": values(4, 6, 3, 3), "b": values(6)},
    ),
    "grouped transposed": (
        "ConvTranspose<group = 2, kernel_shape = [3, 3]>(x, w)",
        {"w": values(4, 3, 3, 3)},
    ),
}  # fmt: skip


def _layer(name: str, tail: str, more: Mapping[str, Array]) -> Model:
    head, weights = LAYERS[name]
    body = f"(float[N, 4, 6, 6] x) => (float y) {{ l = {head} {tail} }}"
    model = from_text(body, weights={**weights, **more})
    model.ir.graph.outputs[0].shape = None
    return model


def _channels(name: str) -> int:
    weight = LAYERS[name][1]["w"]
    group = {"grouped transposed": 2}.get(name, 1)
    return weight.shape[1] * group if "transposed" in name else weight.shape[0]


@pytest.mark.parametrize("name", LAYERS)
def test_batch_normalization_goes_into_the_layer_before(name: str) -> None:
    model = _layer(name, "y = BatchNormalization<epsilon = 0.001>(l, g, h, m, v)", _bn(_channels(name)))
    result = normalized(model, {"x": X})
    assert ops(result.model).total() == 1


TAILS = [
    "y = Mul(l, c)", "y = Mul(c, l)", "y = Div(l, c)", "y = Add(l, c)", "y = Add(c, l)", "y = Sub(l, c)",
    "y = Sub(c, l)", "s = Sub(l, c) d = Div(s, c) p = Mul(d, c) y = Add(p, c)", "a = Add(l, k) y = Mul(a, k)",
]  # fmt: skip


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("tail", TAILS)
def test_constants_per_channel_go_into_the_layer_before(name: str, tail: str) -> None:
    more = {"c": _bn(_channels(name))["v"].reshape(-1, 1, 1), "k": np.array(1.7, np.float32)}
    used = {n: a for n, a in more.items() if f", {n}" in tail or f"({n}," in tail}
    assert ops(normalized(_layer(name, tail, used), {"x": X}).model).total() == 1


@pytest.mark.parametrize(
    ("tail", "more"),
    [
        ("y = Div(c, l)", {"c": np.ones((6, 1, 1), np.float32)}),
        ("y = Add(l, c)", {"c": values(6, 6)}),
        ("y = Mul(l, c)", {"c": values(1, 6, 6, 6)}),
        ("y = Add(l, c)", {"c": values(2, 1, 6, 1, 1)}),
        ("y = Div(l, c)", {"c": np.zeros((6, 1, 1), np.float32)}),
        ("z = Relu(l) a = Mul(l, c) y = Add(z, a)", {"c": values(6, 1, 1)}),
    ],
)
def test_other_constants_stay(tail: str, more: dict[str, Array]) -> None:
    model = _layer("conv", tail, more)
    assert ops(normalized(model, {"x": X}).model) == ops(model)


def test_a_weight_that_two_layers_share_is_folded_for_each() -> None:
    body = """(float[N, 4, 6, 6] x) => (float[N, 4, 6, 6] y, float[N, 4, 6, 6] z) {
        a = Conv<pads = [1, 1, 1, 1]>(x, w) y = Mul(a, c)
        z = Conv<pads = [1, 1, 1, 1], dilations = [1, 1]>(x, w)
    }"""
    weights = {"w": values(4, 4, 3, 3), "c": values(4, 1, 1)}
    assert ops(normalized(from_text(body, weights=weights), {"x": X}).model) == {"Conv": 2}


@pytest.mark.parametrize("group", [1, 2, 4])
@pytest.mark.parametrize("head", ["p = BatchNormalization(x, g, h, m, v)", "s = Sub(x, c) p = Div(s, d)"])
def test_affine_nodes_go_into_an_unpadded_convolution_after_them(group: int, head: str) -> None:
    body = f"(float[N, 4, 6, 6] x) => (float[N, 4, 4, 4] y) {{ {head} y = Conv<group = {group}>(p, w, b) }}"
    more = _bn(4) if "Batch" in head else {"c": values(4, 1, 1), "d": np.full((1, 4, 1, 1), 3, np.float32)}
    weights = {"w": values(4, 4 // group, 3, 3), "b": values(4), **more}
    assert ops(normalized(from_text(body, weights=weights), {"x": X}).model) == {"Conv": 1}


def test_a_shift_before_padding_stays_and_a_scale_goes() -> None:
    body = """(float[N, 4, 6, 6] x) => (float[N, 4, 6, 6] y) {
        s = Sub(x, c) d = Div(s, k) y = Conv<pads = [1, 1, 1, 1]>(d, w)
    }"""
    weights = {"w": values(4, 4, 3, 3), "c": values(4, 1, 1), "k": np.array(255, np.float32)}
    assert ops(normalized(from_text(body, weights=weights), {"x": X}).model) == {"Sub": 1, "Conv": 1}


def test_a_constant_that_makes_channels_stays() -> None:
    body = "(float[N, 1, 6, 6] x) => (float[N, 4, 4, 4] y) { p = Mul(x, c) y = Conv(p, w) }"
    weights = {"w": values(4, 3, 3, 3), "c": values(1, 3, 1, 1)}
    assert ops(normalized(from_text(body, weights=weights), {"x": values(2, 1, 6, 6)}).model)["Mul"] == 1


@pytest.mark.parametrize("transposed", [0, 1])
@pytest.mark.parametrize("tail", ["y = BatchNormalization(l, g, h, m, v)", "p = Mul(l, g) y = Add(p, h)"])
def test_gemm_takes_what_follows_and_precedes(transposed: int, tail: str) -> None:
    body = f"""(float[N, 5] x) => (float[N, 6] y) {{
        n = BatchNormalization(x, g5, h5, m5, v5)
        l = Gemm<transB = {transposed}, alpha = 0.5, beta = 2.0>(n, w, c) {tail}
    }}"""
    weights = {"w": values(6, 5) if transposed else values(5, 6), "c": values(1, 6)}
    weights.update({f"{name}5": a for name, a in _bn(5, 2).items()})
    weights.update({name: a for name, a in _bn(6).items() if "Batch" in tail or name in "gh"})
    assert ops(normalized(from_text(body, weights=weights), {"x": values(3, 5)}).model) == {"Gemm": 1}


@given(
    scale=st.lists(st.floats(-4, 4, width=32), min_size=6, max_size=6),
    shift=st.lists(st.floats(-4, 4, width=32), min_size=6, max_size=6),
)
@settings(max_examples=15, deadline=None)
def test_folding_is_exact_for_any_scale_and_shift(scale: list[float], shift: list[float]) -> None:
    more = {
        "c": np.array(scale, np.float32).reshape(6, 1, 1),
        "d": np.array(shift, np.float32).reshape(6, 1, 1),
    }
    model = _layer("conv", "p = Mul(l, c) y = Add(p, d)", more)
    assert ops(normalized(model, {"x": X}, 1e-4).model) == {"Conv": 1}


def test_matmul_and_bias_become_gemm_for_matrices_only() -> None:
    body = "(float[{0}] x) => (float[{1}] y) {{ p = MatMul(x, w) y = Add(b, p) }}"
    weights = {"w": values(5, 6), "b": values(6)}
    flat = normalized(from_text(body.format("N, 5", "N, 6"), weights=weights), {"x": values(3, 5)})
    assert ops(flat.model) == {"Gemm": 1}
    deep = normalized(from_text(body.format("N, 4, 5", "N, 4, 6"), weights=weights), {"x": values(3, 4, 5)})
    assert ops(deep.model) == {"MatMul": 1, "Add": 1}


def test_a_scale_goes_into_a_matmul_of_any_rank() -> None:
    body = "(float[N, 4, 5] x) => (float[N, 4, 6] y) { p = MatMul(x, w) y = Div(p, c) }"
    weights = {"w": values(5, 6), "c": np.array(8, np.float32)}
    assert ops(normalized(from_text(body, weights=weights), {"x": values(3, 4, 5)}).model) == {"MatMul": 1}


PADS = np.array([0, 0, 1, 2, 0, 0, 0, 1])


@pytest.mark.parametrize(
    ("reader", "folded"),
    [
        ("Conv<pads = [1, 0, 0, 1]>(p, w)", True),
        ('Conv<auto_pad = "VALID">(p, w)', True),
        ('Conv<auto_pad = "SAME_UPPER", strides = [2, 2]>(p, w)', True),
        ("AveragePool<kernel_shape = [3, 3]>(p)", True),
        ("AveragePool<kernel_shape = [4, 4], pads = [1, 1, 1, 1], count_include_pad = 1>(p)", True),
        ("AveragePool<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(p)", False),
        ("AveragePool<kernel_shape = [3, 3], ceil_mode = 1>(p)", False),
        ("MaxPool<kernel_shape = [3, 3]>(p)", False),
    ],
)
def test_padding_goes_into_the_reader(reader: str, folded: bool) -> None:
    weights = {"pads": PADS, **({"w": values(4, 4, 3, 3)} if "w)" in reader else {})}
    model = from_text(
        f"(float[N, 4, 6, 6] x) => (float y) {{ p = Pad(x, pads) y = {reader} }}", weights=weights
    )
    model.ir.graph.outputs[0].shape = None
    assert ops(normalized(model, {"x": X}).model)["Pad"] == (0 if folded else 1)


@pytest.mark.parametrize(
    ("pads", "extra"),
    [
        (np.array([0, 1, 0, 0, 0, 0, 0, 0]), ""),
        (np.array([0, 0, -1, 0, 0, 0, 0, 0]), ""),
        (PADS, ", one"),
    ],
)
def test_other_padding_stays(pads: Array, extra: str) -> None:
    weights = {"pads": pads, "w": values(4, 5 if pads[1] else 4, 3, 3)}
    if extra:
        weights["one"] = np.array(1, np.float32)
    model = from_text(
        f"(float[N, 4, 6, 6] x) => (float y) {{ p = Pad(x, pads{extra}) y = Conv(p, w) }}", weights=weights
    )
    model.ir.graph.outputs[0].shape = None
    assert ops(normalized(model, {"x": X}).model)["Pad"] == 1


def test_a_pad_that_others_read_too_stays_for_them() -> None:
    body = """(float[N, 4, 6, 6] x) => (float y, float z) {
        p = Pad(x, pads) y = Conv(p, w) z = Relu(p)
    }"""
    model = from_text(body, weights={"pads": PADS, "w": values(4, 4, 3, 3)})
    for output in model.ir.graph.outputs:
        output.shape = None
    result = normalized(model, {"x": X})
    assert ops(result.model) == {"Pad": 1, "Conv": 1, "Relu": 1}


@pytest.mark.parametrize("mode", ["SAME_UPPER", "SAME_LOWER"])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("kernel", [2, 3, 4])
@pytest.mark.parametrize("op", ["Conv", "MaxPool", "AveragePool"])
def test_auto_pad_becomes_numbers(mode: str, stride: int, kernel: int, op: str) -> None:
    x = values(1, 2, 7, 8)
    constants = {"w": values(2, 2, kernel, kernel)} if op == "Conv" else {}
    model = one_node(
        op, ["x", *constants], opset=13, x=x, constants=constants, auto_pad=mode,
        kernel_shape=[kernel, kernel], strides=[stride, stride],
    )  # fmt: skip
    node = normalized(model, {"x": x}).model.ir.graph.node(0)
    assert "auto_pad" not in node.attributes


@pytest.mark.parametrize("axes", [[2, 3], [-1, -2]])
@pytest.mark.parametrize("keepdims", [0, 1])
def test_a_mean_over_the_map_is_global_pooling(axes: list[int], keepdims: int) -> None:
    model = one_node("ReduceMean", ["x"], opset=13, x=X, axes=axes, keepdims=keepdims)
    wanted = {"GlobalAveragePool": 1} if keepdims else {"GlobalAveragePool": 1, "Squeeze": 1}
    assert ops(normalized(model, {"x": X}).model) == wanted


@pytest.mark.parametrize("axes", [[1], [1, 2], [0, 2, 3], [3]])
def test_other_means_stay(axes: list[int]) -> None:
    assert ops(normalized(one_node("ReduceMean", ["x"], opset=13, x=X, axes=axes), {"x": X}).model) == {
        "ReduceMean": 1
    }


def test_pooling_of_the_whole_map_is_global() -> None:
    whole = one_node("AveragePool", ["x"], opset=13, x=X, kernel_shape=[6, 6])
    part = one_node("AveragePool", ["x"], opset=13, x=X, kernel_shape=[5, 6])
    assert ops(normalized(whole, {"x": X}).model) == {"GlobalAveragePool": 1}
    assert ops(normalized(part, {"x": X}).model) == {"AveragePool": 1}


ACTIVATIONS = {
    "0.5 last": ("Gelu", "d = Div(x, sqrt2) e = Erf(d) a = Add(e, one) m = Mul(x, a) y = Mul(m, half)"),
    "0.5 first": ("Gelu", "d = Mul(x, rsqrt2) e = Erf(d) a = Add(one, e) h = Mul(half, x) y = Mul(h, a)"),
    "0.5 inside": ("Gelu", "d = Div(x, sqrt2) e = Erf(d) a = Add(e, one) h = Mul(a, half) y = Mul(x, h)"),
    "tanh": (
        "Gelu",
        "p = Pow(x, three) c = Mul(p, c0) s = Add(x, c) i = Mul(s, c1) t = Tanh(i) a = Add(t, one) "
        "h = Mul(x, half) y = Mul(h, a)",
    ),
    "tanh without pow": (
        "Gelu",
        "q = Mul(x, x) p = Mul(x, q) c = Mul(c0, p) s = Add(c, x) i = Mul(c1, s) t = Tanh(i) a = Add(one, t) "
        "m = Mul(x, a) y = Mul(half, m)",
    ),
    "hard swish": ("HardSwish", "a = Add(x, three) c = Clip(a, zero, six) m = Mul(x, c) y = Div(m, six)"),
    "hard swish 1/6": (
        "HardSwish", "a = Add(x, three) c = Clip(a, zero, six) m = Mul(c, sixth) y = Mul(m, x)",
    ),
    "hard swish, min max": (
        "HardSwish", "a = Add(x, three) r = Relu(a) c = Min(r, six) d = Div(c, six) y = Mul(x, d)",
    ),
    "x * hard sigmoid": ("HardSwish", "h = HardSigmoid<alpha = 0.16666667, beta = 0.5>(x) y = Mul(x, h)"),
    "hard sigmoid": ("HardSigmoid", "a = Add(x, three) c = Clip(a, zero, six) y = Div(c, six)"),
    "hard sigmoid 0.2": ("HardSigmoid", "m = Mul(x, fifth) a = Add(m, half) y = Clip(a, zero, one)"),
    "clip from 0": ("Relu", "y = Clip(x, zero)"),
    "max with 0": ("Relu", "y = Max(x, zero)"),
    "relu twice": ("Relu", "r = Relu(x) y = Relu(r)"),
    "relu 6": ("Clip", "r = Relu(x) y = Min(r, six)"),
    "clip twice": ("Clip", "r = Clip(x, zero, six) y = Clip(r, half, six)"),
    "leaky": ("LeakyRelu", "m = Mul(x, fifth) y = Max(m, x)"),
    "leaky of two relus": ("LeakyRelu", "r = Relu(x) n = Neg(x) q = Relu(n) m = Mul(q, fifth) y = Sub(r, m)"),
    "prelu of one slope": ("LeakyRelu", "y = PRelu(x, fifth)"),
    "prelu": ("PRelu", "r = Relu(x) n = Neg(x) q = Relu(n) m = Mul(q, slope) y = Sub(r, m)"),
    "sigmoid": ("Sigmoid", "n = Neg(x) e = Exp(n) a = Add(e, one) y = Reciprocal(a)"),
    "silu from exp": ("Sigmoid", "n = Neg(x) e = Exp(n) a = Add(e, one) r = Div(one, a) y = Mul(x, r)"),
}  # fmt: skip
NUMBERS: dict[str, Array] = {
    name: np.array(number, np.float32)
    for name, number in {
        "sqrt2": 1.4142135, "rsqrt2": 0.70710677, "one": 1, "half": 0.5, "three": 3, "six": 6, "zero": 0,
        "sixth": 1 / 6, "fifth": 0.2, "c0": 0.044715, "c1": 0.7978846,
    }.items()
} | {"slope": np.array([0.1, 0.2, -0.3, 1.5], np.float32).reshape(4, 1, 1)}  # fmt: skip


def _activation(body: str, more: Mapping[str, Array] | None = None) -> Model:
    names = set(body.replace("(", " ").replace(")", " ").replace(",", " ").split())
    used = {name: a for name, a in {**NUMBERS, **(more or {})}.items() if name in names}
    return from_text(f"(float[N, 4, 6, 6] x) => (float[N, 4, 6, 6] y) {{ {body} }}", weights=used)


WIDE = (
    np.concatenate([X.reshape(-1) * 4, [0.0, -3.0, 3.0, 6.0, -50.0, 50.0]])[:288]
    .astype(np.float32)
    .reshape(2, 4, 6, 6)
)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_are_recognized(name: str) -> None:
    wanted, body = ACTIVATIONS[name]
    counts = ops(normalized(_activation(body), {"x": WIDE}).model)
    assert counts == ({"Sigmoid": 1, "Mul": 1} if name == "silu from exp" else {wanted: 1})


@pytest.mark.parametrize(
    "body",
    [
        "r = Relu(x) y = Add(r, tiny)",
        "s = Sigmoid(x) y = Mul(x, s)",
        "d = Div(x, sqrt2) e = Erf(d) a = Add(e, one) y = Mul(x, a)",
        "a = Add(x, three) c = Clip(a, zero, six) m = Mul(x, c) y = Div(m, seven)",
        "h = HardSigmoid<alpha = 0.2, beta = 0.5>(x) y = Mul(x, h)",
        "y = Clip(x, low, high)",
        "m = Mul(x, grow) y = Max(m, x)",
        "s = Softplus(x) t = Tanh(s) y = Mul(x, t)",
    ],
)
def test_what_is_no_such_activation_stays(body: str) -> None:
    more = {"tiny": 1e-7, "seven": 7, "low": -1e5, "high": 1e5, "grow": 1.2}
    model = _activation(body, {name: np.array(number, np.float32) for name, number in more.items()})
    assert ops(normalized(model, {"x": WIDE}).model) == ops(model)


def test_an_activation_whose_inside_is_read_elsewhere_stays() -> None:
    body = "a = Add(x, three) c = Clip(a, zero, six) m = Mul(x, c) d = Div(m, six) z = Add(d, c) y = Relu(z)"
    counts = ops(normalized(_activation(body), {"x": WIDE}).model)
    assert counts["HardSwish"] == 0


def test_a_constant_that_enlarges_stays() -> None:
    body = "(float[1, 6] x) => (float[4, 6] y) { m = Mul(x, s) y = Max(m, x) }"
    model = from_text(body, weights={"s": np.full((4, 1), 0.2, np.float32)})
    assert ops(normalized(model, {"x": values(1, 6)}).model) == {"Mul": 1, "Max": 1}


NORM = "m = ReduceMean<keepdims = 1>(x, axis) d = Sub(x, m) "
NORMS = {
    "pow, div": NORM + "q = Pow(d, two) v = ReduceMean(q, axis) e = Add(v, eps) s = Sqrt(e) n = Div(d, s) "
    "g = Mul(n, gamma) y = Add(g, beta)",
    "mul, reciprocal": NORM
    + "q = Mul(d, d) v = ReduceMean(q, axis) e = Add(eps, v) s = Sqrt(e) r = Reciprocal(s) "
    "n = Mul(d, r) g = Mul(gamma, n) y = Add(beta, g)",
    "sub twice": NORM + "d2 = Sub(x, m) q = Pow(d2, two) v = ReduceMean(q, axis) e = Add(v, eps) s = Sqrt(e) "
    "n = Div(d, s) g = Mul(n, gamma) y = Add(g, beta)",
    "no affine": NORM + "q = Pow(d, two) v = ReduceMean(q, axis) e = Add(v, eps) s = Sqrt(e) y = Div(d, s)",
    "scale only": NORM + "q = Pow(d, two) v = ReduceMean(q, axis) e = Add(v, eps) s = Sqrt(e) n = Div(d, s) "
    "y = Mul(n, gamma)",
    "pow -0.5": NORM
    + "q = Mul(d, d) v = ReduceMean(q, axis) e = Add(v, eps) r = Pow(e, minus) n = Mul(r, d) "
    "g = Mul(n, gamma) y = Add(g, beta)",
    "keras": NORM + "q = Mul(d, d) v = ReduceMean(q, axis) e = Add(v, eps) s = Sqrt(e) r = Reciprocal(s) "
    "f = Mul(r, gamma) p = Mul(m, f) b = Sub(beta, p) a = Mul(x, f) y = Add(a, b)",
}
RMS = {
    "pow": "q = Pow(x, two) v = ReduceMean(q, axis) e = Add(v, eps) s = Sqrt(e) n = Div(x, s) "
    "y = Mul(gamma, n)",
    "reciprocal": "q = Mul(x, x) v = ReduceMean(q, axis) e = Add(v, eps) s = Sqrt(e) r = Div(one, s) "
    "n = Mul(x, r) y = Mul(n, gamma)",
}


def _norm(body: str, shape: str, gamma: Array, axes: list[int]) -> Model:
    constants: dict[str, Array] = {
        **{n: np.array(v, np.float32) for n, v in {"two": 2, "eps": 1e-5, "minus": -0.5, "one": 1}.items()},
        "gamma": gamma,
        "beta": gamma[..., ::-1].copy(),
        "axis": np.array(axes),
    }
    names = set(body.replace("(", " ").replace(")", " ").replace(",", " ").split())
    used = {name: a for name, a in constants.items() if name in names}
    return from_text(f"(float[{shape}] x) => (float[{shape}] y) {{ {body} }}", 18, used)


@pytest.mark.parametrize("name", NORMS)
@pytest.mark.parametrize("axes", [[-1], [2]])
def test_layer_norms(name: str, axes: list[int]) -> None:
    result = normalized(_norm(NORMS[name], "B, S, 8", values(8), axes), {"x": values(2, 5, 8)}, 1e-4)
    assert ops(result.model) == {"LayerNormalization": 1}
    assert result.model.ir.opset_imports[""] == 21


@pytest.mark.parametrize("shape", [(4, 8), (1, 8), (8,)])
def test_layer_norm_over_two_dimensions(shape: tuple[int, ...]) -> None:
    model = _norm(NORMS["pow, div"], "B, 5, 4, 8", values(*shape), [-2, -1])
    assert ops(normalized(model, {"x": values(2, 5, 4, 8)}, 1e-4).model) == {"LayerNormalization": 1}


@pytest.mark.parametrize("name", RMS)
def test_rms_norms_raise_the_opset(name: str) -> None:
    result = normalized(_norm(RMS[name], "B, S, 8", values(8), [-1]), {"x": values(2, 5, 8)}, 1e-4)
    assert ops(result.model) == {"RMSNormalization": 1}
    assert result.model.ir.opset_imports[""] == 23


@pytest.mark.parametrize(
    ("body", "axes"),
    [
        (NORMS["no affine"], [1]),
        (NORMS["no affine"].replace("Sub(x, m)", "Sub(m, x)"), [-1]),
        (NORMS["no affine"].replace("Pow(d, two)", "Pow(x, two)"), [-1]),
        (RMS["pow"].replace("Div(x, s)", "Div(q, s)"), [-1]),
    ],
)
def test_what_is_no_norm_over_the_last_dimensions_stays(body: str, axes: list[int]) -> None:
    counts = ops(normalized(_norm(body, "B, S, 8", values(8), axes), {"x": values(2, 5, 8)}, 1e-4).model)
    assert counts["ReduceMean"] >= 1


def test_an_affine_part_that_is_not_of_the_last_dimensions_stays_outside() -> None:
    model = _norm(NORMS["pow, div"], "B, 5, 8", values(5, 1), [-1])
    counts = ops(normalized(model, {"x": values(2, 5, 8)}, 1e-4).model)
    assert counts == {"LayerNormalization": 1, "Mul": 1, "Add": 1}


SPLIT = """(float[B, S, 8] x) => (float[B, 2, S, 4] y) {
    p = MatMul(x, w) a = Add(b, p) r = Reshape(a, heads) t = Transpose<perm = [0, 2, 1, 3]>(r) y = Mul(t, c)
}"""


@pytest.mark.parametrize(
    "body", [SPLIT, SPLIT.replace("Mul(t, c)", "Div(t, c)"), SPLIT.replace("Add(b, p)", "Add(p, b)")]
)
def test_the_scale_of_attention_heads_goes_into_the_projection(body: str) -> None:
    weights = {
        "w": values(8, 8),
        "b": values(8),
        "heads": np.array([0, 0, 2, 4]),
        "c": np.array([0.42], np.float32),
    }
    result = normalized(from_text(body, weights=weights), {"x": values(2, 5, 8)})
    assert ops(result.model) == {"MatMul": 1, "Add": 1, "Reshape": 1, "Transpose": 1}


@pytest.mark.parametrize(
    "body",
    [
        SPLIT.replace("(float[B, 2, S, 4] y)", "(float[B, 2, S, 4] y, float[B, S, 8] a)"),
        SPLIT.replace("Mul(t, c)", "Mul(t, t)"),
        SPLIT.replace("p = MatMul(x, w)", "p = Softmax(x)"),
    ],
)
def test_other_scales_of_heads_stay(body: str) -> None:
    weights = {
        "w": values(8, 8),
        "b": values(8),
        "heads": np.array([0, 0, 2, 4]),
        "c": np.array([0.42], np.float32),
    }
    used = {n: a for n, a in weights.items() if f"({n}," in body or f", {n})" in body}
    result = normalized(from_text(body, weights=used), {"x": values(2, 5, 8)})
    assert ops(result.model)["Mul"] == 1
