"""What every runner of a language model takes and returns."""

from __future__ import annotations

import numpy as np

from edgeq.calibration.types import TensorSpec

TOKEN_IDS = TensorSpec("input_ids", np.dtype(np.int64), ("batch", "sequence"))


def logits(vocabulary: int) -> TensorSpec:
    """float32 [batch, sequence, vocabulary]."""
    return TensorSpec("logits", np.dtype(np.float32), ("batch", "sequence", vocabulary))
