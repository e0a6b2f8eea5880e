"""Optimization profiles: which sizes of dynamic dimensions an engine takes, and which it is tuned for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product

from edgeq.calibration.types import Arrays
from edgeq.compiler.model import Model
from edgeq.errors import TargetError
from edgeq.targets.dimensions import Dimension, dynamic_axes, dynamic_dimensions, refuse_unknown
from edgeq.targets.tensorrt.backend.request import InputShapes

# Sizes of the batch where nobody says: made for single inferences, with room to gather some.
_BATCH = Dimension(1, 8)


@dataclass(frozen=True)
class _Sizes:
    """Sizes of one dimension within one profile."""

    min: int
    opt: int
    max: int


def make_profiles(
    model: Model, dimensions: Mapping[str, Dimension], samples: Iterable[Arrays]
) -> tuple[tuple[dict[str, InputShapes], ...], tuple[str, ...]]:
    """Profiles of all dynamic inputs, and notes on sizes that were chosen here; none for a static model.

    A range of ``dimensions`` is one profile, sizes that it lists are one profile each, with the preferred
    one first; several dimensions are combined. Where ``dimensions`` says nothing, the first axis of an input
    is the batch, and other sizes are those of ``samples`` (read only then).

    Raises:
        ConfigError: ``dimensions`` names one that the model has not.
        TargetError: nothing tells the size of a dimension.
    """
    _refuse_unranked(model)
    refuse_unknown(model, dimensions)
    found = dynamic_dimensions(model)
    open_names = [name for name in found if name not in dimensions]
    seen = _seen(model, samples) if open_names else {}
    derived = {name: _derive(name, 0 in found[name], seen.get(name, Counter())) for name in open_names}
    ways = [[derived[name]] if name in derived else _given(dimensions[name]) for name in found]
    profiles = tuple(
        dict(_shapes(model, dict(zip(found, way, strict=True)))) for way in product(*ways) if found
    )
    return profiles, tuple(_note(name, sizes, seen.get(name, Counter())) for name, sizes in derived.items())


def _given(dimension: Dimension) -> list[_Sizes]:
    """One entry per profile, the preferred one first: runtimes start with the first profile."""
    if not dimension.choices:
        return [_Sizes(dimension.smallest, dimension.initial, dimension.largest)]
    ordered = sorted(dimension.choices, key=lambda size: (size != dimension.initial, size))
    return [_Sizes(size, size, size) for size in ordered]


def _derive(name: str, batch: bool, seen: Counter[int]) -> _Sizes:
    if not batch and not seen:
        raise TargetError(
            f"Nothing tells which sizes the dynamic dimension {name!r} has.",
            fix=f"Set it, for example with --dimension {name}=1..128@64, or give calibration data.",
        )
    usual = min(seen, key=lambda size: (-seen[size], size), default=_BATCH.initial)
    if not batch:
        return _Sizes(min(seen), usual, max(seen))
    return _Sizes(min(_BATCH.smallest, *seen, usual), usual, max(_BATCH.largest, *seen, usual))


def _seen(model: Model, samples: Iterable[Arrays]) -> dict[str, Counter[int]]:
    """Name of every dynamic dimension → sizes in ``samples``, each sample counted once."""
    places = [(spec.name, list(dynamic_axes(spec))) for spec in model.inputs]
    seen: dict[str, Counter[int]] = {}
    for sample in samples:
        sizes = {(name, sample[given].shape[axis]) for given, axes in places for axis, name in axes}
        for name, size in sizes:
            seen.setdefault(name, Counter())[size] += 1
    return seen


def _shapes(model: Model, sizes: Mapping[str, _Sizes]) -> Iterator[tuple[str, InputShapes]]:
    for spec in model.inputs:
        dynamic = dict(dynamic_axes(spec))
        if dynamic:
            shape = [
                sizes[dynamic[axis]] if axis in dynamic else _fixed(size)
                for axis, size in enumerate(spec.shape or ())
            ]
            yield (
                spec.name,
                InputShapes(
                    min=tuple(size.min for size in shape),
                    opt=tuple(size.opt for size in shape),
                    max=tuple(size.max for size in shape),
                ),
            )


def _fixed(size: int | str | None) -> _Sizes:
    assert isinstance(size, int)
    return _Sizes(size, size, size)


def _refuse_unranked(model: Model) -> None:
    for spec in model.inputs:
        if spec.shape is None:
            raise TargetError(
                f"The input {spec.name!r} has no known number of dimensions, which an engine needs.",
                fix="Export the model with the shapes of its inputs.",
            )


def _note(name: str, sizes: _Sizes, seen: Counter[int]) -> str:
    if sizes.min == sizes.max:
        chosen = f"{name!r} is {sizes.max} alone"
    else:
        chosen = f"{name!r} is {sizes.min} to {sizes.max}, tuned for {sizes.opt}"
    all_seen = bool(seen) and (sizes.min, sizes.max) == (min(seen), max(seen))
    source = "as in the calibration data" if all_seen else "as nothing else was said"
    return f"The dynamic dimension {chosen}, {source}; set it with --dimension {name}=1..32@8."
