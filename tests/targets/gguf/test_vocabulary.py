"""Tokenizers of Hugging Face, written as GGUF, split text in llama.cpp as they do themselves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edgeq.errors import ModelError, TargetError
from edgeq.targets.gguf.pre_tokenizers import known_name
from edgeq.targets.gguf.tokens import TEXTS, own_tokenizer
from edgeq.targets.gguf.vocabulary import BYTE, CONTROL, UNUSED, read_vocabulary
from tests.support.gguf_models import float_file, random_family

LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2 = LLAMA3.replace("{1,3}", "")


def _byte_level(pattern: str | None) -> dict[str, Any]:
    level = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": pattern is None,
    }
    if pattern is None:
        return level
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    return {"type": "Sequence", "pretokenizers": [split, level]}


def _train(folder: Path, kind: str) -> int:
    """Save a tokenizer of ``kind`` into ``folder``; returns its number of tokens."""
    import tokenizers
    from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

    folder.mkdir(parents=True, exist_ok=True)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<s>", "</s>", "<unk>"]
    if kind == "spm":
        tokenizer = tokenizers.Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        tokenizer.decoder = decoders.ByteFallback()
        special += [f"<0x{byte:02X}>" for byte in range(256)]
        trainer = trainers.BpeTrainer(vocab_size=700, special_tokens=special, show_progress=False)
    else:
        tokenizer = tokenizers.Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        trainer = trainers.BpeTrainer(
            vocab_size=500, special_tokens=special, initial_alphabet=alphabet, show_progress=False
        )
    tokenizer.train_from_iterator(TEXTS * 3, trainer)
    content = json.loads(tokenizer.to_str())
    if kind == "spm":
        # As converters of SentencePiece write them: bytes are no added tokens.
        content["added_tokens"] = content["added_tokens"][:3]
    else:
        patterns = {"gpt2": None, "llama3": LLAMA3, "qwen2": QWEN2}
        content["pre_tokenizer"] = _byte_level(patterns[kind])
    (folder / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    return tokenizer.get_vocab_size()


@pytest.mark.parametrize("kind", ["gpt2", "llama3", "qwen2", "spm"])
def test_llama_cpp_splits_text_as_the_tokenizer_does(kind: str, tmp_path: Path) -> None:
    pytest.importorskip("llama_cpp")
    from tokenizers import Tokenizer

    from edgeq.targets.gguf.llama import LlamaModel

    size = _train(tmp_path / "source", kind) + 5
    source = random_family("Llama", tmp_path / "source", vocab_size=size, num_hidden_layers=1)
    model = LlamaModel(float_file(source, tmp_path / "m.gguf"), threads=1, vocabulary_only=True)
    own = Tokenizer.from_file(str(source / "tokenizer.json"))
    found = {text: model.tokenize(text) for text in TEXTS}
    model.close()
    assert found == {text: own.encode(text, add_special_tokens=False).ids for text in TEXTS}


def test_the_closest_pre_tokenizer_is_chosen_and_named(tmp_path: Path) -> None:
    pytest.importorskip("llama_cpp")
    from edgeq.targets.gguf.convert import Conversion

    size = _train(tmp_path / "source", "qwen2")
    path = tmp_path / "source" / "tokenizer.json"
    content = json.loads(path.read_text())
    content["pre_tokenizer"] = _byte_level(QWEN2.replace("[^\\r\\n\\p{L}\\p{N}]?\\p{L}+", " ?\\p{L}+"))
    path.write_text(json.dumps(content))
    source = random_family("Llama", tmp_path / "source", vocab_size=size, num_hidden_layers=1)
    plain = Conversion.of(source)
    assert plain.vocabulary.pre is None
    found, notes = plain.with_pre_tokenizer()
    assert found.vocabulary.pre is not None
    assert "the closest" in notes[0]


def test_types_and_rows_without_a_token(tmp_path: Path) -> None:
    size = _train(tmp_path, "spm")
    found = read_vocabulary(tmp_path, size + 2)
    assert found.kind == "llama"
    assert found.space_prefix
    assert found.types[0] == CONTROL
    assert found.types[found.tokens.index("<0x41>")] == BYTE
    assert found.types[-2:] == [UNUSED, UNUSED]
    with pytest.raises(ModelError, match="rows for"):
        read_vocabulary(tmp_path, size - 1)


def test_the_name_follows_the_definition() -> None:
    assert known_name(_byte_level(None), False) == "gpt-2"
    assert known_name(_byte_level(LLAMA3), True) == "llama-bpe"
    assert known_name(_byte_level(LLAMA3), False) == "smaug-bpe"
    assert known_name(_byte_level(QWEN2), False) == "qwen2"
    assert known_name(_byte_level(r"\w+"), False) is None


def test_other_tokenizers_are_refused(tmp_path: Path) -> None:
    size = _train(tmp_path, "gpt2")
    content = json.loads((tmp_path / "tokenizer.json").read_text())
    for change in (
        {"model": {"type": "WordPiece", "vocab": {}}},
        {"normalizer": {"type": "Lowercase"}},
    ):
        (tmp_path / "tokenizer.json").write_text(json.dumps({**content, **change}))
        with pytest.raises(TargetError):
            read_vocabulary(tmp_path, size)


@pytest.mark.parametrize("text", ["{", '{"version": "1.0"}', "{1: 2}"])
def test_damaged_tokenizers(tmp_path: Path, text: str) -> None:
    (tmp_path / "tokenizer.json").write_text(text, encoding="utf-8")
    with pytest.raises(ModelError, match=r"tokenizer\.json cannot be read"):
        own_tokenizer(tmp_path)
