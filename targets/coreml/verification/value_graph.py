"""A written program as graph: who computes a value, who reads it, where it comes from."""

from __future__ import annotations

from edgeq.targets.coreml.interpreter.structure import MilProgram, Operation

# Values pass these with their rounding: nothing is computed, or only what is rounded again afterwards.
MOVES = frozenset(
    {
        "cast", "concat", "expand_dims", "identity", "max_pool", "reshape", "slice_by_index", "slice_by_size",
        "split", "squeeze", "stack", "tile", "transpose",
    }
)  # fmt: skip


class ValueGraph:
    """The main function as graph: who computes a value, who reads it."""

    def __init__(self, program: MilProgram) -> None:
        self.operations = list(program.main.block.walk())
        self._producers = {result.name: o for o in self.operations for result in o.outputs}
        self._dtypes = {r.name: r.type.dtype for o in self.operations for r in o.outputs}
        self._readers: dict[str, list[Operation]] = {}
        for operation in self.operations:
            for name in self.inputs(operation):
                self._readers.setdefault(name, []).append(operation)

    def producer(self, name: str) -> Operation | None:
        """The operation that computes ``name``; None for an input of the program."""
        return self._producers.get(name)

    def producers(self, operation: Operation) -> list[Operation]:
        """The operations that compute what ``operation`` reads."""
        found = (self.producer(name) for name in self.inputs(operation))
        return [o for o in found if o is not None]

    def readers(self, name: str) -> list[Operation]:
        """The operations that read ``name``."""
        return self._readers.get(name, [])

    def inputs(self, operation: Operation, parameters: tuple[str, ...] = ()) -> list[str]:
        """Names of the tensors that it reads as ``parameters`` (any), pads and strides and such left out."""
        return [
            name
            for parameter, bound in operation.inputs.items()
            if not parameters or parameter in parameters
            for name in bound
            if isinstance(name, str) and not self._is_parameter(name)
        ]

    def dtype(self, name: str) -> str | None:
        """The declared dtype of ``name``; None for an input of the program."""
        return self._dtypes.get(name)

    def source(self, name: str) -> Operation | None:
        """The operation that computes ``name``, before it is moved."""
        operation = self.producer(name)
        while operation is not None and operation.type in MOVES and len(self.producers(operation)) == 1:
            operation = self.producers(operation)[0]
        return operation

    def is_constant(self, name: str) -> bool:
        """Whether ``name`` is a constant, moved at most."""
        operation = self.source(name)
        return operation is not None and is_constant(operation)

    def _is_parameter(self, name: str) -> bool:
        operation = self.producer(name)
        return operation is not None and operation.type == "const" and not operation.attributes["val"].blob


def is_constant(operation: Operation) -> bool:
    """Whether the operation is a constant, stored as it is or compressed."""
    return operation.type == "const" or operation.type.startswith("constexpr_")
