"""Which sizes of its inputs an exported program was made for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgeq.calibration.types import TensorSpec
from edgeq.errors import TargetError
from edgeq.targets.neural_compressor.settings import Port

if TYPE_CHECKING:
    from torch.export import ExportedProgram


class Dimensions:
    """The dynamic dimensions of ``program``: ``ranges`` has the smallest and the largest size of each.

    Dimensions that the program knows to be equal have one name.
    """

    def __init__(self, program: ExportedProgram) -> None:
        nodes = {node.name: node for node in program.graph.nodes if node.op == "placeholder"}
        self._shapes = [nodes[str(name)].meta["val"].shape for name in program.graph_signature.user_inputs]
        self._constraints = program.range_constraints
        self._names: dict[Any, str] = {}
        self.ranges: dict[str, tuple[int, int | None]] = {}

    def port(self, spec: TensorSpec, index: int) -> Port:
        """``spec``, the input ``index`` of the program, with the sizes of the program.

        Raises:
            TargetError: a size follows from another one by a formula.
        """
        shape = tuple(
            size if isinstance(size, int) else self._name(size, spec, axis)
            for axis, size in enumerate(self._shapes[index])
        )
        return Port(name=spec.name, dtype=spec.dtype.name, shape=shape)

    def _name(self, size: Any, spec: TensorSpec, axis: int) -> str:
        from torch.utils._sympy.numbers import int_oo

        symbol = size.node.expr
        if not symbol.is_Symbol:
            raise TargetError(
                f"Axis {axis} of the input {spec.name!r} must be {symbol}, which depends on another size.",
                fix="Export the program with that axis fixed, or take --target openvino.",
            )
        if symbol not in self._names:
            told = spec.shape[axis] if spec.shape else None
            name = told if isinstance(told, str) and told not in self.ranges else f"{spec.name}:{axis}"
            self._names[symbol] = name
            bounds = self._constraints[symbol]
            # torch.export assumes 2 of every size that is not to be a constant, and allows 1.
            smallest = 1 if bounds.lower <= 2 else int(bounds.lower)
            self.ranges[name] = (smallest, None if bounds.upper == int_oo else int(bounds.upper))
        return self._names[symbol]
