"""Which row is recommended, by rule: budgets, hardware and memory first, then speed, size, perplexity."""

from __future__ import annotations

from typing import Any

import pytest

from edgeq.language.engines import FORMATS, HARDWARE
from edgeq.language.pareto import Spread
from edgeq.language.recommendation import Option, Place, Recommendation, recommend
from edgeq.language.run_memory import RunMemory, cache_bytes, run_memory

MB = 1_000_000


def option(name: str, format: str = "gguf", **changes: Any) -> Option:
    size = changes.pop("size", 5 * MB)
    fields: dict[str, Any] = {
        "scheme": "int4-weight",
        "size": size,
        "perplexity": Spread(20, 19.9, 20.1),
        "memory": RunMemory(size, MB, 512),
        **changes,
    }
    return Option(name, format, **fields)


def speed(value: float, noise: float = 0.01) -> Spread:
    return Spread(value, value * (1 - noise), value * (1 + noise))


def chosen(*options: Option, **place: Any) -> Recommendation:
    return recommend(options, Place(**place), ["Try --bits 8."])


def test_the_fastest_beyond_noise_is_shipped_and_the_sentence_says_so() -> None:
    found = chosen(
        option("slow", speed=speed(90), size=4 * MB), option("fast", speed=speed(100)), hardware="cpu"
    )
    assert found.name == "fast"
    assert found.sentences[0] == (
        "Ship fast: of 2 rows 2 keep every budget and run on an x86 or ARM CPU; it generates fastest, "
        "100.00x FP32's tokens/s, 1.11x slow, beyond noise."
    )
    assert found.sentences[1] == (
        "llama.cpp loads it; it takes about 6 MB: 5 MB of weights and 1 MB of cache at 512 tokens."
    )
    assert found.sentences[2] == (
        "Smaller: slow, with 4 MB, perplexity 20, 90.00x FP32's tokens/s against 5 MB, perplexity 20, "
        "100.00x FP32's tokens/s."
    )


@pytest.mark.parametrize("fast", [speed(102, 0.001), speed(110, 0.2)], ids=["small lead", "wide intervals"])
def test_of_equally_fast_rows_the_smallest(fast: Spread) -> None:
    found = chosen(
        option("large", speed=fast), option("small", speed=speed(100, 0.001), size=4 * MB), hardware="cpu"
    )
    assert found.name == "small"
    assert "2 are equally fast within noise, and of them it is the smallest (4 MB)" in found.sentences[0]


def test_of_equally_fast_and_small_rows_the_lowest_perplexity() -> None:
    rtn = option("rtn", perplexity=Spread(21, 20.8, 21.2))
    gptq = option("gptq", size=5 * MB + 100)
    found = chosen(rtn, gptq)
    assert found.name == "gptq"
    assert "all have about 5 MB, and it has the lowest perplexity (20)" in found.sentences[0]


def test_a_row_that_misses_a_budget_does_not_count() -> None:
    found = chosen(option("bad", size=MB, missed=("size is too large.",)), option("good"))
    assert found.name == "good"
    assert found.sentences[0] == "Ship good: of 2 rows the only one that keeps every budget."


def test_formats_without_an_engine_on_the_hardware_do_not_count() -> None:
    found = chosen(option("awq", "hf-awq", size=MB), option("gguf"), hardware="apple")
    assert found.name == "gguf"
    assert found.sentences[0].endswith("the only one that keeps every budget and runs on Apple silicon.")
    assert (
        "Not counted: awq (no engine runs int4-weight weights as hf-awq on Apple silicon)." in found.sentences
    )


def test_times_of_this_cpu_do_not_decide_for_other_hardware() -> None:
    fast, small = option("fast", speed=speed(100)), option("small", speed=speed(50), size=4 * MB)
    assert chosen(fast, small, hardware="cpu").name == "fast"
    found = chosen(fast, small, hardware="gpu")
    assert found.name == "small"
    assert "times of this CPU say nothing about an NVIDIA GPU" in found.sentences[0]


def test_times_of_a_stand_in_do_not_decide() -> None:
    """What reads hf-awq here is not the engine that serves it."""
    found = chosen(option("awq", "hf-awq", speed=speed(900)), option("gguf", speed=speed(50)), hardware="cpu")
    assert found.name == "gguf"
    assert "(hf-awq: their engines were not timed here)" in found.sentences[0]


def test_what_does_not_fit_the_memory_does_not_count() -> None:
    large = option("large", size=9 * MB, speed=speed(100))
    found = chosen(large, option("small"), hardware="cpu", ram=8 * MB)
    assert found.name == "small"
    assert found.sentences[-1].startswith("Not counted: large (it takes about 10 MB: 9 MB of weights")


def test_nothing_keeps_the_budgets_and_what_comes_closest_is_named() -> None:
    far = option("far", missed=("perplexity is 60.",), excess=2.0)
    near = option("near", missed=("perplexity is 21.",), excess=0.05)
    two = option("two", missed=("perplexity is 20.1.", "size is 9 MB."), excess=0.01)
    found = chosen(far, near, two)
    assert (found.name, found.closest) == (None, "near")
    assert found.sentences == (
        "Nothing keeps every budget.",
        "near comes closest: perplexity is 21.",
        "Try --bits 8.",
    )


def test_all_keep_the_budgets_and_none_fits_the_memory() -> None:
    found = chosen(option("a"), option("b", size=4 * MB), hardware="phone", ram=3 * MB)
    assert (found.name, found.closest) == (None, "b")
    assert found.sentences[0] == "Nothing keeps every budget and runs on a phone's CPU in 3 MB of memory."
    assert found.sentences[1].startswith("b comes closest: it takes about 5 MB")


def test_nothing_was_measured() -> None:
    assert recommend([], Place()).name is None


def test_every_format_runs_somewhere_and_every_hardware_has_a_format() -> None:
    for name, engine in FORMATS.items():
        assert set(engine.hardware) <= set(HARDWARE), name
        assert engine.hardware
    for hardware in HARDWARE:
        assert any(engine.runs_on(hardware, "int4-weight") for engine in FORMATS.values())


def test_the_cache_of_a_known_model() -> None:
    """Llama 3 8B: 32 layers, 8 heads of 128, keys and values in float16: 128 KiB per token."""
    config = {
        "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "hidden_size": 4096,
        "max_position_embeddings": 8192,
    }  # fmt: skip
    assert cache_bytes(config, 1, 2) == 128 * 1024
    assert run_memory(config, 10, None, 2).context == 4096
    assert run_memory(config, 10, 100, 2) == RunMemory(10, 100 * 128 * 1024, 100)
    assert run_memory({**config, "max_position_embeddings": 512}, 10, None, 2).context == 512
