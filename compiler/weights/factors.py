"""The Hessian of a layer's inputs, damped and factored: what GPTQ feeds errors back by."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgeq.compiler.weights.spec import Floats

# Damping is multiplied by this until the Hessian can be factored, and given up beyond the largest.
_ESCALATION, _SMALLEST_DAMPING, _LARGEST_DAMPING = 10.0, 1e-4, 1.0
# Columns that are factored at a time.
_BLOCK = 128


@dataclass(frozen=True)
class Factors:
    """``hessian`` [K, K], ``damping`` of its mean diagonal, and U of (I + U) D (I + U)ᵀ of their sum.

    ``added`` [K] is what damping adds to the diagonal: the sum itself is never in memory. ``feedback``
    [K, K] is U, strictly upper triangular, of the columns in ``order`` [K]; what lies below is not zero.
    """

    hessian: Floats
    added: Floats
    order: npt.NDArray[np.int64]
    feedback: Floats
    damping: float

    @property
    def diagonal(self) -> Floats:
        """[K], with damping."""
        return np.asarray(np.diag(self.hessian) + self.added, np.float32)

    def block(self, columns: slice) -> Floats:
        """The damped Hessian of ``columns`` alone."""
        found = np.array(self.hessian[columns, columns])
        np.einsum("kk->k", found)[:] += self.added[columns]
        return found

    def pull(self, left: Floats, columns: slice) -> Floats:
        """``left`` float32 [N, K] times ``columns`` of the damped Hessian."""
        found = left @ self.hessian[:, columns]
        found += left[:, columns] * self.added[columns]
        return np.asarray(found, np.float32)


def factorize(hessian: Floats, damping: float, act_order: bool) -> Factors | str:
    """The factors of ``hessian`` with ``damping``, or more where it takes more; else why there are none."""
    if not np.isfinite(hessian).all():
        return "the layer's inputs are not finite"
    order = _order(hessian, act_order)
    while damping <= _LARGEST_DAMPING:
        added = _added(np.diag(hessian), damping)
        feedback = _feedback(hessian, added, order)
        if feedback is not None:
            return Factors(hessian, added, order, feedback, damping)
        damping = max(damping * _ESCALATION, _SMALLEST_DAMPING)
    return "the Hessian of its inputs is not positive definite"


def _added(diagonal: Floats, damping: float) -> Floats:
    """``damping`` of the mean diagonal; inputs that were never seen get that mean."""
    alive = diagonal > 0
    mean = float(diagonal[alive].mean(dtype=np.float64)) if alive.any() else 1.0
    return np.where(alive, np.float32(damping * mean), np.float32(mean) - diagonal).astype(np.float32)


def _order(hessian: Floats, act_order: bool) -> npt.NDArray[np.int64]:
    if not act_order:
        return np.arange(len(hessian))
    return np.argsort(-np.diag(hessian), kind="stable")


def _feedback(hessian: Floats, added: Floats, order: npt.NDArray[np.int64]) -> Floats | None:
    """U, from R of H = R Rᵀ, R upper triangular, in the place of a copy; None where there is none.

    Block by block from the last one on: LAPACK would take copies, which count at 8192 inputs.
    """
    found = _ordered(hessian, order)
    np.einsum("kk->k", found)[:] += added[order]
    scales = np.empty(len(found), np.float32)
    for start in reversed(range(0, len(found), _BLOCK)):
        block, behind = slice(start, min(start + _BLOCK, len(found))), slice(start + _BLOCK, None)
        found[: block.stop, block] -= found[: block.stop, behind] @ found[block, behind].T
        upper = _upper_factor(found[block, block])
        if upper is None:
            return None
        scales[block] = np.diag(upper)
        found[block, block] = upper
        found[:start, block] = found[:start, block] @ np.linalg.inv(upper).T.astype(np.float32)
    found /= scales
    return found


def _ordered(hessian: Floats, order: npt.NDArray[np.int64]) -> Floats:
    found = np.empty_like(hessian, np.float32)
    for place, index in enumerate(order):
        np.take(hessian[index], order, out=found[place])
    return found


def _upper_factor(block: Floats) -> npt.NDArray[np.float64] | None:
    """R upper triangular with R Rᵀ = ``block``; None where it is not positive definite."""
    try:
        lower = np.linalg.cholesky(block[::-1, ::-1].astype(np.float64))
    except np.linalg.LinAlgError:
        return None
    upper = lower[::-1, ::-1]
    smallest = float(np.diag(upper).min())
    return upper if np.isfinite(upper).all() and smallest > 0 else None
