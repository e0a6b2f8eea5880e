"""INT4 blocks of a graph's matrix products that learn from calibration data: GPTQ on ONNX weights.

The float graph runs over the data with the inputs of the products as additional outputs. Of each only the sum
of X^T X is kept; products that read the same tensors share it, and where several nodes read one weight their
sums add up. As many as fit in a bound are collected in one pass, so memory does not grow with depth.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import onnx_ir as ir

from edgeq.calibration.collect import collect
from edgeq.calibration.types import Array, DataSource
from edgeq.compiler.model import Model, save
from edgeq.compiler.quantize.blocked_weights import blocked_key
from edgeq.compiler.quantize.blocks import Learned, blocks_of
from edgeq.compiler.quantize.linear import Linear, read_linear
from edgeq.compiler.quantize.matmul_nbits import nbits4_key, scaled_rows
from edgeq.compiler.quantize.rewriter import Rewriter
from edgeq.compiler.quantize.weights import Floats, Refusal
from edgeq.compiler.weights.collecting import Readers, stages
from edgeq.compiler.weights.layer import HESSIAN_BYTES
from edgeq.compiler.weights.methods import Settings, quantize_calibrated
from edgeq.compiler.weights.rules import missing_for_method
from edgeq.compiler.weights.spec import WeightSpec
from edgeq.compiler.weights.statistics import InputStatistics
from edgeq.errors import TargetError
from edgeq.progress import Progress
from edgeq.targets.capabilities import Capabilities, WeightRules

_BITS = 4
_NEAREST = "rounded to nearest: "
_UNSEEN = f"{_NEAREST}it stands in a subgraph, whose tensors cannot be observed"
_TABLE = f"{_NEAREST}it is an embedding table too"


@dataclass(frozen=True)
class Data:
    """What is learned from; ``stage_bytes``: sums that are collected in one pass."""

    source: DataSource | None
    threads: int | None
    progress: Progress
    stage_bytes: int = HESSIAN_BYTES


@dataclass
class Product:
    """A weight with INT4 blocks, which are kept under ``key``, and the tensors that nodes multiply by it."""

    key: Hashable
    linear: Linear
    name: str
    tensors: list[str] = field(default_factory=list)

    @property
    def readers(self) -> Readers:
        """Its inputs, one per node, as what products that share them have in common."""
        return tuple(sorted(self.tensors))


@dataclass(frozen=True)
class _Form:
    """How a target's blocks are kept, and the values that they hold, float32 [N, K]."""

    key: Callable[[Linear, Rewriter], Hashable | None]
    rows: Callable[[Linear], Floats]


_FORMS: Mapping[Literal["nbits", "dequantize"], _Form] = {
    "nbits": _Form(nbits4_key, scaled_rows),
    "dequantize": _Form(blocked_key, Linear.rows),
}


def learn_blocks(model: Model, nodes: Sequence[ir.Node], state: Rewriter, data: Data) -> list[str]:
    """Round the INT4 weights of ``nodes`` by the recipe's method; ``state.learned`` has them then.

    ``model`` is the one that ``state`` rewrites, and as yet unchanged. Returns what the user is told.

    Raises:
        TargetError: none of the nodes gets INT4 blocks.
        DataError: there is no data, or the model cannot take it.
    """
    method = state.recipe.weight_method or ""
    if data.source is None:
        raise missing_for_method(method, text=False)
    products = find_products(nodes, state)
    if not products:
        raise TargetError(
            f"The method {method!r} rounds matrix products with int4 weights, and the model has none.",
            fix="Leave the method out, or exclude fewer nodes.",
        )
    found = {product.key: (product, learned) for product, learned in _learn(model, products, state, data)}
    state.learned.update({key: learned for key, (_, learned) in found.items()})
    return list(_notes([found[product.key] for product in products], state))


def find_products(nodes: Sequence[ir.Node], state: Rewriter) -> list[Product]:
    """The weights of ``nodes`` that get INT4 blocks, each once, in the graph's order."""
    found: dict[Hashable, Product] = {}
    for node in nodes:
        linear = _linear(node, state)
        key = None if linear is None else _FORMS[state.capabilities.block_form].key(linear, state)
        if linear is None or key is None:
            continue
        product = found.setdefault(key, Product(key, linear, node.name or ""))
        if node.graph is state.model.graph:
            product.tensors.append(linear.x.name or "")
    return list(found.values())


