"""Turns a function into steps over numbered values: running it then costs microseconds per operation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from edgeq.errors import ModelError, TargetError
from edgeq.targets.coreml.interpreter.rounding import FLOATS, finisher, keeps_values
from edgeq.targets.coreml.interpreter.steps import (
    ClassifyStep,
    CondStep,
    KernelStep,
    LoopStep,
    Nested,
    Step,
    Values,
)
from edgeq.targets.coreml.interpreter.structure import Block, Function, Operation, Value
from edgeq.targets.coreml.interpreter.table import KERNELS

# Parameters that take several values; every other one takes a single value.
_LISTS = frozenset({"begins", "end_masks", "ends", "loop_vars", "ref_tensors", "values"})
# Operations that are more than a function of arrays.
_STEPS = frozenset({"classify", "cond", "while_loop"})
# Core ML runs no tensors of a higher rank; weights that are still compressed may have one.
_HIGHEST_RANK = 5

Scope = dict[str, int]


class Plan:
    """The steps of a function. Every value has a slot, a number; nested blocks share the slots."""

    def __init__(self, function: Function, *, rounds: bool) -> None:
        self._rounds = rounds
        self._opset = function.opset
        self._template: Values = []
        self._known: set[int] = set()  # slots that have their value before the program runs
        self._dtypes: dict[int, str] = {}
        self._constexprs: list[tuple[Operation, Scope, tuple[int, ...]]] = []
        self.slots: Scope = {}  # of all values, those of nested blocks included
        self.probabilities: Scope = {}  # the tensor that a classifier's output is made of
        scope = {result.name: self._slot(result.name, result.type.dtype) for result in function.inputs}
        self.inputs = dict(scope)
        self.steps = self._block(function.block, scope)
        self.outputs = {name: scope[name] for name in function.block.outputs}

    def start(self) -> Values:
        """All values before the first step; constexpr operations are computed by the first call."""
        for operation, scope, outputs in self._constexprs:
            self._kernel_step(operation, scope, outputs).run(self._template)
            for slot in outputs:
                self._template[slot].flags.writeable = False
        self._constexprs.clear()
        return self._template.copy()

    def _slot(self, name: str, dtype: str, value: Any = None) -> int:
        slot = len(self._template)
        self._template.append(value)
        self._dtypes[slot] = dtype
        self.slots[name] = slot
        return slot

    def _block(self, block: Block, scope: Scope) -> tuple[Step, ...]:
        steps: list[Step] = []
        last = _last_uses(block)
        for index, operation in enumerate(block.operations):
            step = self._operation(operation, scope)
            if step is not None:
                names = [name for name in last.get(index, ()) if scope[name] not in self._known]
                step.dead = tuple(scope[name] for name in names)
                steps.append(step)
        return tuple(steps)

    def _operation(self, operation: Operation, scope: Scope) -> Step | None:
        if operation.type == "const":
            self._const(operation, scope)
            return None
        if operation.type not in KERNELS and operation.type not in _STEPS:
            raise TargetError(
                f"The interpreter has no kernel for the operation {operation.name!r} ({operation.type}).",
            )
        nested = [self._nested(block, scope) for block in operation.blocks]
        outputs = tuple(self._slot(result.name, result.type.dtype) for result in operation.outputs)
        known = dict(scope) if nested else scope
        for result, slot in zip(operation.outputs, outputs, strict=True):
            scope[result.name] = slot
        if operation.type.startswith("constexpr_"):
            self._constexprs.append((operation, scope, outputs))
            self._known.update(outputs)
            return None
        self._check_ranks(operation)
        if operation.type == "classify":
            return self._classify_step(operation, scope, outputs)
        if nested:
            return self._control_step(operation, known, nested, outputs)
        return self._kernel_step(operation, scope, outputs)

    def _const(self, operation: Operation, scope: Scope) -> None:
        if "val" not in operation.attributes or len(operation.outputs) != 1:
            raise ModelError(f"The package is not valid: the constant {operation.name!r} has no value.")
        (result,) = operation.outputs
        scope[result.name] = self._slot(result.name, result.type.dtype, constant(operation.attributes["val"]))
        self._known.add(scope[result.name])

    def _nested(self, block: Block, outer: Scope) -> Nested:
        scope = dict(outer)
        inputs = tuple(self._slot(result.name, result.type.dtype) for result in block.inputs)
        scope.update({result.name: slot for result, slot in zip(block.inputs, inputs, strict=True)})
        steps = self._block(block, scope)
        return Nested(inputs, steps, tuple(scope[name] for name in block.outputs))

    def _check_ranks(self, operation: Operation) -> None:
        for result in operation.outputs:
            if len(result.type.shape) > _HIGHEST_RANK:
                raise TargetError(
                    f"The operation {operation.name!r} ({operation.type}) gives a tensor of rank "
                    f"{len(result.type.shape)}, and Core ML runs rank {_HIGHEST_RANK} at most."
                )

    def _classify_step(self, operation: Operation, scope: Scope, outputs: tuple[int, ...]) -> Step:
        (name,), (classes,) = operation.inputs["probabilities"], operation.inputs["classes"]
        if not isinstance(name, str) or isinstance(classes, str):
            raise ModelError(
                f"The package is not valid: {operation.name!r} (classify) classifies a constant."
            )
        self.probabilities[name] = scope[name]
        return ClassifyStep(scope[name], classes.decode(), outputs)

    def _control_step(
        self, operation: Operation, scope: Scope, nested: list[Nested], outputs: tuple[int, ...]
    ) -> Step:
        given = {key: [self._bound(v, scope) for v in values] for key, values in operation.inputs.items()}
        if operation.type == "cond":
            return CondStep(given["pred"][0], nested, outputs)
        return LoopStep(tuple(given["loop_vars"]), nested, outputs)

    def _bound(self, value: str | Value, scope: Scope) -> int:
        if isinstance(value, str):
            return scope[value]
        slot = self._slot("", value.type.dtype, constant(value))
        self._known.add(slot)
        return slot

    def _kernel_step(self, operation: Operation, scope: Scope, outputs: tuple[int, ...]) -> KernelStep:
        static: dict[str, Any] = {}
        singles: list[tuple[str, int]] = []
        lists: list[tuple[str, list[int | None], list[Any]]] = []
        for parameter, given in operation.inputs.items():
            several = parameter in _LISTS or len(given) != 1
            ready = [self._ready(value, scope) for value in given]
            if all(found for found, _ in ready):
                values = [value for _, value in ready]
                static[parameter] = values if several else values[0]
            elif several:
                slots = [scope[v] if isinstance(v, str) else None for v in given]
                lists.append((parameter, slots, [value for _, value in ready]))
            else:
                singles.append((parameter, scope[str(given[0])]))
        return KernelStep(
            operation,
            self._opset,
            KERNELS[operation.type],
            static,
            singles,
            lists,
            outputs,
            self._finishers(operation, scope),
        )

    def _ready(self, value: str | Value, scope: Scope) -> tuple[bool, Any]:
        """Whether the value is known already, and the value."""
        if isinstance(value, Value):
            return True, constant(value)
        found = self._template[scope[value]] if scope[value] in self._known else None
        return found is not None, found

    def _finishers(self, operation: Operation, scope: Scope) -> list[Any]:
        given = [v for values in operation.inputs.values() for v in values]
        dtypes = {v.type.dtype if isinstance(v, Value) else self._dtypes[scope[v]] for v in given}
        exact = keeps_values(operation.type) and not dtypes & (FLOATS - {"float16"})
        where = f"The operation {operation.name!r} ({operation.type})"
        return [finisher(r.type, where, rounds=self._rounds and not exact) for r in operation.outputs]


def constant(value: Value) -> Any:
    """A constant as kernels get it: floats as float32, arrays read-only."""
    found = value.decode()
    if not isinstance(found, np.ndarray):
        return found
    if found.dtype.kind == "f":
        found = found.astype(np.float32, copy=False)
    found.flags.writeable = False
    return found


def _last_uses(block: Block) -> Mapping[int, list[str]]:
    """Index of an operation → values of the block that nothing reads after it."""
    last: dict[str, int] = {}
    for index, operation in enumerate(block.operations):
        last.update({result.name: index for result in operation.outputs})
        last.update({name: index for name in _reads(operation) if name in last})
    result: dict[int, list[str]] = {}
    for name, index in last.items():
        if name not in block.outputs:
            result.setdefault(index, []).append(name)
    return result


def _reads(operation: Operation) -> set[str]:
    """Names that an operation or its nested blocks read."""
    names = {v for values in operation.inputs.values() for v in values if isinstance(v, str)}
    for block in operation.blocks:
        names.update(block.outputs)
        for nested in block.operations:
            names |= _reads(nested)
    return names
