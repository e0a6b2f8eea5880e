"""Arrays of files as PyTorch's tensors."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np

from edgeq.calibration.types import Array


def tensor_of(array: Array) -> Any:
    """A copy of ``array`` as a tensor of the same type, which may be ``ml_dtypes.bfloat16``."""
    import torch

    if array.dtype == np.dtype(ml_dtypes.bfloat16):
        return torch.from_numpy(np.array(array).view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(np.array(array))
