"""Softmax, LogSoftmax and Hardmax along one axis."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeq.targets.coreml.frontend.lowering import mil_type_name
from edgeq.targets.coreml.frontend.node import OnnxNode, Var
from edgeq.targets.coreml.toolkit import builder

if TYPE_CHECKING:
    from edgeq.targets.coreml.frontend.table import Handler


def _input_and_axis(node: OnnxNode) -> tuple[Var, int]:
    node.require_float(0)
    x, axis = node.input(0), int(node.attribute("axis", -1))
    if x.rank == 0:
        node.refuse("its input is a scalar, which has no axis")
    return x, axis % x.rank


def softmax(node: OnnxNode) -> Var:
    """Softmax: exp(x) / sum(exp(x)) along ``axis``."""
    x, axis = _input_and_axis(node)
    return builder().softmax(x=x, axis=axis)


def log_softmax(node: OnnxNode) -> Var:
    """LogSoftmax: z - log(sum(exp(z))) with z = x - max(x).

    The logarithm of MIL's softmax would be -inf where the probability underflows (below 6e-8 in float16).
    """
    mb = builder()
    x, axis = _input_and_axis(node)
    z = mb.sub(x=x, y=mb.reduce_max(x=x, axes=[axis], keep_dims=True))
    return mb.sub(x=z, y=mb.reduce_log_sum_exp(x=z, axes=[axis], keep_dims=True))


def hardmax(node: OnnxNode) -> Var:
    """Hardmax: 1 at the first maximum along ``axis``, else 0.

    MIL's argmax does not say which of several maxima it gives, so the first is found by counting.
    """
    mb = builder()
    x, axis = _input_and_axis(node)
    largest = mb.equal(x=x, y=mb.reduce_max(x=x, axes=[axis], keep_dims=True))
    count = mb.cumsum(x=mb.cast(x=largest, dtype="int32"), axis=axis)
    first = mb.logical_and(x=largest, y=mb.equal(x=count, y=1))
    return mb.cast(x=first, dtype=mil_type_name(x))


HANDLERS: dict[str, Handler] = {"Hardmax": hardmax, "LogSoftmax": log_softmax, "Softmax": softmax}
