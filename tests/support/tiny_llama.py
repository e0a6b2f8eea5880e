"""A small Llama with a tokenizer of its own, as a Hugging Face folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

SIZES = {
    "vocab_size": 256,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
}
TEXT = (
    "The quick brown fox jumps over the lazy dog, while the band plays on in the square. "
    "Numbers such as 12, 345 and 6,789 are words of a text too; and so are its commas."
)


def tiny_llama(folder: Path, *, dtype: str = "float16", shard: str = "1GB", **config: Any) -> Path:
    """Save a LlamaForCausalLM whose weights are the same every time into ``folder``; returns it.

    Its matrices have a few large rows and columns, as those of trained models. ``config`` changes
    :data:`SIZES`; ``dtype`` is that of the file.
    """
    import torch
    import transformers

    torch.manual_seed(0)
    settings = transformers.LlamaConfig(**{**SIZES, "tie_word_embeddings": False, **config})
    model = transformers.LlamaForCausalLM(settings).eval()
    with torch.no_grad():
        for name, value in model.named_parameters():
            if value.dim() == 2 and "embed" not in name:
                value.mul_(torch.exp(0.5 * torch.randn(value.shape[0], 1)) * 3)
                value[:, ::17] *= 3
    model.to(getattr(torch, dtype)).save_pretrained(folder, max_shard_size=shard)
    _save_tokenizer(folder, settings.vocab_size)
    return folder


def token_ids(rows: int, tokens: int, seed: int = 0) -> np.ndarray:
    """int64 [rows, tokens] of :func:`tiny_llama`'s vocabulary."""
    return np.random.default_rng(seed).integers(0, SIZES["vocab_size"], (rows, tokens), dtype=np.int64)


def _save_tokenizer(folder: Path, vocabulary: int) -> None:
    import tokenizers
    import transformers

    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())[: vocabulary - 10],
        show_progress=False,
    )
    tokenizer.train_from_iterator([TEXT], trainer)
    wrapped = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token=None
    )
    wrapped.save_pretrained(folder)
