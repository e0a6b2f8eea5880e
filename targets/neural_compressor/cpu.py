"""Instruction sets of this CPU that compiled packages may use."""

from __future__ import annotations

from collections.abc import Sequence

from edgeq.errors import TargetError

# Name → the function of torch.cpu that tells whether this CPU has it.
_TESTS = {
    "avx2": "_is_avx2_supported",
    "avx512": "_is_avx512_supported",
    "avx512-vnni": "_is_vnni_supported",
    "avx512-bf16": "_is_avx512_bf16_supported",
    "amx": "_is_amx_tile_supported",
}


def instruction_sets() -> tuple[str, ...]:
    """Those of this CPU, of the ones that packages depend on."""
    import torch

    return tuple(name for name, test in _TESTS.items() if getattr(torch.cpu, test)())


def require_vectors() -> None:
    """Refuse to compile on a CPU that the code is not made for.

    Raises:
        TargetError: it is no x86 CPU with AVX2.
    """
    if "avx2" not in instruction_sets():
        raise TargetError(
            "Target 'neural-compressor' compiles for x86 CPUs with AVX2, and this one has none.",
            fix="Take --target onnxruntime, or compile on another machine.",
        )


def refuse_missing(needed: Sequence[str]) -> None:
    """Refuse a package that this CPU cannot run.

    Raises:
        TargetError: it may use instructions that the CPU has not, which would end the process.
    """
    found = instruction_sets()
    missing = [name for name in needed if name not in found]
    if missing:
        raise TargetError(
            f"The package was compiled for CPUs with {', '.join(needed)}, and this one lacks "
            f"{', '.join(missing)}.",
            fix="Compile the model on a machine like this one.",
        )
