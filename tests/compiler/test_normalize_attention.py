"""The optional attention fusion, against the decomposed model in ONNX Runtime."""

from __future__ import annotations

import numpy as np
import pytest

from edgeq.compiler.normalize import normalize
from edgeq.compiler.normalize.attention import fuse_attention
from edgeq.compiler.normalize.equivalence import check_equivalent
from tests.support.normalize_models import from_text, ops, run, values

FEED = {name: values(2, 5, 3, 8, seed=i) for i, name in enumerate("qkv")}


def _body(scores: str, inputs: str = "", mask: str = "s") -> str:
    signature = f"(float[B, S, 3, 8] q, float[B, S, 3, 8] k, float[B, S, 3, 8] v{inputs})"
    return f"""{signature} => (float[B, S, 24] y) {{
        qt = Transpose<perm = [0, 2, 1, 3]>(q)
        kt = Transpose<perm = [0, 2, 3, 1]>(k)
        vt = Transpose<perm = [0, 2, 1, 3]>(v)
        p = MatMul(qt, kt)
        s = {scores}
        a = Softmax<axis = -1>({mask})
        o = MatMul(a, vt)
        t = Transpose<perm = [0, 2, 1, 3]>(o)
        shape = Constant<value_ints = [0, 0, 24]>()
        y = Reshape(t, shape)
    }}"""


@pytest.mark.parametrize("scores", ["Div(p, c)", "Mul(p, c)", "Mul(c, p)", "Identity(p)"])
def test_scaled(scores: str) -> None:
    model = normalize(from_text(_body(scores), weights={"c": np.array(2.8284, np.float32)})).model
    fused, count = fuse_attention(model)
    assert count == 1
    assert ops(fused)["Attention"] == 1
    assert ops(fused)["MatMul"] == 0
    assert fused.inputs == model.inputs
    assert fused.outputs == model.outputs
    assert fused.ir.opset_imports[""] == 23
    check_equivalent(model, fused, None)
    np.testing.assert_allclose(run(fused, FEED)[0], run(model, FEED)[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("kind", "shape"), [("B, 1, 1, S", (2, 1, 1, 5)), ("S, S", (5, 5))])
def test_masked(kind: str, shape: tuple[int, ...]) -> None:
    body = _body("Div(p, c)", f", float[{kind}] m", "sm").replace("a = Soft", "sm = Add(s, m)\n a = Soft")
    model = normalize(from_text(body, weights={"c": np.array(2.8284, np.float32)})).model
    fused, count = fuse_attention(model)
    assert count == 1
    mask = np.where(values(*shape, seed=9) > 0.5, np.float32(-1e4), np.float32(0))
    feed = {**FEED, "m": mask}
    np.testing.assert_allclose(run(fused, feed)[0], run(model, feed)[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (
            _body("Identity(p)").replace("(float[B, S, 24] y)", "(float[B, S, 24] y, float[B,3,S,S] a)"),
            "read",
        ),
        (_body("Identity(p)").replace("axis = -1", "axis = 2"), "axis"),
        (_body("Mul(p, p)"), "not a scale"),
    ],
)
def test_left_alone(body: str, why: str) -> None:
    model = normalize(from_text(body)).model
    fused, count = fuse_attention(model)
    assert count == 0, why
    assert ops(fused) == ops(model)


def test_normalize_itself_keeps_attention_decomposed() -> None:
    assert ops(normalize(from_text(_body("Identity(p)"))).model)["Softmax"] == 1
