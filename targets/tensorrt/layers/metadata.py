"""The ONNX nodes of a layer, as the compiler lists them."""

from __future__ import annotations

import re

_FIRST = "[ONNX Layer: "
# The compiler writes a separator between two nodes; text that was copied from a terminal may lack it.
_MARKED = re.compile(r"\][\x1e\x1f]\[ONNX Layer: ")
_BARE = re.compile(r"\]\[ONNX Layer: ")


def node_names(metadata: str) -> tuple[str, ...]:
    """The names in ``[ONNX Layer: a]␟[ONNX Layer: b]``, each once.

    Raises:
        ValueError: ``metadata`` is not of this form.
    """
    metadata = metadata.strip("\n")
    if not metadata:
        return ()
    if not metadata.startswith(_FIRST) or not metadata.endswith("]"):
        raise ValueError(f"{metadata!r} is no list of ONNX nodes")
    inner = metadata[len(_FIRST) : -1]
    separator = _MARKED if _MARKED.search(inner) else _BARE
    return tuple(dict.fromkeys(separator.split(inner)))
