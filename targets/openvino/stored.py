"""Which layers of an IR read constants that the file holds in fewer than 32 bits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from edgeq.targets.openvino.names import originals
from edgeq.targets.openvino.session import read_model

# Layers that stand between a stored constant and the layer that computes with it.
_WIDENING = frozenset({"Convert", "Multiply", "Subtract", "Reshape", "Transpose", "Unsqueeze", "Squeeze"})
_FORMS = {"i4": "int4", "u4": "int4", "i8": "int8-weight", "u8": "int8-weight", "f16": "fp16-weight"}


class StoredWeights:
    """Layer name → the form of its weights in the file."""

    def __init__(self, path: Path) -> None:
        """Read the IR at ``path``; raises ModelError."""
        self._forms: dict[str, str] = {}
        for layer in read_model(path).get_ordered_ops():
            if layer.get_type_name() in _WIDENING:
                continue
            found = {form for source in _sources(layer) for form in _constants(source)}
            for name in originals(layer.get_friendly_name()) if found else ():
                self._forms[name] = next(form for form in _FORMS.values() if form in found)

    def form(self, names: Iterable[str]) -> str | None:
        """``int4``, ``int8-weight`` or ``fp16-weight``; None when the layer reads none of them."""
        return next((self._forms[name] for name in names if name in self._forms), None)


def _sources(layer: Any) -> Iterator[Any]:
    for port in layer.inputs():
        yield port.get_source_output().get_node()


def _constants(layer: Any) -> Iterator[str]:
    kind = layer.get_type_name()
    if kind == "Constant" and (form := _FORMS.get(layer.get_element_type().get_type_name())):
        yield form
    elif kind in _WIDENING:
        yield from _constants(next(_sources(layer)))
