"""The PyTorch program that a model was exported from."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from edgeq.calibration.random_inputs import random_inputs
from edgeq.compiler.model import Model
from edgeq.errors import TargetError
from edgeq.progress import Progress, SilentProgress
from edgeq.quiet import quiet, reason

if TYPE_CHECKING:
    import torch
    from torch.export import ExportedProgram
    from torch.fx import GraphModule

# One kernel. Written as single operators, its products could be rounded, but PyTorch's compiler has no INT8
# kernel for products of two computed tensors: they would be computed in float all the same.
ATTENTION = "sdpa"
# The attribute that holds a traced folder's model.
WRAPPED = "edgeq_wrapped"
# Sizes of the inputs that a Hugging Face model is traced with; torch.export takes 1 for a constant.
_BATCH, _SEQUENCE = 2, 16


def refuse_onnx(model: Model) -> None:
    """Refuse a model that has no PyTorch program.

    Raises:
        TargetError: naming the target that takes ONNX models.
    """
    if model.program is not None or model.source.kind == "hf":
        return
    raise TargetError(
        f"Target 'neural-compressor' takes PyTorch models, and {model.source.location} is an ONNX model.",
        fix="Give a torch module (module:factory), a .pt2 or a Hugging Face folder; or --target openvino.",
    )


def capture(model: Model, progress: Progress | None = None) -> ExportedProgram:
    """The program of ``model``, whose inputs and outputs are those of its graph, in that order.

    A Hugging Face folder is traced with what its graph leaves dynamic being dynamic, as far as PyTorch can.

    Raises:
        TargetError: PyTorch cannot trace it.
        ModelError: the folder cannot be loaded any more.
    """
    refuse_onnx(model)
    if model.program is not None:
        return model.program
    with (progress or SilentProgress()).task("Tracing the PyTorch model"):
        return _trace_folder(model)


def flat_module(program: ExportedProgram, model: Model) -> GraphModule:
    """``program`` as a module that takes the tensors ``model.inputs`` and returns ``model.outputs``, a tuple.

    Raises:
        TargetError: the program takes or returns something else besides.
    """
    from torch.fx.graph import CodeGen

    with quiet():
        # Its checks of input shapes would be traced again, as part of the computation.
        module: GraphModule = program.module(check_guards=False)
    module.graph.set_codegen(CodeGen())
    # One of these wants keyword arguments where the program was traced with them.
    module._forward_pre_hooks.clear()
    taken = [node for node in module.graph.nodes if node.op == "placeholder"]
    returned = tuple(next(n for n in module.graph.nodes if n.op == "output").args[0])
    if len(taken) != len(model.inputs) or len(returned) != len(model.outputs):
        raise TargetError(
            f"The program of {model.source.location} takes {len(taken)} values and returns {len(returned)}, "
            f"its ONNX model {len(model.inputs)} and {len(model.outputs)}.",
            fix="Give a module that takes and returns tensors only, each of them used.",
        )
    module.recompile()
    return module


def dynamic_shapes(module: GraphModule) -> tuple[dict[int, Any], ...]:
    """For every input of ``module``: axis → ``Dim.AUTO`` of those that are not fixed."""
    import torch

    found = []
    for node in module.graph.nodes:
        if node.op == "placeholder":
            sizes = node.meta["val"].shape
            found.append(
                {axis: torch.export.Dim.AUTO for axis, size in enumerate(sizes) if not isinstance(size, int)}
            )
    return tuple(found)


def _trace_folder(model: Model) -> ExportedProgram:
    import torch

    from edgeq.compiler.load.hugging_face import float_module

    network = float_module(model.source, ATTENTION)
    names = [spec.name for spec in model.inputs]
    results = [spec.name for spec in model.outputs]
    example = _example(network, str(model.source.details["task"]), names)
    dims = tuple(_dynamic(spec.shape) for spec in model.inputs)
    try:
        with quiet(), torch.no_grad(), _broadcast_masks():
            return torch.export.export(
                _by_position(network, names, results), example, dynamic_shapes=(dims,), strict=False
            )
    except Exception as error:
        raise TargetError(
            f"PyTorch cannot trace the model in {model.source.location}: {reason(error)}.",
            fix="Take --target openvino or onnxruntime.",
        ) from error


@contextlib.contextmanager
def _broadcast_masks() -> Iterator[None]:
    """Let transformers compute attention masks by broadcasting.

    Its own are computed through ``torch.vmap``, and a program of that can neither be run nor stored.
    """
    from optimum.exporters.onnx.model_patcher import sdpa_mask_without_vmap
    from transformers import masking_utils

    # The object's own entry, before that of its class, which stays what it is.
    masks = masking_utils.ALL_MASK_ATTENTION_FUNCTIONS
    masks[ATTENTION] = sdpa_mask_without_vmap
    try:
        yield
    finally:
        del masks[ATTENTION]


def _by_position(network: torch.nn.Module, names: list[str], results: list[str]) -> torch.nn.Module:
    """``network`` with the inputs ``names`` and the outputs ``results`` by position."""
    import torch

    class ByPosition(torch.nn.Module):  # type: ignore[misc]  # torch is not followed
        def __init__(self) -> None:
            super().__init__()
            # named so that no user's module is: names of nodes leave it out
            setattr(self, WRAPPED, network)

        def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
            found = network(**dict(zip(names, tensors, strict=True)))
            return tuple(found[name] for name in results)

    return ByPosition().eval()


def _dynamic(shape: tuple[int | str | None, ...] | None) -> dict[int, Any]:
    import torch

    sizes = shape or ()
    return {axis: torch.export.Dim.AUTO for axis, size in enumerate(sizes) if not isinstance(size, int)}


def _example(network: Any, task: str, names: list[str]) -> tuple[torch.Tensor, ...]:
    """Inputs of the model as optimum makes them for its own export."""
    from optimum.exporters.tasks import TasksManager

    make = TasksManager.get_exporter_config_constructor(
        exporter="onnx", model=network, task=task, library_name="transformers"
    )
    config = make(network.config, task=task)
    with quiet():
        made = config.generate_dummy_inputs(framework="pt", batch_size=_BATCH, sequence_length=_SEQUENCE)
    return tuple(made[name] for name in names)


def example_of(program: ExportedProgram, model: Model) -> tuple[torch.Tensor, ...]:
    """Inputs that ``program`` can be traced with again: those of its first trace, else random ones."""
    import torch
    from torch.utils import _pytree as pytree

    if program.example_inputs is not None:
        found = tuple(t for t in pytree.tree_leaves(program.example_inputs) if isinstance(t, torch.Tensor))
        if len(found) == len(model.inputs):
            return found
    made = random_inputs(model.inputs, seed=0, batch=_BATCH)
    return tuple(torch.from_numpy(made[spec.name]) for spec in model.inputs)
