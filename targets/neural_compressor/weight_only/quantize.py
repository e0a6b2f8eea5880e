"""RTN, GPTQ and AWQ through Neural Compressor's own API."""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from edgeq.calibration.types import DataSource
from edgeq.compiler.plan import Plan
from edgeq.compiler.recipe import Recipe
from edgeq.errors import DataError, EdgeqError, TargetError
from edgeq.progress import Progress
from edgeq.quiet import quiet, reason
from edgeq.targets.neural_compressor.options import Method
from edgeq.targets.neural_compressor.weight_only.absorb import absorbing_layers
from edgeq.targets.neural_compressor.weight_only.packing import BITS

if TYPE_CHECKING:
    import torch

# Methods that look at activations.
CALIBRATED = frozenset({"gptq", "awq"})


def refuse_unready(method: Method, calibration: DataSource | None) -> None:
    """Refuse what a method needs and does not have.

    Raises:
        DataError: calibration data.
        TargetError: a package that Neural Compressor imports for it.
    """
    if method in CALIBRATED and calibration is None:
        raise DataError(
            f"The method {method} needs calibration data and none was given.",
            fix="Give representative samples with --calibration, or take the method without data: "
            "-O method=rtn.",
        )
    if method == "gptq" and importlib.util.find_spec("accelerate") is None:
        raise TargetError(
            "Neural Compressor's GPTQ needs the package accelerate, which is not installed.",
            fix="Install it with: pip install 'edgeq[inc]'",
        )


def quantize_layers(
    module: torch.nn.Module,
    plan: Plan,
    recipe: Recipe,
    block: int,
    method: Method,
    calibration: DataSource | None,
    progress: Progress,
) -> torch.nn.Module:
    """``module`` (which is changed) with Neural Compressor's layers in place of those planned in INT4.

    Raises:
        DataError: the calibration data cannot be used.
        TargetError: Neural Compressor fails.
    """
    samples = samples_of(calibration, recipe) if method in CALIBRATED else []
    kept = float_layers(module, plan)
    with progress.task(f"Quantizing by {method.upper()}"):
        try:
            with quiet():
                from neural_compressor.torch.quantization import quantize

                absorbing = absorbing_layers(module, samples[0]) if method == "awq" else {}
                if method == "awq":
                    note_scales(absorbing, plan)
                config = config_of(plan, recipe, block, method, absorbing)
                found = quantize(
                    module, config, run_fn=calibrate_with(samples), example_inputs=example_of(samples)
                )
        except EdgeqError:
            raise
        except Exception as error:
            raise TargetError(
                f"Neural Compressor's {method.upper()} fails on the model: {reason(error)}.",
                fix="" if method == "rtn" else "Take -O method=rtn.",
            ) from error
    return put_back(found, kept)


def float_layers(module: torch.nn.Module, plan: Plan) -> dict[str, torch.nn.Module]:
    """Copies of the Linear layers that are planned in float."""
    return {
        node.name: copy.deepcopy(module.get_submodule(node.name))
        for node in plan.nodes.values()
        if node.op_type == "Linear" and node.precision != "int4"
    }


def put_back(module: torch.nn.Module, kept: Mapping[str, torch.nn.Module]) -> torch.nn.Module:
    """``module`` with the layers of ``kept`` that were quantized all the same: GPTQ reads no exceptions."""
    import torch

    for name, layer in kept.items():
        if not isinstance(module.get_submodule(name), torch.nn.Linear):
            parent, _, child = name.rpartition(".")
            setattr(module.get_submodule(parent), child, layer)
    return module


def note_scales(absorbing: Mapping[str, list[str]], plan: Plan) -> None:
    """Say which layers AWQ scales; without one it would be RTN.

    Raises:
        TargetError: there is none.
    """
    if not absorbing:
        raise TargetError(
            "AWQ finds no layer in the model's blocks whose scales the layer before it can take.",
            fix="Take -O method=gptq or rtn.",
        )
    pairs = "; ".join(f"{', '.join(readers)} (into {layer})" for layer, readers in absorbing.items())
    plan.notes.append(f"AWQ scales, in every block, the inputs of {pairs}; other layers are rounded by RTN.")


def samples_of(calibration: DataSource | None, recipe: Recipe) -> list[dict[str, Any]]:
    """Single samples as the keyword arguments of the model.

    Raises:
        DataError: there are none.
    """
    import torch

    batches = calibration.batches(1, recipe.calibration_samples) if calibration is not None else ()
    found = [
        {name: torch.from_numpy(array.copy()) for name, array in batch.inputs.items()} for batch in batches
    ]
    if not found:
        raise DataError("The calibration data is empty.", fix="Give at least one sample.")
    return found


def config_of(
    plan: Plan, recipe: Recipe, block: int, method: Method, absorbing: Mapping[str, list[str]]
) -> Any:
    """Neural Compressor's configuration: INT4 for the layers that ``plan`` has in it, float for others."""
    from neural_compressor.torch import quantization as inc

    options: dict[Method, dict[str, Any]] = {
        # the file read layer by layer is the folder's, which holds other names than the model
        "rtn": {"use_layer_wise": False},
        "gptq": {},
        "awq": {"folding": True, "absorb_layer_dict": dict(absorbing)},
    }
    own = options[method]
    kind = {"rtn": inc.RTNConfig, "gptq": inc.GPTQConfig, "awq": inc.AWQConfig}[method]
    common = {"bits": BITS, "group_size": block, "use_sym": recipe.symmetric_weights}
    config = kind(**common, **own)
    for node in plan.nodes.values():
        if node.op_type == "Linear" and node.precision != "int4":
            config.set_local(node.name, kind(dtype="fp32", **own))
    return config


def example_of(samples: list[dict[str, Any]]) -> Any:
    """What Neural Compressor traces; the first input tells it enough."""
    return next(iter(samples[0].values())) if samples else None


def calibrate_with(samples: list[dict[str, Any]]) -> Callable[..., None]:
    """What runs a prepared model over ``samples``."""

    def run(prepared: Any, *_: Any) -> None:
        import torch

        with torch.no_grad():
            for sample in samples:
                prepared(**sample)

    return run
