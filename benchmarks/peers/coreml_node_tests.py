"""ONNX's own node tests through the Core ML target: pass, refused with a reason, or wrong.

    python benchmarks/peers/coreml_node_tests.py --all
    python benchmarks/peers/coreml_node_tests.py --ops Softmax,LogSoftmax --verbose

``--table`` writes how many cases of each op type pass and are refused: what the tests hold the target to
(tests/targets/coreml/node_cases.json).

``--peer`` runs the same cases through ``onnxsim.export_coreml`` (pip install onnxsim); its packages are run
by the same interpreter, so that only the conversion is compared.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.support.coreml_cases import Outcome, node_cases, run_case


def main() -> None:
    arguments = _arguments()
    ops = None if arguments.all else arguments.ops.split(",")
    runner = run_case
    if arguments.peer:
        from onnxsim_coreml import run_peer_case as runner
    outcomes = []
    for case in node_cases(ops):
        outcome = runner(case)
        outcomes.append(outcome)
        if not arguments.all or arguments.verbose or outcome.status in ("wrong", "error"):
            print(f"{outcome.status:8} {case.name}: {outcome.reason}".rstrip(": "), flush=True)
    _summary(outcomes)
    if arguments.json:
        rows = [
            {"case": o.case.name, "op": o.case.op_type, "status": o.status, "reason": o.reason}
            for o in outcomes
        ]
        Path(arguments.json).write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    if arguments.table:
        Path(arguments.table).write_text(_table(outcomes), encoding="utf-8")


def _table(outcomes: list[Outcome]) -> str:
    """Op type → number of cases that pass and that are refused, one op per line."""
    counts: dict[str, Counter[str]] = {}
    for outcome in outcomes:
        counts.setdefault(outcome.case.op_type, Counter())[outcome.status] += 1
    lines = [
        f'  "{op}": {{"passed": {count["passed"]}, "refused": {count["refused"]}}}'
        for op, count in sorted(counts.items())
    ]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _summary(outcomes: list[Outcome]) -> None:
    counts = Counter(outcome.status for outcome in outcomes)
    print(f"\n{len(outcomes)} cases: " + ", ".join(f"{n} {status}" for status, n in counts.most_common()))
    refused = Counter(f"{o.case.op_type}" for o in outcomes if o.status == "refused")
    print("refused by op: " + ", ".join(f"{op} {n}" for op, n in refused.most_common()))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    chosen = parser.add_mutually_exclusive_group(required=True)
    chosen.add_argument("--all", action="store_true", help="every eligible case")
    chosen.add_argument("--ops", help="op types, with commas")
    parser.add_argument("--peer", action="store_true", help="convert with onnxsim instead")
    parser.add_argument("--verbose", action="store_true", help="print every case")
    parser.add_argument("--json", help="write the outcomes to this file")
    parser.add_argument("--table", help="write the counts per op type to this file (with --all)")
    arguments = parser.parse_args()
    if arguments.table and not arguments.all:
        parser.error("--table needs --all")
    return arguments


if __name__ == "__main__":
    main()
