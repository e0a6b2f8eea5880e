"""Peak memory of quantizing synthetic Llama checkpoints, by method and depth: python llm_memory.py FOLDER.

The checkpoints have random weights in bfloat16, in shards, and 3 billion parameters at the full depth of 28
layers. Every compile is a process of its own; its peak is the kernel's high-water mark, with mapped files.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from fresh import fresh, peak_mib
from page_tables import put

HIDDEN, INNER, HEADS, KEY_HEADS, VOCABULARY = 3072, 8192, 24, 8, 32000
PAGE = Path(__file__).parents[2] / "docs" / "llm.md"
TABLE = "llm-memory"


def main() -> None:
    """Measure what is asked for and print the table; with ``--page`` also write it into the documentation."""
    arguments = _arguments()
    if arguments.child:
        print(json.dumps(_compile(arguments.folder, arguments.child, arguments.windows, arguments.tokens)))
        return
    rows = []
    for depth in arguments.depths:
        checkpoint = arguments.folder / f"llama-{depth}"
        if not (checkpoint / "config.json").is_file():
            write_checkpoint(checkpoint, depth)
        for method in arguments.methods:
            rows.append({"depth": depth, "method": method, **_measured(checkpoint, method, arguments)})
            print(json.dumps(rows[-1]), flush=True)
        if not arguments.keep:
            shutil.rmtree(checkpoint)
    table = _table(rows)
    print("\n".join(table))
    if arguments.page:
        put(PAGE, TABLE, table)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where checkpoints and artefacts go (12 GB at 28 layers)")
    parser.add_argument("--depths", type=_numbers, default=[2, 4, 8, 28])
    parser.add_argument("--methods", type=lambda text: text.split(","), default=["rtn", "gptq"])
    parser.add_argument("--windows", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--keep", action="store_true", help="leave the checkpoints there")
    parser.add_argument("--page", action="store_true", help="write the table into docs/llm.md")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    return parser.parse_args()


def _numbers(text: str) -> list[int]:
    return [int(word) for word in text.split(",")]


def _measured(checkpoint: Path, method: str, arguments: argparse.Namespace) -> dict[str, Any]:
    sizes = [f"--windows={arguments.windows}", f"--tokens={arguments.tokens}"]
    return fresh([sys.executable, __file__, str(checkpoint), f"--child={method}", *sizes])


def _compile(checkpoint: Path, method: str, windows: int, tokens: int) -> dict[str, Any]:
    """Compile ``checkpoint`` and say what that has cost this process."""
    import edgeq

    ids = np.random.default_rng(1).integers(0, VOCABULARY, (windows, tokens), dtype=np.int64)
    recipe = edgeq.Recipe(scheme="int4-weight", weight_method=method, block_size=128)  # type: ignore[arg-type]
    begin, output = time.monotonic(), checkpoint.with_name(f"{checkpoint.name}-{method}")
    made = edgeq.compile(
        checkpoint,
        target="hf-gptq",
        recipe=recipe,
        calibration=None if method == "rtn" else {"input_ids": ids},
        output=output,
        bench=None,
        force=True,
    )
    seconds, size = time.monotonic() - begin, made.manifest.size
    shutil.rmtree(made.folder)
    stored = sum(file.stat().st_size for file in checkpoint.glob("*.safetensors"))
    return {"peak_mib": peak_mib(), "seconds": seconds, "stored": stored, "size": size}


def write_checkpoint(folder: Path, depth: int) -> None:
    """A Llama of ``depth`` layers with random weights, one tensor in memory at a time."""
    from edgeq.targets.language.shards import write_shards

    folder.mkdir(parents=True, exist_ok=True)
    write_shards(_tensors(depth), folder)
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "torch_dtype": "bfloat16",
        "hidden_size": HIDDEN,
        "intermediate_size": INNER,
        "num_hidden_layers": depth,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KEY_HEADS,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-5,
        "hidden_act": "silu",
        "tie_word_embeddings": False,
    }
    (folder / "config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")


def _tensors(depth: int) -> Iterator[Any]:
    import ml_dtypes

    from edgeq.targets.language.shards import LazyTensor

    for number, (name, shape) in enumerate(_shapes(depth)):
        yield LazyTensor(name, np.dtype(ml_dtypes.bfloat16), shape, partial(_values, number, shape))


def _values(number: int, shape: tuple[int, ...]) -> Any:
    import ml_dtypes

    if len(shape) == 1:
        return np.ones(shape, ml_dtypes.bfloat16)
    values = np.random.default_rng(number).standard_normal(shape, np.float32)
    values *= 0.02
    return values.astype(ml_dtypes.bfloat16)


def _shapes(depth: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    narrow = HIDDEN // HEADS * KEY_HEADS
    yield "model.embed_tokens.weight", (VOCABULARY, HIDDEN)
    for layer in range(depth):
        start = f"model.layers.{layer}."
        yield start + "input_layernorm.weight", (HIDDEN,)
        yield start + "mlp.down_proj.weight", (HIDDEN, INNER)
        yield start + "mlp.gate_proj.weight", (INNER, HIDDEN)
        yield start + "mlp.up_proj.weight", (INNER, HIDDEN)
        yield start + "post_attention_layernorm.weight", (HIDDEN,)
        yield start + "self_attn.k_proj.weight", (narrow, HIDDEN)
        yield start + "self_attn.o_proj.weight", (HIDDEN, HIDDEN)
        yield start + "self_attn.q_proj.weight", (HIDDEN, HIDDEN)
        yield start + "self_attn.v_proj.weight", (narrow, HIDDEN)
    yield "model.norm.weight", (HIDDEN,)
    yield "lm_head.weight", (VOCABULARY, HIDDEN)


def _table(rows: Sequence[dict[str, Any]]) -> list[str]:
    lines = ["| layers | checkpoint | method | peak memory | time |", "|---|---|---|---|---|"]
    for row in rows:
        if "error" in row:
            lines.append(f"| {row['depth']} | | {row['method']} | failed: {row['error']} | |")
            continue
        stored, peak = row["stored"] / 1e9, row["peak_mib"] / 1024
        took = f"{row['seconds'] / 60:.1f} min"
        lines.append(f"| {row['depth']} | {stored:.1f} GB | {row['method']} | {peak:.2f} GiB | {took} |")
    return lines


if __name__ == "__main__":
    main()
