"""Whether llama.cpp's tokenizer of a file splits text as the model's own does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgeq.errors import ModelError
from edgeq.targets.base import Check
from edgeq.targets.gguf.files import MODEL, TOKENIZER
from edgeq.targets.gguf.llama import LlamaModel
from edgeq.targets.gguf.settings import Settings
from edgeq.targets.reference import load_samples

# What pre-tokenizers differ in: contractions, numbers, spaces, line ends, scripts, signs, marks.
TEXTS = (
    "The quick brown fox jumps over the lazy dog, and it didn't look back.",
    "We'll see: I'VE said they're 12 or 1234567 (about 3.14159%)…",
    "  two  spaces,\tone tab\n\n\nthree lines  \n end ",
    "def f(x):\n    return {'a': x[0] ** 2}  # comment\r\n",
    "Żółć, naïve café, Straße, Ελληνικά, русский текст",
    "日本語のテキスト、中文文本。 한국어 텍스트",
    "emoji 😀👩‍👩‍👧 and symbols ±∑√ «quoted» — dash",
    "snake_case camelCase HTTPServer2024-01-31T10:00:00Z",
)
# At least this share of the texts' tokens must be the same: what an unlike pre-tokenizer leaves is far less.
_AGREEMENT = 0.9


def tokens_check(folder: Path, settings: Settings) -> list[Check]:
    """Compare on fixed texts and on the samples' text; nothing to compare without a tokenizer."""
    if settings.tokenizer == "none" or not (folder / TOKENIZER).is_file():
        return []
    own = own_tokenizer(folder)
    sampled = [own.decode(s["input_ids"][0].tolist()) for s in load_samples(folder)]
    model = LlamaModel(folder / MODEL, threads=1, vocabulary_only=True)
    try:
        return [compare(own, model, [*TEXTS, *sampled])]
    finally:
        model.close()


def own_tokenizer(folder: Path) -> Any:
    """The tokenizer in ``folder`` as the library ``tokenizers`` loads it; raises ModelError."""
    path = folder / TOKENIZER
    return parsed_tokenizer(path.read_bytes().decode("utf-8", "replace"), path)


def parsed_tokenizer(text: str, path: Path) -> Any:
    """The tokenizer that ``text`` describes, read from ``path``; raises ModelError."""
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_str(text)
    except Exception as error:  # the library raises Exception itself
        raise ModelError(f"{path} cannot be read: {error}.", fix="Download or save it again.") from error


def compare(own: Any, model: LlamaModel, texts: list[str]) -> Check:
    """The share of texts, and of their characters, that both split alike."""
    wanted = "the tokens of the model's own tokenizer"
    other = [text for text in texts if _encode(own, text) != model.tokenize(text)]
    if not other:
        return Check("tokenizer", True, f"the same tokens on {len(texts)} texts", wanted)
    share = 1 - sum(map(len, other)) / sum(map(len, texts))
    text = f"other tokens in {len(other)} of {len(texts)} texts, first {other[0][:40]!r}"
    return Check("tokenizer", share >= _AGREEMENT, text, wanted)


def _encode(own: Any, text: str) -> list[int]:
    found: list[int] = own.encode(text, add_special_tokens=False).ids
    return found
