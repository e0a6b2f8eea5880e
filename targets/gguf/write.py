"""Writes a GGUF file: first everything about the tensors, then one tensor after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgeq.calibration.types import Array
from edgeq.progress import Progress
from edgeq.targets.gguf.metadata import Entry
from edgeq.targets.gguf.vocabulary import Vocabulary


@dataclass(frozen=True)
class Content:
    """A tensor to be written: ``type`` is ggml's, ``shape`` that of the weights; ``read`` gives its bytes."""

    name: str
    shape: tuple[int, ...]
    type: str
    read: Callable[[], Array]


def write_file(
    path: Path,
    architecture: str,
    entries: Sequence[Entry],
    vocabulary: Vocabulary,
    contents: Sequence[Content],
    progress: Progress,
) -> None:
    """Write ``path``; one tensor is in memory at a time."""
    import gguf

    writer = gguf.GGUFWriter(str(path), architecture)
    try:
        for key, value in entries:
            getattr(writer, f"add_{key}")(value)
        _add_vocabulary(writer, vocabulary)
        for content in contents:
            _add_info(writer, content)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        with progress.task(f"Writing {path.name}", len(contents)) as advance:
            for content in contents:
                writer.write_tensor_data(np.ascontiguousarray(content.read()))
                advance(1)
    finally:
        writer.close()


def _add_info(writer: Any, content: Content) -> None:
    import gguf

    kind = gguf.GGMLQuantizationType[content.type]
    block, size = gguf.GGML_QUANT_SIZES[kind]
    count = int(np.prod(content.shape, dtype=np.int64))
    # A dtype that is not uint8 tells the writer that the shape is that of the weights.
    writer.add_tensor_info(content.name, content.shape, np.dtype(np.float32), count // block * size, kind)


def _add_vocabulary(writer: Any, vocabulary: Vocabulary) -> None:
    writer.add_tokenizer_model(vocabulary.kind)
    if vocabulary.kind == "none":
        return
    writer.add_tokenizer_pre(vocabulary.pre or "default")
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.types)
    if vocabulary.kind == "gpt2":
        writer.add_token_merges(vocabulary.merges)
    else:
        writer.add_token_scores(vocabulary.scores)
        writer.add_add_space_prefix(vocabulary.space_prefix)
    writer.add_add_bos_token(vocabulary.add_bos)
    writer.add_add_eos_token(vocabulary.add_eos)
    for role, number in vocabulary.special.items():
        getattr(writer, f"add_{role}_token_id")(number)
    if vocabulary.chat_template:
        writer.add_chat_template(vocabulary.chat_template)
