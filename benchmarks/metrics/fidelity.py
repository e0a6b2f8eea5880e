"""Metrics without labels: how close the artefact's outputs are to the FP32 baseline's on the same samples."""

from __future__ import annotations

import numpy as np

from edgeq.benchmarks.metrics.base import Metric, Scores
from edgeq.calibration.types import Array, Arrays, Batch
from edgeq.errors import InternalError, UsageError

# Equal outputs have no noise, and JSON no infinity: values in dB end here, far beyond float32's 150 dB.
MAX_DB = 200.0


class Fidelity(Metric):
    """Base: a row of statistics per sample from the artefact's and the baseline's output."""

    needs_baseline = True

    def pair(self, outputs: Arrays, baseline: Arrays | None) -> tuple[Array, Array]:
        """The artefact's and the baseline's output as float64 [samples, elements].

        Raises:
            UsageError: the shapes differ.
        """
        if baseline is None:
            raise InternalError(f"Metric {self.name!r} was not given the baseline's outputs.")
        ours, theirs = self.select(outputs), self.select(baseline)
        if ours.shape != theirs.shape:
            raise UsageError(
                f"Metric {self.name!r} cannot compare an output of shape {list(ours.shape)} "
                f"with the baseline's {list(theirs.shape)}.",
                fix="Name an output whose shape does not depend on its values.",
            )
        samples = len(ours)
        return (
            ours.reshape(samples, -1).astype(np.float64),
            theirs.reshape(samples, -1).astype(np.float64),
        )


class Sqnr(Fidelity):
    """Signal to quantization noise ratio: 10 log10(sum baseline² / sum (artefact - baseline)²), in dB."""

    name = "sqnr"
    unit = "dB"

    def scores(self, outputs: Arrays, batch: Batch, baseline: Arrays | None) -> Scores:
        """[samples, 2]: signal energy, noise energy."""
        ours, theirs = self.pair(outputs, baseline)
        return np.stack([np.sum(theirs**2, axis=1), np.sum((ours - theirs) ** 2, axis=1)], axis=1)

    def aggregate(self, scores: Scores) -> float:
        signal, noise = scores.sum(axis=0)
        return decibels(signal, noise)


class Psnr(Fidelity):
    """Peak signal to noise ratio: 10 log10(peak² / mean (artefact - baseline)²), in dB.

    ``peak`` is the range of the baseline's output over all samples (max - min), since an output need not
    be an image of 0..255.
    """

    name = "psnr"
    unit = "dB"

    def scores(self, outputs: Arrays, batch: Batch, baseline: Arrays | None) -> Scores:
        """[samples, 4]: noise energy, elements, baseline's minimum and maximum."""
        ours, theirs = self.pair(outputs, baseline)
        elements = np.full(len(ours), ours.shape[1])
        noise = np.sum((ours - theirs) ** 2, axis=1)
        return np.stack([noise, elements, theirs.min(axis=1), theirs.max(axis=1)], axis=1)

    def aggregate(self, scores: Scores) -> float:
        peak = scores[:, 3].max() - scores[:, 2].min()
        return decibels(peak * peak, scores[:, 0].sum() / scores[:, 1].sum())


class Mse(Fidelity):
    """Mean squared difference between the artefact's and the baseline's output."""

    name = "mse"
    higher_is_better = False

    def scores(self, outputs: Arrays, batch: Batch, baseline: Arrays | None) -> Scores:
        """[samples, 2]: squared error, elements."""
        ours, theirs = self.pair(outputs, baseline)
        return np.stack([np.sum((ours - theirs) ** 2, axis=1), np.full(len(ours), ours.shape[1])], axis=1)

    def aggregate(self, scores: Scores) -> float:
        return float(scores[:, 0].sum() / scores[:, 1].sum())


class Cosine(Fidelity):
    """Mean over the samples of the cosine between the artefact's and the baseline's output.

    A sample where both are zero counts 1; where only one is zero, 0.
    """

    name = "cosine"

    def scores(self, outputs: Arrays, batch: Batch, baseline: Arrays | None) -> Scores:
        """[samples]: the cosine."""
        ours, theirs = self.pair(outputs, baseline)
        product = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
        same = np.all(ours == theirs, axis=1)
        cosine = np.sum(ours * theirs, axis=1) / np.where(product > 0, product, 1.0)
        return np.where(same, 1.0, np.clip(cosine, -1.0, 1.0))

    def aggregate(self, scores: Scores) -> float:
        return float(np.mean(scores))


def decibels(signal: float, noise: float) -> float:
    """10 log10(signal / noise), within ±:data:`MAX_DB`; without noise it is :data:`MAX_DB`."""
    if noise <= 0:
        return MAX_DB
    if signal <= 0:
        return -MAX_DB
    return float(np.clip(10 * (np.log10(signal) - np.log10(noise)), -MAX_DB, MAX_DB))
