"""PyTorch to ONNX through ``torch.export`` and ``torch.onnx.export(dynamo=True)``."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from edgeq.compiler.load.clean import name_outputs, plain_tensors, rename_dim, strip_metadata
from edgeq.compiler.load.digest import graph_sha256
from edgeq.compiler.model import Model, Source
from edgeq.errors import ModelError
from edgeq.progress import Progress
from edgeq.quiet import quiet, reason

if TYPE_CHECKING:
    import torch
    from torch.export import ExportedProgram

# High enough for LayerNormalization and Gelu as operators of their own; normalizing raises it further.
OPSET = 20
BATCH = "batch"


def export_module(
    module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], name: str, progress: Progress
) -> Model:
    """Export ``module`` in eval mode with the first dimension of its inputs dynamic, named ``batch``.

    A dimension is the batch when it is the first of an input and equal to the first input's. When PyTorch
    cannot export it dynamically, it stays fixed at the example's size: noted, and kept in the details.

    Raises:
        ModelError: PyTorch cannot export the module, with what PyTorch said.
    """
    with progress.task(f"Exporting {name}"), _eval_mode(module):
        try:
            program = _capture(module, *_at_least_two(args, kwargs), dynamic=True)
            graph = to_onnx(program)
        except Exception as error:  # noqa: BLE001 - torch raises many types; the fixed export decides
            why = reason(error)
        else:
            return to_model(graph, program, name, progress)
        try:
            program = _capture(module, args, kwargs, dynamic=False)
            graph = to_onnx(program)
        except Exception as error:
            raise ModelError(f"{name} cannot be exported to ONNX: {reason(error)}.") from error
    return to_model(graph, program, name, progress, why=why)


def to_onnx(program: ExportedProgram) -> ir.Model:
    """Convert an exported program. The graph is cleaned of everything that depends on this machine."""
    import torch

    with quiet():
        converted = torch.onnx.export(program, dynamo=True, opset_version=OPSET, verbose=False)
    if converted is None:
        raise RuntimeError("torch.onnx.export returned nothing")
    graph: ir.Model = converted.model
    plain_tensors(graph)
    strip_metadata(graph)
    name_outputs(graph, _output_names(program))
    _name_batch(graph)
    return graph


def to_model(
    graph: ir.Model, program: ExportedProgram, location: str, progress: Progress, why: str | None = None
) -> Model:
    """Wrap an exported graph; say so when its batch is fixed, and ``why`` when that is known."""
    import torch

    fixed = fixed_batch(graph)
    details: dict[str, Any] = {
        "opset": graph.opset_imports[""],
        "exporter": f"torch.onnx dynamo {torch.__version__}",
        "batch": "dynamic" if fixed is None else fixed,
    }
    if fixed is not None:
        because = f", because a dynamic one cannot be exported: {why}" if why else ""
        details["batch_reason"] = why or "the program was exported with a fixed batch"
        progress.note(f"{location}: the batch is fixed at {fixed}{because}.")
    return Model(graph, Source("torch", location, graph_sha256(graph), details), program)


def fixed_batch(graph: ir.Model) -> int | str | None:
    """The fixed batch of the first input, ``"none"`` when it is a scalar, None when the batch is dynamic."""
    shapes = [value.shape for value in graph.graph.inputs if value.shape is not None and len(value.shape)]
    if any(not isinstance(shape[0], int) for shape in shapes):
        return None
    return int(shapes[0][0]) if shapes else "none"  # type: ignore[arg-type]


def _capture(
    module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], *, dynamic: bool
) -> ExportedProgram:
    import torch

    shapes = None
    if dynamic:
        collection = torch.export.ShapesCollection()
        for tensor in _batched(args, kwargs):
            collection[tensor] = {0: torch.export.Dim(BATCH)}
        shapes = collection.dynamic_shapes(module, args, kwargs)
    with quiet(), torch.no_grad():
        return torch.export.export(module, args, kwargs, dynamic_shapes=shapes, strict=False)


def _batched(args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[torch.Tensor]:
    """The inputs whose first dimension is the batch: as large as the first one's."""
    import torch
    from torch.utils import _pytree as pytree

    tensors = [t for t in pytree.tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor) and t.ndim]
    return [t for t in tensors if t.shape[0] == tensors[0].shape[0]]


def _at_least_two(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The same inputs with a batch of two when it is one: torch.export takes a size of one for a constant."""
    import torch
    from torch.utils import _pytree as pytree

    batched = {id(t) for t in _batched(args, kwargs) if t.shape[0] == 1}

    def widen(leaf: Any) -> Any:
        return torch.cat([leaf, leaf]) if id(leaf) in batched else leaf

    wide: tuple[tuple[Any, ...], dict[str, Any]] = pytree.tree_map(widen, (args, kwargs))
    return wide


@contextlib.contextmanager
def _eval_mode(module: torch.nn.Module) -> Iterator[None]:
    training = [part for part in module.modules() if part.training]
    module.eval()
    try:
        yield
    finally:
        for part in training:
            part.training = True


def _name_batch(graph: ir.Model) -> None:
    """Call the symbol of the first dimension ``batch`` when all inputs agree on one."""
    firsts = {str(v.shape[0]) for v in graph.graph.inputs if v.shape and not isinstance(v.shape[0], int)}
    if len(firsts) == 1:
        rename_dim(graph, firsts.pop(), BATCH)


def _output_names(program: ExportedProgram) -> list[str]:
    """``output``, or ``output_0`` …, or a dict's keys: what the user's code calls the results."""
    from torch.utils import _pytree as pytree

    spec = program.call_spec.out_spec
    if spec is None:
        return []
    paths = pytree.tree_flatten_with_path(pytree.tree_unflatten(range(spec.num_leaves), spec))[0]
    return ["_".join(_key(part) for part in path) or "output" for path, _ in paths]


def _key(part: Any) -> str:
    for field in ("key", "name"):
        if hasattr(part, field):
            return str(getattr(part, field))
    return f"output_{part.idx}" if hasattr(part, "idx") else "output"
