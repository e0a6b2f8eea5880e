"""Which engines load a format, and on what they run, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from edgeq.compiler.recipe import Scheme

Hardware = Literal["cpu", "gpu", "apple", "phone"]
HARDWARE: Mapping[str, str] = {
    "cpu": "an x86 or ARM CPU",
    "gpu": "an NVIDIA GPU",
    "apple": "Apple silicon",
    "phone": "a phone's CPU",
}


@dataclass(frozen=True)
class Engine:
    """What serves a format.

    ``hardware`` → the engine's name there. ``measured``: the harness runs this engine itself, on the CPU;
    False: a reader of transformers stands in for it, whose times say nothing of the engine. ``cache_bytes``:
    of a number in the cache of keys and values, by default. ``only``: hardware on which the engine takes
    these schemes alone.
    """

    hardware: Mapping[str, str]
    measured: bool
    cache_bytes: int = 2
    only: Mapping[str, frozenset[Scheme]] | None = None

    def runs_on(self, hardware: str, scheme: Scheme) -> bool:
        """Whether it takes weights of ``scheme`` there."""
        if hardware not in self.hardware:
            return False
        limited = (self.only or {}).get(hardware)
        return limited is None or scheme in limited


# From the engines' own documents: vLLM (hardware of quantization kernels: on x86 CPUs GPTQ, AWQ and W8A8),
# TGI, llama.cpp (backends), ONNX Runtime GenAI (execution providers), bitsandbytes (supported devices).
# llama.cpp caches float16; ONNX Runtime GenAI's CPU models cache float32.
FORMATS: Mapping[str, Engine] = {
    "gguf": Engine(
        {"cpu": "llama.cpp", "gpu": "llama.cpp", "apple": "llama.cpp (Metal)", "phone": "llama.cpp"},
        measured=True,
    ),
    "onnxruntime-genai": Engine(
        {"cpu": "ONNX Runtime GenAI", "gpu": "ONNX Runtime GenAI", "phone": "ONNX Runtime GenAI"},
        measured=True,
        cache_bytes=4,
    ),
    "vllm": Engine({"gpu": "vLLM", "cpu": "vLLM"}, measured=False, only={"cpu": frozenset({"int8-dynamic"})}),
    "hf-gptq": Engine(
        {"gpu": "vLLM, TGI, ExLlamaV2", "cpu": "vLLM"},
        measured=False,
        only={"cpu": frozenset({"int4-weight"})},
    ),
    "hf-awq": Engine({"gpu": "vLLM, TGI", "cpu": "vLLM"}, measured=False),
    "bnb-nf4": Engine(
        {"gpu": "transformers with bitsandbytes", "cpu": "transformers with bitsandbytes"}, measured=True
    ),
}
