"""Weight-only methods of several tools on one language model, judged alike: perplexity and KL.

    python benchmarks/peers/llm_methods.py MODEL TEXT FOLDER [--page docs/llm.md]
        [--python llmcompressor=PATH] [--python auto-round=PATH] [--only edgeq,inc] [--grid 4:32,3:128]
        [--other TEXT] [--kept]

Every tool quantizes in a process of its own, in its own environment where ``--python`` names one, and hands
over float32 values of its weights, which transformers evaluates here: perplexity over the first 40,000 tokens
of TEXT in windows of 256 without overlap, and the mean KL divergence from the float32 model; with ``--other``
the perplexity of that text too, judged alike. Calibration: 128 windows of 256 from token 100,000 of TEXT on.
Results are kept in FOLDER and are not made again; ``--kept`` shows those alone.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from fresh import fresh
from page_tables import put

CHILD = Path(__file__).with_name("llm_methods_child.py")
WINDOW, JUDGED, SKIPPED, SAMPLES = 256, 40_000, 100_000, 128
GRID = "4:32,4:128,3:32,3:128,2:32,2:128"
METHODS = {
    "edgeq": ("rtn", "gptq", "awq", "nf4"),
    "llmcompressor": ("rtn", "gptq", "awq"),
    "auto-round": ("rtn", "autoround"),
    "inc": ("rtn", "gptq", "awq", "nf4"),
    "matmul-nbits": ("rtn", "k_quant", "hqq"),
}
# NF4 and ONNX Runtime's MatMulNBits have 4 bits only.
FOUR_BITS = {"nf4", "k_quant", "hqq"}
Row = dict[str, Any]


class Judge:
    """Perplexity and KL of weights put into the float32 model."""

    def __init__(self, model: str, text: Path, other: Path | None) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(model)
        ids = _tokens(tokenizer, text)
        self.windows = torch.tensor(_windows(ids[:JUDGED]))
        self.others = torch.tensor(_windows(_tokens(tokenizer, other)[:JUDGED])) if other else None
        self.calibration = _windows(ids[SKIPPED:])[:SAMPLES]
        self.tried = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
        self.untouched = {name: value.clone() for name, value in self.tried.state_dict().items()}
        with torch.no_grad():
            self.wanted = [_log_probabilities(self.tried, ids) for ids in self.windows.split(8)]

    def __call__(self, values: Path | None) -> Row:
        import torch
        from safetensors.torch import load_file

        self.tried.load_state_dict(self.untouched)
        if values is not None:
            unknown = self.tried.load_state_dict(load_file(values), strict=False).unexpected_keys
            if unknown:
                raise SystemExit(f"{values} names what the model has not: {unknown[:3]}.")
        lost = divergence = 0.0
        with torch.no_grad():
            for ids, wanted in zip(self.windows.split(8), self.wanted, strict=True):
                found = _log_probabilities(self.tried, ids)
                lost -= found.gather(-1, ids[:, 1:, None]).double().sum().item()
                divergence += (wanted.exp() * (wanted - found)).sum(-1).double().sum().item()
        count = self.windows[:, 1:].numel()
        found = {"perplexity": math.exp(lost / count), "kl": divergence / count}
        return found if self.others is None else found | {"other": self._perplexity(self.others)}

    def _perplexity(self, windows: Any) -> float:
        import torch

        lost = 0.0
        with torch.no_grad():
            for ids in windows.split(8):
                found = _log_probabilities(self.tried, ids)
                lost -= found.gather(-1, ids[:, 1:, None]).double().sum().item()
        return math.exp(lost / windows[:, 1:].numel())


def _tokens(tokenizer: Any, text: Path) -> Any:
    return np.array(tokenizer(text.read_text(), add_special_tokens=False)["input_ids"])


def _log_probabilities(model: Any, ids: Any) -> Any:
    return model(ids).logits[:, :-1].log_softmax(-1)


def _windows(ids: Any) -> Any:
    return ids[: len(ids) // WINDOW * WINDOW].reshape(-1, WINDOW)


def _cells(only: set[str], grid: str) -> Iterator[tuple[str, str, int, int]]:
    for cell in grid.split(","):
        bits, group = map(int, cell.split(":"))
        for tool, methods in METHODS.items():
            for method in methods:
                narrow = method in FOUR_BITS or tool == "matmul-nbits"
                if tool in only and (bits == 4 or not narrow):
                    yield tool, method, bits, group


def _kept(cell: tuple[str, str, int, int], options: Any) -> Path:
    return Path(options.folder, "-".join(map(str, cell)) + ".json")


def _measured(cell: tuple[str, str, int, int], options: Any, judge: Judge, tokens: Path) -> Row:
    tool, method, bits, group = cell
    kept = _kept(cell, options)
    if kept.is_file():
        return dict(json.loads(kept.read_text()))
    pythons = dict(entry.split("=", 1) for entry in options.python)
    environment = {**os.environ, "OMP_NUM_THREADS": options.threads, "HF_HUB_OFFLINE": "1"}
    with tempfile.TemporaryDirectory() as scratch:
        values = Path(scratch) / "values.safetensors"
        asked = [pythons.get(tool, sys.executable), str(CHILD), tool, method, str(bits), str(group)]
        row = fresh([*asked, str(options.model), str(tokens), str(values)], environment)
        if "error" not in row:
            row |= judge(values)
    row |= {"tool": tool, "method": method, "bits": bits, "group": group}
    kept.write_text(json.dumps(row, indent=1) + "\n")
    return row


def _line(row: Row) -> str:
    start = f"| {row['bits']} | {row['group']} | {row['tool']} {row['method']} |"
    if "error" in row:
        return f"{start} {row['error'][:120]} | | | | | |"
    other = f"{row['other']:.2f}" if "other" in row else ""
    return (
        f"{start} {row['perplexity']:.2f} | {row['kl']:.5f} | {other} | {row['seconds']:.1f} "
        f"| {row['cpu_seconds']:.1f} | {row['mib']:.0f} |"
    )


def _options() -> Any:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("text", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--python", action="append", default=[], metavar="TOOL=PATH")
    parser.add_argument("--only", default=",".join(METHODS))
    parser.add_argument("--grid", default=GRID)
    parser.add_argument("--threads", default="2")
    parser.add_argument("--page", type=Path)
    parser.add_argument("--kept", action="store_true", help="only what was measured before")
    parser.add_argument("--other", type=Path, metavar="TEXT")
    return parser.parse_args()


def main() -> None:
    options = _options()
    options.folder.mkdir(parents=True, exist_ok=True)
    judge = Judge(str(options.model), options.text, options.other)
    tokens = options.folder / "calibration.npy"
    np.save(tokens, judge.calibration)
    plain = judge(None)
    other = f"perplexity of {options.other.stem}" if options.other else "other text"
    lines = [
        f"| bits | group | tool, method | perplexity | KL | {other} | seconds | CPU s | peak MiB |",
        "|---|---|---|---|---|---|---|---|---|",
        f"| 32 | | float32 | {plain['perplexity']:.2f} | 0 | {plain.get('other', 0):.2f} | | | |",
    ]
    for cell in _cells(set(options.only.split(",")), options.grid):
        if options.kept and not _kept(cell, options).is_file():
            continue
        lines.append(_line(_measured(cell, options, judge, tokens)))
        print(lines[-1], flush=True)
    if options.page:
        put(options.page, "llm-methods", lines)


if __name__ == "__main__":
    main()
