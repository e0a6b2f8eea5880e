"""Seeded random inputs that fit declared dtypes and shapes: for equivalence checks and latency probes.

Never for calibration: ranges measured on random data say nothing about real data.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edgeq.calibration.types import Array, Arrays, TensorSpec
from edgeq.errors import DataError

_SEQUENCE = 16
_IMAGE_SIDE = 64
_CHANNELS = 3
_SAMPLES = 2
_LARGEST_INDEX = 2  # Small enough for every vocabulary and for token-type ids.
# The first hint found in a symbolic dimension's name decides its size.
_HINTS: tuple[tuple[str, int], ...] = (
    ("past", _SEQUENCE),
    ("seq", _SEQUENCE),
    ("len", _SEQUENCE),
    ("time", _SEQUENCE),
    ("height", _IMAGE_SIDE),
    ("width", _IMAGE_SIDE),
    ("channel", _CHANNELS),
)
_EXACT: Mapping[str, int] = {
    "h": _IMAGE_SIDE,
    "w": _IMAGE_SIDE,
    "c": _CHANNELS,
    "t": _SEQUENCE,
    "l": _SEQUENCE,
}


def random_inputs(
    specs: Sequence[TensorSpec], *, seed: int, batch: int = 1, dims: Mapping[str, int] | None = None
) -> dict[str, Array]:
    """One random array per input, the same for the same arguments.

    Floating-point values are standard normal; integers are 0 or 1, which every vocabulary, mask and
    token type allows; booleans are fair coin flips. ``dims`` gives sizes to symbolic dimensions by name.
    A dimension that it does not name is ``batch`` when it is the first or is called so, else a size that its
    name hints at, else 16.

    Raises:
        DataError: an input has a shape of unknown rank or a dtype that cannot be made up (strings).
    """
    sizes = dict(dims or {})
    return {spec.name: _array(spec, seed, batch, sizes) for spec in specs}


def random_samples(specs: Sequence[TensorSpec]) -> tuple[tuple[Arrays, ...], str]:
    """A few random inputs, to compare numbers on where the user gave no data, and what reports call them.

    Raises:
        DataError: see :func:`random_inputs`.
    """
    return tuple(random_inputs(specs, seed=seed) for seed in range(_SAMPLES)), f"{_SAMPLES} random inputs"


def dimension(index: int, dim: int | str | None, batch: int, dims: Mapping[str, int]) -> int:
    """The size that a declared dimension gets."""
    if isinstance(dim, int):
        return dim
    name = (dim or "").lower()
    if dim is not None and dim in dims:
        return dims[dim]
    if "batch" in name or name in ("n", "b", "bs"):
        return batch
    if name in _EXACT:
        return _EXACT[name]
    hinted = next((size for hint, size in _HINTS if hint in name), None)
    if hinted is not None:
        return hinted
    return batch if index == 0 else _SEQUENCE


def _array(spec: TensorSpec, seed: int, batch: int, dims: Mapping[str, int]) -> Array:
    if spec.shape is None:
        raise DataError(
            f"Input {spec.name!r} has no declared shape, so no random values can be made for it.",
            fix="Declare its shape in the model, or give real data.",
        )
    shape = tuple(dimension(i, d, batch, dims) for i, d in enumerate(spec.shape))
    # A generator per input: its values do not depend on the other inputs.
    generator = np.random.default_rng([seed, zlib.crc32(spec.name.encode())])
    return _values(generator, spec.dtype, shape, spec.name)


def _values(generator: np.random.Generator, dtype: np.dtype[Any], shape: tuple[int, ...], name: str) -> Array:
    if dtype.kind == "b":
        return generator.integers(0, 2, shape).astype(bool)
    if dtype.kind in "iu":
        return generator.integers(0, _LARGEST_INDEX, shape).astype(dtype)
    if dtype.kind == "f" or dtype.name == "bfloat16":
        return generator.standard_normal(shape, np.float32).astype(dtype)
    raise DataError(
        f"Input {name!r} is of type {dtype}, for which no random values can be made.", fix="Give real data."
    )
