"""``genai_config.json`` and the tokenizer's files: what onnxruntime-genai reads besides the model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from edgeq.compiler.load.checkpoint import Checkpoint
from edgeq.errors import ModelError
from edgeq.targets.language.companions import copy_companions
from edgeq.targets.onnxruntime_genai.architecture import DecoderSpec
from edgeq.targets.onnxruntime_genai.files import CONFIG_FILE, MODEL_FILE

# Defaults of onnxruntime-genai's search, where the checkpoint's generation_config.json says nothing else.
_SEARCH: dict[str, Any] = {
    "diversity_penalty": 0.0,
    "do_sample": False,
    "length_penalty": 1.0,
    "no_repeat_ngram_size": 0,
    "num_beams": 1,
    "num_return_sequences": 1,
    "repetition_penalty": 1.0,
    "temperature": 1.0,
    "top_k": 50,
    "top_p": 1.0,
}


def write_configuration(checkpoint: Checkpoint, decoder: DecoderSpec, folder: Path) -> tuple[str, ...]:
    """Write ``genai_config.json`` and copy the tokenizer; returns the names of the files.

    Raises:
        ModelError: ``generation_config.json`` cannot be read.
    """
    text = json.dumps(genai_config(checkpoint, decoder), indent=2) + "\n"
    (folder / CONFIG_FILE).write_text(text, encoding="utf-8", newline="\n")
    return (CONFIG_FILE, *copy_companions(checkpoint.path, folder))


def genai_config(checkpoint: Checkpoint, decoder: DecoderSpec) -> dict[str, Any]:
    """The content of ``genai_config.json``; the keys are those of onnxruntime-genai's ``src/config.h``."""
    generation = _generation(checkpoint.path)
    tokens = {**checkpoint.config, **generation}
    end = tokens.get("eos_token_id")
    ends = end if isinstance(end, list) else [end]
    pad = tokens.get("pad_token_id")
    model = {
        "bos_token_id": tokens.get("bos_token_id"),
        "context_length": decoder.context,
        "decoder": {
            "session_options": {"log_id": "onnxruntime-genai", "provider_options": []},
            "filename": MODEL_FILE,
            "head_size": decoder.head_size,
            "hidden_size": decoder.hidden,
            "inputs": {
                "input_ids": "input_ids",
                "attention_mask": "attention_mask",
                "past_key_names": "past_key_values.%d.key",
                "past_value_names": "past_key_values.%d.value",
            },
            "outputs": {
                "logits": "logits",
                "present_key_names": "present.%d.key",
                "present_value_names": "present.%d.value",
            },
            "num_attention_heads": decoder.heads,
            "num_hidden_layers": decoder.layers,
            "num_key_value_heads": decoder.kv_heads,
        },
        "eos_token_id": end,
        "pad_token_id": ends[0] if pad is None else pad,
        "type": decoder.family.kind,
        "vocab_size": decoder.vocabulary,
    }
    search = {name: generation.get(name, default) for name, default in _SEARCH.items()}
    search |= {"max_length": decoder.context, "min_length": 0, "past_present_share_buffer": True}
    return {"model": {k: v for k, v in model.items() if v is not None}, "search": search}


def _generation(folder: Path) -> dict[str, Any]:
    path = folder / "generation_config.json"
    if not path.is_file():
        return {}
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{path} cannot be read: {error}.") from error
    return {name: value for name, value in found.items() if value is not None}
