"""What gptqmodel makes of a layer of a GPTQ folder, without loading the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgeq.targets.language.stored import StoredFolder
from edgeq.targets.language.torch_arrays import tensor_of


def gptqmodel_values(folder: Path, layer: str, bits: int, group: int) -> Any:
    """float32 [N, K]: the values of ``layer`` as gptqmodel's PyTorch kernel unpacks them."""
    import torch
    from gptqmodel.nn_modules.qlinear.torch import TorchLinear
    from gptqmodel.utils.model import convert_gptq_v1_to_v2_format_module

    stored = StoredFolder(folder)
    parts = {
        key: tensor_of(stored.array(f"{layer}.{key}")) for key in ("qweight", "qzeros", "scales", "g_idx")
    }
    module = TorchLinear(
        bits=bits,
        group_size=group,
        sym=True,
        desc_act=False,
        in_features=len(parts["g_idx"]),
        out_features=parts["scales"].shape[1],
        bias=False,
        pack_dtype=torch.int32,
        register_buffers=True,
    )
    module.load_state_dict(parts, strict=False)
    convert_gptq_v1_to_v2_format_module(module, bits, torch.int32)
    module.post_init()
    return module.dequantize_weight().T.float()
