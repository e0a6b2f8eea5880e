"""Activations."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from edgeq.calibration.types import Array
from edgeq.targets.coreml.frontend.node import OnnxNode, Var
from edgeq.targets.coreml.ops.elementwise import negative, unary
from edgeq.targets.coreml.ops.softmax import HANDLERS as SOFTMAX
from edgeq.targets.coreml.ops.tensors import scalar
from edgeq.targets.coreml.toolkit import builder

if TYPE_CHECKING:
    from edgeq.targets.coreml.frontend.table import Handler

_SELU_ALPHA = 1.67326319217681884765625
_SELU_GAMMA = 1.05070102214813232421875
_QUICK_GELU_ALPHA = 1.702


def _float_input(node: OnnxNode) -> Var:
    node.require_float(0)
    return node.input(0)


def leaky_relu(node: OnnxNode) -> Var:
    """LeakyRelu: x, below zero alpha·x."""
    x = _float_input(node)
    return builder().leaky_relu(x=x, alpha=scalar(x, node.attribute("alpha", 0.01)))


def prelu(node: OnnxNode) -> Var:
    """PRelu: x, below zero slope·x; the slope broadcasts to x."""
    node.require_float(0, 1)
    x, slope = node.input(0), node.constant(1)
    if slope is not None and slope.size == 1 and slope.ndim <= x.rank:
        return builder().leaky_relu(x=x, alpha=scalar(x, slope.item()))
    if slope is not None and _per_channel(slope, x):
        return builder().prelu(x=x, alpha=slope.reshape(-1))
    mb = builder()
    below = mb.mul(x=node.input(1), y=mb.minimum(x=x, y=scalar(x, 0)))
    return mb.add(x=mb.relu(x=x), y=below)


def _per_channel(slope: Array, x: Var) -> bool:
    """Whether MIL's prelu takes the slope: rank 4, one value per channel (axis 1)."""
    shape = (1,) * (x.rank - slope.ndim) + slope.shape
    return x.rank == 4 and slope.ndim <= 4 and shape[1] == x.shape[1] and slope.size == shape[1]


def elu(node: OnnxNode) -> Var:
    """Elu: x, below zero alpha·(exp(x) - 1)."""
    x = _float_input(node)
    return builder().elu(x=x, alpha=scalar(x, node.attribute("alpha", 1.0)))


def selu(node: OnnxNode) -> Var:
    """Selu: gamma·Elu(x, alpha)."""
    mb, x = builder(), _float_input(node)
    curve = mb.elu(x=x, alpha=scalar(x, node.attribute("alpha", _SELU_ALPHA)))
    return mb.mul(x=curve, y=scalar(x, node.attribute("gamma", _SELU_GAMMA)))


def celu(node: OnnxNode) -> Var:
    """Celu: max(0, x) + min(0, alpha·(exp(x/alpha) - 1))."""
    mb, x, alpha = builder(), _float_input(node), node.attribute("alpha", 1.0)
    if alpha <= 0:
        node.refuse(f"alpha = {alpha:g} is not positive")
    if alpha == 1:
        return mb.elu(x=x, alpha=scalar(x, 1))
    below = mb.real_div(x=mb.minimum(x=x, y=scalar(x, 0)), y=scalar(x, alpha))
    return mb.add(x=mb.relu(x=x), y=mb.elu(x=below, alpha=scalar(x, alpha)))


def hard_sigmoid(node: OnnxNode) -> Var:
    """HardSigmoid: max(0, min(1, alpha·x + beta))."""
    x = _float_input(node)
    alpha, beta = node.attribute("alpha", 0.2), node.attribute("beta", 0.5)
    return builder().sigmoid_hard(x=x, alpha=scalar(x, alpha), beta=scalar(x, beta))


def hard_swish(node: OnnxNode) -> Var:
    """HardSwish: x·HardSigmoid(x) with alpha 1/6, beta 0.5."""
    mb, x = builder(), _float_input(node)
    return mb.mul(x=x, y=mb.sigmoid_hard(x=x, alpha=scalar(x, 1 / 6), beta=scalar(x, 0.5)))


def _swish(x: Var, alpha: float) -> Var:
    mb = builder()
    if alpha == 1:
        return mb.silu(x=x)
    return mb.mul(x=x, y=mb.sigmoid(x=mb.mul(x=x, y=scalar(x, alpha))))


