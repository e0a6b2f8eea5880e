"""How much of an engine runs in which precision: shares of nodes, bytes moved, kinds of layers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from math import prod

import onnx_ir as ir
from pydantic import BaseModel, ConfigDict

from edgeq.compiler.plan import Plan
from edgeq.targets.base import Check, NodeResult
from edgeq.targets.capabilities import QUANTIZED
from edgeq.targets.tensorrt.layers.evidence import PRODUCTS
from edgeq.targets.tensorrt.layers.nodes import node_results
from edgeq.targets.tensorrt.layers.table import Layer, LayerTable, LayerTensor

_BITS: Mapping[str, int] = {
    "Int4": 4, "FP4E2M1": 4, "Int8": 8, "UInt8": 8, "FP8": 8, "Bool": 8, "Half": 16, "BFloat16": 16,
    "Float": 32, "Int32": 32, "Int64": 64,
}  # fmt: skip


class Coverage(BaseModel):
    """What one table says about an engine as a whole.

    ``planned``: matrix products and convolutions that the plan wanted quantized, ``proven``: those that the
    compiler runs so. ``moved``: type → bytes that all layers read and write, weights included, a proxy of
    cost; symbolic sizes count as 1. ``kinds``: kind of layer → how many.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    sm: int
    planned: int
    proven: int
    moved: dict[str, int]
    kinds: dict[str, int]

    @property
    def share(self) -> float:
        """Share of the planned products that run as planned; 1 where none were planned."""
        return self.proven / self.planned if self.planned else 1.0

    def check(self) -> Check:
        """Whether the compiler's table was read and names the kernels; never fails for what runs in float."""
        name = f"layer table of SM {self.sm}" if self.sm else "layer table of this GPU"
        found = f"{sum(self.kinds.values())} layers, {self.proven} of {self.planned} products as planned"
        return Check(name, bool(self.kinds), found, "the layers of the engine")


def coverages(tables: Sequence[LayerTable], graph: ir.Model, plan: Plan) -> tuple[Coverage, ...]:
    """The coverage of each table, by what it alone shows; arguments as of :func:`node_results`."""
    found: dict[tuple[Layer, ...], Coverage] = {}
    for table in tables:
        if table.layers not in found:
            found[table.layers] = coverage(table, node_results([table], graph, plan))
    return tuple(found[table.layers].model_copy(update={"sm": table.sm}) for table in tables)


def coverage(table: LayerTable, results: Iterable[NodeResult]) -> Coverage:
    """The coverage of one table; ``results`` are those of this table alone."""
    planned = [r for r in results if r.op_type in PRODUCTS and r.planned in QUANTIZED]
    kinds = Counter(layer.kind for layer in table.layers)
    return Coverage(
        sm=table.sm,
        planned=len(planned),
        proven=sum(not result.missed for result in planned),
        moved=_moved(table),
        kinds=dict(sorted(kinds.items())),
    )


def _moved(table: LayerTable) -> dict[str, int]:
    moved: Counter[str] = Counter()
    for layer in table.layers:
        for tensor in (*layer.inputs, *layer.constants, *layer.outputs):
            moved[tensor.dtype] += _bytes(tensor)
    return dict(sorted(moved.items()))


def _bytes(tensor: LayerTensor) -> int:
    count = prod(max(size, 1) for size in tensor.shape)
    return -(-count * _BITS.get(tensor.dtype, 32) // 8)
