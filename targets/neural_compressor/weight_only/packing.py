"""Layout of GPTQ folders: eight 4-bit numbers per int32, one scale and one zero point per block."""

from __future__ import annotations

from typing import Any

BITS = 4
# Numbers in one int32.
PACKED = 32 // BITS


def group_index(inputs: int, block: int) -> Any:
    """int32[inputs]: the block that every input belongs to, where blocks are in the order of the inputs."""
    import torch

    return torch.arange(inputs, dtype=torch.int32) // block


def dequantized(qweight: Any, qzeros: Any, scales: Any, g_idx: Any) -> Any:
    """float32[outputs, inputs], as Neural Compressor computes it: products are rounded to the scales' type.

    ``qweight`` int32[inputs/8, outputs], ``qzeros`` int32[blocks, outputs/8] (zero points minus one),
    ``scales`` float16[blocks, outputs], ``g_idx`` int32[inputs].
    """
    import torch

    weights = _unpacked(qweight.t()).t()
    zeros = (_unpacked(qzeros) + 1) % (1 << BITS)
    block = g_idx.long()
    centred = (weights - zeros[block]).to(scales.dtype)
    return (centred * scales[block]).t().contiguous().to(torch.float32)


def _unpacked(packed: Any) -> Any:
    """int8[rows, 8 * columns]: the numbers in ``packed`` int32[rows, columns], the lowest bits first."""
    import torch

    shifts = torch.arange(0, 32, BITS, dtype=torch.int32)
    numbers = (packed.unsqueeze(-1) >> shifts) & ((1 << BITS) - 1)
    return numbers.to(torch.int8).reshape(packed.shape[0], packed.shape[1] * PACKED)
