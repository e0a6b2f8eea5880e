"""What GGUF files store, as data."""

from __future__ import annotations

from dataclasses import replace

from edgeq.targets.capabilities import Capabilities, WeightRules
from edgeq.targets.gguf.types import DEFAULTS, FileType
from edgeq.targets.language.target import NO_KERNELS

# Blocks of 32 weights with a float16 scale, which may be negative: -8 stands for the largest one then.
_RULES = WeightRules(
    bits=(4, 8),
    group_sizes=(32,),
    group_size=32,
    negative_scales=True,
    mixed=True,
    head=True,
    embeddings=True,
    always_symmetric=(8,),
)
# Q4_1 stores the value of the code 0 in float16, which products of such scales with zero points are.
_ASYMMETRIC = replace(_RULES, symmetric=(False,), scale_dtype="half7", negative_scales=False)
# Types that others make from floats: the bits say which layers get another type by an override.
_FLOATS = replace(_RULES, bits=(2, 3, 4, 8), methods=("rtn",), symmetric=(True,))


def capabilities_of(file_type: FileType | None) -> Capabilities:
    """What a type of file can have; None: any of them."""
    rules = _RULES
    if file_type is not None and file_type.maker != "codes":
        # Scales of mxfp4 are powers of two as far as float32 goes.
        rules = replace(_FLOATS, scale_dtype="float32") if file_type.tensor == "MXFP4" else _FLOATS
    if file_type is not None and file_type.name == "q4_1":
        rules = _ASYMMETRIC
    return Capabilities(
        "gguf",
        tuple(DEFAULTS),
        unused_options=NO_KERNELS,
        # Importance matrices are of the calibration text.
        learns_weights=file_type is None or file_type.maker == "llama.cpp",
        weights=rules,
    )
