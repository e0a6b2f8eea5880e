"""Which of llama.cpp's pre-tokenizers comes closest to one that it has not, found by splitting text."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

from edgeq.errors import TargetError
from edgeq.progress import SilentProgress
from edgeq.targets.gguf.llama import LlamaModel, is_installed
from edgeq.targets.gguf.metadata import Entry
from edgeq.targets.gguf.pre_tokenizers import NAMES
from edgeq.targets.gguf.tokens import TEXTS, own_tokenizer
from edgeq.targets.gguf.vocabulary import Vocabulary
from edgeq.targets.gguf.write import write_file


def with_closest(
    folder: Path, vocabulary: Vocabulary, architecture: str, entries: list[Entry]
) -> tuple[Vocabulary, str]:
    """``vocabulary`` with a name, and the sentence that says how close it comes.

    Raises:
        TargetError: llama-cpp-python is not installed, so nothing tells how close any comes.
    """
    if not is_installed():
        raise TargetError(
            "llama.cpp has no pre-tokenizer with the definition of the model's, and llama-cpp-python, which "
            "would tell how close another comes, is not installed.",
            fix="Install it: pip install 'edgeq[llama-cpp]', or take --target hf-gptq, hf-awq or vllm.",
        )
    own = own_tokenizer(folder)
    wanted = [own.encode(text, add_special_tokens=False).ids for text in TEXTS]
    best, most = "", -1
    for name in sorted(NAMES.values()):
        same = _same(replace(vocabulary, pre=name), architecture, entries, wanted)
        if same > most:
            best, most = name, same
    note = (
        f"llama.cpp has no pre-tokenizer with the definition of the model's: {best!r}, the closest, splits "
        f"{most} of {len(TEXTS)} test texts alike."
    )
    return replace(vocabulary, pre=best), note


def _same(vocabulary: Vocabulary, architecture: str, entries: list[Entry], wanted: list[list[int]]) -> int:
    """The number of texts that are split alike."""
    with tempfile.TemporaryDirectory(prefix="edgeq-gguf-") as scratch:
        path = Path(scratch) / "vocabulary.gguf"
        write_file(path, architecture, entries, vocabulary, [], SilentProgress())
        model = LlamaModel(path, threads=1, vocabulary_only=True)
        try:
            return sum(model.tokenize(text) == ids for text, ids in zip(TEXTS, wanted, strict=True))
        finally:
            model.close()
