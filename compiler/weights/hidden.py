"""Hidden states between decoder layers, in files: memory grows neither with depth nor with the data."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgeq.calibration.types import DataSource
from edgeq.compiler.weights.spec import Floats
from edgeq.errors import DataError

# Tokens that run through a layer at a time.
TOKENS_AT_ONCE = 2048

Ids = npt.NDArray[np.int64]


def token_batches(source: DataSource, windows: int) -> list[Ids]:
    """The first ``windows`` samples as batches [windows, tokens] of about :data:`TOKENS_AT_ONCE` tokens.

    Raises:
        DataError: the data has no ``input_ids``, or no sample.
    """
    batches: list[Ids] = []
    held: list[Ids] = []
    for batch in source.batches(1, windows):
        ids = np.asarray(batch.inputs["input_ids"], np.int64)
        if held and (ids.shape[1] != held[0].shape[1] or (len(held) + 1) * ids.shape[1] > TOKENS_AT_ONCE):
            batches.append(np.concatenate(held))
            held = []
        held.append(ids)
    if not held:
        raise DataError("The calibration data holds no sample.", fix="Give more text.")
    return [*batches, np.concatenate(held)]


@dataclass(frozen=True)
class HiddenStates:
    """float32 [windows, tokens, width] of every batch, one after the other in the file ``path``."""

    path: Path
    shapes: tuple[tuple[int, int], ...]
    width: int

    @property
    def complete(self) -> bool:
        """Whether the file is there and whole."""
        values = sum(windows * tokens for windows, tokens in self.shapes) * self.width
        return self.path.is_file() and self.path.stat().st_size == 4 * values

    def write(self, batches: Iterable[Floats]) -> None:
        """Write all batches; the file is there when the last one is written."""
        scratch = self.path.with_suffix(".partial")
        with scratch.open("wb") as file:
            for batch in batches:
                file.write(np.ascontiguousarray(batch, np.float32).data)
        scratch.replace(self.path)

    def __iter__(self) -> Iterator[Floats]:
        # Read, not mapped: mapped pages would count as this process's memory.
        with self.path.open("rb") as file:
            for windows, tokens in self.shapes:
                flat = np.fromfile(file, np.float32, windows * tokens * self.width)
                yield flat.reshape(windows, tokens, self.width)

    def remove(self) -> None:
        """Delete the file."""
        self.path.unlink(missing_ok=True)
