"""No network while lm-eval works: neither for data sets nor for metrics."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

_VARIABLES = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "HF_EVALUATE_OFFLINE", "TRANSFORMERS_OFFLINE")


@contextmanager
def offline() -> Iterator[None]:
    """Hugging Face's libraries do without the network inside; afterwards they are as before."""
    before = {name: os.environ.get(name) for name in _VARIABLES}
    os.environ.update(dict.fromkeys(_VARIABLES, "1"))
    # The libraries read their variables when they are imported, which may have been long ago.
    changed: list[tuple[ModuleType, str, Any]] = []
    try:
        for module, name in _switches():
            changed.append((module, name, getattr(module, name)))
            setattr(module, name, True)
        yield
    finally:
        for module, name, value in changed:
            setattr(module, name, value)
        for name, text in before.items():
            if text is None:
                os.environ.pop(name)
            else:
                os.environ[name] = text


def _switches() -> list[tuple[ModuleType, str]]:
    import datasets.config
    import huggingface_hub.constants

    wanted = [
        (huggingface_hub.constants, "HF_HUB_OFFLINE"),
        (datasets.config, "HF_HUB_OFFLINE"),
        (datasets.config, "HF_DATASETS_OFFLINE"),
    ]
    return [(module, name) for module, name in wanted if hasattr(module, name)]
