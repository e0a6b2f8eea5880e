"""What a recipe asks of language models' weights against what the format has, before any work."""

from __future__ import annotations

from edgeq.compiler.recipe import Recipe
from edgeq.compiler.weights.spec import BITS, OF_SCHEME, PER_CHANNEL
from edgeq.errors import DataError, TargetError, UsageError
from edgeq.targets.capabilities import Capabilities, WeightRules

# Methods that learn from text.
CALIBRATED = frozenset({"gptq", "awq", "smoothquant"})
_NO_CHECKPOINT = ": it compiles a graph, not the checkpoint of a language model"


def check_weights(recipe: Recipe, capabilities: Capabilities) -> None:
    """Refuse what the format cannot store, and options that would do nothing.

    Raises:
        TargetError: a method, group size or kind of zero points that the format does not have.
        UsageError: an option that has no effect on this target or with this method.
    """
    if recipe.scheme == "int8-dynamic" or not capabilities.learns_weights:
        _refuse_samples(recipe, capabilities.target)
    if capabilities.weights is None:
        _check_graph(recipe, capabilities)
        return
    _check_unread(recipe)
    if recipe.scheme in OF_SCHEME or recipe.scheme == "int8-dynamic":
        _check_method(recipe, capabilities.weights, capabilities.target)
    if recipe.scheme in OF_SCHEME:
        _check_stored(recipe, capabilities.weights, capabilities.target)


def missing_for_method(method: str, *, text: bool) -> DataError:
    """The error for a method that learns from a graph's data or from ``text`` and is given none."""
    what, such = ("text", "text") if text else ("data", "samples")
    forms = "" if text else " (a folder of images, .npz, text, …)"
    return DataError(
        f"The method {method!r} needs calibration {what} and none was given.",
        fix=f"Give representative {such} with --calibration{forms}, or choose the method rtn, "
        "which needs none.",
    )


def refuse_unjudged(recipe: Recipe, *, data: bool) -> None:
    """Refuse integer arithmetic that nothing can judge; ``data``: whether any was given.

    Raises:
        DataError: accuracy level 4 without data.
    """
    if recipe.accuracy_level == 4 and not data:
        raise DataError(
            "Accuracy level 4 is judged against level 0, which needs data, and none was given.",
            fix="Give it with --calibration or --evaluation.",
        )


def _refuse_samples(recipe: Recipe, target: str) -> None:
    """A number of samples where the weights are rounded without any."""
    unread = recipe.scheme in OF_SCHEME or recipe.scheme == "int8-dynamic"
    default = Recipe(scheme=recipe.scheme).calibration_samples
    if not unread or recipe.weight_method in CALIBRATED or recipe.calibration_samples == default:
        return
    raise UsageError(
        f"The option calibration_samples = {recipe.calibration_samples} has no effect on target {target!r} "
        f"with scheme {recipe.scheme!r}: weights are rounded to nearest.",
        fix="Leave it out; methods that learn from data read it, such as gptq.",
    )


def _check_graph(recipe: Recipe, capabilities: Capabilities) -> None:
    """What targets of graphs know of methods."""
    methods = capabilities.graph_methods.get(recipe.scheme)
    if methods is None:
        _refuse_graph_options(recipe, capabilities)
        return
    if recipe.weight_method not in (None, *methods):
        raise TargetError(
            f"Target {capabilities.target!r} does not round the weights of a graph by the method "
            f"{recipe.weight_method!r}.",
            fix=f"It takes: {', '.join(methods)}. The others are of targets that store the checkpoints of "
            "language models, such as onnxruntime-genai.",
        )
    _check_unread(recipe)
    _refuse_per_channel(recipe, capabilities.target)


def _refuse_graph_options(recipe: Recipe, capabilities: Capabilities) -> None:
    """Options of methods where weights have none."""
    target, defaults = capabilities.target, Recipe(scheme=recipe.scheme)
    others = ", ".join(capabilities.graph_methods)
    why = f" with scheme {recipe.scheme!r}: only {others} reads it" if others else _NO_CHECKPOINT
    for name in ("weight_method", "damping", "act_order"):
        value = getattr(recipe, name)
        if value != getattr(defaults, name):
            raise UsageError(
                f"The option {name} = {value} has no effect on target {target!r}{why}.", fix="Leave it out."
            )
    _refuse_per_channel(recipe, target)


def _refuse_per_channel(recipe: Recipe, target: str) -> None:
    if recipe.block_size == PER_CHANNEL:
        raise TargetError(
            f"Target {target!r} has no weights with one scale per output channel in blocks.",
            fix="Give another block size, or leave it out.",
        )


def _check_unread(recipe: Recipe) -> None:
    """What only one method reads."""
    if recipe.weight_method == "gptq":
        return
    defaults = Recipe(scheme=recipe.scheme)
    for name in ("damping", "act_order"):
        value = getattr(recipe, name)
        if value != getattr(defaults, name):
            raise UsageError(
                f"The option {name} = {value} has no effect with method {recipe.weight_method or 'rtn'!r}.",
                fix="Set the method to gptq, or leave it out.",
            )


def _check_method(recipe: Recipe, rules: WeightRules, target: str) -> None:
    methods = rules.integer_methods if recipe.scheme == "int8-dynamic" else rules.methods
    if recipe.weight_method in (None, *methods):
        return
    others = recipe.weight_method in (*rules.methods, *rules.integer_methods)
    scheme = f" with scheme {recipe.scheme!r}" if others else ""
    raise TargetError(
        f"Target {target!r} does not take weights of the method {recipe.weight_method!r}{scheme}.",
        fix=f"It takes: {', '.join(methods)}.",
    )


def _check_stored(recipe: Recipe, rules: WeightRules, target: str) -> None:
    if recipe.block_size not in (None, *rules.group_sizes):
        sizes = ", ".join(
            "-1 (per output channel)" if s == PER_CHANNEL else str(s) for s in rules.group_sizes
        )
        raise TargetError(
            f"Target {target!r} does not store weights in groups of {_group(recipe.block_size)}.",
            fix=f"It has: {sizes}.",
        )
    if recipe.scheme != "nf4-weight":
        _check_zero_points(recipe, rules, target)


def _group(size: int | None) -> str:
    return "whole output channels" if size == PER_CHANNEL else str(size)


def _check_zero_points(recipe: Recipe, rules: WeightRules, target: str) -> None:
    bits = BITS[OF_SCHEME[recipe.scheme]]
    stored = (True,) if bits in rules.always_symmetric else rules.symmetric
    if recipe.symmetric_weights in stored:
        return
    asked, other = ("asymmetric", "symmetric") if True in stored else ("symmetric", "asymmetric")
    raise TargetError(
        f"Target {target!r} does not store {asked} weights of {bits} bits.",
        fix=f"Choose {other} ones: symmetric_weights = {str(True in stored).lower()}.",
    )
