"""Train a tiny Llama on the docstrings of Python's standard library, and write it with the texts of the demo.

    python examples/tiny-llama/prepare.py [FOLDER]

Nothing is downloaded: the text is that of the Python that runs this, so another version gives a slightly
different model. FOLDER gets ``model/`` (a Hugging Face folder) and three texts that the model was not trained
on: ``docstrings.txt`` and ``source.txt`` to calibrate with (in-domain, and Python code instead of prose) and
``evaluation.txt``, docstrings of other modules, to judge by.
"""

from __future__ import annotations

import ast
import hashlib
import logging
import math
import os
import sys
import sysconfig
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

FOLDER = Path("build/tiny-llama")
VOCABULARY, CONTEXT = 1024, 256
STEPS, BATCH, LEARNING_RATE = 240, 8, 3e-3
# Of every hundred modules: these many are held out for each of the texts.
CALIBRATION, EVALUATION = 4, 6
SOURCE_BYTES = 100_000
# Tests and bundled packages are not the library's own words.
SKIPPED = {"test", "tests", "idlelib", "lib2to3", "site-packages", "ensurepip", "turtledemo", "__pycache__"}


def modules() -> list[Path]:
    """The standard library's source files, in an order that does not depend on the file system."""
    root = Path(sysconfig.get_paths()["stdlib"])
    found = (path for path in root.rglob("*.py") if not SKIPPED & set(path.relative_to(root).parts))
    return sorted(found, key=lambda path: hashlib.sha256(str(path.relative_to(root)).encode()).digest())


def docstrings(paths: list[Path]) -> str:
    """All docstrings of the modules, one after the other."""
    return "\n\n".join(text for path in paths for text in _docstrings(path))


def _docstrings(path: Path) -> Iterator[str]:
    try:
        with warnings.catch_warnings():
            # Sources warn of escapes that they should not have.
            warnings.simplefilter("ignore")
            tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text:
                yield text


def train_tokenizer(text: str) -> Any:
    """A byte-level BPE, so that every text has tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(text.split("\n\n"), trainer)
    return tokenizer


def make_model() -> Any:
    """A Llama with random weights; its sizes are those that every format stores."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        bos_token_id=0,
        eos_token_id=1,
    )
    return LlamaForCausalLM(config)


def train(model: Any, tokens: torch.Tensor) -> None:
    """Next-token prediction on random windows of ``tokens``."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.95), weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=STEPS, pct_start=0.1)
    for _ in range(STEPS):
        starts = torch.randint(len(tokens) - CONTEXT, (BATCH,))
        windows = torch.stack([tokens[start : start + CONTEXT] for start in starts])
        optimizer.zero_grad()
        model(input_ids=windows, labels=windows).loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()


def perplexity(model: Any, tokens: torch.Tensor) -> float:
    """Of windows of ``CONTEXT`` tokens without overlap."""
    windows = tokens[: len(tokens) // CONTEXT * CONTEXT].reshape(-1, CONTEXT)
    with torch.inference_mode():
        losses = [model(input_ids=part, labels=part).loss.item() * len(part) for part in windows.split(BATCH)]
    return math.exp(sum(losses) / len(windows))


def unigram_perplexity(tokens: torch.Tensor, known: torch.Tensor) -> float:
    """Of a model that knows how often each token is, and nothing else."""
    counts = Counter(known.tolist())
    total = len(known) + VOCABULARY
    return math.exp(-sum(math.log((counts[t] + 1) / total) for t in tokens.tolist()) / len(tokens))


def save(model: Any, tokenizer: Any, folder: Path) -> None:
    """Write the Hugging Face folder, in float16 as such models are shared."""
    from transformers import PreTrainedTokenizerFast

    model.half().save_pretrained(folder, safe_serialization=True)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", model_max_length=CONTEXT * 2
    )
    fast.save_pretrained(folder)


def main() -> None:
    """Write the model and its texts into the folder, unless it holds them already."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    if (folder / "model" / "model.safetensors").is_file():
        print(f"{os.path.relpath(folder)}/model is there: it is not trained again")
        return
    folder.mkdir(parents=True, exist_ok=True)
    # Libraries that transformers imports talk of their own missing parts.
    logging.disable(logging.WARNING)
    begin = time.monotonic()
    found = modules()
    hundredth = len(found) / 100
    evaluation = docstrings(found[: round(EVALUATION * hundredth)])
    held_out = found[round(EVALUATION * hundredth) : round((EVALUATION + CALIBRATION) * hundredth)]
    training = docstrings(found[round((EVALUATION + CALIBRATION) * hundredth) :])

    # One thread gives the same weights on every run.
    torch.set_num_threads(1)
    tokenizer = train_tokenizer(training)
    tokens, judged = (torch.tensor(tokenizer.encode(text).ids) for text in (training, evaluation))
    model = make_model()
    train(model, tokens)
    model.eval()
    reached, guessed = perplexity(model, judged), unigram_perplexity(judged, tokens)

    for name, text in (
        ("docstrings.txt", docstrings(held_out)),
        ("source.txt", "\n\n".join(p.read_text(encoding="utf-8") for p in held_out)[:SOURCE_BYTES]),
        ("evaluation.txt", evaluation),
    ):
        (folder / name).write_text(text, encoding="utf-8")
    weights = sum(parameter.numel() for parameter in model.parameters())
    save(model, tokenizer, folder / "model")
    print(
        f"Trained a Llama of {weights:,} weights on {len(tokens):,} tokens of docstrings in "
        f"{time.monotonic() - begin:.0f} s: perplexity {reached:.1f} on held-out ones "
        f"(by the frequency of tokens alone: {guessed:.1f}).\n"
        f"Wrote {os.path.relpath(folder)}/model, docstrings.txt, source.txt and evaluation.txt"
    )


if __name__ == "__main__":
    main()
