"""A tiny Llama with texts that its tokenizer reads, for comparisons of its artefacts."""

from __future__ import annotations

from pathlib import Path

from tests.support.tiny_llama import TEXT, tiny_llama


def llama_workspace(folder: Path) -> Path:
    """``folder`` with ``llama/``, ``calibration.txt``, ``other.txt`` and ``evaluation.txt``."""
    tiny_llama(folder / "llama")
    words = TEXT.split()
    (folder / "calibration.txt").write_text(" ".join(words * 12), encoding="utf-8")
    (folder / "other.txt").write_text(" ".join(words[::-1] * 12), encoding="utf-8")
    (folder / "evaluation.txt").write_text(" ".join(words[::2] * 12), encoding="utf-8")
    return folder
