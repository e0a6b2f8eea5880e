"""Size and perplexity of every GGUF type of one model, in llama.cpp: the tables of docs/gguf.md.

python benchmarks/peers/gguf_types.py MODEL TEXT [ROW …]     rows: TYPE[+text|+gptq|+awq][+torch]

``+text``: an importance matrix; ``+torch``: the artefact in PyTorch too. The first 40,000 tokens
are judged, in windows of 256; calibration takes 96 windows from token 100,000 on.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from edgeq.api import compile as compile_artefact
from edgeq.benchmarks.options import BenchOptions
from edgeq.compiler.recipe import Recipe
from edgeq.targets.gguf.files import MODEL
from edgeq.targets.gguf.read import open_reference
from edgeq.targets.gguf.runner import LlamaRunner
from edgeq.targets.gguf.types import FILE_TYPES

WINDOW, JUDGED, FIRST, CALIBRATION = 256, 40_000, 100_000, 96
EXACT = ["f32+torch", "f16+torch", "q8_0+torch", "q4_0+torch", "q4_0+gptq+torch", "q4_0+awq+torch"]
EXACT += ["q4_1+torch", "q4_1+gptq+torch"]
PACKAGE = ["bf16", "q5_0", "q5_1", "mxfp4"]


def main() -> None:
    model, text, *rows = sys.argv[1:]
    tokens = np.array(
        Tokenizer.from_file(f"{model}/tokenizer.json")
        .encode(Path(text).read_text(encoding="utf-8"), add_special_tokens=False)
        .ids,
        np.int64,
    )
    windows = tokens[: JUDGED // WINDOW * WINDOW].reshape(-1, WINDOW)
    calibration = tokens[FIRST : FIRST + CALIBRATION * WINDOW].reshape(-1, WINDOW)
    print("| type | MB | perplexity | in PyTorch |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as scratch:
        data = Path(scratch) / "calibration.npz"
        np.savez(data, input_ids=calibration)
        for row in rows or _all_rows():
            print(_row(model, row, windows, data, Path(scratch) / "artefact"), flush=True)


def _all_rows() -> list[str]:
    llama = [one for one in FILE_TYPES.values() if one.maker == "llama.cpp"]
    plain = [one.name for one in llama if not one.importance]
    return [*EXACT, *PACKAGE, *plain, *(f"{one.name}+text" for one in llama)]


def _row(model: str, row: str, windows: Any, data: Path, output: Path) -> str:
    name, *words = row.split("+")
    method = next((word for word in words if word in ("gptq", "awq")), None)
    recipe = Recipe(
        scheme=FILE_TYPES[name].scheme,
        weight_method=method,
        symmetric_weights=name != "q4_1",
    )
    found = compile_artefact(
        model,
        target="gguf",
        recipe=recipe,
        target_options={"type": name},
        output=output,
        force=True,
        threads=1,
        calibration=data if method or "text" in words else None,
        bench=BenchOptions(parts=("size",)),
    )
    path = found.folder / MODEL
    size = path.stat().st_size / 1e6
    judged = perplexity(LlamaRunner(path, threads=1), windows)
    torch = f"{perplexity(open_reference(found.folder, threads=1), windows):.3f}" if "torch" in words else ""
    return f"| {row.removesuffix('+torch').replace('+', ', ')} | {size:.2f} | {judged:.3f} | {torch} |"


def perplexity(runner: Any, windows: Any) -> float:
    """Of all tokens of each window but its first."""
    total, count = 0.0, 0
    for window in windows:
        logits = runner.run({"input_ids": window[None]})["logits"][0, :-1].astype(np.float64)
        peak = logits.max(axis=1)
        sums = peak + np.log(np.exp(logits - peak[:, None]).sum(axis=1))
        total += float((sums - logits[np.arange(len(logits)), window[1:]]).sum())
        count += len(logits)
    runner.close()
    return float(np.exp(total / count))


if __name__ == "__main__":
    main()
