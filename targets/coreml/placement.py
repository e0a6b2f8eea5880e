"""Which compute unit Core ML prefers for each operation of a program, from its compute plan."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from edgeq.errors import TargetError

Unit = Literal["ane", "gpu", "cpu"]

UNITS: tuple[Unit, ...] = ("ane", "gpu", "cpu")

# Class of coremltools.models.compute_device → unit.
_DEVICES: Mapping[str, Unit] = {
    "MLNeuralEngineComputeDevice": "ane",
    "MLGPUComputeDevice": "gpu",
    "MLCPUComputeDevice": "cpu",
}


@dataclass(frozen=True)
class OperationPlacement:
    """One operation: MIL type, names of its outputs, the preferred unit and those that could run it.

    ``cost`` is its estimated share of the whole run (0 to 1), None where Core ML gives no estimate.
    """

    operator: str
    outputs: tuple[str, ...]
    unit: Unit
    supported: tuple[Unit, ...]
    cost: float | None


@dataclass(frozen=True)
class Placement:
    """All operations that run on a unit: constants and what is folded at load time run on none."""

    operations: tuple[OperationPlacement, ...]

    def shares(self) -> dict[str, float]:
        """``ane_share``, ``gpu_share`` and ``cpu_share``: percent of the operations."""
        return self._percent([1.0] * len(self.operations))

    def cost_shares(self) -> dict[str, float] | None:
        """The same in percent of the estimated cost; None when Core ML estimates none."""
        costs = [operation.cost or 0.0 for operation in self.operations]
        return self._percent(costs) if sum(costs) > 0 else None

    def _percent(self, weights: list[float]) -> dict[str, float]:
        sums = dict.fromkeys(UNITS, 0.0)
        for operation, weight in zip(self.operations, weights, strict=True):
            sums[operation.unit] += weight
        return {f"{unit}_share": 100 * amount / sum(weights) for unit, amount in sums.items()}


def read_plan(plan: Any) -> Placement:
    """The placement in a coremltools ``MLComputePlan``.

    Raises:
        TargetError: the plan is of no ML program, or says nothing about any of its operations.
    """
    program = plan.model_structure.program
    if program is None:
        raise TargetError("Core ML's compute plan is not one of an ML program.")
    found = [
        placed
        for function in program.functions.values()
        for operation in _operations(function.block)
        if (placed := _placed(plan, operation)) is not None
    ]
    if not found:
        raise TargetError("Core ML's compute plan does not say where any operation runs.")
    return Placement(tuple(found))


def _operations(block: Any) -> Iterator[Any]:
    """Operations of a block, those of loops and branches included."""
    for operation in block.operations:
        yield operation
        for nested in operation.blocks:
            yield from _operations(nested)


def _placed(plan: Any, operation: Any) -> OperationPlacement | None:
    usage = plan.get_compute_device_usage_for_mlprogram_operation(operation)
    if usage is None:
        return None
    cost = plan.get_estimated_cost_for_mlprogram_operation(operation)
    return OperationPlacement(
        operation.operator_name,
        tuple(output.name for output in operation.outputs),
        _unit(usage.preferred_compute_device),
        tuple(_unit(device) for device in usage.supported_compute_devices),
        None if cost is None else float(cost.weight),
    )


def _unit(device: Any) -> Unit:
    name = type(device).__name__
    if name not in _DEVICES:
        raise TargetError(f"Core ML's compute plan names the unknown compute device {name!r}.")
    return _DEVICES[name]
