"""Write the weights of a store as a GPTQ checkpoint."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np

from edgeq.targets.base import BuildJob, BuildResult


def write_folder(job: BuildJob, folder: Path) -> BuildResult:
    """THIN: symmetric 4 bits only, one file."""
    from safetensors.numpy import save_file

    store = job.weights
    assert store is not None
    tensors = {}
    for name in store.checkpoint.tensors:
        layer = name.removesuffix(".weight")
        if layer not in store.layers:
            tensors[name] = store.tensor(name).astype(np.float16)
            continue
        weight = store.quantized(layer)
        codes = weight.codes.T.astype(np.int64).reshape(-1, 8, weight.codes.shape[0])
        packed = sum(codes[:, i] << (4 * i) for i in range(8))
        tensors[f"{layer}.qweight"] = packed.astype(np.uint32).view(np.int32)
        tensors[f"{layer}.scales"] = weight.scales.T.astype(np.float16)
        groups, outputs = weight.scales.shape[1], weight.scales.shape[0]
        tensors[f"{layer}.qzeros"] = np.full((groups, outputs // 8), 0x77777777, np.int32)
        tensors[f"{layer}.g_idx"] = (
            np.arange(weight.codes.shape[1]) // weight.spec.group_of(weight.codes.shape[1])
        ).astype(np.int32)
    save_file({k: np.ascontiguousarray(v) for k, v in tensors.items()}, folder / "model.safetensors")
    config = {**store.checkpoint.config, "quantization_config": {"quant_method": "gptq", "bits": 4}}
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    shutil.copyfile(store.checkpoint.path / "tokenizer.json", folder / "tokenizer.json")
    return BuildResult(("model.safetensors", "config.json", "tokenizer.json"))
