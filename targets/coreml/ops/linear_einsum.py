"""Einsum by transpose, reduce and one matrix product per pair of operands."""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgeq.calibration.types import Array
from edgeq.targets.coreml.frontend.node import OnnxNode, Var
from edgeq.targets.coreml.ops.tensors import like, product, reshape, size, sizes
from edgeq.targets.coreml.toolkit import builder

_LARGEST_RANK = 5


@dataclass(frozen=True)
class _Term:
    """A tensor and the label of each of its axes."""

    x: Var
    labels: str

    def without(self, gone: str) -> _Term:
        """Summed over the labels ``gone``."""
        axes = [self.labels.index(label) for label in gone]
        if not axes:
            return self
        kept = "".join(label for label in self.labels if label not in gone)
        return _Term(builder().reduce_sum(x=self.x, axes=axes, keep_dims=False), kept)

    def ordered(self, labels: str) -> _Term:
        """With its axes in the order ``labels``, which holds them all."""
        perm = [self.labels.index(label) for label in labels]
        if perm == list(range(len(perm))):
            return self
        return _Term(builder().transpose(x=self.x, perm=perm), labels)


def einsum(node: OnnxNode) -> Var:
    """Einsum; operands are multiplied from left to right."""
    node.require_float(*range(node.input_count))
    ranks = [node.rank(index) for index in range(node.input_count)]
    inputs, output = _parse(node, node.attribute("equation"), ranks)
    terms = [_diagonal(node, node.input(index), labels) for index, labels in enumerate(inputs)]
    result = terms[0]
    for index, term in enumerate(terms[1:], start=1):
        wanted = set(output).union(*(later.labels for later in terms[index + 1 :]))
        result = _multiply(node, result, term, wanted)
    result = result.without("".join(label for label in result.labels if label not in output))
    return result.ordered(output).x


def _parse(node: OnnxNode, equation: str, ranks: Sequence[int]) -> tuple[list[str], str]:
    """Labels of each input and of the output, the ellipsis written out."""
    text = equation.replace(" ", "")
    left, arrow, right = text.partition("->")
    inputs = left.split(",")
    if len(inputs) != len(ranks):
        node.refuse(f"the equation {equation!r} has {len(inputs)} terms for {len(ranks)} inputs")
    free = [label for label in string.ascii_letters if label not in text]
    hidden = max(
        (rank - len(term) + 3 for rank, term in zip(ranks, inputs, strict=True) if "..." in term), default=0
    )
    dots = "".join(free[:hidden])
    expanded = [_expanded(term, rank, dots) for term, rank in zip(inputs, ranks, strict=True)]
    for term, rank in zip(expanded, ranks, strict=True):
        if len(term) != rank:
            node.refuse(f"the equation {equation!r} does not fit the ranks of the inputs")
    output = right.replace("...", dots) if arrow else dots + _once(left.replace("...", "").replace(",", ""))
    if len(set(output)) < len(output) or not set(output) <= set("".join(expanded)):
        node.refuse(f"the output of the equation {equation!r} repeats a label or has one of no input")
    return expanded, output


def _expanded(term: str, rank: int, dots: str) -> str:
    hidden = rank - len(term.replace("...", ""))
    return term.replace("...", dots[len(dots) - hidden :] if hidden > 0 else "")


def _once(labels: str) -> str:
    return "".join(sorted(label for label in set(labels) if labels.count(label) == 1))


def _diagonal(node: OnnxNode, x: Var, labels: str) -> _Term:
    """Repeated labels (``ii``) become one axis: zeros off the diagonal, then a sum."""
    mb = builder()
    for label in sorted(set(labels)):
        while labels.count(label) > 1:
            first, last = labels.index(label), labels.rindex(label)
            mask = _diagonal_mask(node, x, label, (first, last))
            kept = mb.select(cond=mask, a=x, b=np.zeros(mask.shape, like(x, 0).dtype))
            x = mb.reduce_sum(x=kept, axes=[last], keep_dims=False)
            labels = labels[:last] + labels[last + 1 :]
    return _Term(x, labels)


