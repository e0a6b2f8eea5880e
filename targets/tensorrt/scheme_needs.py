"""Which GPUs a scheme needs: the smallest compute capability whose kernels read its numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from edgeq.errors import TargetError
from edgeq.targets.tensorrt.architectures import FIRST, written

_NUMBERS: Mapping[str, str] = {"fp8-static": "FP8", "int4-weight": "INT4"}


def refuse_older(scheme: str, sm: Sequence[int]) -> None:
    """Refuse ``scheme`` where an engine would be built for a GPU without such kernels (``sm``: 86 = 8.6).

    Raises:
        TargetError: naming the compute capability, and those that would do.
    """
    if scheme not in _NUMBERS:
        return
    numbers = _NUMBERS[scheme]
    smallest = FIRST[numbers]
    older = [number for number in sm if number < smallest]
    if not older:
        return
    newer = [number for number in sm if number >= smallest] or [smallest]
    raise TargetError(
        f"The scheme {scheme!r} needs compute capability {written(smallest)} or newer for {numbers}; the "
        f"engine is for {', '.join(map(written, older))} too.",
        fix=f"Build it for newer GPUs alone: --sm {','.join(map(str, newer))}, or choose another scheme.",
    )
