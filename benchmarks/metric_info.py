"""What a budget must know of a metric: its unit and which direction is better."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, cast

from edgeq.benchmarks.measurement import Measurement
from edgeq.benchmarks.metrics import METRIC_NAMES, get_metric
from edgeq.benchmarks.tasks.names import direction_of, is_task_metric, own_name, unit_of
from edgeq.benchmarks.units import Unit
from edgeq.errors import ConfigError


@dataclass(frozen=True)
class MetricInfo:
    """One metric.

    ``has_baseline``: the FP32 model has a value of its own, so that percent and differences make sense.
    ``resource``: a cost of running (size, time, memory), not a quality of the results.
    """

    name: str
    unit: Unit
    higher_is_better: bool
    what: str
    has_baseline: bool = True
    resource: bool = False


def _cost(name: str, unit: Unit, what: str) -> MetricInfo:
    return MetricInfo(name, unit, higher_is_better=False, what=what, resource=True)


def _speedup(name: str, what: str) -> MetricInfo:
    return MetricInfo(name, "x", higher_is_better=True, what=what, has_baseline=False, resource=True)


def _throughput(name: str, what: str) -> MetricInfo:
    return MetricInfo(name, "tokens/s", higher_is_better=True, what=what, resource=True)


def _share(name: str, where: str, *, higher_is_better: bool = True) -> MetricInfo:
    what = f"share of the operations that {where}"
    return MetricInfo(name, "share", higher_is_better, what=what, has_baseline=False, resource=True)


RESOURCES: dict[str, MetricInfo] = {
    info.name: info
    for info in (
        _cost("size", "bytes", "bytes on disk of the files that ship"),
        _cost("load_time", "s", "time to load the artefact in a fresh process"),
        _cost("latency_p50", "s", "median time of one inference"),
        _cost("latency_p90", "s", "time that 90 % of the inferences keep"),
        _cost("latency_p95", "s", "time that 95 % of the inferences keep"),
        _cost("latency_p99", "s", "time that 99 % of the inferences keep"),
        _cost("latency_mean", "s", "mean time of one inference"),
        _cost("peak_memory", "bytes", "memory of loading and running, above the bare runtime"),
        _cost("peak_memory_process", "bytes", "memory of the whole process that loads and runs"),
        _speedup("speedup", "median time of the FP32 baseline divided by the artefact's"),
        _throughput("prompt_tokens_per_s", "tokens of a prompt read per second"),
        _throughput("generation_tokens_per_s", "tokens written per second, one after the other"),
        _cost("ttft", "s", "time to the first token: reading a prompt"),
        _cost("device_p50", "s", "median time of one inference on the target's own device (GPU)"),
        _cost("device_p90", "s", "time on the device that 90 % of the inferences keep"),
        _cost("device_p99", "s", "time on the device that 99 % of the inferences keep"),
        _cost("device_memory", "bytes", "memory of the device that loading and running takes"),
        _speedup("speedup_fp16", "median time of an FP16 engine on the device divided by the artefact's"),
        _speedup("speedup_fp32", "median time of an FP32 engine on the device divided by the artefact's"),
        _share("ane_share", "run on the Neural Engine"),
        _share("gpu_share", "run on the GPU"),
        _share("cpu_share", "run on the CPU", higher_is_better=False),
    )
}


def resource(
    name: str,
    value: float,
    baseline: float | None = None,
    *,
    interval: tuple[float, float] | None = None,
    detail: Mapping[str, Any] | None = None,
) -> Measurement:
    """The measurement of a cost, with the unit and direction of its entry; ``interval`` is of the value."""
    info = RESOURCES[name]
    return Measurement(
        name,
        value,
        baseline,
        info.unit,
        info.higher_is_better,
        interval=interval,
        detail=dict(detail or {}),
    )


# Only what writes text, see ``GeneratingRunner``.
GENERATION = ("prompt_tokens_per_s", "generation_tokens_per_s", "ttft")
# Only what has a device of its own, see ``DeviceRunner``.
DEVICE = frozenset(name for name in RESOURCES if name.startswith(("device_", "speedup_fp")))


def _quality(name: str) -> MetricInfo:
    metric = get_metric(name)
    what = (type(metric).__doc__ or name).partition("\n")[0].rstrip(".")
    return MetricInfo(
        name, cast(Unit, metric.unit), metric.higher_is_better, what, has_baseline=not metric.needs_baseline
    )


QUALITIES: dict[str, MetricInfo] = {name: _quality(name) for name in METRIC_NAMES}


def known_metrics() -> dict[str, MetricInfo]:
    """Every built-in metric by name: resources first, then qualities."""
    return {**RESOURCES, **QUALITIES}


def is_custom(name: str) -> bool:
    """Whether the name is a user's own metric, ``module:callable``."""
    module, colon, attribute = name.partition(":")
    return bool(colon) and all(part.isidentifier() for part in [*module.split("."), *attribute.split(".")])


def metric_info(name: str) -> MetricInfo | None:
    """What is known of a metric; None for a user's own one (``module:callable``) or one of a user's task.

    Raises:
        ConfigError: there is no such metric.
    """
    known = known_metrics()
    if name in known:
        return known[name]
    if is_custom(name):
        return None
    if is_task_metric(name):
        return _of_task(name)
    raise ConfigError(f"Unknown metric {name!r} in a budget.", fix=_did_you_mean(name, list(known)))


def _of_task(name: str) -> MetricInfo | None:
    """What is known of a metric of a task; None for one that only the task knows."""
    metric = own_name(name)
    if metric is None:
        raise ConfigError(f"{name!r} is no metric of a task.", fix="Write lm_eval/TASK/METRIC.")
    better = direction_of(metric)
    if better is None:
        return None
    return MetricInfo(name, cast(Unit, unit_of(metric)), better, f"{metric} of a task of lm-eval")


def _did_you_mean(name: str, known: list[str]) -> str:
    close = [metric for metric in known if metric.startswith(name.lower())]
    close = close or get_close_matches(name.lower(), known, n=3, cutoff=0.5)
    if close:
        return f"Did you mean {' or '.join(close)}?"
    return f"Known metrics: {', '.join(known)}, or your own as module:callable."
