"""Convolutions: Conv and ConvTranspose in one to three dimensions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeq.targets.coreml.frontend.node import OnnxNode, Var
from edgeq.targets.coreml.ops.tensors import scalar
from edgeq.targets.coreml.ops.window_pads import halves, pad_arguments
from edgeq.targets.coreml.toolkit import builder

if TYPE_CHECKING:
    from edgeq.targets.coreml.frontend.table import Handler

_AUTO_PADS = ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER")
_DYNAMIC_FIX = "Fix the spatial dimensions, or give the model explicit pads."
# From iOS 17 on MIL's conv takes a bias that is computed at run time.
_DYNAMIC_BIAS_SINCE = 17


@dataclass(frozen=True)
class _Window:
    """The kernel's extent and movement, one entry per spatial dimension."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]

    @property
    def extents(self) -> tuple[int, ...]:
        """Input elements that a kernel spans, dilation included."""
        return tuple((k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations, strict=True))


def conv(node: OnnxNode) -> Var:
    """Conv with every padding that is static, or does not depend on a dynamic size."""
    node.require_float(0, 1)
    window = _window(node)
    return _with_bias(
        node,
        builder().conv,
        x=node.input(0),
        weight=node.input(1),
        strides=window.strides,
        dilations=window.dilations,
        groups=node.attribute("group", 1),
        **pad_arguments(_conv_pads(node, window)),
    )


def _window(node: OnnxNode) -> _Window:
    if not 3 <= node.rank(0) <= 5 or node.rank(1) != node.rank(0):
        node.refuse(f"its input has rank {node.rank(0)}, and Core ML convolves in 1 to 3 dimensions")
    kernel = tuple(size for size in node.shape(1)[2:] if size is not None)
    spatial = node.rank(0) - 2
    if len(kernel) < spatial:
        node.refuse("the kernel has a dynamic size")
    if tuple(node.attribute("kernel_shape", kernel)) != kernel:
        node.refuse("kernel_shape differs from the shape of the weight")
    strides = tuple(node.attribute("strides", (1,) * spatial))
    dilations = tuple(node.attribute("dilations", (1,) * spatial))
    if len(strides) != spatial or len(dilations) != spatial:
        node.refuse("strides or dilations do not have one value per spatial dimension")
    return _Window(kernel, strides, dilations)


def _auto_pad(node: OnnxNode) -> str:
    mode = str(node.attribute("auto_pad", "NOTSET"))
    if mode not in _AUTO_PADS:
        node.refuse(f"auto_pad={mode!r} is unknown")
    return mode


def _explicit_pads(node: OnnxNode, spatial: int) -> list[tuple[int, int]]:
    pads = node.attribute("pads", [0] * (2 * spatial))
    if len(pads) != 2 * spatial or min(pads) < 0:
        node.refuse(f"pads={list(pads)} are negative or not two per spatial dimension")
    return list(zip(pads[:spatial], pads[spatial:], strict=True))