def _linear(node: ir.Node, state: Rewriter) -> Linear | None:
    if node.op_type not in ("MatMul", "Gemm") or node.domain != "":
        return None
    linear = read_linear(node, state)
    return None if isinstance(linear, Refusal) else linear


def _learn(
    model: Model, products: Sequence[Product], state: Rewriter, data: Data
) -> Iterator[tuple[Product, Learned]]:
    seen: list[Product] = []
    for product in products:
        why_not = _why_nearest(product, state)
        if why_not is None:
            seen.append(product)
        else:
            yield product, Learned(None, why_not)
    task = f"Rounding weights ({state.recipe.weight_method})"
    with data.progress.task(task, len(seen)) as advance:
        for readers, statistics in _statistics(model, seen, state, data):
            for product in seen:
                if product.readers == readers:
                    yield product, _round(product, statistics, state)
                    advance(1)


def _why_nearest(product: Product, state: Rewriter) -> str | None:
    """Why a weight cannot learn, else None."""
    if product.linear.weight.root in state.ties.tables:
        return _TABLE
    return None if product.tensors else _UNSEEN


def _statistics(
    model: Model, products: Sequence[Product], state: Rewriter, data: Data
) -> Iterator[tuple[Readers, InputStatistics]]:
    """Of everything that ``products`` read, stage by stage."""
    if not products:
        return
    assert data.source is not None
    sizes = {name: product.linear.k for product in products for name in product.tensors}
    groups = list(dict.fromkeys(product.readers for product in products))
    with tempfile.TemporaryDirectory(prefix="edgeq-") as folder:
        path = Path(folder) / "float.onnx"
        save(model, path)
        for stage in stages(groups, sizes, data.stage_bytes):
            sums = InputSums({readers: sizes[readers[0]] for readers in stage})
            collect(
                path, [], data.source, samples=state.recipe.calibration_samples, threads=data.threads,
                progress=data.progress, observers=[sums],
            )  # fmt: skip
            for readers in stage:
                yield readers, sums.found.pop(readers)


class InputSums:
    """Observer: the statistics, with Hessian, of groups of tensors; ``sizes``: group → its channels."""

    def __init__(self, sizes: Mapping[Readers, int]) -> None:
        self.found = {readers: InputStatistics.empty(k, hessian=True) for readers, k in sizes.items()}

    @property
    def tensors(self) -> Collection[str]:
        """Every tensor of any group."""
        return tuple(dict.fromkeys(name for readers in self.found for name in readers))

    def observe(self, name: str, array: Array) -> None:
        """Take in the values of one batch, as often as a group reads them."""
        for readers, statistics in self.found.items():
            for _ in range(readers.count(name)):
                # Sums that are not finite are found when the Hessian is factored.
                with np.errstate(invalid="ignore", over="ignore"):
                    statistics.update(array.reshape(-1, len(statistics.squares)))


def _round(product: Product, statistics: InputStatistics, state: Rewriter) -> Learned:
    if not np.isfinite(statistics.squares).all():
        return Learned(None, f"{_NEAREST}its inputs are not finite")
    recipe = state.recipe
    rows = _FORMS[state.capabilities.block_form].rows(product.linear)
    spec = WeightSpec(_BITS, state.block_size, recipe.symmetric_weights)
    result = quantize_calibrated(rows, spec, statistics, Settings(recipe, _rules(state.capabilities)))
    if "fallback" in result.record:
        return Learned(None, result.record["fallback"])
    damping, error = result.record["damping"], result.record["error"]
    return Learned(
        blocks_of(result.weight, state.block_size),
        f"{recipe.weight_method} with damping {damping:g} (output error {100 * error:.2g} %)",
        damping,
    )


def _rules(capabilities: Capabilities) -> WeightRules:
    """What the target's kernels take, in the words of formats of checkpoints."""
    return WeightRules(
        (_BITS,),
        capabilities.block_sizes,
        scale_dtype=capabilities.scale_dtype,
        negative_scales=capabilities.negative_scales,
        uneven=True,
    )


def _notes(found: Sequence[tuple[Product, Learned]], state: Rewriter) -> Iterator[str]:
    """What did not go as asked."""
    for product, learned in found:
        if learned.blocks is None:
            yield f"{product.name}: {learned.how}."
        elif learned.damping > state.recipe.damping:
            asked = f"{state.recipe.damping:g}"
            yield f"{product.name}: its Hessian needed a damping of {learned.damping:g} in place of {asked}."
