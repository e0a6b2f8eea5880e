"""Intel Neural Compressor's PT2E flow: prepare with observers, convert to a graph of roundings."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from edgeq.errors import TargetError
from edgeq.quiet import quiet, reason
from edgeq.targets.neural_compressor.annotate import name_sources

if TYPE_CHECKING:
    from torch.fx import GraphModule


def require_quietly() -> None:
    """Import Neural Compressor without what it and torchao say about themselves."""
    with quiet():
        import neural_compressor.torch.quantization  # noqa: F401
        import torchao.quantization.pt2e.quantizer.x86_inductor_quantizer  # noqa: F401


def require_methods_quietly() -> None:
    """Import Neural Compressor's methods for weights, without the folder that this leaves behind."""
    require_quietly()
    with quiet(), _workspace_aside():
        import neural_compressor.torch.algorithms.layer_wise  # noqa: F401


@contextlib.contextmanager
def _workspace_aside() -> Iterator[None]:
    """What reads a model layer by layer makes a folder in the current one when it is imported."""
    from neural_compressor.common import options

    # Reading the public attribute would make the folder.
    before = options._workspace
    with TemporaryDirectory(prefix="edgeq-inc-") as folder:
        options.workspace = folder
        try:
            yield
        finally:
            options.workspace = before


def prepare(module: GraphModule, config: Any) -> GraphModule:
    """``module`` with Neural Compressor's observers, placed by its X86InductorQuantizer.

    Nodes that are annotated already stay as they are.

    Raises:
        TargetError: Neural Compressor fails.
    """
    from neural_compressor.torch.quantization import prepare as prepare_inc

    # What Neural Compressor's own export leaves on a module, and its flow asks for.
    name_sources(module.graph)
    module._exported = True
    module.dynamic_shapes = None
    with _alone("annotate"):
        prepared: GraphModule = prepare_inc(module, config)
    return prepared


def convert(prepared: GraphModule) -> GraphModule:
    """The graph with a rounding in place of every observer, weights stored as integers.

    Raises:
        TargetError: Neural Compressor fails.
    """
    from neural_compressor.torch.quantization import convert as convert_inc
    from torchao.quantization.pt2e.constant_fold import constant_fold
    from torchao.quantization.pt2e.quantize_pt2e import _quant_node_constraint

    with _alone("convert"):
        converted: GraphModule = convert_inc(prepared)
        # Neural Compressor leaves the weights in float, which makes a graph of the float model's size.
        constant_fold(converted, _quant_node_constraint)
    return converted


@contextlib.contextmanager
def _alone(step: str) -> Iterator[None]:
    """Silent, without gradients; the class attribute that INC sets for its dynamic flow is put back."""
    import torch
    from neural_compressor.torch.algorithms.pt2e_quant.core import W8A8PT2EQuantizer

    before = W8A8PT2EQuantizer.is_dynamic
    try:
        with quiet(), torch.no_grad():
            yield
    except Exception as error:
        raise TargetError(f"Neural Compressor cannot {step} the program: {reason(error)}.") from error
    finally:
        W8A8PT2EQuantizer.is_dynamic = before
