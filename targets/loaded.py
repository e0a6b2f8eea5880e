"""A model that is loaded until its runner is closed: what the runners of several targets share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Self

from edgeq.calibration.types import Array, Arrays, TensorSpec
from edgeq.targets.inputs import check_inputs, closed_runner


class LoadedRunner(ABC):
    """Arrays in, arrays out. Use :meth:`close` (or ``with``) to free the model's memory."""

    def __init__(self, model: Any, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> None:
        self._model = model
        self._inputs = list(inputs)
        self._outputs = list(outputs)

    @property
    def inputs(self) -> list[TensorSpec]:
        return list(self._inputs)

    @property
    def outputs(self) -> list[TensorSpec]:
        return list(self._outputs)

    def run(self, inputs: Arrays) -> dict[str, Array]:
        """All outputs by name.

        Raises:
            DataError: an input is missing, unknown, or has a dtype or shape that the model does not take.
            TargetError: the runner is closed, or the runtime fails.
        """
        if self._model is None:
            raise closed_runner()
        check_inputs(self._inputs, inputs)
        return self._run(inputs)

    @abstractmethod
    def _run(self, inputs: Arrays) -> dict[str, Array]:
        """The outputs of inputs that fit."""

    def close(self) -> None:
        self._model = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
