"""Weights that are no numbers are refused before anything is made of them: rounding would hide them."""

from __future__ import annotations

import numpy as np

from edgeq.calibration.types import Array
from edgeq.compiler.load.checkpoint import Checkpoint
from edgeq.errors import ModelError
from edgeq.progress import Progress

# Values that are looked at at a time.
_AT_ONCE = 1 << 24


def refuse_not_finite(checkpoint: Checkpoint, progress: Progress) -> None:
    """Read every tensor of ``checkpoint`` once; the pages are mapped, and those of one part are in memory.

    Raises:
        ModelError: a tensor has NaN or infinite values.
    """
    with progress.task("Checking the weights", len(checkpoint.tensors)) as advance:
        for name, stored in checkpoint.tensors.items():
            if not _finite(stored.array()):
                raise ModelError(
                    f"The tensor {name!r} in {stored.file} has values that are NaN or infinite.",
                    fix="Download or save the model again; training may have diverged.",
                )
            advance(1)


def _finite(values: Array) -> bool:
    if values.dtype.kind in "iub":
        return True
    flat = values.reshape(-1)
    return all(np.isfinite(flat[at : at + _AT_ONCE]).all() for at in range(0, len(flat), _AT_ONCE))
