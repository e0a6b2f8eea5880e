"""NVIDIA's compute capabilities, times ten (86 is 8.6): which GPUs have them, and what came with which."""

from __future__ import annotations

from collections.abc import Mapping

# Those that TensorRT for RTX builds for, and the GPUs that have them.
ARCHITECTURES: Mapping[int, str] = {
    75: "Turing",
    80: "Ampere (A100)",
    86: "Ampere",
    89: "Ada",
    120: "Blackwell",
    121: "Blackwell (GB10)",
}
# What an engine is built for when nobody says and this machine has no GPU.
DEFAULT_SM = (86, 89, 120)
# One engine for several GPUs is compiled once, for the oldest; Turing alone has other layers than the rest.
TURING = 75
# Numbers → the first compute capability whose kernels read them; found by building.
FIRST: Mapping[str, int] = {"INT4": 80, "BF16": 80, "FP8": 89, "FP4": 100}


def written(sm: int) -> str:
    """``8.6`` for 86."""
    return f"{sm // 10}.{sm % 10}"
