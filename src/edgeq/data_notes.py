"""What users should know of the data that they gave: text that nothing reads, or that is judged on itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgeq.compiler.recipe import Recipe
from edgeq.compiler.weights.rules import CALIBRATED
from edgeq.compiler.weights.spec import OF_SCHEME
from edgeq.targets.capabilities import Capabilities

Described = Mapping[str, Any] | None


def reads_calibration(recipe: Recipe, capabilities: Capabilities) -> bool:
    """Whether the weights of a language model are made with the calibration text."""
    return recipe.weight_method in CALIBRATED or capabilities.learns_weights


def unread_note(recipe: Recipe, capabilities: Capabilities, calibration: Described) -> str | None:
    """That the calibration text has no part in the weights of a language model; None: it has, or is none."""
    if capabilities.weights is None or calibration is None or reads_calibration(recipe, capabilities):
        return None
    if recipe.scheme in ("fp32", "fp16"):
        return f"The calibration text has no part in the weights: {recipe.scheme} quantizes nothing."
    method = recipe.weight_method or "rounding to nearest"
    alone = recipe.scheme in OF_SCHEME
    methods = [name for name in capabilities.weights.methods if alone and name in CALIBRATED]
    others = f" (of the methods here, {' and '.join(methods)} learn from text)" if methods else ""
    return f"The calibration text has no part in the weights: {method} needs none{others}."


def same_text_note(
    recipe: Recipe, capabilities: Capabilities, calibration: Described, evaluation: Described
) -> str | None:
    """That a language model is judged on the text that its weights were fitted to."""
    if capabilities.weights is None or not same_text(calibration, evaluation):
        return None
    return SAME_TEXT if reads_calibration(recipe, capabilities) else None


def same_text(calibration: Described, evaluation: Described) -> bool:
    """Whether both have the same content, which callables do not tell."""
    if calibration is None or evaluation is None:
        return False
    return calibration["sha256"] is not None and calibration["sha256"] == evaluation["sha256"]


SAME_TEXT = (
    "The evaluation text is the calibration text: the weights were fitted to it, so the quality measured on "
    "it is better than on other text. Judge on text that calibration has not seen."
)
