"""Read a GPTQ checkpoint back into float32."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from edgeq.compiler.load.checkpoint import read_safetensors
from edgeq.targets.language.model import build_model
from edgeq.targets.language.runner import LanguageRunner


def open_folder(folder: Path, *, threads: int | None = None) -> LanguageRunner:
    """The model in ``folder``."""
    from safetensors.numpy import load_file

    stored = load_file(folder / "model.safetensors")
    names = [
        n.replace(".qweight", ".weight")
        for n in read_safetensors(folder / "model.safetensors")
        if n.endswith((".weight", ".qweight"))
    ]

    def read(name: str) -> np.ndarray:
        if name in stored:
            return stored[name]
        layer = name.removesuffix(".weight")
        packed = stored[f"{layer}.qweight"].view(np.uint32)
        codes = np.stack([(packed >> (4 * i)) & 15 for i in range(8)], axis=1).reshape(-1, packed.shape[1])
        return (
            (codes.astype(np.float32) - 8)
            * stored[f"{layer}.scales"][stored[f"{layer}.g_idx"]].astype(np.float32)
        ).T.copy()

    config = json.loads((folder / "config.json").read_text())
    return LanguageRunner(build_model(folder, config["architectures"][0], names, read), threads=threads)
