"""One MIL operation with its arguments, as kernels get it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from edgeq.calibration.types import Array


@dataclass(frozen=True)
class TensorType:
    """Declared type of a MIL value: ``dtype`` in numpy's words (``float16``, ``int8``, ``uint4`` …).

    A dimension is None when it is only known at run time.
    """

    dtype: str
    shape: tuple[int | None, ...]


@dataclass(frozen=True)
class Call:
    """One operation.

    ``inputs``: MIL parameter name → value. Tensors are numpy arrays (rank-0 ones too); every floating tensor
    is float32, whatever the program declares (the engine rounds results to the declared dtype); strings are
    str; a parameter that takes several values (concat's ``values``) is a list of arrays. Parameters that the
    program leaves out are absent: :meth:`get` gives MIL's default. ``opset``: the iOS version, 15 to 18.
    """

    op_type: str
    name: str
    inputs: Mapping[str, Any]
    outputs: tuple[TensorType, ...]
    opset: int

    def __getitem__(self, parameter: str) -> Any:
        return self.inputs[parameter]

    def get(self, parameter: str, default: Any = None) -> Any:
        """The parameter's value, ``default`` when the program leaves it out."""
        return self.inputs.get(parameter, default)


# Returns the output, or a tuple of them.
Kernel = Callable[[Call], "Array | tuple[Array, ...]"]
