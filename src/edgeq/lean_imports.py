"""transformers without what it imports only because it is installed."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class _Use:
    """``function`` of ``package`` that ``modules`` of transformers import where ``flag`` is true."""

    modules: tuple[str, ...]
    flag: str
    package: str
    function: str


# Losses of object detection, and assisted generation: together 160 MiB.
_USES = (
    _Use(
        tuple(
            f"transformers.loss.loss_{name}"
            for name in ("for_object_detection", "rt_detr", "deformable_detr", "grounding_dino")
        ),
        "_scipy_available",
        "scipy.optimize",
        "linear_sum_assignment",
    ),
    _Use(
        ("transformers.generation.candidate_generator",), "_sklearn_available", "sklearn.metrics", "roc_curve"
    ),
)


def import_transformers() -> None:
    """Import what all language models of transformers import, but not SciPy's and scikit-learn's parts.

    Each is one function, which is found when it is called. Raises ImportError without transformers.
    """
    for use in _USES:
        for module in use.modules:
            if module not in sys.modules:
                _import(module, use)


def _import(module: str, use: _Use) -> None:
    from transformers.utils import import_utils

    there = getattr(import_utils, use.flag, False)
    setattr(import_utils, use.flag, False)
    try:
        user = importlib.import_module(module)
    except ModuleNotFoundError as error:
        # Another release may have it elsewhere; it is then imported as a whole.
        if error.name != module:
            raise
        return
    finally:
        setattr(import_utils, use.flag, there)
    if there:
        user.__dict__.setdefault(use.function, _found_when_called(use))


def _found_when_called(use: _Use) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        return getattr(importlib.import_module(use.package), use.function)(*args, **kwargs)

    return call
