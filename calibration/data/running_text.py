"""Plain text for language models: windows of tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
        self._ids = encode_file(path, self._tokenizer, options.max_tokens)
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

    def sha256(self) -> str:
        return file_sha256(self._path)

    def details(self) -> dict[str, Any]:
        return {
            "tokenizer": str(self._tokenizer.path),
            "tokenizer_sha256": tokenizer_sha256(self._tokenizer.path),
            "tokens": len(self._ids),
            "window": self._window,
            "stride": self._stride,
        }

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


def encode_file(path: Path, tokenizer: Tokenizer, max_tokens: int | None) -> npt.NDArray[np.int32]:
    """Token ids of a text file, the first ``max_tokens`` of them.

    Raises:
        DataError: the file is no UTF-8 text.
    """
    parts: list[npt.NDArray[np.int32]] = []
    count = 0
    try:
        for block in _blocks(path):
            ids = np.asarray(tokenizer.encode_plain(block), dtype=np.int32)
            parts.append(ids)
            count += len(ids)
            if max_tokens is not None and count >= max_tokens:
                break
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}.", fix="Give UTF-8 text.") from error
    ids = np.concatenate(parts) if parts else np.zeros(0, dtype=np.int32)
    return ids[:max_tokens]


def _blocks(path: Path) -> Iterator[str]:
    # newline="" keeps the file's own line ends: they are tokens.
    with path.open(encoding="utf-8", newline="") as file:
        while block := file.read(BLOCK):
            yield block + file.readline()
