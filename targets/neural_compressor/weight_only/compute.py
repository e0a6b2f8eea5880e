"""What a model of transformers computes in memory, as arrays by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from edgeq.calibration.types import Array, Arrays


def outputs_of(model: Any, inputs: Arrays, names: Sequence[str]) -> dict[str, Array]:
    """The outputs of ``model`` that are called ``names``."""
    import torch

    given = {name: torch.from_numpy(np.array(array)) for name, array in inputs.items()}
    with torch.inference_mode():
        found = model(**given)
    return {name: found[name].numpy() for name in names}
