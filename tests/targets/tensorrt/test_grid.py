"""Op by scheme by GPU: the precision that the compiler gives the op, from engines that are built here.

``grid.txt`` holds what was found, and these builds show it again. Ops that a GPU refuses are built alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnx_ir as ir
import pytest

from edgeq.errors import TargetError
from edgeq.targets.tensorrt.backend.build import build_many
from edgeq.targets.tensorrt.backend.request import BuildReport
from edgeq.targets.tensorrt.layers.nodes import node_results
from edgeq.targets.tensorrt.layers.parse import parse_table
from tests.support.tensorrt import needs_rtx, request
from tests.support.tensorrt_models import Rest, Scheme, planned
from tests.support.tensorrt_ops import CASES, model

pytestmark = needs_rtx

GRID = Path(__file__).with_name("grid.txt")
REFUSED = "refused"
UNTRIED = "-"
SM = (75, 80, 86, 89, 120)
SCHEMES: tuple[tuple[Scheme, Rest], ...] = (
    ("int8", "fp16"),
    ("int8", "fp32"),
    ("int8", "bf16"),
    ("int8-weight", "fp16"),
    ("int4-64", "fp16"),
    ("int4-128", "fp32"),
    ("fp8", "fp16"),
    ("float", "fp16"),
    ("float", "fp32"),
    ("float", "bf16"),
)


@dataclass(frozen=True)
class Cell:
    """One op of a scheme on one GPU, and its precision (or :data:`REFUSED`)."""

    scheme: Scheme
    rest: Rest
    op: str
    sm: int
    wanted: str


def cells() -> Iterator[Cell]:
    """What ``grid.txt`` says."""
    scheme, rest = SCHEMES[0]
    for line in GRID.read_text(encoding="utf-8").splitlines():
        words = line.split()
        if line.startswith("#") or not words:
            continue
        if line.startswith("["):
            scheme, rest = next(pair for pair in SCHEMES if line == f"[{pair[0]} {pair[1]}]")
            continue
        for sm, wanted in zip(SM, words[1:], strict=True):
            yield Cell(scheme, rest, words[0], sm, wanted)


Group = tuple[Scheme, Rest, int, tuple[str, ...]]


def groups(wanted: Iterable[Cell]) -> list[Group]:
    """The engines to build: all ops that a GPU takes side by side, each one that it refuses alone."""
    together: dict[tuple[Scheme, Rest, int], list[str]] = {}
    alone: list[Group] = []
    for cell in wanted:
        if cell.wanted == REFUSED:
            alone.append((cell.scheme, cell.rest, cell.sm, (cell.op,)))
        elif cell.wanted != UNTRIED:
            together.setdefault((cell.scheme, cell.rest, cell.sm), []).append(cell.op)
    return [*((*key, tuple(ops)) for key, ops in together.items()), *alone]


def build(folder: Path, wanted: list[Group]) -> dict[tuple[Scheme, Rest, str, int], str]:
    """What the compiler makes of every op of every group."""
    requests = []
    for index, (scheme, rest, sm, ops) in enumerate(wanted):
        path = folder / f"{index}.onnx"
        onnx.save(model(ops, scheme, rest), path)
        requests.append(request(path, sm))
    found = {}
    for group, report in zip(wanted, build_many(requests, timeout=120), strict=True):
        scheme, rest, sm, ops = group
        precisions = _precisions(group, report)
        found.update({(scheme, rest, op, sm): precisions[op] for op in ops})
    return found


def _precisions(group: Group, report: BuildReport | TargetError) -> dict[str, str]:
    scheme, rest, sm, ops = group
    if isinstance(report, TargetError):
        return dict.fromkeys(ops, REFUSED)
    built = model(ops, scheme, rest)
    table = parse_table(report.tables[sm], sm)
    results = node_results([table], ir.from_proto(built), planned(built, scheme))
    return {result.name: result.actual for result in results}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[Scheme, Rest, str, int], str]:
    return build(tmp_path_factory.mktemp("grid"), groups(cells()))


def test_the_grid_is_complete() -> None:
    assert {(c.scheme, c.rest, c.op, c.sm) for c in cells()} == {
        (scheme, rest, op, sm) for scheme, rest in SCHEMES for op in CASES for sm in SM
    }


@pytest.mark.parametrize(("scheme", "rest"), SCHEMES, ids=lambda part: part)
def test_the_compiler_decides_as_the_grid_says(
    scheme: Scheme, rest: Rest, found: dict[tuple[Scheme, Rest, str, int], str]
) -> None:
    other = [
        f"{cell.op} on SM{cell.sm}: {got}, not {cell.wanted}"
        for cell in cells()
        if (cell.scheme, cell.rest) == (scheme, rest)
        and (got := found.get((scheme, rest, cell.op, cell.sm), UNTRIED)) != cell.wanted
    ]
    assert not other, "\n".join(other)
