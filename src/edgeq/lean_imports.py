"""transformers without what it imports only because it is installed."""

from __future__ import annotations

import importlib
import sys
from typing import Any

_USER = "transformers.generation.candidate_generator"


def import_generation() -> None:
    """Import what all language models of transformers import, but not scikit-learn, which takes 130 MiB.

    transformers uses one function of it, in assisted generation, and finds that when it is called. Raises
    ImportError without transformers.
    """
    if _USER in sys.modules:
        return
    from transformers.utils import import_utils

    there = getattr(import_utils, "_sklearn_available", False)
    import_utils._sklearn_available = False
    try:
        user = importlib.import_module(_USER)
    finally:
        import_utils._sklearn_available = there
    if there:
        user.__dict__.setdefault("roc_curve", _roc_curve)


def _roc_curve(*args: Any, **kwargs: Any) -> Any:
    from sklearn.metrics import roc_curve

    return roc_curve(*args, **kwargs)
