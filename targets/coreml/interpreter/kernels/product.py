"""Matrix products whose numbers do not depend on the BLAS at hand.

Rounding to integers behind a product (a quantized network) turns the last bit of a sum into a whole step, so
the order of adding matters when a package is compared with ONNX Runtime: every number is one chain of fused
multiply-adds, cut into pieces as ONNX Runtime's own products (MLAS ``SGEMM`` on one thread) are.
"""

from __future__ import annotations

import numpy as np

from edgeq.calibration.types import Array

# MLAS_SGEMM_STRIDEN and MLAS_SGEMM_STRIDEK.
_STRIDE_N, _STRIDE_K = 128, 128
# Fewer columns than that do not pay for the loop's overhead.
_FEWEST_COLUMNS = 4


def products(a: Array, b: Array, result: Array, columns: int | None = None) -> None:
    """Fill ``result`` [n, g, r, c] with ``a`` [g, r, k] @ ``b`` [n, g, k, c], float32.

    ``columns`` is the width of one product where ``b`` holds several side by side.
    """
    if b.shape[3] < _FEWEST_COLUMNS or b.shape[2] == 0:
        # ONNX Runtime has other loops for these, whose order depends on the processor
        np.matmul(a, b, out=result)
        return
    # numba takes time to import: only networks with such products pay for it
    from edgeq.targets.coreml.interpreter.kernels.product_loop import products as loop

    depth = piece(b.shape[3] if columns is None else columns, b.shape[2])
    loop(np.ascontiguousarray(a), np.ascontiguousarray(b), depth, result)


def piece(columns: int, inner: int) -> int:
    """Products that are added up in one chain, of ``inner`` (``MlasSgemmOperation``)."""
    width, depth = _STRIDE_N, _STRIDE_K
    while columns < inner and width > 16 and width // 2 >= columns:
        width, depth = width // 2, depth * 2
    return depth
