"""Plain text for language models: windows of tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq.calibration.data.checks import Indices
from edgeq.calibration.data.hashing import file_sha256
from edgeq.calibration.data.options import DataOptions
from edgeq.calibration.data.source import IndexedSource
from edgeq.calibration.data.text import tokenizer_sha256
from edgeq.calibration.data.text_inputs import TokenBatch, fill_inputs, fixed_tokens
from edgeq.calibration.data.tokens import Tokenizer, load_tokenizer
from edgeq.calibration.types import Batch, TensorSpec
from edgeq.errors import DataError

DEFAULT_WINDOW = 256
# Characters that are encoded at a time: a tokenizer needs far more memory per token than its id.
BLOCK = 1 << 20


class RunningTextSource(IndexedSource):
    """Windows of ``window`` tokens every ``stride`` tokens; an incomplete last window is dropped.

    The text is encoded once, without special tokens, in blocks of about a million characters cut at line
    ends; ids are kept (4 bytes per token). With a stride below the window, tokens of the overlap are read
    (and by perplexity counted) more than once.
    """

    kind = "running-text"
    used = frozenset({"columns", "window", "stride", "max_tokens"})

    def __init__(self, path: Path, inputs: Sequence[TensorSpec], options: DataOptions) -> None:
        super().__init__(str(path), inputs, options)
        self._path = path
        self._tokenizer = load_tokenizer(options.tokenizer, str(path))
        self._text = encode_file(path, self._tokenizer, options.max_tokens)
        self._ids = self._text.ids
        self._window = self._window_size(fixed_tokens(inputs, options))
        self._stride = options.stride or self._window

    @property
    def size(self) -> int:
        return (len(self._ids) - self._window) // self._stride + 1

    @property
    def has_labels(self) -> bool:
        return False

    @property
    def natural_task(self) -> str:
        return "language-model"

    def load(self, indices: Indices) -> Batch:
        starts = indices[:, None] * self._stride
        ids = self._ids[starts + np.arange(self._window)].astype(np.int64)
        tokens = TokenBatch(ids, np.ones_like(ids), np.zeros_like(ids))
        inputs = fill_inputs(tokens, self.inputs, self.options, indices, self.notes)
        return Batch(inputs, None, len(indices))

    @property
    def largest_id(self) -> int:
        """The largest token id of the text."""
        return int(self._ids.max())

    def sha256(self) -> str:
        return file_sha256(self._path)

    def details(self) -> dict[str, Any]:
        """Everything that a perplexity depends on; ``judged`` tokens lie in windows, ``words`` are theirs."""
        return {
            "tokenizer": str(self._tokenizer.path),
            "tokenizer_sha256": tokenizer_sha256(self._tokenizer.path),
            "tokens": len(self._ids),
            "window": self._window,
            "stride": self._stride,
            "judged": self._judged,
            "words": self._words,
        }

    @property
    def _judged(self) -> int:
        """Tokens that are in some window."""
        return (self.size - 1) * min(self._stride, self._window) + self._window

    @cached_property
    def _words(self) -> int | None:
        """The words of the judged tokens; None where they are not one stretch of text."""
        if self._stride > self._window:
            return None
        return count_words(self._path, self._tokenizer, self._text, self._judged)

    def _window_size(self, fixed: int | None) -> int:
        asked = self.options.window
        if fixed is not None and asked not in (None, fixed):
            raise DataError(
                f"The option window is {asked}, but the model reads exactly {fixed} tokens.",
                fix=f"Leave it out or set it to {fixed}.",
            )
        window = fixed or asked or DEFAULT_WINDOW
        if len(self._ids) >= window:
            return window
        if fixed is None and asked is None and len(self._ids) >= 2:
            self.notes.add(f"{self.location} holds fewer than {window} tokens: one shorter window.")
            return len(self._ids)
        raise DataError(
            f"{self.location} holds {len(self._ids)} tokens, fewer than one window of {window}.",
            fix="Give more text or a smaller window.",
        )


@dataclass(frozen=True)
class EncodedText:
    """Token ids of a text file, and of every block the tokens and words (between white space) before it."""

    ids: npt.NDArray[np.int32]
    before: list[tuple[int, int]]


def encode_file(path: Path, tokenizer: Tokenizer, max_tokens: int | None) -> EncodedText:
    """Encode a text file, its first ``max_tokens`` tokens.

    Raises:
        DataError: the file is no UTF-8 text.
    """
    parts: list[npt.NDArray[np.int32]] = []
    before = []
    count = words = 0
    try:
        for block in _blocks(path):
            ids = np.asarray(tokenizer.encode_plain(block), dtype=np.int32)
            parts.append(ids)
            before.append((count, words))
            count, words = count + len(ids), words + len(block.split())
            if max_tokens is not None and count >= max_tokens:
                break
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}.", fix="Give UTF-8 text.") from error
    ids = np.concatenate(parts) if parts else np.zeros(0, dtype=np.int32)
    return EncodedText(ids[:max_tokens], before)


def count_words(path: Path, tokenizer: Tokenizer, text: EncodedText, tokens: int) -> int | None:
    """The words that the first ``tokens`` tokens of an encoded text file belong to.

    None where the tokenizer does not say which characters a token stands for.
    """
    last = max(i for i, (count, _) in enumerate(text.before) if count < tokens)
    count, words = text.before[last]
    block = next(islice(_blocks(path), last, None))
    characters = tokenizer.characters(block, tokens - count)
    return None if characters is None else words + len(block[:characters].split())


def _blocks(path: Path) -> Iterator[str]:
    # newline="" keeps the file's own line ends: they are tokens.
    with path.open(encoding="utf-8", newline="") as file:
        while block := file.read(BLOCK):
            yield block + file.readline()
