"""Whether ``accuracy_level`` 4 is allowed: it rounds activations to int8, which outliers do not survive.

ONNX Runtime computes accuracy level 4 with activations that are rounded to int8, block by block. On most
models that moves the logits less than the weights' own rounding does; on models with outliers among the
activations it changes what is predicted (onnxruntime issue 29849), without any message.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from edgeq.calibration.types import Array

# Of what level 4 may change against level 0 in the same weights: mean KL divergence in nats a token, and the
# share of tokens whose likeliest successor becomes another.
LARGEST_KL = 0.01
LARGEST_FLIPPED = 0.05


@dataclass(frozen=True)
class Difference:
    """Of two models' logits: mean KL divergence in nats, share of other predictions, and tokens compared."""

    kl: float
    flipped: float
    tokens: int

    @property
    def allowed(self) -> bool:
        return self.kl <= LARGEST_KL and self.flipped <= LARGEST_FLIPPED

    def __str__(self) -> str:
        return f"KL {self.kl:.2g} nats and {self.flipped:.1%} other predictions over {self.tokens} tokens"


BOUND = f"KL at most {LARGEST_KL} nats and at most {LARGEST_FLIPPED:.0%} other predictions against level 0"


def difference(pairs: Iterable[tuple[Array, Array]]) -> Difference:
    """Compare logits [..., vocabulary] of level 0 with those of level 4; NaN counts as another prediction."""
    kl, flipped, tokens = 0.0, 0, 0
    for exact, rounded in pairs:
        p, q = _log_softmax(exact), _log_softmax(rounded)
        kl += float((np.exp(p) * (p - q)).sum())
        flipped += int(np.count_nonzero(p.argmax(-1) != q.argmax(-1)))
        tokens += p[..., 0].size
    return Difference(kl / max(tokens, 1), flipped / max(tokens, 1), tokens)


def _log_softmax(logits: Array) -> Array:
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    normalized: Array = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return normalized
