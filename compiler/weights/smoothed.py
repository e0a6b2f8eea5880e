"""What is told of smoothing: in the plan, which fold with which strength; in the notes, how many."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from edgeq.compiler.plan import Plan
from edgeq.compiler.recipe import WeightMethod

# Layer → what its unit's record knows of it.
Told = Mapping[str, Mapping[str, Any]]


def with_smoothing(plan: Plan, told: Told) -> Plan:
    """``plan`` with what was smoothed among its reasons."""
    nodes = dict(plan.nodes)
    for name, known in told.items():
        strength = known.get("smoothing")
        if strength is not None and name in nodes:
            how = f"inputs smoothed in {known['smoothed_by']}, migration strength {strength:g}"
            reason = how if strength else f"smoothing in {known['smoothed_by']} would not help"
            nodes[name] = replace(nodes[name], reason=f"{nodes[name].reason}; {reason}")
    return replace(plan, nodes=nodes)


def smoothing_notes(told: Told, method: WeightMethod) -> Iterator[str]:
    """How many layers were smoothed, and why others were not."""
    if method != "smoothquant":
        return
    strengths = [known["smoothing"] for known in told.values() if "smoothing" in known]
    smoothed = [strength for strength in strengths if strength]
    alone = sum("smoothing" not in known and "fallback" not in known for known in told.values())
    parts = [f"the inputs of {len(smoothed)} of {len(told)} layers are smoothed"]
    if smoothed:
        parts[0] += f" (migration strength {min(smoothed):g} to {max(smoothed):g})"
    if len(smoothed) < len(strengths):
        parts.append(f"{len(strengths) - len(smoothed)} are best as they are")
    if alone:
        parts.append(f"before {alone} nothing can be divided")
    yield f"SmoothQuant: {'; '.join(parts)}."