def swish(node: OnnxNode) -> Var:
    """Swish: x·sigmoid(alpha·x)."""
    return _swish(_float_input(node), node.attribute("alpha", 1.0))


def quick_gelu(node: OnnxNode) -> Var:
    """QuickGelu (com.microsoft): x·sigmoid(alpha·x), alpha 1.702 when left out."""
    x, alpha = _float_input(node), node.attribute("alpha", _QUICK_GELU_ALPHA)
    if math.isclose(alpha, _QUICK_GELU_ALPHA, rel_tol=1e-6):
        return builder().gelu(x=x, mode="SIGMOID_APPROXIMATION")
    return _swish(x, alpha)


def softplus_of(x: Var) -> Var:
    """log(1 + exp(x)) as max(x, 0) + log(1 + exp(-|x|)).

    MIL's softplus alone falls to 0 above x ≈ 10.4 on the Neural Engine, where exp(x) overflows
    (coremltools issue 2687); with an argument below 0 it cannot.
    """
    mb = builder()
    return mb.add(x=mb.relu(x=x), y=mb.softplus(x=negative(mb.abs(x=x))))


def softplus(node: OnnxNode) -> Var:
    """Softplus: log(1 + exp(x))."""
    return softplus_of(_float_input(node))


def mish(node: OnnxNode) -> Var:
    """Mish: x·tanh(softplus(x))."""
    mb, x = builder(), _float_input(node)
    return mb.mul(x=x, y=mb.tanh(x=softplus_of(x)))


_GELU_MODES = {"none": "EXACT", "tanh": "TANH_APPROXIMATION"}


def gelu(node: OnnxNode) -> Var:
    """Gelu, exact or the tanh approximation."""
    approximate = node.attribute("approximate", "none")
    if approximate not in _GELU_MODES:
        node.refuse(f"approximate = {approximate!r} is unknown")
    return builder().gelu(x=_float_input(node), mode=_GELU_MODES[approximate])


def _biased_gelu(mode: str) -> Handler:
    """FastGelu and BiasGelu (com.microsoft): Gelu(x + bias); FastGelu's bias may be left out."""

    def handler(node: OnnxNode) -> Var:
        mb, x = builder(), _float_input(node)
        if node.has_input(1):
            node.require_float(1)
            x = mb.add(x=x, y=node.input(1))
        return mb.gelu(x=x, mode=mode)

    return handler


def thresholded_relu(node: OnnxNode) -> Var:
    """ThresholdedRelu: x where x > alpha, else 0 (MIL's op of that name also keeps x = alpha)."""
    mb, x = builder(), _float_input(node)
    above = mb.greater(x=x, y=scalar(x, node.attribute("alpha", 1.0)))
    return mb.select(cond=above, a=x, b=scalar(x, 0))


def shrink(node: OnnxNode) -> Var:
    """Shrink: x + bias below -lambd, x - bias above lambd, 0 between."""
    mb, x = builder(), _float_input(node)
    bias, lambd = node.attribute("bias", 0.0), node.attribute("lambd", 0.5)
    above = mb.select(
        cond=mb.greater(x=x, y=scalar(x, lambd)), a=mb.sub(x=x, y=scalar(x, bias)), b=scalar(x, 0)
    )
    below = mb.less(x=x, y=scalar(x, -lambd))
    return mb.select(cond=below, a=mb.add(x=x, y=scalar(x, bias)), b=above)


HANDLERS: dict[str, Handler] = {
    "Celu": celu,
    "Elu": elu,
    "Erf": unary("erf"),
    "Gelu": gelu,
    "HardSigmoid": hard_sigmoid,
    "HardSwish": hard_swish,
    "LeakyRelu": leaky_relu,
    "Mish": mish,
    "PRelu": prelu,
    "Relu": unary("relu"),
    "Selu": selu,
    "Shrink": shrink,
    "Sigmoid": unary("sigmoid"),
    "Softplus": softplus,
    "Softsign": unary("softsign"),
    "Swish": swish,
    "Tanh": unary("tanh"),
    "ThresholdedRelu": thresholded_relu,
    "com.microsoft.BiasGelu": _biased_gelu("EXACT"),
    "com.microsoft.FastGelu": _biased_gelu("TANH_APPROXIMATION"),
    "com.microsoft.Gelu": _biased_gelu("EXACT"),
    "com.microsoft.QuickGelu": quick_gelu,
    **SOFTMAX,
}
