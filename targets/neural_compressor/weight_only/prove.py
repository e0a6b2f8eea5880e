"""What is checked of a folder of INT4 weights: its numbers against Neural Compressor's model in memory."""

from __future__ import annotations

from pathlib import Path

from edgeq.targets.base import Check
from edgeq.targets.neural_compressor.files import EXPECTED
from edgeq.targets.neural_compressor.weight_only.runner import WeightOnlyRunner
from edgeq.targets.neural_compressor.weight_only.settings import WeightSettings
from edgeq.targets.numbers import Distance, distance, exact_check
from edgeq.targets.reference import load_samples

REFERENCE = "Neural Compressor's model in memory"
# Sums in another order; a wrong scale, zero point or bias of one layer lies far below.
FLOAT32_SQNR = 80.0


def prove_again(folder: Path, threads: int | None) -> list[Check]:
    """Load the folder and compare what it computes on the samples with what was computed before it was saved.

    Raises:
        ModelError: the artefact is damaged.
        TargetError: the model cannot be run.
    """
    settings = WeightSettings.read(folder)
    wanted, samples = load_samples(folder, EXPECTED), load_samples(folder)
    with WeightOnlyRunner(folder, threads=threads) as runner:
        found = distance(wanted, [runner.run(sample) for sample in samples])
    return [exact_check(found, (_why(found), ""), settings.sampled_from, REFERENCE)]


def _why(found: Distance) -> str:
    if found.wrong or found.sqnr < FLOAT32_SQNR:
        return ""
    return f"{found.sqnr:.0f} dB, as float sums in another order leave"
