"""ONNX's own node tests through the whole way: convert, write the package, read it back, interpret it.

What each op type must reach stands in ``node_cases.json``, written by
``python benchmarks/peers/coreml_node_tests.py --all --table tests/targets/coreml/node_cases.json``.
"""

from __future__ import annotations

import functools
import json
from collections import defaultdict
from pathlib import Path

import pytest

from tests.support.coreml_cases import Case, node_cases, run_case

TABLE: dict[str, dict[str, int]] = json.loads(Path(__file__).with_name("node_cases.json").read_text())
LOWEST_SUM = 700


@functools.cache
def cases() -> dict[str, list[Case]]:
    """All cases by op type, generated once per process."""
    found: dict[str, list[Case]] = defaultdict(list)
    for case in node_cases():
        found[case.op_type].append(case)
    return found


def test_the_table_holds_every_op_type_and_every_case() -> None:
    counts = {op: sum(entry.values()) for op, entry in TABLE.items()}
    assert counts == {op: len(of_op) for op, of_op in cases().items()}


def test_enough_cases_pass() -> None:
    assert sum(entry["passed"] for entry in TABLE.values()) >= LOWEST_SUM


@pytest.mark.parametrize("op_type", sorted(TABLE))
def test_no_case_is_wrong_and_none_is_lost(op_type: str) -> None:
    outcomes = [run_case(case) for case in cases()[op_type]]
    bad = [f"{o.case.name}: {o.status}: {o.reason}" for o in outcomes if o.status in ("wrong", "error")]
    assert not bad
    refused = [f"{o.case.name}: {o.reason}" for o in outcomes if o.status == "refused"]
    assert len(outcomes) - len(refused) >= TABLE[op_type]["passed"], refused
