"""Weights and inputs with the structure that language models have: correlated channels, some large."""

from __future__ import annotations

import numpy as np

from edgeq.compiler.weights.spec import Floats
from edgeq.compiler.weights.statistics import InputStatistics


def inputs_of(channels: int, tokens: int = 512, seed: int = 0) -> Floats:
    """float32 [tokens, channels] of a quarter as many sources, with sizes that differ by 50 times."""
    generator = np.random.default_rng(seed)
    sources = generator.standard_normal((tokens, max(channels // 4, 1)))
    mixed = sources @ generator.standard_normal((sources.shape[1], channels))
    mixed += 0.3 * generator.standard_normal(mixed.shape)
    return (mixed * np.exp(generator.uniform(-2, 2, channels))).astype(np.float32)


def weight_of(outputs: int, channels: int, seed: int = 1) -> Floats:
    """float32 [outputs, channels], heavy-tailed as trained weights are."""
    generator = np.random.default_rng(seed)
    return (0.05 * generator.standard_t(5, (outputs, channels))).astype(np.float32)


def statistics_of(inputs: Floats) -> InputStatistics:
    """With a Hessian."""
    found = InputStatistics.empty(inputs.shape[1], hessian=True)
    found.update(inputs)
    return found
