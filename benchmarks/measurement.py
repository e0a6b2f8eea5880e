"""One measured number, and all the numbers of one artefact."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

IntervalOf = Literal["value", "difference"]


@dataclass(frozen=True)
class Measurement:
    """What was measured for one metric.

    Attributes:
        metric: its name, as budgets write it.
        value: the artefact's value in ``unit`` (bytes, seconds, a ratio, a fraction 0..1, dB or none).
        baseline: the FP32 baseline's value from the same run; None when there is none to compare with.
        unit: ``bytes``, ``s``, ``x``, ``fraction``, ``dB`` or empty.
        higher_is_better: the direction in which the metric improves.
        interval: 95 % confidence interval, low and high, None where a number has none (a file size).
        interval_of: ``value``: the interval is one of ``value`` itself (latency, speedup);
            ``difference``: of ``value - baseline`` on the same samples (accuracy metrics).
        detail: how it was measured and what else was seen (samples, flips, runs); JSON values only.
    """

    metric: str
    value: float
    baseline: float | None = None
    unit: str = ""
    higher_is_better: bool = True
    interval: tuple[float, float] | None = None
    interval_of: IntervalOf = "value"
    detail: dict[str, Any] = field(default_factory=dict)

    @property
    def difference(self) -> float | None:
        """``value - baseline``, None without a baseline."""
        return None if self.baseline is None else self.value - self.baseline

    @property
    def ratio(self) -> float | None:
        """``value / baseline``, None without a baseline or when the baseline is 0."""
        return None if not self.baseline else self.value / self.baseline

    def to_json(self) -> dict[str, Any]:
        """JSON values only: numbers that JSON does not know are the strings ``nan``, ``inf``, ``-inf``."""
        return {
            "metric": self.metric,
            "value": json_number(self.value),
            "baseline": None if self.baseline is None else json_number(self.baseline),
            "unit": self.unit,
            "higher_is_better": self.higher_is_better,
            "interval": None if self.interval is None else [json_number(x) for x in self.interval],
            "interval_of": self.interval_of,
            "detail": self.detail,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Measurement:
        """The inverse of :meth:`to_json`."""
        interval = data.get("interval")
        baseline = data.get("baseline")
        return cls(
            metric=data["metric"],
            value=float(data["value"]),
            baseline=None if baseline is None else float(baseline),
            unit=data["unit"],
            higher_is_better=data["higher_is_better"],
            interval=None if interval is None else (float(interval[0]), float(interval[1])),
            interval_of=data.get("interval_of", "value"),
            detail=dict(data.get("detail", {})),
        )


def json_number(value: float) -> float | str:
    """``value``, or its name where JSON has no such number."""
    return value if math.isfinite(value) else str(value)


@dataclass
class Measurements(Mapping[str, Measurement]):
    """Measurements by metric name, and in words what could not be measured.

    ``failures``: metric name → why it has no value. ``notes``: what the reader of the numbers must know.
    ``findings``: what the numbers say is wrong, shown in red.
    """

    by_metric: dict[str, Measurement] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)

    def __getitem__(self, metric: str) -> Measurement:
        return self.by_metric[metric]

    def __iter__(self) -> Iterator[str]:
        return iter(self.by_metric)

    def __len__(self) -> int:
        return len(self.by_metric)

    def add(self, *measurements: Measurement) -> None:
        """Store measurements under their metric's name."""
        for measurement in measurements:
            self.by_metric[measurement.metric] = measurement

    def to_json(self) -> dict[str, Any]:
        """JSON values only."""
        return {
            "metrics": [measurement.to_json() for measurement in self.values()],
            "failures": dict(self.failures),
            "notes": list(self.notes),
            "findings": list(self.findings),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Measurements:
        """The inverse of :meth:`to_json`."""
        notes, findings = list(data.get("notes", ())), list(data.get("findings", ()))
        result = cls({}, dict(data.get("failures", {})), notes, findings)
        result.add(*(Measurement.from_json(entry) for entry in data["metrics"]))
        return result
