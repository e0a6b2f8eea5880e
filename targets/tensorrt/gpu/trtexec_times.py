"""What ``trtexec`` and ``tensorrt_rtx`` say about time: exported JSON, or the printed summary."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from edgeq.errors import TargetError

_PERCENTILES = (50, 90, 99)
# ``GPU Compute Time: min = 5.3 ms, ..., median = 7.1 ms, percentile(90%) = 10.2 ms``, on one line or several.
_ROW = re.compile(
    r"(?P<name>[A-Z][\w ]+): min = [^:]*?median = (?P<median>[\d.e+-]+) ms(?P<more>[^:]*)", re.DOTALL
)
_PERCENTILE = re.compile(r"percentile\((\d+)(?:\.0+)?%\) = ([\d.e+-]+) ms")
_LOG_PREFIX = re.compile(r"^(?:\[[^\]]*\] ?)+", re.MULTILINE)
_QUERIES = re.compile(r"Timing trace has (\d+) queries")


@dataclass(frozen=True)
class ToolTimes:
    """Seconds by percentile (``p50``, ``p90``, ``p99``): on the GPU alone, and with the copies.

    ``inferences`` is None where the tool did not say how many there were.
    """

    compute: Mapping[str, float]
    latency: Mapping[str, float]
    inferences: int | None


class _Inference(BaseModel):
    """One entry of ``--exportTimes``, in milliseconds; the others are begins and ends of its steps."""

    model_config = ConfigDict(extra="ignore")

    compute: float = Field(alias="computeMs")
    latency: float = Field(alias="latencyMs")


def read_times(path: Path) -> ToolTimes:
    """The file that ``--exportTimes`` writes: one entry for each inference after the warm-up.

    Raises:
        TargetError: it is not there, empty, or something else.
    """
    try:
        entries = TypeAdapter(list[_Inference]).validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise TargetError(f"{path.name} is no export of times ({type(error).__name__}).") from error
    if not entries:
        raise TargetError(f"{path.name} holds no inference.")
    return ToolTimes(
        _percentiles([entry.compute for entry in entries]),
        _percentiles([entry.latency for entry in entries]),
        len(entries),
    )


def read_summary(output: str) -> ToolTimes:
    """The printed performance summary.

    Raises:
        TargetError: the output has none.
    """
    plain = _LOG_PREFIX.sub("", output)
    _, _, summary = plain.partition("=== Performance summary ===")
    rows = {found["name"].strip(): _row(found) for found in _ROW.finditer(summary)}
    if not {"GPU Compute Time", "Latency"} <= set(rows):
        raise TargetError("The output holds no performance summary.")
    queries = _QUERIES.search(plain)
    return ToolTimes(rows["GPU Compute Time"], rows["Latency"], None if queries is None else int(queries[1]))


def _row(found: re.Match[str]) -> dict[str, float]:
    """The median as ``p50``, and those of our percentiles that are there."""
    given = {int(percent): float(value) for percent, value in _PERCENTILE.findall(found["more"])}
    milliseconds = {50: float(found["median"]), **given}
    return {f"p{p}": milliseconds[p] / 1000 for p in _PERCENTILES if p in milliseconds}


def _percentiles(milliseconds: list[float]) -> dict[str, float]:
    return {f"p{p}": float(np.percentile(milliseconds, p)) / 1000 for p in _PERCENTILES}
