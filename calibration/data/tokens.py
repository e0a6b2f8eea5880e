"""Tokenizers: ``tokenizer.json``, Hugging Face folders, and character vocabularies."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from edgeq.errors import DataError, MissingExtraError

# transformers writes 1e30 where a tokenizer has no length limit.
_NO_LIMIT = 1_000_000
_SLOW_FILES = ("tokenizer_config.json", "vocab.txt", "vocab.json", "tokenizer.model", "spiece.model")
# What else may change the ids of such a tokenizer.
TOKENIZER_FILES = (*_SLOW_FILES, "merges.txt", "added_tokens.json", "special_tokens_map.json")

Texts = tuple[str, ...]


@dataclass(frozen=True)
class Tokens:
    """Token ids of one text (or pair) and, per token, which of the two it belongs to."""

    ids: list[int]
    types: list[int]


class Tokenizer(Protocol):
    """Text to token ids."""

    path: Path
    pad_id: int
    max_length: int | None

    def encode(self, rows: Sequence[Texts], max_length: int | None) -> list[Tokens]:
        """Token ids of texts or pairs, with special tokens, cut to ``max_length``."""
        ...

    def encode_plain(self, text: str) -> list[int]:
        """Token ids of running text, without special tokens."""
        ...

    def characters(self, text: str, count: int) -> int | None:
        """How many characters of ``text`` its first ``count`` tokens cover, None where that is not known."""
        ...


class FastTokenizer:
    """A ``tokenizer.json``, read by the ``tokenizers`` package."""

    def __init__(self, path: Path) -> None:
        try:
            from tokenizers import Tokenizer as Fast
        except ImportError as error:
            raise MissingExtraError("Tokenizing text", "text") from error
        self.path = path
        try:
            self._tokenizer: Any = Fast.from_file(str(path))
        except Exception as error:  # the package raises bare Exception for a file it cannot read
            raise DataError(f"{path} is no tokenizer: {error}.", fix="Give a tokenizer.json.") from error
        config = _config(path.parent)
        self.max_length = _own_limit(self._tokenizer, config)
        self.pad_id = self._pad_id(config)
        self._tokenizer.no_padding()

    def encode(self, rows: Sequence[Texts], max_length: int | None) -> list[Tokens]:
        if max_length is None:
            self._tokenizer.no_truncation()
        else:
            self._tokenizer.enable_truncation(max_length)
        encoded = self._tokenizer.encode_batch([row[0] if len(row) == 1 else row for row in rows])
        return [Tokens(one.ids, one.type_ids) for one in encoded]

    def encode_plain(self, text: str) -> list[int]:
        self._tokenizer.no_truncation()
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def characters(self, text: str, count: int) -> int | None:
        self._tokenizer.no_truncation()
        offsets = self._tokenizer.encode(text, add_special_tokens=False).offsets
        return int(offsets[count - 1][1]) if count else 0

    def _pad_id(self, config: dict[str, Any]) -> int:
        declared = self._tokenizer.padding
        if declared is not None:
            return int(declared["pad_id"])
        token = config.get("pad_token")
        content = token.get("content") if isinstance(token, dict) else token
        found = None if content is None else self._tokenizer.token_to_id(content)
        return 0 if found is None else int(found)


class TransformersTokenizer:
    """A Hugging Face folder without ``tokenizer.json``, read by ``transformers``, offline."""

    def __init__(self, path: Path) -> None:
        # Without any of its files transformers would guess a tokenizer from the folder's name.
        if not any((path / name).is_file() for name in _SLOW_FILES):
            raise DataError(
                f"{path} holds no tokenizer.",
                fix="Give a tokenizer.json or the folder of the Hugging Face model.",
            )
        try:
            from transformers import AutoTokenizer
        except ImportError as error:
            raise MissingExtraError(f"The tokenizer in {path}", "hf") from error
        self.path = path
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(str(path), local_files_only=True)
        except Exception as error:  # every tokenizer class fails in its own way on files it cannot read
            first = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
            raise DataError(
                f"{path} holds no tokenizer that can be read: {first}.",
                fix="Give a tokenizer.json or a folder with one.",
            ) from error
        limit = self._tokenizer.model_max_length
        self.max_length: int | None = limit if limit < _NO_LIMIT else None
        pad = self._tokenizer.pad_token_id
        self.pad_id = 0 if pad is None else int(pad)

    def encode(self, rows: Sequence[Texts], max_length: int | None) -> list[Tokens]:
        return [self._one(row, max_length) for row in rows]

    def encode_plain(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        return ids

    def characters(self, text: str, count: int) -> int | None:
        """None: Python's own tokenizers do not say where their tokens come from."""
        return None

    def _one(self, row: Texts, max_length: int | None) -> Tokens:
        cut = {"truncation": True, "max_length": max_length} if max_length is not None else {}
        encoded = self._tokenizer(*row, return_token_type_ids=True, verbose=False, **cut)
        return Tokens(encoded["input_ids"], encoded["token_type_ids"])


