"""What a plan is made of: one step per operation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from edgeq.calibration.types import Array
from edgeq.errors import EdgeqError, TargetError
from edgeq.targets.coreml.interpreter.call import Call, Kernel
from edgeq.targets.coreml.interpreter.rounding import Finish
from edgeq.targets.coreml.interpreter.structure import Operation

Values = list[Any]  # slot → value, None before it is computed and after its last use


class Step(Protocol):
    """One operation; ``dead`` are the slots that nothing reads after it."""

    dead: tuple[int, ...]

    def run(self, values: Values, kept: frozenset[int] = frozenset()) -> None:
        """Compute the outputs; nested steps free their dead values except ``kept``."""


def run_steps(steps: Sequence[Step], values: Values, kept: frozenset[int]) -> None:
    """Run the steps in their order, freeing values after their last use."""
    for step in steps:
        step.run(values, kept)
        for slot in step.dead:
            if slot not in kept:
                values[slot] = None


class KernelStep:
    """An operation that a kernel computes."""

    dead: tuple[int, ...] = ()

    def __init__(
        self,
        operation: Operation,
        opset: int,
        kernel: Kernel,
        static: dict[str, Any],
        singles: list[tuple[str, int]],
        lists: list[tuple[str, list[int | None], list[Any]]],
        outputs: tuple[int, ...],
        finishers: list[Finish],
    ) -> None:
        """``static``: arguments known already; ``lists``: parameter, slots, values where no slot is."""
        self._type, self._name, self._opset = operation.type, operation.name, opset
        self._kernel, self._static, self._singles, self._lists = kernel, static, singles, lists
        self._types = tuple(result.type for result in operation.outputs)
        self._finish = list(zip(outputs, finishers, strict=True))

    def run(self, values: Values, kept: frozenset[int] = frozenset()) -> None:
        """Compute the outputs."""
        inputs = self._static.copy()
        shared: list[Array] = []
        for parameter, slot in self._singles:
            inputs[parameter] = value = values[slot]
            shared.append(value)
        for parameter, slots, known in self._lists:
            items = [k if s is None else values[s] for s, k in zip(slots, known, strict=True)]
            inputs[parameter] = items
            shared += items
        results = self._compute(Call(self._type, self._name, inputs, self._types, self._opset))
        for (slot, finish), result in zip(self._finish, results, strict=True):
            values[slot] = finish(result, shared)

    def _compute(self, call: Call) -> tuple[Array, ...]:
        try:
            results = self._kernel(call)
        except EdgeqError:
            raise
        except Exception as error:  # numpy raises whatever it likes on arguments that do not fit
            text = " ".join(str(error).split()) or type(error).__name__
            raise TargetError(
                f"The operation {self._name!r} ({self._type}) cannot be computed: {text}."
            ) from error
        if type(results) is not tuple:
            return (results,)  # type: ignore[return-value]
        if len(results) < len(self._finish):
            raise TargetError(f"The operation {self._name!r} ({self._type}) gives {len(results)} outputs.")
        return results[: len(self._finish)]


@dataclass(frozen=True)
class Nested:
    """A block inside an operation."""

    inputs: tuple[int, ...]
    steps: tuple[Step, ...]
    outputs: tuple[int, ...]

    def run(self, values: Values, given: Sequence[Any], kept: frozenset[int]) -> list[Any]:
        """The block's outputs for ``given`` inputs."""
        for slot, value in zip(self.inputs, given, strict=True):
            values[slot] = value
        run_steps(self.steps, values, kept)
        return [values[slot] for slot in self.outputs]


class CondStep:
    """MIL ``cond``: one of two blocks."""

    dead: tuple[int, ...] = ()

    def __init__(self, pred: int, blocks: Sequence[Nested], outputs: tuple[int, ...]) -> None:
        self._pred, self._blocks, self._outputs = pred, blocks, outputs

    def run(self, values: Values, kept: frozenset[int] = frozenset()) -> None:
        """Compute the outputs."""
        block = self._blocks[0 if bool(values[self._pred]) else 1]
        for slot, value in zip(self._outputs, block.run(values, (), kept), strict=True):
            values[slot] = value


class LoopStep:
    """MIL ``while_loop``: a block that says whether to go on, and a block that computes the next values."""

    dead: tuple[int, ...] = ()

    def __init__(
        self, loop_vars: tuple[int, ...], blocks: Sequence[Nested], outputs: tuple[int, ...]
    ) -> None:
        self._loop_vars, self._blocks, self._outputs = loop_vars, blocks, outputs

    def run(self, values: Values, kept: frozenset[int] = frozenset()) -> None:
        """Compute the outputs."""
        test, body = self._blocks
        current = [values[slot] for slot in self._loop_vars]
        while bool(np.all(test.run(values, current, kept)[0])):
            current = body.run(values, current, kept)
        for slot, value in zip(self._outputs, current, strict=True):
            values[slot] = value


class ClassifyStep:
    """MIL ``classify``: the label of the highest probability, and all probabilities in the labels' order."""

    dead: tuple[int, ...] = ()

    def __init__(self, probabilities: int, classes: Sequence[Any], outputs: tuple[int, ...]) -> None:
        self._probabilities, self._classes, self._outputs = probabilities, classes, outputs

    def run(self, values: Values, kept: frozenset[int] = frozenset()) -> None:
        """Compute the outputs."""
        flat = values[self._probabilities].reshape(-1)
        label, probabilities = self._outputs
        values[label] = np.asarray(self._classes[int(flat.argmax())])
        values[probabilities] = flat
