"""What is checked of a folder of INT4 weights: its numbers against Neural Compressor's model in memory."""

from __future__ import annotations

from pathlib import Path

from edgeq.targets.base import Check
from edgeq.targets.neural_compressor.files import EXPECTED
from edgeq.targets.neural_compressor.weight_only.runner import WeightOnlyRunner
from edgeq.targets.neural_compressor.weight_only.settings import WeightSettings
from edgeq.targets.numbers import distance, exact_check, reordered_sums
from edgeq.targets.reference import load_samples

REFERENCE = "Neural Compressor's model in memory"


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
    return [exact_check(found, (reordered_sums(found), ""), settings.sampled_from, REFERENCE)]
