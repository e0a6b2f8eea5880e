"""The activation functions of ONNX's recurrent ops, with their parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from edgeq.targets.coreml.frontend.node import OnnxNode, Var
from edgeq.targets.coreml.ops.activation import softplus_of
from edgeq.targets.coreml.ops.tensors import scalar
from edgeq.targets.coreml.toolkit import builder

Numbers = tuple[float, ...]


@dataclass(frozen=True)
class Form:
    """How an activation is computed from x and its parameters.

    ``defaults`` is as long as the parameters are many (alpha, then beta); None where ONNX gives no default.
    """

    compute: Callable[[Var, Numbers], Var]
    defaults: tuple[float | None, ...] = ()


@dataclass(frozen=True)
class Activation:
    """One activation function; ``name`` is ONNX's in lower case."""

    name: str
    parameters: Numbers = ()

    def __call__(self, x: Var) -> Var:
        """The function of ``x``."""
        return _FORMS[self.name].compute(x, self.parameters)


def activations_of(node: OnnxNode, defaults: tuple[str, ...], directions: int) -> list[list[Activation]]:
    """The activations of every direction; parameters are handed out in the order of the functions."""
    names = node.attribute("activations") or list(defaults) * directions
    if len(names) != len(defaults) * directions:
        node.refuse(f"it has {len(names)} activations instead of {len(defaults) * directions}")
    alphas = list(node.attribute("activation_alpha") or [])
    betas = list(node.attribute("activation_beta") or [])
    found = [_activation(node, str(name).lower(), alphas, betas) for name in names]
    if alphas or betas:
        node.refuse("it has more activation_alpha or activation_beta than its activations take")
    return [found[start : start + len(defaults)] for start in range(0, len(found), len(defaults))]


def _activation(node: OnnxNode, name: str, alphas: list[float], betas: list[float]) -> Activation:
    if name not in _FORMS:
        node.refuse(f"its activation {name!r} is unknown")
    parameters = []
    for given, default in zip((alphas, betas), _FORMS[name].defaults, strict=False):
        value = given.pop(0) if given else default
        if value is None:
            node.refuse(f"its activation {name!r} has no alpha or beta, for which ONNX has no default")
        parameters.append(float(value))
    return Activation(name, tuple(parameters))


def _affine(x: Var, parameters: Numbers) -> Var:
    mb, (alpha, beta) = builder(), parameters
    return mb.add(x=mb.mul(x=x, y=scalar(x, alpha)), y=scalar(x, beta))


def _scaled_tanh(x: Var, parameters: Numbers) -> Var:
    mb, (alpha, beta) = builder(), parameters
    return mb.mul(x=mb.tanh(x=mb.mul(x=x, y=scalar(x, beta))), y=scalar(x, alpha))


def _hard_sigmoid(x: Var, parameters: Numbers) -> Var:
    alpha, beta = parameters
    return builder().sigmoid_hard(x=x, alpha=scalar(x, alpha), beta=scalar(x, beta))


def _plain(op: str) -> Form:
    return Form(lambda x, _: getattr(builder(), op)(x=x))


def _with_alpha(op: str, default: float) -> Form:
    return Form(lambda x, p: getattr(builder(), op)(x=x, alpha=scalar(x, p[0])), (default,))


_FORMS: Mapping[str, Form] = {
    "affine": Form(_affine, (None, None)),
    "elu": _with_alpha("elu", 1.0),
    "hardsigmoid": Form(_hard_sigmoid, (0.2, 0.5)),
    "leakyrelu": _with_alpha("leaky_relu", 0.01),
    "relu": _plain("relu"),
    "scaledtanh": Form(_scaled_tanh, (None, None)),
    "sigmoid": _plain("sigmoid"),
    "softplus": Form(lambda x, _: softplus_of(x)),
    "softsign": _plain("softsign"),
    "tanh": _plain("tanh"),
    "thresholdedrelu": _with_alpha("thresholded_relu", 1.0),
}
