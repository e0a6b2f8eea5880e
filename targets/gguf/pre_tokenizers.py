"""How a byte-level tokenizer splits text before it merges, and what llama.cpp calls that.

llama.cpp has the regular expressions built in and a file names one (``tokenizer.ggml.pre``). The name is
chosen by the definition in ``tokenizer.json``, not by the name of the model.
"""

from __future__ import annotations

from typing import Any

from edgeq.errors import TargetError

# One step of a pre-tokenizer: what kind, and its parameter.
Step = tuple[str, Any]

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_UPPER_LOWER = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*",
)
_REST_SLASH = r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"

_GPT2: Step = ("bytes", True)
_BYTES: Step = ("bytes", False)
_LLAMA3: Step = ("split", f"{_CONTRACTIONS}|{_WORDS}|\\p{{N}}{{1,3}}|{_REST}")
_QWEN2: Step = ("split", f"{_CONTRACTIONS}|{_WORDS}|\\p{{N}}|{_REST}")
_TEKKEN: Step = ("split", f"{_UPPER_LOWER[0]}|{_UPPER_LOWER[1]}|\\p{{N}}|{_REST_SLASH}")
_GPT4O: Step = (
    "split",
    f"{_UPPER_LOWER[0]}{_CONTRACTIONS}?|{_UPPER_LOWER[1]}{_CONTRACTIONS}?|\\p{{N}}{{1,3}}|{_REST_SLASH}",
)

# (steps, whether whole words skip the merges) → llama.cpp's name.
NAMES: dict[tuple[tuple[Step, ...], bool], str] = {
    ((_GPT2,), False): "gpt-2",
    ((("digits", True), _GPT2), False): "smollm",
    ((_LLAMA3, _BYTES), True): "llama-bpe",
    ((_LLAMA3, _BYTES), False): "smaug-bpe",
    ((_QWEN2, _BYTES), False): "qwen2",
    ((_TEKKEN, _BYTES), True): "tekken",
    ((_GPT4O, _BYTES), False): "gpt-4o",
}


def known_name(pre_tokenizer: dict[str, Any] | None, ignore_merges: bool) -> str | None:
    """llama.cpp's name of the definition in ``tokenizer.json``; None: it has none that is the same.

    Raises:
        TargetError: the tokenizer puts a space before every text, which llama.cpp's does not.
    """
    return NAMES.get((tuple(_steps(pre_tokenizer)), ignore_merges))


def is_byte_level(pre_tokenizer: dict[str, Any] | None) -> bool:
    """Whether text is split into bytes, each of which has a letter of its own in the vocabulary."""
    return any(kind == "bytes" for kind, _ in _steps(pre_tokenizer))


def _steps(pre_tokenizer: dict[str, Any] | None) -> list[Step]:
    if pre_tokenizer is None:
        return []
    kind = pre_tokenizer["type"]
    if kind == "Sequence":
        return [step for part in pre_tokenizer["pretokenizers"] for step in _steps(part)]
    if kind == "ByteLevel":
        if pre_tokenizer.get("add_prefix_space"):
            raise TargetError(
                "The tokenizer puts a space before every text, which llama.cpp's byte-level one does not.",
                fix="Take --target hf-gptq, hf-awq or vllm.",
            )
        return [("bytes", bool(pre_tokenizer.get("use_regex", True)))]
    if kind == "Digits":
        return [("digits", bool(pre_tokenizer.get("individual_digits")))]
    plain = kind == "Split" and pre_tokenizer["behavior"] == "Isolated" and not pre_tokenizer.get("invert")
    pattern = pre_tokenizer["pattern"].get("Regex") if plain else None
    return [("split", pattern)] if pattern is not None else [("other", str(pre_tokenizer))]
