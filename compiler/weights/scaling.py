"""Scales of what layers read, whichever method chooses them: weights are multiplied, inputs divided."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgeq.compiler.weights.spec import Floats

# Scales are applied only where they take at least this part of the error away.
WORTH = 0.01
# Rows of each layer that a search for scales looks at.
SEARCHED_ROWS = 128


@dataclass(frozen=True)
class Scaling:
    """``scales`` float32 [K]; ones where none help. ``strength``: SmoothQuant's of the migration."""

    scales: Floats
    strength: float | None = None


def relative_sizes(sizes: Floats) -> Floats:
    """Divided by their mean, and at least 1e-3 of it: inputs that are never seen get no endless scales."""
    mean = float(sizes.mean(dtype=np.float64))
    if not 0 < mean < np.inf:
        return np.ones_like(sizes)
    return np.asarray(np.maximum(sizes / np.float32(mean), 1e-3), np.float64)


def centred(scales: Floats) -> Floats:
    """As AWQ centres them: the largest and the smallest are equally far from 1."""
    return np.asarray(scales / np.sqrt(scales.max() * scales.min()), np.float32)


def searched_rows(weight: Floats) -> Floats:
    """Rows of ``weight``, evenly spaced, at least :data:`SEARCHED_ROWS` and less than twice as many."""
    return np.ascontiguousarray(weight[:: max(len(weight) // SEARCHED_ROWS, 1)])
