"""RTN, GPTQ and AWQ through Neural Compressor's own API."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from edgeq.calibration.types import DataSource
from edgeq.compiler.load.quiet import quiet, reason
from edgeq.compiler.plan import Plan
from edgeq.compiler.recipe import Recipe
from edgeq.errors import DataError, EdgeqError, TargetError
from edgeq.progress import Progress
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
    samples = list(_samples(calibration, recipe.calibration_samples)) if method in CALIBRATED else []
    with progress.task(f"Quantizing by {method.upper()}"):
        try:
            with quiet():
                absorbing = absorbing_layers(module, samples[0]) if method == "awq" else {}
                if method == "awq":
                    _note_scales(absorbing, plan)
                config = _config(plan, recipe, block, method, absorbing)
                return _METHODS[method](module, config, samples)
        except EdgeqError:
            raise
        except Exception as error:
            raise TargetError(
                f"Neural Compressor's {method.upper()} fails on the model: {reason(error)}.",
                fix="" if method == "rtn" else "Take -O method=rtn.",
            ) from error


def _note_scales(absorbing: Mapping[str, list[str]], plan: Plan) -> None:
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


def _samples(calibration: DataSource | None, limit: int) -> Iterator[dict[str, Any]]:
    """Single samples as the keyword arguments of the model."""
    import torch

    found = False
    for batch in calibration.batches(1, limit) if calibration is not None else ():
        found = True
        yield {name: torch.from_numpy(array.copy()) for name, array in batch.inputs.items()}
    if not found:
        raise DataError("The calibration data is empty.", fix="Give at least one sample.")


def _config(
    plan: Plan, recipe: Recipe, block: int, method: Method, absorbing: Mapping[str, list[str]]
) -> Any:
    from neural_compressor.torch import quantization as inc

    own: dict[str, Any] = {
        # the file read layer by layer is the folder's, which holds other names than the model
        "rtn": {"use_layer_wise": False},
        "gptq": {},
        "awq": {"folding": True, "absorb_layer_dict": dict(absorbing)},
    }[method]
    kind = {"rtn": inc.RTNConfig, "gptq": inc.GPTQConfig, "awq": inc.AWQConfig}[method]
    common = {"bits": BITS, "group_size": block, "use_sym": recipe.symmetric_weights}
    config = kind(**common, **own)
    for node in plan.nodes.values():
        if node.op_type == "Linear" and node.precision != "int4":
            config.set_local(node.name, kind(dtype="fp32", **own))
    return config


def _rtn(module: torch.nn.Module, config: Any, samples: list[Mapping[str, Any]]) -> torch.nn.Module:
    from neural_compressor.torch.quantization import convert, prepare

    quantized: torch.nn.Module = convert(prepare(module, config))
    return quantized


def _gptq(module: torch.nn.Module, config: Any, samples: list[Mapping[str, Any]]) -> torch.nn.Module:
    from neural_compressor.torch.quantization import convert, prepare

    prepared = prepare(module, config)
    _runner_of(samples)(prepared)
    quantized: torch.nn.Module = convert(prepared)
    return quantized


def _awq(module: torch.nn.Module, config: Any, samples: list[Mapping[str, Any]]) -> torch.nn.Module:
    from neural_compressor.torch.quantization import quantize

    # traced to find which layer makes the input of which: the first input tells that
    example = next(iter(samples[0].values()))
    quantized: torch.nn.Module = quantize(module, config, run_fn=_runner_of(samples), example_inputs=example)
    return quantized


def _runner_of(samples: list[Mapping[str, Any]]) -> Callable[..., None]:
    def run(prepared: Any, *_: Any) -> None:
        import torch

        with torch.no_grad():
            for sample in samples:
                prepared(**sample)

    return run


_METHODS: Mapping[str, Callable[[Any, Any, Any], Any]] = {"rtn": _rtn, "gptq": _gptq, "awq": _awq}
