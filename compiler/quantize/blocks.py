"""Weights in blocks of 4 or 8 bits, packed as ONNX Runtime's MatMulNBits and GatherBlockQuantized read them.

Both take rows [N, K] cut into blocks along K, the last one padded with zeros. Codes are unsigned; without
zero points they are centred at 2^(bits-1). Two 4-bit codes share a byte, the first in its low half.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from edgeq.calibration.affine import ScaleDtype
from edgeq.compiler.plan import QuantSpec
from edgeq.compiler.quantize.rewriter import Rewriter
from edgeq.compiler.quantize.rounding import Rounded, round_bits
from edgeq.compiler.quantize.weights import Floats
from edgeq.compiler.recipe import Recipe
from edgeq.compiler.weights.spec import QuantizedWeight
from edgeq.errors import TargetError
from edgeq.targets.capabilities import Capabilities

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Blocks:
    """Packed rows: ``codes`` uint8 [N, blocks, block_size * bits / 8], ``scales`` float32 [N, blocks].

    ``zero_points`` uint8 [N, bytes] are packed like the codes; None means the centre.
    """

    codes: Bytes
    scales: Floats
    zero_points: Bytes | None
    bits: int
    block_size: int


@dataclass(frozen=True)
class StoredBlocks:
    """The initializers of :class:`Blocks`; ``codes`` are [N, bytes]."""

    codes: ir.Value
    scales: ir.Value
    zero_points: ir.Value | None
    block_size: int
    blocks: int


@dataclass(frozen=True)
class Learned:
    """``blocks`` of a weight that calibration data has chosen, and how, in words.

    ``blocks`` None: the weight is rounded to nearest, and ``how`` says why. ``damping`` of its Hessian.
    """

    blocks: Blocks | None
    how: str
    damping: float = 0.0


def check_block_size(capabilities: Capabilities, recipe: Recipe) -> None:
    """Raises TargetError when the target has no kernel for the recipe's blocks."""
    block_size = capabilities.blocks_of(recipe)
    if block_size in capabilities.block_sizes:
        return
    known = ", ".join(map(str, capabilities.block_sizes)) or "none"
    raise TargetError(
        f"Target {capabilities.target!r} has no INT4 kernel for blocks of {block_size} weights.",
        fix=f"Its block sizes are: {known}.",
    )


