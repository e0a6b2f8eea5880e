"""The type of a language model's floats, which decides that of its scales in some formats."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import ml_dtypes
import numpy as np

from edgeq.compiler.load.checkpoint import Checkpoint
from edgeq.targets.capabilities import WeightRules

_BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


def stored_floats(checkpoint: Checkpoint) -> np.dtype[Any]:
    """What artefacts keep floats in: bfloat16 where most of the checkpoint is, else float16."""
    sizes: dict[Any, int] = {}
    for tensor in checkpoint.tensors.values():
        sizes[tensor.dtype] = sizes.get(tensor.dtype, 0) + tensor.nbytes
    most = max(sizes, key=lambda dtype: sizes[dtype])
    return _BFLOAT16 if most == _BFLOAT16 else np.dtype(np.float16)


def rules_of_model(rules: WeightRules, checkpoint: Checkpoint) -> WeightRules:
    """The format's rules for this model: scales of bfloat16 where floats stay bfloat16."""
    if rules.keeps_bfloat16 and stored_floats(checkpoint) == _BFLOAT16:
        return replace(rules, scale_dtype="bfloat16")
    return rules