def _diagonal_mask(node: OnnxNode, x: Var, label: str, axes: tuple[int, int]) -> Array:
    shape = [count for count in sizes(x) if count is not None]
    if len(shape) < x.rank or shape[axes[0]] != shape[axes[1]]:
        node.refuse(f"the repeated label {label!r} needs a static shape with equal sizes")
    spread = [count if axis in axes else 1 for axis, count in enumerate(shape)]
    return np.ascontiguousarray(
        np.broadcast_to(np.eye(shape[axes[0]], dtype=np.bool_).reshape(spread), shape)
    )


def _multiply(node: OnnxNode, a: _Term, b: _Term, wanted: set[str]) -> _Term:
    """Product of two terms, summed over the labels that nobody wants any more."""
    a = a.without("".join(label for label in a.labels if label not in wanted and label not in b.labels))
    b = b.without("".join(label for label in b.labels if label not in wanted and label not in a.labels))
    shared = [label for label in a.labels if label in b.labels]
    batch = "".join(label for label in shared if label in wanted)
    summed = "".join(label for label in shared if label not in wanted)
    rows = "".join(label for label in a.labels if label not in shared)
    columns = "".join(label for label in b.labels if label not in shared)
    if len(batch) + max(len(rows) + len(columns), 2 if summed else 0) > _LARGEST_RANK:
        node.refuse("an intermediate product has more than 5 dimensions")
    if not summed:
        return _outer(a.ordered(batch + rows), b.ordered(batch + columns), len(batch))
    _check_summed(node, a, b, summed)
    left, right = a.ordered(batch + rows + summed), b.ordered(batch + summed + columns)
    x = _grouped(left, (len(rows), len(summed)))
    y = _grouped(right, (len(summed), len(columns)))
    result = builder().matmul(x=x, y=y)
    return _Term(_ungrouped(result, left, right, len(batch), len(rows), len(columns)), batch + rows + columns)


def _outer(a: _Term, b: _Term, batch: int) -> _Term:
    """Elementwise along the first ``batch`` axes, every pair along the others."""
    mb, rows, columns = builder(), len(a.labels) - batch, len(b.labels) - batch
    x = mb.expand_dims(x=a.x, axes=[*range(-columns, 0)]) if columns else a.x
    y = mb.expand_dims(x=b.x, axes=[*range(batch, batch + rows)]) if rows else b.x
    return _Term(mb.mul(x=x, y=y), a.labels + b.labels[batch:])


def _check_summed(node: OnnxNode, a: _Term, b: _Term, summed: str) -> None:
    for label in summed:
        first, second = sizes(a.x)[a.labels.index(label)], sizes(b.x)[b.labels.index(label)]
        if first != second and None not in (first, second):
            node.refuse(f"the summed label {label!r} has the sizes {first} and {second}")


def _grouped(term: _Term, lengths: tuple[int, int]) -> Var:
    """The last axes, in two groups of the given lengths, as matrix."""
    if lengths == (1, 1):
        return term.x
    count = term.x.rank - sum(lengths)
    parts = [size(term.x, axis) for axis in range(term.x.rank)]
    return reshape(
        term.x,
        [*parts[:count], product(parts[count : count + lengths[0]]), product(parts[count + lengths[0] :])],
    )


def _ungrouped(result: Var, left: _Term, right: _Term, batch: int, rows: int, columns: int) -> Var:
    if rows == 1 and columns == 1:
        return result
    row_sizes = [size(left.x, batch + index) for index in range(rows)]
    first = right.x.rank - columns
    column_sizes = [size(right.x, first + index) for index in range(columns)]
    return reshape(result, [*(size(result, axis) for axis in range(batch)), *row_sizes, *column_sizes])
