"""What the times of an engine beside its float versions mean: measurements, and findings in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgeq.benchmarks.intervals import Estimate, Statistic, block_bootstrap, first, median_ratio
from edgeq.benchmarks.measurement import Measurement
from edgeq.benchmarks.metric_info import resource
from edgeq.benchmarks.units import format_value
from edgeq.targets.tensorrt.gpu.timing import Series
from edgeq.targets.tensorrt.layers.evidence import PRODUCTS
from edgeq.targets.tensorrt.layers.file import NodeEntry

_PERCENTILES = {"device_p50": 50.0, "device_p90": 90.0, "device_p99": 99.0}
_FLOAT = ("fp32", "fp16", "bf16")
_SUSPECTS_SHOWN = 5


@dataclass(frozen=True)
class Times:
    """Times of the artefact and of the same model's float engines, by precision (``fp16``, ``fp32``)."""

    ours: Series
    floats: Mapping[str, Series]


def measurements(times: Times, seed: int) -> list[Measurement]:
    """``device_p50`` and so on, with the FP32 engine as the baseline, and the speedup over each."""
    against = times.floats.get("fp32")
    theirs = times.ours if against is None else against
    statistics: dict[str, Statistic] = {name: first(percent) for name, percent in _PERCENTILES.items()}
    estimates = block_bootstrap(times.ours.device, theirs.device, statistics, seed=seed)
    found = [_percentile(name, estimate, times, against) for name, estimate in estimates.items()]
    speedups = {f"speedup_{name}": speedup(times, name, seed) for name in times.floats}
    return found + [resource(name, e.value, interval=e.interval) for name, e in speedups.items()]


def speedup(times: Times, precision: str, seed: int) -> Estimate:
    """How many times faster than the engine in ``precision``, with its 95 % interval."""
    ours, theirs = times.ours.device, times.floats[precision].device
    return block_bootstrap(ours, theirs, {"speedup": median_ratio}, seed=seed)["speedup"]


def findings(times: Times, scheme: str, nodes: Sequence[NodeEntry], seed: int) -> list[str]:
    """One sentence for each float engine that is faster than the quantized one, FP16 first.

    A difference within its 95 % interval is none.
    """
    if scheme in _FLOAT:
        return []
    return [
        _slower(times, precision, scheme, nodes, found)
        for precision in ("fp16", "fp32")
        if precision in times.floats and is_slower(found := speedup(times, precision, seed))
    ]


def is_slower(found: Estimate) -> bool:
    """Whether a speedup is below 1 with its whole interval."""
    return found.value < 1 and (found.interval is None or found.interval[1] < 1)


def suspects(nodes: Sequence[NodeEntry]) -> str:
    """The matrix products and convolutions that the compiler left in float, in words."""
    left = [node for node in nodes if node.op_type in PRODUCTS and node.actual in _FLOAT]
    missed = [node for node in left if node.planned not in _FLOAT]
    shown = missed or left
    if not shown:
        return (
            "No matrix product or convolution runs in float, so look at what lies between them: layers.json"
        )
    names = ", ".join(f"{node.op_type} {node.name!r} ({node.actual})" for node in shown[:_SUSPECTS_SHOWN])
    more = f" and {len(shown) - _SUSPECTS_SHOWN} more" if len(shown) > _SUSPECTS_SHOWN else ""
    what = "planned quantized, but left in float by the compiler" if missed else "in float by the plan"
    return f"Suspects, {what}: {names}{more}"


def _slower(times: Times, precision: str, scheme: str, nodes: Sequence[NodeEntry], found: Estimate) -> str:
    ours = format_value(float(np.median(times.ours.device)), "s")
    theirs = format_value(float(np.median(times.floats[precision].device)), "s")
    return (
        f"{scheme} is slower than {precision.upper()} on this GPU: {ours} against {theirs}, "
        f"a speedup of {found.value:.2f}x{_interval(found)}. {suspects(nodes)}."
    )


def _interval(found: Estimate) -> str:
    if found.interval is None:
        return ""
    low, high = found.interval
    return f" (95 % interval {low:.2f}x to {high:.2f}x)"


def _percentile(name: str, estimate: Estimate, times: Times, against: Series | None) -> Measurement:
    percent = _PERCENTILES[name]
    detail: dict[str, object] = {
        "inferences": int(times.ours.device.size),
        "with_transfers": float(np.percentile(times.ours.total, percent)),
        **{name: float(np.percentile(series.device, percent)) for name, series in times.floats.items()},
    }
    if times.ours.device.size * (1 - percent / 100) < 1:
        detail["note"] = f"{times.ours.device.size} inferences are few for {name}: it is the slowest"
    reference = None if against is None else float(np.percentile(against.device, percent))
    return resource(name, estimate.value, reference, interval=estimate.interval, detail=detail)
