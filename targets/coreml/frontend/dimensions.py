"""Sizes that a dimension of the package may have."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Dimension:
    """One dynamic dimension of the ONNX model, as the package shall have it.

    ``smallest`` to ``largest`` inclusive; ``choices`` lists the only sizes allowed (EnumeratedShapes).
    ``default`` is the size that Core ML prepares when it loads the package (None: the smallest).
    """

    smallest: int
    largest: int
    choices: tuple[int, ...] = ()
    default: int | None = None

    @property
    def fixed(self) -> int | None:
        """The size when there is only one."""
        return self.smallest if self.smallest == self.largest else None

    @property
    def initial(self) -> int:
        """The size that the package declares as its default."""
        return self.smallest if self.default is None else self.default
