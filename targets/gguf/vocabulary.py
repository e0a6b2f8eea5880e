"""A tokenizer of Hugging Face as GGUF keys: tokens, their types, merges or scores, special tokens."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgeq.errors import ModelError, TargetError
from edgeq.targets.gguf.files import TOKENIZER
from edgeq.targets.gguf.pre_tokenizers import is_byte_level, known_name
from edgeq.targets.gguf.tokens import parsed_tokenizer

# ``gguf.TokenType``
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
# Normalizers that do nothing to most texts; what they do to others is measured.
_HARMLESS = (None, "NFC")


@dataclass(frozen=True)
class Vocabulary:
    """What a file's ``tokenizer.ggml`` keys hold.

    ``kind`` is llama.cpp's algorithm: ``gpt2`` (byte-level BPE, ``merges`` in their order), ``llama``
    (SentencePiece's BPE, the highest ``scores`` first) or ``none``. ``pre`` None: llama.cpp has no
    pre-tokenizer with the same definition. ``special``: role → id.
    """

    kind: str
    tokens: list[str] = field(default_factory=list)
    types: list[int] = field(default_factory=list)
    merges: list[str] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    pre: str | None = "default"
    space_prefix: bool = False
    add_bos: bool = False
    add_eos: bool = False
    special: dict[str, int] = field(default_factory=dict)
    chat_template: str = ""


def read_vocabulary(folder: Path, size: int) -> Vocabulary:
    """The tokenizer in ``folder`` for ``size`` rows of embeddings; kind ``none`` where there is none.

    Raises:
        TargetError: llama.cpp has no such tokenizer.
        ModelError: ``tokenizer.json`` is damaged, or has more tokens than the model.
    """
    path = folder / "tokenizer.json"
    if not path.is_file():
        return _without_json(folder)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        model = content["model"]
        vocabulary: dict[str, int] = model["vocab"] if isinstance(model["vocab"], dict) else {}
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"{path} cannot be read: {error}.", fix="Download or save it again.") from error
    if model.get("type") != "BPE":
        raise _unknown(f"the algorithm {model.get('type')}")
    added = content.get("added_tokens") or []
    tokens, types = _tokens(vocabulary, added, size, model)
    common = _common(folder, tokens, content)
    if is_byte_level(content.get("pre_tokenizer")):
        _refuse_normalizer(content.get("normalizer"), _HARMLESS)
        pre = known_name(content["pre_tokenizer"], bool(model.get("ignore_merges")))
        return Vocabulary("gpt2", tokens, types, _merges(model), pre=pre, **common)
    if not model.get("byte_fallback"):
        raise _unknown("BPE that is neither byte-level nor has bytes to fall back to")
    scores = _scores(tokens, _merges(model))
    prefix = _space_prefix(content)
    return Vocabulary("llama", tokens, types, scores=scores, space_prefix=prefix, **common)


def _without_json(folder: Path) -> Vocabulary:
    if (folder / "tokenizer.model").is_file():
        raise TargetError(
            f"{folder} has a tokenizer.model without tokenizer.json, which edgeq reads.",
            fix="Save it with AutoTokenizer.from_pretrained(folder).save_pretrained(folder).",
        )
    return Vocabulary("none")


def _unknown(what: str) -> TargetError:
    return TargetError(
        f"The tokenizer is {what}, which edgeq does not write as GGUF.",
        fix="Take --target hf-gptq, hf-awq or vllm.",
    )


def _merges(model: dict[str, Any]) -> list[str]:
    return [one if isinstance(one, str) else " ".join(one) for one in model["merges"]]


def _tokens(
    vocabulary: dict[str, int], added: list[dict[str, Any]], size: int, model: dict[str, Any]
) -> tuple[list[str], list[int]]:
    """Texts and types of ``size`` tokens; rows of embeddings that no token has are unused ones."""
    names = {index: text for text, index in vocabulary.items()}
    names.update({one["id"]: one["content"] for one in added})
    if max(names, default=-1) >= size:
        raise ModelError(
            f"The tokenizer has {max(names) + 1} tokens, the model rows for {size}.",
            fix="Take the tokenizer that belongs to the model.",
        )
    types = {index: _type(text, model) for index, text in names.items()}
    types.update({one["id"]: CONTROL if one.get("special") else USER_DEFINED for one in added})
    unknown = vocabulary.get(model.get("unk_token") or "")
    if unknown is not None:
        types[unknown] = UNKNOWN
    texts = [names.get(index, f"[PAD{index}]") for index in range(size)]
    return texts, [types.get(index, UNUSED) for index in range(size)]


def _type(text: str, model: dict[str, Any]) -> int:
    is_byte = bool(model.get("byte_fallback")) and len(text) == 6 and text.startswith("<0x")
    return BYTE if is_byte else NORMAL


def _scores(tokens: list[str], merges: list[str]) -> list[float]:
    """Minus the rank of the first merge that makes a token; what no merge makes comes last.

    SentencePiece merges the pair whose result scores highest, which is the order of the merges.
    """
    ranks: dict[str, int] = {}
    for rank, merge in enumerate(merges):
        ranks.setdefault(merge.replace(" ", ""), rank)
    return [float(-ranks.get(token, len(merges))) for token in tokens]


def _refuse_normalizer(normalizer: dict[str, Any] | None, allowed: tuple[str | None, ...]) -> None:
    kind = None if normalizer is None else normalizer["type"]
    parts = (
        [part["type"] for part in normalizer["normalizers"]] if normalizer and kind == "Sequence" else [kind]
    )
    other = [part for part in parts if part not in allowed]
    if other:
        raise _unknown(f"byte-level behind the normalizer {other[0]}")


def _space_prefix(content: dict[str, Any]) -> bool:
    """Whether a text gets a space before its first word; raises TargetError for unknown normalizers."""
    normalizer = content.get("normalizer") or {"type": "Sequence", "normalizers": []}
    parts = normalizer.get("normalizers", [normalizer])
    other = [part["type"] for part in parts if part["type"] not in ("Prepend", "Replace", "NFC", "NFKC")]
    if other:
        raise _unknown(f"BPE behind the normalizer {other[0]}")
    prepends = any(part["type"] == "Prepend" for part in parts)
    pre = content.get("pre_tokenizer") or {}
    scheme = pre.get("prepend_scheme") if pre.get("type") == "Metaspace" else None
    return prepends or scheme in ("first", "always")


def _common(folder: Path, tokens: list[str], content: dict[str, Any]) -> dict[str, Any]:
    tokenizer = parsed_tokenizer(json.dumps(content), folder / TOKENIZER)
    bare = tokenizer.encode("a", add_special_tokens=False).ids
    full = tokenizer.encode("a", add_special_tokens=True).ids
    special = _special(folder, tokens)
    return {
        "add_bos": len(full) > len(bare) and full[: len(bare)] != bare,
        "add_eos": len(full) > len(bare) and full[-len(bare) :] != bare,
        "special": special,
        "chat_template": _chat_template(folder),
    }


def _special(folder: Path, tokens: list[str]) -> dict[str, int]:
    """Role → id: the tokenizer's configuration says which text, else the model's which id."""
    said, model = _json(folder / "tokenizer_config.json"), _json(folder / "config.json")
    found = {}
    for role in ("bos", "eos", "unk", "pad"):
        text = said.get(f"{role}_token")
        text = text["content"] if isinstance(text, dict) else text
        if text in tokens:
            found[role] = tokens.index(text)
            continue
        number = model.get(f"{role}_token_id")
        number = number[0] if isinstance(number, list) and number else number
        if isinstance(number, int) and 0 <= number < len(tokens):
            found[role] = number
    return found


def _chat_template(folder: Path) -> str:
    file = folder / "chat_template.jinja"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    said = _json(folder / "tokenizer_config.json").get("chat_template") or ""
    if isinstance(said, str):
        return said
    return next((str(one["template"]) for one in said if one.get("name") == "default"), "")


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found
