"""Which layers get which weights, and what is refused before anything is read."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from edgeq.compiler.quantize.dispatch import check_recipe
from edgeq.compiler.recipe import Override, Recipe
from edgeq.compiler.weights.planning import LinearLayer, plan_weights
from edgeq.errors import EdgeqError, TargetError, UsageError
from edgeq.recipes import make_recipe
from edgeq.targets.capabilities import Capabilities, WeightRules
from edgeq.targets.registry import get_target

RULES = WeightRules(bits=(4, 8), group_sizes=(-1, 32), group_size=32, outputs_multiple=8)
LAYERS = [
    LinearLayer("embed", 256, 64, "Embedding"),
    LinearLayer("layers.0.q", 64, 64),
    LinearLayer("layers.0.narrow", 64, 48),
    LinearLayer("layers.0.odd", 60, 64),
    LinearLayer("layers.0.gate", 8, 64, "Router"),
    LinearLayer("lm_head", 256, 64, head=True),
]


def recipe(**fields: Any) -> Recipe:
    return Recipe.model_validate({"scheme": "int4-weight", **fields})


def test_reasons_for_float() -> None:
    found = plan_weights(LAYERS, recipe(), RULES)
    assert list(found.specs) == ["layers.0.q"]
    reasons = {name: node.reason for name, node in found.plan.nodes.items()}
    assert reasons["embed"] == "the format stores embeddings in float16"
    assert reasons["layers.0.narrow"] == "its 48 inputs are no whole groups of 32"
    assert reasons["layers.0.odd"] == "its 60 outputs are no multiple of 8"
    assert reasons["layers.0.gate"] == "a small error of it would choose other experts"
    assert reasons["lm_head"] == "the format's readers take the output layer in float16"
    assert reasons["layers.0.q"] == "symmetric int4 weights, a scale per 32 inputs"


def test_what_a_format_may_have() -> None:
    rules = WeightRules((4,), (-1, 32), 32, head=True, embeddings=True, uneven=True)
    found = plan_weights(LAYERS, recipe(), rules)
    assert set(found.specs) == {layer.name for layer in LAYERS} - {"layers.0.gate"}
    whole = plan_weights(LAYERS, recipe(block_size=-1), RULES).specs["layers.0.narrow"]
    assert whole.groups(48) == 1


def test_overrides() -> None:
    mixed = WeightRules((4, 8), (32,), 32, mixed=True)
    found = plan_weights(LAYERS, recipe(overrides=[Override(match="*.q", precision="int8")]), mixed)
    assert found.specs["layers.0.q"].bits == 8
    kept = plan_weights(LAYERS, recipe(overrides=[Override(match="*.q", precision="fp16")]), mixed)
    assert "layers.0.q" not in kept.specs
    assert kept.plan.nodes["layers.0.q"].pinned


@pytest.mark.parametrize(
    ("override", "said"),
    [
        (Override(match="*.q", precision="int8"), "which the scheme int4-weight has not"),
        (Override(match="*.none", precision="fp16"), "matches no node"),
        (Override(match="lm_head", precision="int4"), "take the output layer in float16"),
    ],
)
def test_overrides_that_cannot_be(override: Override, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        plan_weights(LAYERS, recipe(overrides=[override]), RULES)


def test_model_without_a_layer_that_fits() -> None:
    with pytest.raises(TargetError, match="48 inputs are no whole groups of 32"):
        plan_weights([LAYERS[2]], recipe(), RULES)


@pytest.mark.parametrize(
    ("fields", "error", "said"),
    [
        (
            {"weight_method": "awq"},
            TargetError,
            "does not take weights of the method 'awq'. It takes: rtn, gptq",
        ),
        ({"block_size": 64}, TargetError, r"in groups of 64. It has: -1 \(per output channel\), 32"),
        ({"symmetric_weights": False}, TargetError, "does not store asymmetric weights of 4 bits"),
        ({"damping": 0.1}, UsageError, "damping = 0.1 has no effect with method 'rtn'"),
        ({"act_order": False, "weight_method": "rtn"}, UsageError, "act_order = False has no effect"),
        ({"calibration_samples": 5}, UsageError, "calibration_samples = 5 has no effect on target 'test'"),
    ],
)
def test_what_the_format_has_not(fields: dict[str, Any], error: type[EdgeqError], said: str) -> None:
    rules = WeightRules((4,), (-1, 32), 32, symmetric=(True,), methods=("rtn", "gptq"))
    with pytest.raises(error, match=said):
        check_recipe(recipe(**fields), Capabilities("test", ("int4-weight",), weights=rules))


@pytest.mark.parametrize("target", ["onnxruntime", "openvino"])
@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"weight_method": "awq"}, "does not round the weights of a graph by the method 'awq'"),
        ({"damping": 0.1}, "damping = 0.1 has no effect with method 'rtn'"),
        ({"act_order": False, "weight_method": "rtn"}, "act_order = False has no effect with method 'rtn'"),
        ({"weight_method": "gptq", "scheme": "int8-weight"}, "'int8-weight': only int4-weight reads it"),
        ({"block_size": -1}, "one scale per output channel"),
        ({"calibration_samples": 5}, "calibration_samples = 5 has no effect on target"),
    ],
)
def test_targets_that_compile_graphs(target: str, fields: dict[str, Any], said: str) -> None:
    with pytest.raises(EdgeqError, match=said):
        check_recipe(
            Recipe.model_validate({"scheme": "int4-weight", **fields}), get_target(target).capabilities()
        )


@pytest.mark.parametrize("target", ["coreml", "tensorrt", "neural-compressor"])
def test_targets_of_graphs_without_methods(target: str) -> None:
    said = f"weight_method = gptq has no effect on target '{target}': it compiles a graph"
    with pytest.raises(UsageError, match=said):
        check_recipe(recipe(weight_method="gptq"), get_target(target).capabilities())


def test_methods_of_weights_are_not_those_of_nncf() -> None:
    with pytest.raises(TargetError, match="NNCF rounds weights by its own rules, not by the method 'gptq'"):
        get_target("openvino").options({"quantizer": "nncf"}, recipe(weight_method="gptq"))


@pytest.mark.parametrize("target", ["hf-gptq", "hf-awq", "vllm", "gguf"])
def test_formats_have_no_accuracy_level(target: str) -> None:
    with pytest.raises(UsageError, match="accuracy_level = 4 has no effect on target"):
        check_recipe(recipe(accuracy_level=4), get_target(target).capabilities())


def test_options_of_gptq_are_spelled_as_they_were_given() -> None:
    with pytest.raises(UsageError, match="--damping has no effect with method 'awq'"):
        make_recipe(
            "int4-weight",
            {"weight_method": "awq", "damping": 0.01},
            where="test",
            spelled=lambda field: "--" + field,
        )


def test_the_reason_where_everything_is_excluded() -> None:
    nothing = recipe(overrides=[Override(match="*", precision="fp32")])
    with pytest.raises(TargetError, match=r"'layers\.0\.q' stays float, the recipe keeps it in float \(\*\)"):
        plan_weights(LAYERS, nothing, RULES)


def test_layers_that_engines_join_are_refused_before_any_work() -> None:
    layers = [LinearLayer(f"layers.0.{name}_proj", 64, 64) for name in ("q", "k", "v", "o")]
    wish = recipe(overrides=[Override(match="*.k_proj", precision="fp16")])
    assert len(plan_weights(layers, wish, RULES).specs) == 3
    with pytest.raises(TargetError, match="they would not be stored alike"):
        plan_weights(layers, wish, replace(RULES, joined_alike=True))


def test_floats_of_32_bits_that_the_format_has_not_are_noted() -> None:
    asked = recipe(overrides=[Override(match="layers.0.[no]*", precision="fp32")])
    found = plan_weights(LAYERS, asked, RULES).plan
    assert found.notes == ["layers.0.[no]*=fp32: stored in 16 bits, as the format stores floats."]
    assert found.nodes["layers.0.odd"].precision == "fp16"
    assert plan_weights(LAYERS, recipe(), RULES).plan.notes == []
