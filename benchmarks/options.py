"""How thorough the harness is."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from edgeq.errors import UsageError

Part = Literal["size", "load", "latency", "generation", "memory", "placement", "accuracy"]
PARTS: tuple[Part, ...] = get_args(Part)


@dataclass(frozen=True)
class BenchOptions:
    """What is measured, and how long.

    Attributes:
        parts: what to measure; a budget on anything else is missed.
        batch_size: samples per inference where the model's batch is free. 1 by default, also for accuracy:
            activations that are quantized dynamically get one range per batch, so that larger batches
            would measure other numbers than an application sees that runs sample by sample.
        samples: evaluation samples, None for all.
        warmup_seconds: of running before anything is timed, per model.
        min_seconds: of timed running, per model; the timing goes on until this and ``min_iterations``.
        min_iterations: timed inferences per model.
        max_seconds: of timed running, per model; ends the timing in any case (but for one block).
        max_iterations: timed inferences per model; ends the timing in any case.
        block_seconds: how long one model runs before it is the other's turn.
        latency_samples: different samples that the timed inferences go through.
        prompt_tokens: of the text that a language model reads before it writes, at most a window.
        new_tokens: that it writes then.
        tasks: files of tasks for lm-eval, which belong to the part ``accuracy``.
        processes: fresh processes per model for load time and memory.
        process_runs: inferences in each of them.
        process_timeout: seconds after which a fresh process is given up.
        seed: of the bootstrap and of random inputs.
    """

    parts: tuple[Part, ...] = PARTS
    batch_size: int = 1
    samples: int | None = None
    warmup_seconds: float = 0.3
    min_seconds: float = 2.0
    min_iterations: int = 50
    max_seconds: float = 30.0
    max_iterations: int = 10_000
    block_seconds: float = 0.05
    latency_samples: int = 8
    prompt_tokens: int = 128
    new_tokens: int = 32
    tasks: tuple[str, ...] = ()
    processes: int = 3
    process_runs: int = 3
    process_timeout: float = 600.0
    seed: int = 0

    def __post_init__(self) -> None:
        unknown = [part for part in self.parts if part not in PARTS]
        if unknown:
            raise UsageError(f"Unknown part {unknown[0]!r} to measure.", fix=f"Choose of {', '.join(PARTS)}.")
        positive = (
            "batch_size", "min_iterations", "max_iterations", "latency_samples", "processes", "process_runs",
            "block_seconds", "max_seconds", "process_timeout", "prompt_tokens", "new_tokens",
        )  # fmt: skip
        for name in positive:
            self._require(name, getattr(self, name) > 0, "more than 0")
        for name in ("warmup_seconds", "min_seconds", "seed"):
            self._require(name, getattr(self, name) >= 0, "0 or more")
        self._require("samples", self.samples is None or self.samples > 0, "more than 0")

    def _require(self, name: str, holds: bool, what: str) -> None:
        if not holds:
            raise UsageError(f"The option {name} is {getattr(self, name)}.", fix=f"It must be {what}.")

    def to_json(self) -> dict[str, Any]:
        """JSON values only."""
        return {**asdict(self), "parts": list(self.parts), "tasks": list(self.tasks)}

    @classmethod
    def quick(cls) -> BenchOptions:
        """Seconds instead of tens of seconds: wider intervals, the same rules."""
        return cls(
            warmup_seconds=0.1,
            min_seconds=0.5,
            min_iterations=20,
            max_seconds=5.0,
            processes=2,
            process_runs=2,
        )
