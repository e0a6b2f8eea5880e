"""The activation that a configuration names, where transformers would raise its bare name."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path
from typing import Any

from edgeq.errors import ModelError
from edgeq.quiet import quiet

_FIELDS = ("hidden_act", "hidden_activation", "activation_function")


def refuse_unknown_activation(folder: Path, config: Any) -> None:
    """Refuse a configuration of transformers with an activation that it does not have.

    Raises:
        ModelError: naming the field, and activations of a similar name.
    """
    with quiet():
        from transformers.activations import ACT2FN
    for field in _FIELDS:
        named = getattr(config, field, None)
        if named is None or (isinstance(named, str) and named in ACT2FN):
            continue
        close = get_close_matches(str(named), ACT2FN, n=3) or ["silu", "gelu", "relu"]
        raise ModelError(
            f"{folder / 'config.json'}: {field} is {named!r}, which is no activation of transformers.",
            fix=f"Correct it ({', '.join(close)}, …), or download the model again.",
        )