class CharacterTokenizer:
    """One token per character, from a JSON object of character → id."""

    pad_id = 0
    max_length: int | None = None

    def __init__(self, path: Path, vocabulary: dict[str, int]) -> None:
        longer = [key for key in vocabulary if len(key) != 1]
        if longer:
            raise DataError(
                f"{path} is a vocabulary whose key {longer[0]!r} is no single character.",
                fix="Give a tokenizer.json for tokens of several characters.",
            )
        self.path = path
        self._ids = vocabulary

    def encode(self, rows: Sequence[Texts], max_length: int | None) -> list[Tokens]:
        if any(len(row) > 1 for row in rows):
            raise DataError(
                f"{self.path} is a character vocabulary, which cannot encode pairs of texts.",
                fix="Give one text column, or a tokenizer.json.",
            )
        ids = [self.encode_plain(row[0])[:max_length] for row in rows]
        return [Tokens(one, [0] * len(one)) for one in ids]

    def characters(self, text: str, count: int) -> int | None:
        return count

    def encode_plain(self, text: str) -> list[int]:
        try:
            return [self._ids[character] for character in text]
        except KeyError as error:
            raise DataError(
                f"The text holds the character {error.args[0]!r}, which is not in {self.path}.",
                fix="Remove it from the text, or give the model's own vocabulary.",
            ) from error


def load_tokenizer(path: Path | None, data: str) -> Tokenizer:
    """The tokenizer at ``path``: a ``tokenizer.json``, a character vocabulary, or a folder.

    Raises:
        DataError: none was given for the text ``data``, or it cannot be read.
        MissingExtraError: the package that reads it is not installed.
    """
    if path is None:
        raise DataError(
            f"{data} is text and needs a tokenizer, and none was given.",
            fix="Set the option tokenizer to a tokenizer.json or the folder of the Hugging Face model.",
        )
    if not path.exists():
        raise DataError(
            f"The tokenizer {path} does not exist, which {data} is read with.",
            fix="Set the option tokenizer to a tokenizer.json or the folder of the Hugging Face model.",
        )
    if path.is_file():
        return _from_file(path)
    inside = path / "tokenizer.json"
    return FastTokenizer(inside) if inside.is_file() else TransformersTokenizer(path)


def _from_file(path: Path) -> Tokenizer:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError(f"{path} is no tokenizer: {error}.", fix="Give a tokenizer.json.") from error
    if _is_vocabulary(content):
        return CharacterTokenizer(path, content)
    return FastTokenizer(path)


def _is_vocabulary(content: Any) -> bool:
    if not isinstance(content, dict) or not content:
        return False
    return all(isinstance(value, int) for value in content.values())


def _config(folder: Path) -> dict[str, Any]:
    path = folder / "tokenizer_config.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError):
        # The file is optional: tokenizer.json alone is complete but for these hints.
        return {}
    return content if isinstance(content, dict) else {}


def _own_limit(tokenizer: Any, config: dict[str, Any]) -> int | None:
    truncation = tokenizer.truncation
    if truncation is not None:
        return int(truncation["max_length"])
    limit = config.get("model_max_length")
    return int(limit) if isinstance(limit, (int, float)) and limit < _NO_LIMIT else None
