"""Windows of the ONNX pooling ops, one per spatial axis."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgeq.calibration.types import Array
from edgeq.targets.coreml.frontend.limits import MAX_RANK
from edgeq.targets.coreml.frontend.node import OnnxNode
from edgeq.targets.coreml.ops.window_pads import halves


@dataclass(frozen=True)
class Window:
    """How one spatial axis is pooled.

    ``before`` and ``after`` are the ONNX pads; ``extra`` is what ``ceil_mode`` adds behind them, which no
    average ever counts. ``size`` is None for an axis that is only known at run time.
    """

    size: int | None
    kernel: int
    stride: int
    dilation: int
    before: int
    after: int
    extra: int = 0

    @property
    def reach(self) -> int:
        """Positions from the first to the last tap, both included."""
        return (self.kernel - 1) * self.dilation + 1

    @property
    def padded(self) -> bool:
        """Whether ONNX pads the axis."""
        return bool(self.before or self.after)

    def taps(self, size: int) -> Array:
        """Input position of each tap of each window, [output, kernel]; padding lies outside [0, size)."""
        free = self.before + size + self.after + self.extra - self.reach
        starts = np.arange(free // self.stride + 1) * self.stride - self.before
        return starts[:, None] + np.arange(self.kernel) * self.dilation

    def counts(self, size: int, *, padding: bool) -> Array:
        """Elements that the average of each window counts, with or without ONNX's pads."""
        taps = self.taps(size)
        first, end = (-self.before, size + self.after) if padding else (0, size)
        counts: Array = ((taps >= first) & (taps < end)).sum(axis=1)
        return counts


def windows(node: OnnxNode) -> list[Window]:
    """The windows of a pooling node, one per spatial axis; refused where ONNX Runtime leaves ONNX."""
    rank = node.rank(0)
    if not 3 <= rank <= MAX_RANK:
        node.refuse(f"its input has rank {rank}, and MIL pools ranks 3 to {MAX_RANK}")
    spatial = rank - 2
    kernels = node.attribute("kernel_shape")
    strides = node.attribute("strides") or [1] * spatial
    dilations = node.attribute("dilations") or [1] * spatial
    sizes = node.shape(0)[2:]
    plain = [
        Window(size, kernel, stride, dilation, 0, 0)
        for size, kernel, stride, dilation in zip(sizes, kernels, strides, dilations, strict=True)
    ]
    ceil = bool(node.attribute("ceil_mode", 0))
    mode = node.attribute("auto_pad", "NOTSET")
    return [_padded(node, window, axis, mode, ceil) for axis, window in enumerate(plain)]


def _padded(node: OnnxNode, window: Window, axis: int, mode: str, ceil: bool) -> Window:
    pads = node.attribute("pads") or [0] * (2 * (node.rank(0) - 2))
    if mode in ("SAME_UPPER", "SAME_LOWER"):
        return _same(node, window, mode)
    if mode == "NOTSET":
        window = _with_pads(window, pads[axis], pads[axis + len(pads) // 2])
    if not all(0 <= pad < window.kernel for pad in (window.before, window.after)):
        node.refuse("its pads are not smaller than its kernel")
    if window.size is not None and window.size + window.before + window.after < window.reach:
        node.refuse("its kernel is larger than its padded input")
    if not ceil:
        return window
    window = _with_pads(window, window.before, window.after, _ceil_extra(node, window))
    if mode == "VALID" and window.extra:
        node.refuse(
            "auto_pad=VALID with ceil_mode=1 (ONNX and ONNX Runtime disagree on its size)",
            "Use pads instead of auto_pad.",
        )
    return window


def _with_pads(window: Window, before: int, after: int, extra: int = 0) -> Window:
    return Window(window.size, window.kernel, window.stride, window.dilation, before, after, extra)


def _same(node: OnnxNode, window: Window, mode: str) -> Window:
    """auto_pad=SAME_*: output = ceil(size / stride); where ONNX Runtime agrees with that."""
    if window.dilation != 1:
        node.refuse(f"auto_pad={mode} with dilations", "Use pads instead of auto_pad.")
    if window.size is None:
        node.refuse(
            f"auto_pad={mode} on a dynamic axis", "Use pads instead of auto_pad, or fix the input's size."
        )
    total = ((window.size - 1) // window.stride) * window.stride + window.kernel - window.size
    if total < 0:
        node.refuse(f"auto_pad={mode} with strides larger than the kernel (it would crop)")
    return _with_pads(window, *halves(total, upper=mode == "SAME_UPPER"))


def _ceil_extra(node: OnnxNode, window: Window) -> int:
    """Padding behind the pads that makes floor count what ceil counts.

    Windows that would start in the padding behind the input are left out (ONNX opset 22, ONNX Runtime).
    """
    reach, stride, size = window.reach, window.stride, window.size
    if size is None:
        # stride - 1 is right when no window can start in the padding behind, whatever the size is
        if window.after + stride > reach:
            node.refuse(
                "ceil_mode=1 on a dynamic axis with strides as large as the kernel less its pads",
                "Fix the input's size.",
            )
        return stride - 1
    free = window.before + size + window.after - reach
    last = -(-free // stride) * stride
    if last >= size + window.before:
        last -= stride
    return max(0, last - free)
