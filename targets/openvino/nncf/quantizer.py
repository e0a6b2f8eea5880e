"""NNCF in place of edgeq's own methods: a float model and a recipe in, QDQ ONNX and its plan out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib.metadata import version
from typing import Any

import onnx_ir as ir

from edgeq.compiler.model import Model
from edgeq.compiler.node_names import name_nodes
from edgeq.compiler.overrides import check_precisions, resolve_overrides
from edgeq.compiler.quantize.dispatch import Request, check_recipe, missing_calibration
from edgeq.compiler.quantize.result import Quantized
from edgeq.compiler.quantize.rewriter import drop_unused
from edgeq.compiler.quantize.stored_weights import MISREAD, is_misread
from edgeq.errors import EdgeqError, TargetError
from edgeq.quiet import reason
from edgeq.targets.base import Quantizer
from edgeq.targets.openvino.nncf.library import silent_nncf
from edgeq.targets.openvino.nncf.parameters import is_transformer, static_arguments, weight_arguments
from edgeq.targets.openvino.nncf.plan import Wishes, static_plan, weight_plan
from edgeq.targets.openvino.nncf.samples import Singles
from edgeq.targets.openvino.options import OpenVINOOptions

# NNCF works on one protobuf message, which ends there.
_PROTOBUF_BYTES = 2_000_000_000
_Run = Callable[[Any], Any]


def nncf_quantizer(options: OpenVINOOptions) -> Quantizer:
    """What quantizes a request by NNCF.

    It raises UsageError (an override that does not fit), DataError (calibration data that is missing or
    cannot be used) and TargetError (NNCF fails on the model).
    """

    def run(request: Request) -> Quantized:
        check_recipe(request.recipe, request.capabilities)
        return _HANDLERS[request.recipe.scheme](request, options)

    return run


def _static(request: Request, options: OpenVINOOptions) -> Quantized:
    if request.calibration is None:
        raise missing_calibration(request.recipe.scheme)
    model, wishes = _named(request, ("fp32", "int8"))
    samples = Singles(model, request.calibration, request.recipe.calibration_samples)
    excluded = [name for name, (precision, _) in wishes.items() if precision == "fp32"]

    def run(nncf: Any) -> Any:
        return nncf.quantize(
            _proto(model),
            nncf.Dataset(samples),
            subset_size=len(samples),
            **static_arguments(nncf, request.recipe, options, model.ir.graph, excluded),
        )

    quantized = _quantized(request, model, run)
    kind = ", as a transformer" if is_transformer(options, model.ir.graph) else ""
    return Quantized(quantized, static_plan(model.ir, quantized.ir, wishes), notes=(_note(kind),))


def _weights(request: Request, options: OpenVINOOptions) -> Quantized:
    model, wishes = _named(request, ("fp32",))
    misread = {node.name or "" for node in model.ir.graph if is_misread(node)}

    def run(nncf: Any) -> Any:
        excluded = {*wishes, *misread}
        return nncf.compress_weights(_proto(model), **weight_arguments(nncf, request.recipe, excluded))

    quantized = _quantized(request, model, run)
    plan = weight_plan(model.ir, quantized.ir, wishes)
    for name in misread - wishes.keys():
        plan.nodes[name].reason = MISREAD
    return Quantized(quantized, plan, notes=(_note(),))


def _note(kind: str = "") -> str:
    return f"Quantized by NNCF {version('nncf')}{kind}."


_HANDLERS: Mapping[str, Callable[[Request, OpenVINOOptions], Quantized]] = {
    "int8-static": _static,
    "int8-weight": _weights,
    "int4-weight": _weights,
}


def _named(request: Request, allowed: tuple[Any, ...]) -> tuple[Model, Wishes]:
    """A copy of the model whose nodes have names, and what the recipe's overrides wish for them."""
    model = request.model.without_metadata()
    name_nodes(model.ir)
    wishes = resolve_overrides(model.ir.graph.all_nodes(), request.recipe.overrides)
    check_precisions(wishes, f"{request.recipe.scheme!r} by NNCF", allowed)
    return model, wishes


def _proto(model: Model) -> Any:
    """The protobuf message of ``model``; raises TargetError when it would be too large."""
    weights = [value.const_value for value in model.ir.graph.initializers.values()]
    size = sum(weight.nbytes for weight in weights if weight is not None)
    if size > _PROTOBUF_BYTES:
        raise TargetError(
            f"NNCF takes ONNX models of at most 2 GB, and this one has {size / 1e9:.1f} GB of weights.",
            fix="Take edgeq's own quantizer (-O quantizer=edgeq).",
        )
    return ir.to_proto(model.ir)


def _quantized(request: Request, model: Model, run: _Run) -> Model:
    with request.progress.task("Quantizing with NNCF"):
        try:
            with silent_nncf() as nncf:
                made = run(nncf)
        except EdgeqError:
            raise
        except Exception as error:  # NNCF's, ONNX Runtime's and numpy's own exceptions
            raise TargetError(
                f"NNCF cannot quantize the model: {reason(error)}.",
                fix="Take -O correction=fast where it was full, exclude the node that it names (--exclude), "
                "or take edgeq's own quantizer (-O quantizer=edgeq).",
            ) from error
    quantized = replace(model, ir=ir.from_proto(made))
    _flatten_scales(quantized.ir)
    drop_unused(quantized.ir)
    return quantized


def _flatten_scales(model: ir.Model) -> None:
    """Scales per channel as the vectors that ONNX wants, in place: NNCF keeps ones of kernels' axes."""
    for node in model.graph:
        if node.op_type != "DequantizeLinear" or "axis" not in node.attributes:
            continue
        if node.attributes.get_int("block_size", 0):
            continue
        for value in node.inputs[1:]:
            if value is not None and value.const_value is not None and len(value.const_value.shape) > 1:
                flat = value.const_value.numpy().reshape(-1)
                value.const_value, value.shape = ir.tensor(flat, name=value.name), ir.Shape(flat.shape)
