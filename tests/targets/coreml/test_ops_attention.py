"""Attention and rotary embeddings as Core ML packages, against ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeq.calibration.types import Array
from edgeq.targets.coreml.frontend.node import RefusedNodeError
from edgeq.targets.dimensions import Dimension
from tests.support.coreml_nodes import Node, model_of_nodes, run_nodes
from tests.support.coreml_ops import Op, lower_ops, model_of, run_ops

CLOSE = {"rtol": 1e-5, "atol": 2e-6}
# Opset 18 has MIL's own attention op, opset 17 the products and the softmax.
TARGETS = pytest.mark.parametrize("ios", [17, 18])


def floats(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng([seed, *shape]).normal(size=shape).astype(np.float32)


B, H, K, S, T, P, D, E = 2, 4, 2, 3, 5, 2, 8, 6
QKV = {"q": floats(B, H, S, D), "k": floats(B, H, T, D), "v": floats(B, H, T, E)}
GROUPED = {"gk": floats(B, K, T, D), "gv": floats(B, K, T, E)}
FLAT = {"fq": floats(B, S, H * D), "fk": floats(B, T, K * D), "fv": floats(B, T, K * E)}
PAST = {"pk": floats(B, H, P, D, seed=1), "pv": floats(B, H, P, E, seed=1)}
FLAT_PAST = {"fpk": floats(B, K, P, D, seed=2), "fpv": floats(B, K, P, E, seed=2)}
HEADS = {"q_num_heads": H, "kv_num_heads": K}
NEVER = np.float32(-np.inf)
MHA, GQA = "com.microsoft.MultiHeadAttention", "com.microsoft.GroupQueryAttention"


def masks() -> dict[str, Array]:
    """Float and boolean masks of ranks 2 to 4, none of which empties a row."""
    allowed = np.random.default_rng(0).random((B, H, S, T)) < 0.6
    allowed[..., 0] = True
    bias = floats(B, H, S, T)
    infinite = np.where(allowed, bias, NEVER)
    return {
        "m2": bias[0, 0],
        "m3": bias[0],
        "m4": bias,
        "column": bias[:, :1, :, :],
        "inf": infinite,
        "b2": allowed[0, 0],
        "b4": allowed,
        "bcolumn": allowed[:, :1, :, :],
    }


VARIANTS: list[dict[str, Any]] = [
    {},
    {"is_causal": 1},
    {"scale": 0.3},
    {"softcap": 1.5},
    {"softcap": 1.5, "is_causal": 1, "scale": 0.1},
    {"softmax_precision": 1},
]


@TARGETS
def test_attention_without_and_with_masks(tmp_path: Path, ios: int) -> None:
    given = masks()
    ops = [Op("Attention", ["q", "k", "v"], attributes) for attributes in VARIANTS]
    ops += [Op("Attention", ["q", "gk", "gv"], attributes) for attributes in VARIANTS]
    ops += [Op("Attention", ["fq", "fk", "fv"], {**HEADS, **attributes}) for attributes in VARIANTS]
    for mask in given:
        ops += [Op("Attention", ["q", "k", "v", mask], attributes) for attributes in VARIANTS[:4]]
    run_ops(ops, {**QKV, **GROUPED, **FLAT, **given}, tmp_path, ios=ios).check(**CLOSE)


@TARGETS
def test_constant_masks(tmp_path: Path, ios: int) -> None:
    given = masks()
    ops = [Op("Attention", ["q", "k", "v", mask], a) for mask in given for a in VARIANTS[:2]]
    run_ops(ops, QKV, tmp_path, constants=given, ios=ios).check(**CLOSE)


@pytest.mark.parametrize("mask", ["m4", "b4", "inf"])
def test_constant_masks_with_a_key_for_every_query_cost_nothing(mask: str) -> None:
    model = model_of([Op("Attention", ["q", "k", "v", mask])], QKV, {mask: masks()[mask]})
    operations = lower_ops(model, [floats(B, H, S, E)]).program.functions["main"].operations
    assert [op.op_type for op in operations if op.op_type != "const"] == ["scaled_dot_product_attention"]


def empty_rows() -> dict[str, Array]:
    allowed = masks()["b4"]
    allowed[0, :, 1] = False
    allowed[1, 2] = False
    return {"b": allowed, "m": np.where(allowed, np.float32(0.5), NEVER)}


@TARGETS
@pytest.mark.parametrize("constant", [False, True])
@pytest.mark.parametrize("arithmetic", ["float32", "float16"])
def test_rows_that_attend_to_nothing_are_zero(
    tmp_path: Path, ios: int, constant: bool, arithmetic: Any
) -> None:
    given = empty_rows()
    ops = [Op("Attention", ["q", "k", "v", m], a) for m in given for a in ({}, {"softcap": 2.0})]
    inputs, constants = (QKV, given) if constant else ({**QKV, **given}, {})
    run = run_ops(ops, inputs, tmp_path, constants=constants, ios=ios, arithmetic=arithmetic)
    assert all(not result[0, :, 1].any() and not result[1, 2].any() for result in run.got)
    run.check(**(CLOSE if arithmetic == "float32" else {"rtol": 1e-2, "atol": 1e-2}))


@TARGETS
def test_past_present_and_scores(tmp_path: Path, ios: int) -> None:
    cached, flat = ["q", "k", "v", "", "pk", "pv"], ["fq", "fk", "fv", "", "fpk", "fpv"]
    three, four = (True,) * 3, (True,) * 4
    nodes = [
        Node("Attention", cached, three),
        Node("Attention", cached, three, {"is_causal": 1}),
        Node("Attention", flat, three, HEADS),
        Node("Attention", flat, three, {**HEADS, "is_causal": 1}),
        Node("Attention", ["q", "k", "v", "wide", "pk", "pv"], three, {"is_causal": 1}),
        *(Node("Attention", cached, four, {"qk_matmul_output_mode": mode}) for mode in range(4)),
        *(
            Node(
                "Attention",
                ["q", "k", "v", "m4"],
                (True, False, False, True),
                {"qk_matmul_output_mode": mode, "softcap": 1.5, "scale": 0.5},
            )
            for mode in range(4)
        ),
    ]
    inputs = {**QKV, **FLAT, **PAST, **FLAT_PAST, "m4": masks()["m4"], "wide": floats(S, P + T)}
    run_nodes(nodes, inputs, tmp_path, ios=ios).check(**CLOSE)


@TARGETS
@pytest.mark.parametrize("constant", [False, True])
def test_padded_keys(tmp_path: Path, ios: int, constant: bool) -> None:
    lengths = {"n": np.int64([3, 5])}
    ops = [Op("Attention", ["q", "k", "v", "", "", "", "n"], attributes) for attributes in VARIANTS[:2]]
    inputs, constants = (QKV, lengths) if constant else ({**QKV, **lengths}, {})
    run_ops(ops, inputs, tmp_path, constants=constants, ios=ios).check(**CLOSE)


@TARGETS
def test_dynamic_batch_and_sequence(tmp_path: Path, ios: int) -> None:
    given = {name: masks()[name] for name in ("bcolumn", "column")}
    inputs = {**FLAT, **QKV, **FLAT_PAST, **given, "x": floats(B, S, H * D)}
    flat = {name: ("b", "s" if name == "fq" else "t", array.shape[2]) for name, array in FLAT.items()}
    deep = {
        name: ("b", array.shape[1], "s" if name == "q" else "t", array.shape[3])
        for name, array in QKV.items()
    }
    past = {name: ("b", K, "p", array.shape[3]) for name, array in FLAT_PAST.items()}
    axes = {**flat, **deep, **past, "bcolumn": ("b", 1, "s", "t"), "column": ("b", 1, "s", "t")}
    nodes = [
        Node("Attention", ["fq", "fk", "fv"], attributes={**HEADS, "is_causal": 1}),
        Node("Attention", ["q", "k", "v", "bcolumn"]),
        Node("Attention", ["q", "k", "v", "column"], attributes={"is_causal": 1}),
        Node("Attention", ["fq", "fk", "fv", "", "fpk", "fpv"], (True,) * 3, {**HEADS, "is_causal": 1}),
        Node(MHA, ["x", "x", "x"], attributes={"num_heads": H}),
        Node(MHA, ["x", "x", "x"], attributes={"num_heads": H, "unidirectional": 1}),
    ]
    sizes = {name: Dimension(1, 16) for name in "bstp"}
    axes["x"] = ("b", "s", H * D)
    run_nodes(nodes, inputs, tmp_path, axes=axes, dimensions=sizes, ios=ios).check(**CLOSE)


# --- com.microsoft ------------------------------------------------------------------------------------------


@TARGETS
def test_multi_head_attention(tmp_path: Path, ios: int) -> None:
    padding = np.int32([[1, 1, 1, 0, 0], [0, 1, 1, 1, 0]])
    inputs = {
        "q": floats(B, S, H * D),
        "k": floats(B, T, H * D),
        "v": floats(B, T, H * E),
        "k4": floats(B, H, T, D),
        "v4": floats(B, H, T, D),
        "padding": padding,
        "padding3": np.repeat(padding[:, None], S, axis=1),
        "bias": floats(1, H, S, T),
        "bias2": floats(B, 1, S, S + P),
        "self": floats(B, S, H * D, seed=3),
        "pk": PAST["pk"],
        "pv": floats(B, H, P, D, seed=5),
    }
    constants = {"offset": floats(2 * H * D + H * E), "same": floats(3 * H * D)}
    heads = {"num_heads": H}
    causal = {**heads, "unidirectional": 1}
    past = ["pk", "pv"]
    nodes = [
        Node(MHA, ["q", "k", "v"], attributes=heads),
        Node(MHA, ["q", "k", "v"], attributes={**heads, "scale": 0.2}),
        Node(MHA, ["q", "k", "v", "offset"], attributes=heads),
        Node(MHA, ["q", "k", "v", "", "padding"], attributes=heads),
        Node(MHA, ["q", "k", "v", "", "padding"], attributes={**heads, "mask_filter_value": -1.5}),
        Node(MHA, ["q", "k", "v", "offset", "padding3", "bias"], attributes=heads),
        Node(MHA, ["q", "k4", "v4"], attributes=heads),
        Node(MHA, ["self", "self", "self"], attributes=causal),
        Node(MHA, ["self", "self", "self", "same", "", "bias2", *past], (True,) * 3, heads),
        Node(MHA, ["self", "self", "self", "", "", "", *past], (True,) * 3, causal),
    ]
    run_nodes(nodes, inputs, tmp_path, constants=constants, ios=ios).check(**CLOSE)


@TARGETS
def test_attention_with_its_projection(tmp_path: Path, ios: int) -> None:
    inputs = {"x": floats(B, S, 12), "m": np.int32([[1, 1, 0], [1, 0, 1]]), "bias": floats(B, H, S, S)}
    inputs["computed"] = floats(12, 3 * H * D, seed=4) / 4
    constants = {"w": floats(12, 3 * H * D) / 4, "b": floats(3 * H * D)}
    constants |= {"uneven": floats(12, H * (2 * D + E)) / 4, "c": floats(H * (2 * D + E))}
    heads, packed = {"num_heads": H}, "com.microsoft.Attention"
    sizes = {**heads, "qkv_hidden_sizes": [H * D, H * D, H * E]}
    ops = [
        Op(packed, ["x", "w", "b"], heads),
        Op(packed, ["x", "computed", "b"], {**heads, "scale": 0.3}),
        Op(packed, ["x", "uneven", "c", "m"], sizes),
        Op(packed, ["x", "w", "b", "m"], {**heads, "unidirectional": 1}),
        Op(packed, ["x", "w", "b", "m", "", "bias"], {**heads, "mask_filter_value": -2.5}),
    ]
    run_ops(ops, inputs, tmp_path, constants=constants, ios=ios).check(**CLOSE)


@TARGETS
def test_group_query_attention_of_a_prompt(tmp_path: Path, ios: int) -> None:
    width, length = 16, 4
    given = [floats(B, length, heads * width, seed=seed) for seed, heads in enumerate((H, K, K))]
    inputs = dict(zip("qkv", given, strict=True))
    inputs |= {"packed": np.concatenate(given, axis=2), "bias": floats(1, H, length, length)}
    constants = {
        "last": np.int32([length - 1] * B),
        "total": np.int32(length),
        "cos": floats(8, width // 2),
        "sin": floats(8, width // 2, seed=1),
    }
    heads, lengths, caches = {"num_heads": H, "kv_num_heads": K}, ["", "", "last", "total"], ["cos", "sin"]
    everything, turned = (True,) * 3, {**heads, "do_rotary": 1}
    nodes = [
        Node(GQA, ["q", "k", "v", *lengths], everything, heads),
        Node(GQA, ["q", "k", "v", *lengths], everything, {**heads, "scale": 0.4, "softcap": 1.5}),
        Node(GQA, ["q", "k", "v", *lengths], everything, {**heads, "local_window_size": 2}),
        Node(GQA, ["packed", "", "", *lengths], everything, heads),
        Node(GQA, ["q", "k", "v", *lengths, *caches], everything, turned),
        Node(GQA, ["packed", "", "", *lengths, *caches], everything, {**turned, "rotary_interleaved": 1}),
        Node(GQA, ["q", "k", "v", *lengths, "", "", "", "bias"], everything, heads),
    ]
    run_nodes(nodes, inputs, tmp_path, constants=constants, ios=ios).check(**CLOSE)


def one_step() -> tuple[dict[str, Array], dict[str, Array], Node]:
    """One token after three, with rotary embeddings."""
    width, past = 16, 3
    inputs = {
        "q": floats(1, 1, H * width),
        "k": floats(1, 1, K * width),
        "v": floats(1, 1, K * width, seed=1),
        "pk": floats(1, K, past, width),
        "pv": floats(1, K, past, width, seed=1),
        "last": np.int32([past]),
    }
    constants = {"cos": floats(8, width // 2), "sin": floats(8, width // 2, seed=1)}
    constants["total"] = np.asarray(np.int32(past + 1))
    names = ["q", "k", "v", "pk", "pv", "last", "total", "cos", "sin"]
    attributes = {"num_heads": H, "kv_num_heads": K, "do_rotary": 1}
    return inputs, constants, Node(GQA, names, (True,) * 3, attributes)


def test_group_query_attention_with_a_past_of_known_length(tmp_path: Path) -> None:
    inputs, constants, node = one_step()
    run_nodes([node], inputs, tmp_path, constants=constants).check(**CLOSE)


def test_a_past_whose_valid_length_is_known_at_run_time_only_is_refused() -> None:
    inputs, constants, node = one_step()
    inputs["total"] = constants.pop("total").reshape(1)
    model, _ = model_of_nodes([node], inputs, constants, None)
    with pytest.raises(RefusedNodeError, match="known at run time only"):
        lower_ops(model, [floats(1)] * 3)


# --- rotary -------------------------------------------------------------------------------------------------

ROTARY = "com.microsoft.RotaryEmbedding"


def test_rotary_embedding(tmp_path: Path) -> None:
    half = {"cos": floats(9, D // 2), "sin": floats(9, D // 2, seed=1)}
    quarter = {"cos2": floats(9, D // 4), "sin2": floats(9, D // 4, seed=1)}
    rows = {"cos3": floats(B, S, D // 2), "sin3": floats(B, S, D // 2, seed=1)}
    inputs = {
        "x4": floats(B, H, S, D),
        "x3": floats(B, S, H * D),
        "p": np.int64([[0, 5, 2], [8, 1, 1]]),
        "first": np.int64([4]),
        **rows,
    }
    ops = []
    for twisted in ({}, {"interleaved": 1}):
        part = {"rotary_embedding_dim": D // 2, **twisted}
        ops += [
            Op("RotaryEmbedding", ["x4", "cos", "sin", "p"], twisted),
            Op("RotaryEmbedding", ["x3", "cos", "sin", "p"], {"num_heads": H, **twisted}),
            Op("RotaryEmbedding", ["x4", "cos3", "sin3"], twisted),
            Op("RotaryEmbedding", ["x3", "cos3", "sin3"], {"num_heads": H, **twisted}),
            Op("RotaryEmbedding", ["x4", "cos2", "sin2", "p"], part),
            Op("RotaryEmbedding", ["x3", "cos2", "sin2", "p"], {"num_heads": H, **part}),
            Op(ROTARY, ["x4", "p", "cos", "sin"], twisted),
            Op(ROTARY, ["x3", "p", "cos", "sin"], twisted),
            Op(ROTARY, ["x3", "first", "cos", "sin"], twisted),
            Op(ROTARY, ["x4", "first", "cos", "sin"], twisted),
            Op(ROTARY, ["x3", "p", "cos2", "sin2"], {"num_heads": H, **part}),
        ]
    run_ops(ops, inputs, tmp_path, constants={**half, **quarter}).check(**CLOSE)


def test_rotary_embedding_of_dynamic_sequences(tmp_path: Path) -> None:
    inputs = {"x": floats(B, S, H * D), "p": np.int64([[0, 5, 2], [8, 1, 1]])}
    constants = {"cos": floats(9, D // 2), "sin": floats(9, D // 2, seed=1), "first": np.int64([3])}
    ops = [
        Op("RotaryEmbedding", ["x", "cos", "sin", "p"], {"num_heads": H, "interleaved": 1}),
        Op(ROTARY, ["x", "first", "cos", "sin"]),
    ]
    run_ops(
        ops,
        inputs,
        tmp_path,
        constants=constants,
        axes={"x": ("b", "s", H * D), "p": ("b", "s")},
        dimensions={"b": Dimension(1, 4), "s": Dimension(1, 6)},
    ).check(**CLOSE)


# --- precision and refusals ---------------------------------------------------------------------------------


@TARGETS
def test_half_precision_stays_close(tmp_path: Path, ios: int) -> None:
    given = masks()
    ops = [Op("Attention", ["q", "k", "v", mask], {"is_causal": 1}) for mask in ("inf", "b4", "m4")]
    run_ops(ops, {**QKV, **given}, tmp_path, ios=ios, arithmetic="float16").check(rtol=1e-2, atol=1e-2)


GQA_HEADS = {"num_heads": H, "kv_num_heads": H}
REFUSED = [
    (Op("Attention", ["q", "k", "v"], {"softmax_precision": 11}), "softmax_precision=double"),
    (Op("Attention", ["q", "k", "v"], {"qk_matmul_output_mode": 7}), "qk_matmul_output_mode=7"),
    (Op("Attention", ["q", "odd", "odd"]), "4 query heads on 3 key heads"),
    (Op("Attention", ["q", "k", "v", "", "pk", "pv", "n"]), "nonpad_kv_seqlen together with past_key"),
    (Op(MHA, ["f", "f", "f"], {"num_heads": 5}), "5 heads do not divide the hidden size 32"),
    (Op("Attention", ["q", "k", "v", "broad"]), "attn_mask has 7 columns for 5 keys"),
    (Op(MHA, ["packed"], {"num_heads": H}), "packed"),
    (Op(MHA, ["f", "f", "f", "", "n32"], {"num_heads": H}), "a padding mask of rank 1"),
    (Op(GQA, ["f", "f", "f", "", "", "n32", "t"], {**GQA_HEADS, "smooth_softmax": 1}), "smooth_softmax=1"),
    (Op(ROTARY, ["f", "p", "c", "c"], {"scale": 2.0}), "scale is not 1"),
    (Op(ROTARY, ["f", "p", "c", "c"], {"is_packed_batching": 1}), "is_packed_batching"),
    (Op(ROTARY, ["f", "p", "c", "c"], {"num_heads": 2}), "head size 16"),
]  # fmt: skip


@pytest.mark.parametrize(("op", "reason"), REFUSED, ids=str)
def test_refusals(op: Op, reason: str) -> None:
    given = {
        **QKV,
        **PAST,
        "broad": floats(S, T + 2),
        "odd": floats(B, 3, T, D),
        "n": np.int64([3, 5]),
        "packed": floats(B, S, H, 3, D),
        "f": floats(B, S, H * D),
        "n32": np.int32([3, 3]),
        "t": np.int32([3]),
        "p": np.int64([[0, 1, 2]] * B),
        "c": floats(9, D // 2),
    }
    inputs = {name: array for name, array in given.items() if name in op.inputs}
    with pytest.raises(RefusedNodeError, match=reason):
        lower_ops(model_of([op], inputs, {}), [floats(1)])
