"""Sizes that a dynamic dimension of a model may have in an artefact, and how users write them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgeq.errors import ConfigError

if TYPE_CHECKING:
    from edgeq.calibration.types import TensorSpec
    from edgeq.compiler.model import Model


@dataclass(frozen=True)
class Dimension:
    """One dynamic dimension of the ONNX model, as the artefact shall have it.

    ``smallest`` to ``largest`` inclusive; ``choices`` lists the only sizes allowed.
    ``default`` is the size that the runtime prepares for (None: the smallest).
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
        """The size that is prepared."""
        return self.smallest if self.default is None else self.default


def parse_dimension(name: str, text: str) -> Dimension:
    """``1`` (fixed), ``1..128`` (range) or ``32,64,128`` (the only sizes); ``@64`` appended is the default.

    Raises:
        ConfigError: the text is none of these, or its sizes contradict each other.
    """
    sizes, marked, default_text = text.strip().partition("@")
    found = re.fullmatch(r"(\d+)\.\.(\d+)", sizes.strip())
    if found:
        smallest, largest = int(found[1]), int(found[2])
        choices: tuple[int, ...] = ()
    elif re.fullmatch(r"\d+(\s*,\s*\d+)*", sizes.strip()):
        choices = tuple(sorted({int(size) for size in sizes.split(",")}))
        smallest, largest = choices[0], choices[-1]
        choices = choices if len(choices) > 1 else ()
    else:
        raise _bad_dimension(name, text, "is no size")
    if smallest < 1 or smallest > largest:
        raise _bad_dimension(name, text, "is empty" if smallest > largest else "holds the size 0")
    default = None
    if marked:
        default = _default_size(name, text, default_text, choices or range(smallest, largest + 1))
    return Dimension(smallest, largest, choices, default)


def _default_size(name: str, text: str, default: str, allowed: range | tuple[int, ...]) -> int:
    if not default.strip().isdecimal() or int(default) not in allowed:
        raise _bad_dimension(name, text, f"has the default {default.strip()!r}, which is none of its sizes")
    return int(default)


def _bad_dimension(name: str, text: str, what: str) -> ConfigError:
    return ConfigError(
        f"The size {text!r} of the dimension {name!r} {what}.",
        fix="Write 1 (fixed), 1..128 (a range) or 32,64,128 (the only sizes), with @64 for another default.",
    )


def dynamic_dimensions(model: Model) -> dict[str, set[int]]:
    """Name of every dynamic dimension (``input:axis`` where it has none) → axes of inputs where it stands."""
    found: dict[str, set[int]] = {}
    for spec in model.inputs:
        for axis, name in dynamic_axes(spec):
            found.setdefault(name, set()).add(axis)
    return found


def dynamic_axes(spec: TensorSpec) -> Iterator[tuple[int, str]]:
    """Axis and name of every dynamic dimension of one input."""
    for axis, size in enumerate(spec.shape or ()):
        if not isinstance(size, int):
            yield axis, size or f"{spec.name}:{axis}"


def refuse_unknown(model: Model, given: Mapping[str, Dimension]) -> None:
    """Refuse sizes of dimensions that ``model`` does not have.

    Raises:
        ConfigError: naming those that it has.
    """
    found = dynamic_dimensions(model)
    unknown = sorted(set(given) - found.keys())
    if unknown:
        names = ", ".join(found) or "none"
        raise ConfigError(
            f"The model has no dynamic dimension {unknown[0]!r}.", fix=f"Its dynamic dimensions: {names}."
        )
