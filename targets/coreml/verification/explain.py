"""Where a package first differs from its ONNX model, and whether float arithmetic explains it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx_ir as ir

from edgeq.calibration.types import Array, Arrays
from edgeq.compiler.model import Model, save
from edgeq.targets.coreml.frontend.signature import Signature, package_names
from edgeq.targets.coreml.interpreter.engine import Interpreter
from edgeq.targets.coreml.interpreter.program import read_package
from edgeq.targets.coreml.ports import to_package
from edgeq.targets.numbers import FLOAT32_TOLERANCE, distance
from edgeq.targets.reference import REFERENCE, Reference, with_outputs


@dataclass(frozen=True)
class Difference:
    """One value that differs: ``node`` makes it.

    ``count`` of ``size`` numbers differ, by ``largest`` at most; ``relative`` is that relative to the largest
    number of the tensor, for float values.
    """

    node: ir.Node
    value: str
    count: int
    size: int
    largest: float
    relative: float

    @property
    def rounds(self) -> bool:
        """Whether the value is rounded to integers there."""
        return self.node.op_type == "QuantizeLinear"


def differences(
    model: Model, package: Path, signature: Signature, samples: Sequence[Arrays]
) -> list[Difference]:
    """Values of ``model`` that the float32 ``package`` computes otherwise, in the order of the graph.

    Only values that both keep under the same name are compared: fusions leave some out.
    """
    program = read_package(package)
    made = {r.name for op in program.main.block.operations for r in op.outputs if op.type != "const"}
    nodes = {o.name: node for node in model.ir.graph for o in node.outputs if o.name and o.dtype is not None}
    names = {name: clean for name, clean in package_names(nodes).items() if clean in made}
    if not names:
        return []
    interpreter = Interpreter(program, arithmetic="float32")
    found: dict[str, Difference] = {}
    for sample, wanted in zip(samples, _values(model, names, samples), strict=True):
        got = interpreter.run(to_package(signature, sample), watch=list(names.values()))
        for name, clean in names.items():
            difference = _difference(nodes[name], name, wanted[name], got[clean])
            if difference is not None and name not in found:
                found[name] = difference
    return [found[name] for name in nodes if name in found]


def _values(model: Model, names: Collection[str], samples: Sequence[Arrays]) -> Iterator[dict[str, Array]]:
    """The values ``names`` of every sample; the model lies in a file because weights may exceed 2 GB."""
    with TemporaryDirectory(prefix="edgeq-coreml-") as folder:
        path = Path(folder) / REFERENCE
        save(with_outputs(model, names), path)
        reference = Reference(path, threads=1)
        for sample in samples:
            yield reference.run(sample)


def _difference(node: ir.Node, name: str, wanted: Array, got: Array) -> Difference | None:
    a, b = wanted.astype(np.float64).reshape(-1), got.astype(np.float64).reshape(-1)
    if a.size != b.size:
        return Difference(node, name, a.size, a.size, np.inf, np.inf)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    if same.all():
        return None
    with np.errstate(invalid="ignore"):
        noise = np.where(same, 0.0, np.nan_to_num(np.abs(a - b), nan=np.inf, posinf=np.inf))
    peak = float(np.abs(a[np.isfinite(a)]).max(initial=0)) or 1.0
    largest = float(noise.max())
    return Difference(node, name, int(np.count_nonzero(noise)), a.size, largest, largest / peak)


def explain(found: Sequence[Difference]) -> str:
    """One sentence when rounding explains the differences of a quantized net, else an empty one.

    A sum of products in another order differs in its last bits; where such a value lies on the border of two
    integers, it is rounded to the other one. So the first rounding that differs must differ by one step, and
    what was rounded there must be the same up to the last bits.
    """
    first = next((d for d in found if d.rounds), None)
    if first is None or first.largest > 1:
        return ""
    before = [d for d in found if not d.rounds and _precedes(d.node, first.node)]
    if any(d.relative > FLOAT32_TOLERANCE for d in before):
        return ""
    return (
        f"rounding explains it: {first.count} of {first.size} values fall one step aside at "
        f"{first.node.name!r}, where float sums differ in their last bits"
    )


def sensitivity(reference: Reference, samples: Sequence[Arrays], wanted: Sequence[Arrays]) -> float:
    """How far the reference's own results move when its inputs change in their last bit, relative as above.

    Logarithms of differences, divisions by small numbers and roundings to integers amplify the last bits of
    float sums; what moves as far by itself cannot be expected to be nearer.
    """
    moved = [reference.run(_nudged(sample)) for sample in samples]
    return distance(wanted, moved, floats_only=True).relative


def _nudged(sample: Arrays) -> dict[str, Array]:
    random = np.random.default_rng(0)
    return {
        name: np.asarray(
            array * (1 + random.choice([-1.0, 1.0], array.shape) * np.finfo(array.dtype).eps), array.dtype
        )
        if array.dtype.kind == "f"
        else array
        for name, array in sample.items()
    }


def culprit(found: Sequence[Difference]) -> str:
    """The first node whose result differs by more than float arithmetic explains; empty: none found."""
    beyond = next(
        (d for d in found if d.largest > 1 or (not d.rounds and d.relative > FLOAT32_TOLERANCE)), None
    )
    if beyond is None:
        return ""
    return f"first at {beyond.node.op_type} {beyond.node.name!r}"


def _precedes(node: ir.Node, other: ir.Node) -> bool:
    """Whether ``other`` reads, directly or over several nodes, what ``node`` makes."""
    waiting, seen = [other], {other}
    while waiting:
        for producer in waiting.pop().predecessors():
            if producer is node:
                return True
            if producer not in seen:
                seen.add(producer)
                waiting.append(producer)
    return False
