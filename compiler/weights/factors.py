"""The Hessian of a layer's inputs, damped and factored: what GPTQ feeds errors back by."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgeq.compiler.weights.spec import Floats

# Damping is multiplied by this until the Hessian can be factored, and given up beyond the largest.
_ESCALATION, _SMALLEST_DAMPING, _LARGEST_DAMPING = 10.0, 1e-4, 1.0


@dataclass(frozen=True)
class Factors:
    """``hessian`` [K, K] with ``damping`` of its mean diagonal added, and U of (I + U) D (I + U)ᵀ.

    ``feedback`` [K, K] is U, strictly upper triangular, of the columns in ``order`` [K].
    """

    hessian: Floats
    order: npt.NDArray[np.int64]
    feedback: Floats
    damping: float


def factorize(hessian: Floats, damping: float, act_order: bool) -> Factors | str:
    """The factors of ``hessian`` with ``damping``, or more where it takes more; else why there are none."""
    if not np.isfinite(hessian).all():
        return "the layer's inputs are not finite"
    order = _order(hessian, act_order)
    while damping <= _LARGEST_DAMPING:
        damped = damped_hessian(hessian, damping)
        feedback = _feedback(damped, order)
        if feedback is not None:
            return Factors(damped, order, feedback, damping)
        damping = max(damping * _ESCALATION, _SMALLEST_DAMPING)
    return "the Hessian of its inputs is not positive definite"


def damped_hessian(hessian: Floats, damping: float) -> Floats:
    """``hessian`` plus ``damping`` of its mean diagonal; inputs that were never seen get that mean."""
    found = np.array(hessian, np.float32)
    diagonal = np.einsum("kk->k", found)
    alive = diagonal > 0
    mean = float(diagonal[alive].mean(dtype=np.float64)) if alive.any() else 1.0
    diagonal += np.float32(damping * mean)
    diagonal[~alive] = np.float32(mean)
    return found


def _order(hessian: Floats, act_order: bool) -> npt.NDArray[np.int64]:
    if not act_order:
        return np.arange(len(hessian))
    return np.argsort(-np.diag(hessian), kind="stable")


def _feedback(damped: Floats, order: npt.NDArray[np.int64]) -> Floats | None:
    """U, from the Cholesky factorization of the matrix backwards; None where there is none."""
    backwards = order[::-1]
    try:
        lower = np.linalg.cholesky(damped[np.ix_(backwards, backwards)])
    except np.linalg.LinAlgError:
        return None
    diagonal = np.diag(lower)
    if not np.isfinite(lower).all() or diagonal.min() <= 0:
        return None
    upper = np.ascontiguousarray((lower / diagonal)[::-1, ::-1], np.float32)
    np.fill_diagonal(upper, 0)
    return upper
