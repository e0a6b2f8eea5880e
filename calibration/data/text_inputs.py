"""Token ids → the inputs that a text model has: mask, types, positions, empty caches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgeq.calibration.data.checks import Indices, Notes, conform
from edgeq.calibration.data.options import DataOptions
from edgeq.calibration.data.tokens import Tokens
from edgeq.calibration.preprocess import shape_text
from edgeq.calibration.types import Array, TensorSpec
from edgeq.errors import DataError

IDS, MASK, TYPES, POSITIONS = "input_ids", "attention_mask", "token_type_ids", "position_ids"
FILLED = (IDS, MASK, TYPES, POSITIONS)


@dataclass(frozen=True)
class TokenBatch:
    """Padded tokens, int64 [samples, tokens]: ids, 1 where a token is real, and text of the pair (0 or 1)."""

    ids: Array
    mask: Array
    types: Array


def role_of(spec: TensorSpec, inputs: Sequence[TensorSpec], options: DataOptions) -> str:
    """What an input is filled with: one of :data:`FILLED`, ``past``, ``cache_branch``.

    The name tells, or the option ``columns`` (input name → role); a single input is the token ids.

    Raises:
        DataError: it cannot be filled from text.
    """
    name = options.columns.get(spec.name, spec.name)
    if name in FILLED:
        return name
    if name.startswith(("past_key_values", "past.", "past_")):
        return "past"
    if name == "use_cache_branch":
        return "cache_branch"
    if len(inputs) == 1 and spec.dtype.kind in "iu":
        return IDS
    raise DataError(
        f"Text cannot fill the model's input {spec.name!r} {shape_text(spec.shape)} {spec.dtype}.",
        fix=f"Text fills {', '.join(FILLED)} and past_key_values; map other names with the option columns, "
        "or give arrays (.npz).",
    )


def is_text_model(inputs: Sequence[TensorSpec], options: DataOptions) -> bool:
    """Whether an input takes token ids."""
    return any(options.columns.get(spec.name, spec.name) == IDS for spec in inputs)


def fixed_tokens(inputs: Sequence[TensorSpec], options: DataOptions) -> int | None:
    """Number of tokens that the model fixes, None when it takes any."""
    for spec in inputs:
        if role_of(spec, inputs, options) == IDS and spec.shape is not None and len(spec.shape) == 2:
            return spec.shape[1] if isinstance(spec.shape[1], int) else None
    return None


def pad(rows: Sequence[Tokens], pad_id: int, length: int | None) -> TokenBatch:
    """Pad on the right to ``length``, or to the longest row."""
    width = length or max(max(len(row.ids) for row in rows), 1)
    shape = (len(rows), width)
    ids = np.full(shape, pad_id, dtype=np.int64)
    mask, types = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
    for i, row in enumerate(rows):
        ids[i, : len(row.ids)] = row.ids
        mask[i, : len(row.ids)] = 1
        types[i, : len(row.ids)] = row.types
    return TokenBatch(ids, mask, types)


def fill_inputs(
    tokens: TokenBatch, inputs: Sequence[TensorSpec], options: DataOptions, indices: Indices, notes: Notes
) -> dict[str, Array]:
    """All inputs of the model for these tokens; caches (``past_key_values``) are empty.

    Raises:
        DataError: an input cannot be filled from text, or the length does not fit.
    """
    filled: dict[str, Array] = {}
    for spec in inputs:
        role = role_of(spec, inputs, options)
        if role == "past":
            filled[spec.name] = _empty_past(spec, len(tokens.ids))
        elif role == "cache_branch":
            filled[spec.name] = np.zeros(1, dtype=bool)
        else:
            filled[spec.name] = _conform_tokens(_of_role(role, tokens), spec, indices)
    if (tokens.mask == 0).any() and MASK not in {role_of(spec, inputs, options) for spec in inputs}:
        notes.add("The model has no attention_mask, so it also reads the padding of shorter texts.")
    return filled


def _of_role(role: str, tokens: TokenBatch) -> Array:
    if role == POSITIONS:
        return np.broadcast_to(np.arange(tokens.ids.shape[1]), tokens.ids.shape)
    return {IDS: tokens.ids, MASK: tokens.mask, TYPES: tokens.types}[role]


def _conform_tokens(array: Array, spec: TensorSpec, indices: Indices) -> Array:
    # Made here as int64: going to the model's own dtype is no decision that the user must know of.
    if spec.dtype.kind == "b":
        array = array != 0
    return conform(array, spec, indices, Notes())


def _empty_past(spec: TensorSpec, samples: int) -> Array:
    if spec.shape is None:
        raise DataError(
            f"The cache input {spec.name!r} has no shape.",
            fix="Export the model with its shapes, or without cache.",
        )
    shape = [samples] + [d if isinstance(d, int) else 0 for d in spec.shape[1:]]
    if 0 not in shape:
        raise DataError(
            f"The cache input {spec.name!r} is fixed to {shape_text(spec.shape)} and cannot be empty.",
            fix="Export the model with a dynamic cache length, or without cache.",
        )
    return np.zeros(shape, dtype=spec.dtype)
