"""The ONNX nodes of a layer, as the compiler lists them."""

from __future__ import annotations

import re

_FIRST = "[ONNX Layer: "
# Names may hold brackets; the separators between two nodes are control characters. A convolution that became
# a product says so behind its name.
_NEXT = re.compile(r"\](?:__\w+)?[\x1e\x1f]\[ONNX Layer: ")
_LAST = re.compile(r"\](?:__\w+)?\Z")


def node_names(metadata: str) -> tuple[str, ...]:
    """The names in ``[ONNX Layer: a]␟[ONNX Layer: b]``, each once.

    Raises:
        ValueError: ``metadata`` is not of this form.
    """
    if not metadata:
        return ()
    last = _LAST.search(metadata)
    if not metadata.startswith(_FIRST) or last is None:
        raise ValueError(f"{metadata!r} is no list of ONNX nodes")
    return tuple(dict.fromkeys(_NEXT.split(metadata[len(_FIRST) : last.start()])))
