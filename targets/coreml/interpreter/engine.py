"""Runs the program of a package with numpy."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Literal

import numpy as np

from edgeq.calibration.types import Array
from edgeq.errors import TargetError
from edgeq.targets.coreml.interpreter.border import give, take
from edgeq.targets.coreml.interpreter.half import round_half
from edgeq.targets.coreml.interpreter.plan import Plan
from edgeq.targets.coreml.interpreter.steps import Values, run_steps
from edgeq.targets.coreml.interpreter.structure import MilProgram

Arithmetic = Literal["declared", "float32"]


class Interpreter:
    """Computes what a package computes.

    ``declared`` rounds every floating result to the dtype that the program declares for it (float16 is kept
    in float32 arrays); ``float32`` does not round.
    """

    def __init__(self, program: MilProgram, *, arithmetic: Arithmetic = "declared") -> None:
        self._program = program
        rounds = arithmetic == "declared"
        self._plan = Plan(program.main, rounds=rounds)
        self._half = {r.name for r in program.main.inputs if rounds and r.type.dtype == "float16"}

    def run(self, inputs: Mapping[str, Array], watch: Collection[str] = ()) -> dict[str, Array]:
        """The outputs for ``inputs`` (the package's names), and the values that ``watch`` names.

        A classifier also gives the tensor of its probabilities, under its own name.

        Raises:
            TargetError: an input is missing, or its rank, size or dtype is not the package's.
        """
        plan = self._plan
        unknown = sorted(set(watch) - plan.slots.keys())
        if unknown:
            raise TargetError(f"The package computes no value {unknown[0]!r}.")
        with np.errstate(all="ignore"):
            values = plan.start()
            given = self._take(values, inputs)
            extra = {**plan.probabilities, **{name: plan.slots[name] for name in watch}}
            run_steps(plan.steps, values, frozenset(extra.values()))
        outputs = {f.name: give(f, values[plan.outputs[f.name]], given) for f in self._program.outputs}
        return {**{name: values[slot] for name, slot in extra.items()}, **outputs}

    def _take(self, values: Values, inputs: Mapping[str, Array]) -> list[Array]:
        taken = take(self._program.inputs, inputs)
        for name, array in taken.items():
            values[self._plan.inputs[name]] = round_half(array, [array]) if name in self._half else array
        return list(taken.values())
