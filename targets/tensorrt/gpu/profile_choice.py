"""Which optimization profile of an engine takes given shapes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

from edgeq.errors import DataError
from edgeq.targets.tensorrt.backend.request import InputShapes, Shape

Profile = Mapping[str, InputShapes]


def choose_profile(profiles: Sequence[Profile], shapes: Mapping[str, Shape]) -> int:
    """The profile that ``shapes`` fit into, of several the one that is tuned for the nearest sizes.

    0 for an engine without profiles: all its shapes are fixed.

    Raises:
        DataError: no profile takes them.
    """
    if not profiles:
        return 0
    fitting = [i for i, profile in enumerate(profiles) if _misfit(profile, shapes) is None]
    if not fitting:
        raise _refused(profiles, shapes)
    return min(fitting, key=lambda i: _distance(profiles[i], shapes))


def _misfit(profile: Profile, shapes: Mapping[str, Shape]) -> str | None:
    """The first input that does not fit into the profile."""
    return next((name for name, allowed in profile.items() if not _fits(shapes[name], allowed)), None)


def _fits(shape: Shape, allowed: InputShapes) -> bool:
    return len(shape) == len(allowed.min) and all(
        low <= size <= high for low, size, high in zip(allowed.min, shape, allowed.max, strict=True)
    )


def _distance(profile: Profile, shapes: Mapping[str, Shape]) -> float:
    """How many times larger or smaller the inputs are than what the profile is tuned for."""
    sizes = [(prod(shapes[name]) + 1, prod(allowed.opt) + 1) for name, allowed in profile.items()]
    return prod(max(a, b) / min(a, b) for a, b in sizes)


def _refused(profiles: Sequence[Profile], shapes: Mapping[str, Shape]) -> DataError:
    name = _misfit(profiles[0], shapes) or ""
    ranges = " or ".join(f"{list(p[name].min)} to {list(p[name].max)}" for p in profiles)
    return DataError(
        f"The input {name!r} has the shape {list(shapes[name])}, and the engine was built for {ranges}.",
        fix="Give inputs within, or compile with a wider range: --dimension NAME=1..64@8.",
    )
