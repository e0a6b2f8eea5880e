"""Which GPUs a scheme needs: the smallest compute capability whose kernels read its numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from edgeq.errors import TargetError

# Found by building: TensorRT refuses FP8 on 8.6 and INT4 on 7.5.
_SMALLEST: Mapping[str, tuple[int, str]] = {"fp8-static": (89, "FP8 E4M3"), "int4-weight": (80, "INT4")}


def refuse_older(scheme: str, sm: Sequence[int]) -> None:
    """Refuse ``scheme`` where an engine would be built for a GPU without such kernels (``sm``: 86 = 8.6).

    Raises:
        TargetError: naming the compute capability, and those that would do.
    """
    if scheme not in _SMALLEST:
        return
    smallest, numbers = _SMALLEST[scheme]
    older = [number for number in sm if number < smallest]
    if not older:
        return
    newer = [number for number in sm if number >= smallest] or [smallest]
    raise TargetError(
        f"The scheme {scheme!r} needs compute capability {_written(smallest)} or newer for {numbers}; the "
        f"engine is for {', '.join(map(_written, older))} too.",
        fix=f"Build it for newer GPUs alone: --sm {','.join(map(str, newer))}, or choose another scheme.",
    )


def _written(sm: int) -> str:
    return f"{sm // 10}.{sm % 10}"
