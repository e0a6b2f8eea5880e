"""Small data on disk for the tests of data sources."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgeq.calibration.types import TensorSpec


def spec(
    name: str = "x", shape: Sequence[int | str | None] = ("N", 3, 8, 8), dtype: Any = "f4"
) -> TensorSpec:
    return TensorSpec(name, np.dtype(dtype), tuple(shape))


def write_image(
    path: Path, colour: tuple[int, int, int] = (10, 20, 30), size: tuple[int, int] = (8, 8)
) -> None:
    """A PNG of one colour; ``size`` is (height, width)."""
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (size[1], size[0]), colour).save(path)


def write_tokenizer(folder: Path) -> Path:
    """A word-level tokenizer of a few words with [CLS] and [SEP], pad id 0; returns its file."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from tokenizers.processors import TemplateProcessing

    words = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", *"abcdefghij"]
    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 1), ("[SEP]", 2)],
    )
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "tokenizer.json"
    tokenizer.save(str(path))
    return path


def text_inputs(*names: str, tokens: int | str = "T") -> list[TensorSpec]:
    return [spec(name, ("N", tokens), "i8") for name in names]
