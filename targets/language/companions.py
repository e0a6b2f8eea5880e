"""What belongs to a language model's folder besides its weights: configuration, tokenizer, templates."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgeq.targets.language.files import CONFIG

# Tokenizers, templates, and how to generate; what a source has of them goes along.
_PATTERNS = (
    "added_tokens.json", "chat_template.jinja", "chat_template.json", "additional_chat_templates/*.jinja",
    "generation_config.json", "merges.txt", "special_tokens_map.json", "spiece.model", "tekken.json",
    "tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.json", "vocab.txt",
    "LICENSE*", "NOTICE*", "USE_POLICY*",
)  # fmt: skip
# Where the model came from, code that is not copied, and types that are written anew.
_DROPPED = ("_name_or_path", "auto_map", "dtype", "torch_dtype", "quantization_config")


def copy_companions(source: Path, folder: Path) -> tuple[str, ...]:
    """Copy them from ``source``; returns their names relative to ``folder``."""
    found = sorted({path for pattern in _PATTERNS for path in source.glob(pattern) if path.is_file()})
    names = []
    for path in found:
        name = path.relative_to(source)
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(path, folder / name)
        names.append(name.as_posix())
    return tuple(names)


def write_config(source: Mapping[str, Any], dtype: str, quantization: Mapping[str, Any], folder: Path) -> str:
    """Write ``config.json``: the model's own, with the type of its floats and how it is quantized.

    ``dtype`` is also written under its older name, which readers before transformers 4.56 look for.
    """
    kept = {key: value for key, value in source.items() if key not in _DROPPED}
    config = {**kept, "dtype": dtype, "torch_dtype": dtype, "quantization_config": dict(quantization)}
    return write_json(folder / CONFIG, config)


def write_json(path: Path, value: Mapping[str, Any]) -> str:
    """Write ``value`` with sorted keys; returns the file's name."""
    text = json.dumps(value, indent=2, sort_keys=True) + "\n"
    path.write_text(text, encoding="utf-8", newline="\n")
    return path.name