def _conv_pads(node: OnnxNode, window: _Window) -> list[tuple[int, int]]:
    """(before, after) of each spatial dimension; ``SAME`` keeps ceil(size / stride) outputs."""
    mode = _auto_pad(node)
    explicit = _explicit_pads(node, len(window.kernel))
    if mode == "NOTSET":
        return explicit
    if mode == "VALID":
        return [(0, 0)] * len(window.kernel)
    totals = []
    for size, stride, extent in zip(node.shape(0)[2:], window.strides, window.extents, strict=True):
        if size is None and stride != 1:
            node.refuse(f"auto_pad={mode} with stride {stride} depends on a dynamic size", _DYNAMIC_FIX)
        steps = 0 if size is None else (-(-size // stride) - 1) * stride - size + 1
        totals.append(max(0, steps + extent - 1))
    return [halves(total, upper=mode == "SAME_UPPER") for total in totals]


def _with_bias(node: OnnxNode, build: Any, **arguments: Any) -> Var:
    """The convolution with its bias; one that MIL does not take as parameter is added."""
    if not node.has_input(2):
        return build(**arguments)
    node.require_float(2)
    if node.constant(2) is not None or node.lowering.ios >= _DYNAMIC_BIAS_SINCE:
        return build(**arguments, bias=node.input(2))
    return _plus_bias(node, build(**arguments))


def _plus_bias(node: OnnxNode, result: Var) -> Var:
    axes = list(range(1, result.rank - 1))
    return builder().add(
        x=result, y=builder().expand_dims(x=node.input(2), axes=axes) if axes else node.input(2)
    )


def conv_transpose(node: OnnxNode) -> Var:
    """ConvTranspose; where the output is larger than the kernels reach, zeros (plus the bias) follow."""
    node.require_float(0, 1)
    window = _window(node)
    if node.lowering.ios < _DYNAMIC_BIAS_SINCE and not node.input(1).is_descendant_of_const:
        node.refuse("its weight is computed at run time, which iOS 17 and later take only")
    pads = _transposed_pads(node, window)
    missing = [max(0, -after) for _, after in pads]
    arguments = dict(
        x=node.input(0),
        weight=node.input(1),
        strides=window.strides,
        dilations=window.dilations,
        groups=node.attribute("group", 1),
        **pad_arguments([(before, max(0, after)) for before, after in pads]),
    )
    if not any(missing):
        return _with_bias(node, builder().conv_transpose, **arguments)
    short = builder().conv_transpose(**arguments)
    amounts = [0, 0, 0, 0] + [amount for count in missing for amount in (0, count)]
    padded = builder().pad(x=short, pad=np.array(amounts, np.int32), constant_val=scalar(short, 0.0))
    return _plus_bias(node, padded) if node.has_input(2) else padded


def _transposed_pads(node: OnnxNode, window: _Window) -> list[tuple[int, int]]:
    """What is cut from both sides of the full result; a negative amount after means zeros to be added.

    The formulas of ONNX ConvTranspose, ``output_padding`` taken off the end.
    """
    spatial = len(window.kernel)
    mode = _auto_pad(node)
    extra = tuple(node.attribute("output_padding", (0,) * spatial))
    wanted = node.attribute("output_shape")
    explicit = _explicit_pads(node, spatial)
    if len(extra) != spatial:
        node.refuse("output_padding does not have one value per spatial dimension")
    if wanted is None and mode == "NOTSET":
        return [(before, after - more) for (before, after), more in zip(explicit, extra, strict=True)]
    if wanted is None and mode == "VALID":
        return [(0, -more) for more in extra]
    return _pads_for_shape(node, window, extra, mode)


def _pads_for_shape(
    node: OnnxNode, window: _Window, extra: tuple[int, ...], mode: str
) -> list[tuple[int, int]]:
    wanted = node.attribute("output_shape")
    if wanted is not None:
        wanted = wanted[-len(window.kernel) :]  # some exporters write batch and channels too
    pads = []
    for axis, (stride, extent) in enumerate(zip(window.strides, window.extents, strict=True)):
        total = extent - stride + extra[axis]  # for input size * stride outputs
        if wanted is not None:
            size = node.shape(0)[2 + axis]
            if size is None:
                node.refuse("output_shape with a dynamic spatial size", _DYNAMIC_FIX)
            total += size * stride - wanted[axis]
        # up to one stride more than the kernels reach belongs to the same input size, as output_padding does
        if total < 0 and (wanted is None or total <= -stride):
            node.refuse("its output is asked to be larger than strides, kernel and output_padding make it")
        before, after = halves(max(0, total), upper=mode == "SAME_UPPER")
        pads.append((before, after - extra[axis] + min(0, total)))
    return pads


HANDLERS: dict[str, Handler] = {"Conv": conv, "ConvTranspose": conv_transpose}
