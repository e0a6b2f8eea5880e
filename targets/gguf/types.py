"""The types of GGUF files as data: what weights are stored as, who makes them, which scheme asks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from edgeq.compiler.recipe import Precision, Scheme

# Who makes the blocks: nobody (floats), edgeq's codes as they are, the gguf package, or llama.cpp.
Maker = Literal["float", "codes", "package", "llama.cpp"]


@dataclass(frozen=True)
class FileType:
    """A type of file: ``file_type`` is llama.cpp's number of it (``general.file_type``).

    ``tensor`` is the type that most of its tensors have; ``importance``: llama.cpp refuses it without an
    importance matrix.
    """

    name: str
    file_type: int
    tensor: str
    scheme: Scheme
    maker: Maker
    importance: bool = False


_INT8: Scheme = "int8-weight"
_INT4: Scheme = "int4-weight"
_INT3: Scheme = "int3-weight"
_INT2: Scheme = "int2-weight"

# A type belongs to the scheme of the whole bits that it has at least: 4.25 to 5.7 bits are int4-weight.
FILE_TYPES: dict[str, FileType] = {
    one.name: one
    for one in (
        FileType("f32", 0, "F32", "fp32", "float"),
        FileType("f16", 1, "F16", "fp16", "float"),
        FileType("bf16", 32, "BF16", "fp16", "float"),
        FileType("q8_0", 7, "Q8_0", _INT8, "codes"),
        FileType("q6_k", 18, "Q6_K", _INT8, "llama.cpp"),
        FileType("q4_0", 2, "Q4_0", _INT4, "codes"),
        FileType("q4_1", 3, "Q4_1", _INT4, "codes"),
        FileType("q5_0", 8, "Q5_0", _INT4, "package"),
        FileType("q5_1", 9, "Q5_1", _INT4, "package"),
        FileType("mxfp4", 38, "MXFP4", _INT4, "package"),
        FileType("q4_k_s", 14, "Q4_K", _INT4, "llama.cpp"),
        FileType("q4_k_m", 15, "Q4_K", _INT4, "llama.cpp"),
        FileType("q5_k_s", 16, "Q5_K", _INT4, "llama.cpp"),
        FileType("q5_k_m", 17, "Q5_K", _INT4, "llama.cpp"),
        FileType("iq4_nl", 25, "IQ4_NL", _INT4, "llama.cpp"),
        FileType("iq4_xs", 30, "IQ4_XS", _INT4, "llama.cpp"),
        FileType("q3_k_s", 11, "Q3_K", _INT3, "llama.cpp"),
        FileType("q3_k_m", 12, "Q3_K", _INT3, "llama.cpp"),
        FileType("q3_k_l", 13, "Q3_K", _INT3, "llama.cpp"),
        # Their mixes have IQ2_S and IQ3_XXS for queries and keys, which need a matrix.
        FileType("iq3_xxs", 23, "IQ3_XXS", _INT3, "llama.cpp", importance=True),
        FileType("iq3_xs", 22, "IQ3_S", _INT3, "llama.cpp", importance=True),
        FileType("iq3_s", 26, "IQ3_S", _INT3, "llama.cpp"),
        FileType("iq3_m", 27, "IQ3_S", _INT3, "llama.cpp"),
        FileType("q2_k", 10, "Q2_K", _INT2, "llama.cpp"),
        FileType("q2_k_s", 21, "Q2_K", _INT2, "llama.cpp", importance=True),
        FileType("iq2_xxs", 19, "IQ2_XXS", _INT2, "llama.cpp", importance=True),
        FileType("iq2_xs", 20, "IQ2_XS", _INT2, "llama.cpp", importance=True),
        FileType("iq2_s", 28, "IQ2_XS", _INT2, "llama.cpp", importance=True),
        FileType("iq2_m", 29, "IQ2_S", _INT2, "llama.cpp", importance=True),
    )
}

# What a scheme is stored as where nothing else is asked for; asymmetric int4 weights are q4_1.
DEFAULTS: dict[Scheme, str] = {
    "fp32": "f32",
    "fp16": "f16",
    _INT8: "q8_0",
    _INT4: "q4_0",
    _INT3: "q3_k_m",
    _INT2: "q2_k",
}

# Single layers that an override asks for beside a file's own type: by the gguf package, and by llama.cpp.
PACKAGE_OVERRIDES: dict[Precision, str] = {"fp32": "F32", "fp16": "F16", "int8": "Q8_0"}
LLAMA_OVERRIDES: dict[Precision, str] = {
    **PACKAGE_OVERRIDES,
    "int4": "Q4_K",
    "int3": "Q3_K",
    "int2": "Q2_K",
}

# Every type of a stored tensor that holds fewer than 16 bits → the precision that reports name.
_BITS = {"8": "int8", "6": "int8", "5": "int4", "4": "int4", "3": "int3", "2": "int2"}


def precision_of(tensor: str) -> str:
    """The precision in words of reports: ``Q5_K`` has at least 4 bits and is int4."""
    floats = {"F32": "fp32", "F16": "fp16", "BF16": "bf16", "MXFP4": "int4"}
    if tensor in floats:
        return floats[tensor]
    return _BITS[tensor.removeprefix("IQ").removeprefix("Q")[0]]


def names_of(scheme: Scheme) -> list[str]:
    """The types that ``scheme`` may be stored as."""
    return [one.name for one in FILE_TYPES.values() if one.scheme == scheme]
