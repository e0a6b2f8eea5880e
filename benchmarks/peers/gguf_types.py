"""Size, perplexity and KL of every GGUF type of one model, in llama.cpp: the table of docs/gguf.md.

python benchmarks/peers/gguf_types.py MODEL TEXT [ROW …] [--page docs/gguf.md]

Rows: TYPE[+text|+gptq|+awq][+torch]; ``+text``: an importance matrix; ``+torch``: the artefact in PyTorch
too. The first 40,000 tokens are judged, in windows of 256; calibration takes 96 windows from token 100,000
on. KL is that from the model in float32 in PyTorch.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from page_tables import put
from tokenizers import Tokenizer

from edgeq.api import compile as compile_artefact
from edgeq.benchmarks.options import BenchOptions
from edgeq.compiler.recipe import Recipe
from edgeq.targets.gguf.files import MODEL
from edgeq.targets.gguf.read import open_reference
from edgeq.targets.gguf.runner import LlamaRunner
from edgeq.targets.gguf.types import FILE_TYPES
from edgeq.targets.language.float_runner import open_float

WINDOW, JUDGED, FIRST, CALIBRATION = 256, 40_000, 100_000, 96
EXACT = ["f32+torch", "f16+torch", "q8_0+torch", "q4_0+torch", "q4_0+gptq+torch", "q4_0+awq+torch"]
EXACT += ["q4_1+torch", "q4_1+gptq+torch", "q4_1+awq+torch"]
PACKAGE = ["bf16", "q5_0", "q5_1", "mxfp4"]


def main() -> None:
    model, text, *rows = sys.argv[1:]
    page = None
    if "--page" in rows:
        rows, page = rows[: rows.index("--page")], Path(rows[-1])
    tokens = np.array(
        Tokenizer.from_file(f"{model}/tokenizer.json")
        .encode(Path(text).read_text(encoding="utf-8"), add_special_tokens=False)
        .ids,
        np.int64,
    )
    windows = tokens[: JUDGED // WINDOW * WINDOW].reshape(-1, WINDOW)
    calibration = tokens[FIRST : FIRST + CALIBRATION * WINDOW].reshape(-1, WINDOW)
    judge = Judge(Path(model), windows)
    lines = ["| type | MB | perplexity | KL | perplexity in PyTorch | KL |", "|---|---|---|---|---|---|"]
    with tempfile.TemporaryDirectory() as scratch:
        data = Path(scratch) / "calibration.npz"
        np.savez(data, input_ids=calibration)
        for row in rows or _all_rows():
            lines.append(_row(model, row, judge, data, Path(scratch) / "artefact"))
            print(lines[-1], flush=True)
    if page:
        put(page, "gguf-types", lines)


def _all_rows() -> list[str]:
    llama = [one for one in FILE_TYPES.values() if one.maker == "llama.cpp"]
    plain = [one.name for one in llama if not one.importance]
    return [*EXACT, *PACKAGE, *plain, *(f"{one.name}+text" for one in llama)]


def _row(model: str, row: str, judge: Judge, data: Path, output: Path) -> str:
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
    judged = judge(LlamaRunner(path, threads=1))
    torch = judge(open_reference(found.folder, threads=1)) if "torch" in words else " | "
    return f"| {row.removesuffix('+torch').replace('+', ', ')} | {size:.2f} | {judged} | {torch} |"


class Judge:
    """Perplexity and KL from the float model, of all tokens of each window but its first."""

    def __init__(self, model: Path, windows: Any) -> None:
        self.windows = windows
        with open_float(model, threads=1) as runner:
            self.wanted = [_log_probabilities(runner, window) for window in windows]

    def __call__(self, runner: Any) -> str:
        lost = divergence = 0.0
        for window, wanted in zip(self.windows, self.wanted, strict=True):
            found = _log_probabilities(runner, window)
            lost -= float(found[np.arange(len(found)), window[1:]].sum())
            divergence += float((np.exp(wanted) * (wanted - found)).sum())
        runner.close()
        count = self.windows[:, 1:].size
        return f"{np.exp(lost / count):.3f} | {divergence / count:.5f}"


def _log_probabilities(runner: Any, window: Any) -> Any:
    logits = runner.run({"input_ids": window[None]})["logits"][0, :-1].astype(np.float64)
    logits -= logits.max(axis=1, keepdims=True)
    return (logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))).astype(np.float32)


if __name__ == "__main__":
    main()
