"""Recipes: what would do nothing is refused."""

from __future__ import annotations

import pytest

from edgeq.compiler.quantize.dispatch import check_recipe
from edgeq.compiler.recipe import SCHEMES, Override, Recipe
from edgeq.errors import UsageError
from edgeq.recipes import READ_BY, check_read, make_recipe, parse_override
from edgeq.targets.registry import get_target

CHANGED = {
    "range_method": "minmax",
    "percentile": 99.9,
    "bias_correction": False,
    "smoothing": False,
    "block_size": 64,
    "symmetric_weights": False,
    "weight_method": "gptq",
    "damping": 0.05,
    "act_order": False,
    "accuracy_level": 4,
    "saturation_safe": False,
    "calibration_samples": 10,
    "overrides": (Override(match="a", precision="fp32"),),
}


def test_every_field_is_either_read_by_some_schemes_or_by_all() -> None:
    assert set(CHANGED) | {"scheme"} == set(Recipe.model_fields)
    assert set(READ_BY) <= set(CHANGED)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("field", CHANGED)
def test_a_field_is_accepted_where_it_is_read_and_refused_elsewhere(scheme: str, field: str) -> None:
    fields = {field: CHANGED[field]}
    if field == "percentile":
        fields["range_method"] = "percentile"
    if field in ("damping", "act_order"):
        fields["weight_method"] = "gptq"
    if scheme in READ_BY[field]:
        recipe = make_recipe(scheme, fields, where="test")
        assert getattr(recipe, field) == CHANGED[field]
        check_read(recipe)
        return
    with pytest.raises(UsageError, match="has no effect with"):
        make_recipe(scheme, fields, where="test")
    with pytest.raises(UsageError, match="has no effect with"):
        check_read(Recipe.model_validate({"scheme": scheme, **fields}))


@pytest.mark.parametrize("size", [32, 64])
def test_block_size_without_blocks(size: int) -> None:
    recipe = make_recipe("int8-weight", {"block_size": size}, where="test")
    with pytest.raises(UsageError) as caught:
        check_recipe(recipe, get_target("onnxruntime").capabilities())
    assert caught.value.what == "block_size has no effect with scheme 'int8-weight' and accuracy level 0."
    assert caught.value.fix == "Set accuracy_level to 4, or leave it out."
    check_recipe(recipe, get_target("hf-gptq").capabilities())


def test_defaults_are_never_refused() -> None:
    for scheme in SCHEMES:
        check_read(Recipe(scheme=scheme))


@pytest.mark.parametrize("text", ["a", "a=", "=int8", "a=int5"])
def test_overrides_that_are_none(text: str) -> None:
    with pytest.raises(UsageError, match="is not MATCH=PRECISION"):
        parse_override(text)


def test_an_override_may_hold_an_equals_sign() -> None:
    assert parse_override("/a=b/*=fp16") == Override(match="/a=b/*", precision="fp16")