def block_count(k: int, block_size: int) -> int:
    """Blocks of one row; the last one is padded."""
    return -(-k // block_size)


def packed_bytes(n: int, k: int, bits: int, block_size: int, *, symmetric: bool) -> int:
    """The bytes of codes, float32 scales and zero points of [n, k] weights."""
    blocks = block_count(k, block_size)
    zeros = 0 if symmetric else -(-blocks * bits // 8)
    return n * (blocks * block_size * bits // 8 + 4 * blocks + zeros)


def quantize_blocks(
    rows: Floats,
    bits: int,
    block_size: int,
    *,
    symmetric: bool,
    negative_scales: bool = True,
    scale_dtype: ScaleDtype = "float32",
) -> Blocks:
    """Round float32 ``rows`` [N, K] block by block with the least squared error."""
    n, k = rows.shape
    count = block_count(k, block_size)
    padded = np.zeros((n, count * block_size), np.float32)
    padded[:, :k] = rows
    rounded = round_bits(
        padded.reshape(n * count, block_size),
        bits,
        symmetric=symmetric,
        negative_scales=negative_scales,
        scale_dtype=scale_dtype,
    )
    codes, zeros = _unsigned(rounded, bits)
    return Blocks(
        pack(codes, bits).reshape(n, count, -1),
        rounded.scales.reshape(n, count),
        None if zeros is None else pack(zeros.reshape(n, count), bits),
        bits,
        block_size,
    )


def recipe_blocks(rows: Floats, bits: int, state: Rewriter, key: Hashable) -> Blocks:
    """What was learned of the weight with ``key``, else ``rows`` rounded as recipe and target want it."""
    learned = state.learned.get(key)
    if learned is not None and learned.blocks is not None:
        return learned.blocks
    return quantize_blocks(
        rows,
        bits,
        state.block_size,
        symmetric=state.recipe.symmetric_weights,
        negative_scales=state.capabilities.negative_scales,
        scale_dtype=state.capabilities.scale_dtype,
    )


def how_rounded(key: Hashable, state: Rewriter) -> str:
    """Words for a reason: how the weight under ``key`` was rounded, where the recipe names a method."""
    learned = state.learned.get(key)
    return "" if learned is None else f", {learned.how}"


def blocks_of(weight: QuantizedWeight, block_size: int) -> Blocks:
    """4-bit or 8-bit ``weight`` packed; what fills the last block of a row stands for 0."""
    bits, (n, k) = weight.spec.bits, weight.codes.shape
    count = block_count(k, block_size)
    zeros = weight.zero_points
    last = np.full(n, weight.spec.centre, np.uint8) if zeros is None else zeros[:, -1]
    filled = np.repeat(last[:, None], count * block_size - k, axis=1)
    codes = np.concatenate([weight.codes, filled], axis=1).reshape(n, count, block_size)
    return Blocks(
        pack(codes, bits), weight.scales, None if zeros is None else pack(zeros, bits), bits, block_size
    )


def _unsigned(rounded: Rounded, bits: int) -> tuple[Bytes, Bytes | None]:
    if rounded.zero_points is None:
        return (rounded.codes + (1 << (bits - 1))).astype(np.uint8), None
    return rounded.codes.astype(np.uint8), rounded.zero_points.astype(np.uint8)


def pack(codes: Bytes, bits: int) -> Bytes:
    """8 / bits codes per byte along the last axis, the first in the lowest bits; missing ones are 0."""
    per_byte = 8 // bits
    missing = -codes.shape[-1] % per_byte
    if missing:
        codes = np.concatenate([codes, np.zeros((*codes.shape[:-1], missing), np.uint8)], axis=-1)
    packed = codes[..., ::per_byte]
    for place in range(1, per_byte):
        packed = np.bitwise_or(packed, np.left_shift(codes[..., place::per_byte], np.uint8(place * bits)))
    return packed


def unpack(packed: Bytes, bits: int, count: int) -> Bytes:
    """The inverse of :func:`pack`: ``count`` codes along the last axis."""
    if bits == 8:
        return packed[..., :count]
    mask = np.uint8((1 << bits) - 1)
    parts = [packed >> np.uint8(shift) & mask for shift in range(0, 8, bits)]
    codes: Bytes = np.stack(parts, axis=-1).reshape(*packed.shape[:-1], -1)[..., :count]
    return codes


def dequantize(blocks: Blocks, k: int) -> Floats:
    """float32 [N, K] as the kernels read it: (code - zero point) * scale."""
    n, count, _ = blocks.codes.shape
    codes = unpack(blocks.codes, blocks.bits, blocks.block_size).astype(np.float32)
    if blocks.zero_points is None:
        zeros = np.full((n, count), 1 << (blocks.bits - 1), np.float32)
    else:
        zeros = unpack(blocks.zero_points, blocks.bits, count).astype(np.float32)
    values: Floats = (codes - zeros[..., None]) * blocks.scales[..., None]
    return values.reshape(n, -1)[:, :k]


def store_blocks(name: str, blocks: Blocks, state: Rewriter) -> StoredBlocks:
    """Add the initializers of ``blocks`` and record how the weight ``name`` was quantized."""
    n, count, _ = blocks.codes.shape
    symmetric = blocks.zero_points is None
    spec = QuantSpec("uint4" if blocks.bits == 4 else "uint8", symmetric, 1, blocks.block_size)
    if blocks.zero_points is None:
        zero = np.full((), 1 << (blocks.bits - 1), np.uint8)
    else:
        zero = unpack(blocks.zero_points, blocks.bits, count)
    state.record(name, spec, blocks.scales, zero)
    suffix = f"int{blocks.bits}"
    zeros = None
    if blocks.zero_points is not None:
        zeros = state.initializer(f"{name}_{suffix}_zero_point", blocks.zero_points)
    codes = state.initializer(f"{name}_{suffix}", blocks.codes.reshape(n, -1))
    scales = state.initializer(f"{name}_{suffix}_scale", blocks.scales)
    return StoredBlocks(codes, scales, zeros, blocks.block_size, count)
