"""Grids of the least squared error make all values too small: scales that undo it.

A least squared error e = w - v is orthogonal to v, so that <v, v> = <w, v> is less than <w, w>: on average
every output loses that part, and the layers of a model add it up. Wider scales make <w, v> = <w, w>: the
error of one layer is a little larger, the model's divergence from the float one smaller.
"""

from __future__ import annotations

import numpy as np

from edgeq.calibration.affine import exact_scales
from edgeq.compiler.weights.grid import GridRules, Grids, grouped
from edgeq.compiler.weights.spec import Bytes, Floats, WeightSpec

# Bits at which the part that grids take away is larger than what scales can tell.
SHRINKING = (4, 3, 2)


def unshrunk_groups(weight: Floats, spec: WeightSpec, grids: Grids, codes: Bytes, rules: GridRules) -> Grids:
    """Scales with which the values v of each group project onto its weights w as w does: <w, v> = <w, w>."""
    wanted = grouped(weight, spec)
    values = grouped(grids.quantized(spec, codes).dequantize(), spec)
    along, square = np.einsum("gk,gk->g", wanted, values), np.einsum("gk,gk->g", wanted, wanted)
    return _widened(grids, square.reshape(grids.scales.shape), along.reshape(grids.scales.shape), rules)


def unshrunk_outputs(
    weight: Floats, spec: WeightSpec, grids: Grids, codes: Bytes, hessian: Floats, rules: GridRules
) -> Grids:
    """Scales with which the outputs of each row project onto the float ones as these do: w H v = w H w.

    ``hessian`` float32 [K, K] is the sum of x xᵀ over the inputs x.
    """
    towards = weight @ hessian
    values = grids.quantized(spec, codes).dequantize()
    along, square = np.einsum("nk,nk->n", towards, values), np.einsum("nk,nk->n", towards, weight)
    return _widened(grids, square[:, None], along[:, None], rules)


def _widened(grids: Grids, square: Floats, along: Floats, rules: GridRules) -> Grids:
    """Scales times ``square`` / ``along`` where that is sound: groups of zeros keep theirs."""
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        ratio = square / along
        wider = exact_scales(grids.scales * ratio, rules.scale_dtype)
    sound = np.isfinite(wider) & (ratio >= 1) & (ratio < 2)
    return Grids(np.where(sound, wider, grids.scales), grids.zeros)
