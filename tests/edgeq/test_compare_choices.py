"""Which rows a comparison has: what formats store, what was named in vain, what is left out."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeq.candidates import Candidate
from edgeq.compiler.recipe import Override, Recipe
from edgeq.errors import UsageError
from edgeq.language.choices import Axes, choose, text_names
from edgeq.language.table import _NAMES
from edgeq.targets.registry import get_target

BOTH = ("hf-gptq", "vllm")


def names(axes: Axes) -> list[str]:
    return [candidate.suffix for candidate in choose(axes, {}).candidates]


def test_every_combination_that_is_stored_is_a_row() -> None:
    found = names(Axes(("rtn", "gptq"), BOTH, (4,), (32, 128)))
    assert found == [
        f"{method}-4bit-g{group}-{format}"
        for format in BOTH
        for method in ("rtn", "gptq")
        for group in (32, 128)
    ]


def test_rows_have_recipes_that_their_formats_take() -> None:
    choices = choose(Axes(formats=("hf-gptq", "hf-awq", "vllm", "gguf", "onnxruntime-genai", "bnb-nf4")), {})
    assert {candidate.target for candidate in choices.candidates} >= {"hf-gptq", "gguf", "bnb-nf4"}
    for candidate in choices.candidates:
        rules = get_target(candidate.target).capabilities().weights
        assert rules is not None
        assert candidate.recipe is not None
        assert candidate.recipe.block_size == rules.group_size


def test_what_was_named_and_nobody_stores_is_a_row_with_the_reason() -> None:
    choices = choose(Axes(("nf4",), ("hf-gptq",)), {})
    assert choices.candidates == ()
    [(candidate, why)] = choices.refused
    assert candidate.target == "hf-gptq"
    assert why == "hf-gptq stores no NF4 weights"
    assert not choices.left_out


def test_what_one_of_the_formats_stores_is_counted_for_the_others() -> None:
    choices = choose(Axes(("rtn",), BOTH, (4, 3)), {})
    assert [candidate.target for candidate in choices.candidates] == ["hf-gptq", "hf-gptq", "vllm"]
    assert choices.refused == ()
    assert list(choices.left_out.values()) == [1]
    assert next(iter(choices.left_out)).startswith("vllm stores weights of ")


def test_only_methods_that_read_the_text_have_a_row_for_each() -> None:
    found = names(Axes(("rtn", "gptq"), ("hf-gptq",), calibrations=("books", "code")))
    assert found == ["rtn-4bit-g128-hf-gptq", "gptq-4bit-g128-books-hf-gptq", "gptq-4bit-g128-code-hf-gptq"]


def test_one_text_has_no_part_in_the_names() -> None:
    [found] = choose(Axes(("gptq",), ("hf-gptq",), calibrations=("books",)), {}).candidates
    assert (found.suffix, found.calibration) == ("gptq-4bit-g128-hf-gptq", "books")


def test_fields_go_to_the_recipes_that_read_them() -> None:
    fields = {"symmetric_weights": False, "calibration_samples": 7}
    rtn, gptq = choose(Axes(("rtn", "gptq"), ("hf-gptq",)), fields).candidates
    assert rtn.recipe is not None
    assert gptq.recipe is not None
    assert (rtn.recipe.symmetric_weights, rtn.recipe.calibration_samples) == (False, 300)
    assert (gptq.recipe.symmetric_weights, gptq.recipe.calibration_samples) == (False, 7)


def test_w8a8_has_its_own_bits_and_scales() -> None:
    fields = {"calibration_samples": 7, "symmetric_weights": False, "damping": 0.1}
    choices = choose(Axes(("rtn", "smoothquant"), BOTH, calibrations=("books",)), fields)
    assert [c.suffix for c in choices.candidates if c.target == "vllm"] == [
        "rtn-4bit-g128-vllm",
        "smoothquant-8bit-channel-vllm",
    ]
    found = choices.candidates[-1]
    wanted = Recipe(scheme="int8-dynamic", weight_method="smoothquant", calibration_samples=7)
    assert (found.recipe, found.calibration) == (wanted, "books")
    assert choices.left_out == {"hf-gptq stores no W8A8": 1}
    assert columns_of(found) == ("smoothquant", "8", "channel")


def columns_of(candidate: Candidate) -> tuple[str, ...]:
    return tuple(_NAMES[title](candidate) for title in ("method", "bits", "group"))


@pytest.mark.parametrize(
    ("axes", "said"),
    [
        (Axes(("smoothquant",), ("vllm",), (4,)), "smoothquant has 8 bits"),
        (
            Axes(("smoothquant",), ("vllm",), block_sizes=(32,)),
            "smoothquant has no groups: a scale per output channel",
        ),
    ],
)
def test_w8a8_in_vain(axes: Axes, said: str) -> None:
    choices = choose(axes, {})
    assert choices.candidates == ()
    assert [why for _, why in choices.refused] == [said]


def test_types_that_llama_cpp_makes_read_the_text() -> None:
    fields = {"calibration_samples": 7, "overrides": (Override(match="lm_head", precision="int8"),)}
    axes = Axes(("rtn",), ("gguf",), types=("q4_k_m", "q5_1"), calibrations=("books",))
    _, typed, plain = choose(axes, fields).candidates
    assert typed.recipe == Recipe.model_validate({"scheme": "int4-weight", **fields})
    assert plain.recipe == Recipe(scheme="int4-weight", overrides=fields["overrides"])


def test_types_of_gguf_files_are_rows_of_their_own() -> None:
    found = choose(Axes(("rtn",), ("gguf",), types=("q4_k_m",)), {}).candidates
    assert [(c.suffix, dict(c.options)) for c in found] == [
        ("rtn-4bit-g32-gguf", {}),
        ("q4_k_m-gguf", {"type": "q4_k_m"}),
    ]


@pytest.mark.parametrize(
    ("axes", "said"),
    [
        (Axes(methods=("magic",)), "Unknown method 'magic'"),
        (Axes(bits=(5,)), "no weights of 5 bits"),
        (Axes(formats=("onnxruntime",)), "'onnxruntime' is no format of language models"),
        (Axes(formats=("nothing",)), "Unknown target 'nothing'"),
        (Axes(formats=("gguf",), types=("q9",)), "Unknown type of GGUF file 'q9'"),
        (Axes(formats=("vllm",), types=("q4_0",)), "'gguf' is not among the formats"),
    ],
)
def test_what_does_not_exist_is_refused(axes: Axes, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        choose(axes, {})


def test_texts_are_called_by_their_files() -> None:
    assert text_names(["a/books.txt", Path("code.txt")]) == ("books", "code")
    assert text_names(["a/x.txt", "b/x.txt"]) == ("x-1", "x-2")
    with pytest.raises(UsageError, match="given twice"):
        text_names(["a/x.txt", "a/x.txt"])
