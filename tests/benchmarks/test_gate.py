from __future__ import annotations

import json
from xml.etree import ElementTree as ET

from hypothesis import given
from hypothesis import strategies as st

from edgeq.benchmarks.budgets import parse_budgets
from edgeq.benchmarks.gate import Gate, Outcome
from edgeq.benchmarks.junit import to_junit
from edgeq.benchmarks.measurement import Measurement, Measurements
from edgeq.benchmarks.tables import metric_rows
from edgeq.benchmarks.verdicts import Verdict, judge


def measured() -> Measurements:
    found = Measurements()
    found.add(
        Measurement("size", 1.2e6, 4.8e6, "bytes", False),
        Measurement(
            "top1", 0.73, 0.74, "fraction", True, (-0.02, 0.01), "difference",
            {"samples": 650, "flips": {"changed": 1, "lost": 1, "gained": 0}},
        ),
        Measurement(
            "speedup", 1.5, None, "x", True, (1.4, 1.6), "value",
            {"iterations": 50, "threads": 2, "note": "few"}
        ),
    )  # fmt: skip
    return found


def gate() -> Gate:
    verdicts = judge(parse_budgets(["size <= 1MB", "top1 >= 98%", "f1 >= 95%"]), measured())
    return Gate(
        (
            Outcome("cnn int8", "onnxruntime", tuple(verdicts), measured(), seconds=1.5),
            Outcome("cnn|int4", "onnxruntime", error="Target 'x' <is> not there & \x00 never was."),
        )
    )


def test_headline_and_rows() -> None:
    assert gate().headline() == "1 of 2 artefacts failed, 2 of 3 budgets missed"
    assert not gate().passed
    assert [(row.name, row.status) for row in gate().rows()] == [
        ("cnn int8", "fail"),
        ("cnn int8", "pass"),
        ("cnn int8", "not-measured"),
        ("cnn|int4", "error"),
    ]


def test_what_passes() -> None:
    kept = tuple(judge(parse_budgets(["size <= 2MB"]), measured()))
    assert Gate((Outcome("a", "t", kept),)).passed
    assert Gate((Outcome("a", "t", kept),)).headline() == "the budget is kept"
    assert Gate((Outcome("a", "t", kept), Outcome("b", "t", kept))).headline() == "all 2 budgets kept"
    assert Gate((Outcome("a", "t"),)).passed
    assert not Gate(()).passed
    assert not Gate((Outcome("a", "t", error="no"),)).passed


def test_junit_has_a_case_per_budget() -> None:
    root = ET.fromstring(to_junit(gate()))
    assert (root.get("tests"), root.get("failures"), root.get("errors")) == ("5", "2", "1")
    first, second = root.findall("testsuite")
    assert [case.get("name") for case in first] == ["compile", "size <= 1MB", "top1 >= 98%", "f1 >= 95%"]
    assert first.get("time") == "1.500"
    failures = {case.get("name"): case.find("failure") for case in first}
    size, missing = failures["size <= 1MB"], failures["f1 >= 95%"]
    assert size is not None
    assert missing is not None
    assert size.get("message") == "size is 1.2 MB; the budget is at most 1 MB: missed."
    assert (size.get("type"), missing.get("type")) == ("budget missed", "not measured")
    assert failures["top1 >= 98%"] is None
    error = second.find("testcase/error")
    assert error is not None
    assert error.get("message") == "Target 'x' <is> not there & \ufffd never was."


@given(st.text(), st.text(), st.text())
def test_junit_is_valid_xml_whatever_the_names_are(name: str, budget: str, sentence: str) -> None:
    text = to_junit(Gate((Outcome(name, name, (Verdict(budget, name, "fail", sentence),), error=sentence),)))
    root = ET.fromstring(text)
    assert len(root.findall(".//failure")) == 1
    text.encode("utf-8")


def test_markdown() -> None:
    text = gate().to_markdown()
    assert text.startswith("## ❌ edgeq: 1 of 2 artefacts failed, 2 of 3 budgets missed\n")
    assert "| ❌ | cnn int8 | size &lt;= 1MB | 1.2 MB | 1 MB |" in text
    assert "cnn\\|int4" in text
    assert "| top1 | 74.00 % | 73.00 % | -1.00 points | -2.00 to +1.00 points | 650 samples, 1 flip" in text
    table = [line for line in text.splitlines() if line.startswith("| ")]
    assert all(line.replace("\\|", "").count("|") == 7 for line in table)


def test_json() -> None:
    content = json.loads(json.dumps(gate().to_json(), allow_nan=False))
    assert content["passed"] is False
    assert content["outcomes"][0]["verdicts"][0]["status"] == "fail"
    assert Measurements.from_json(content["outcomes"][0]["measured"]) == measured()


def test_metric_rows() -> None:
    size, top1, speedup = metric_rows(measured())
    assert (size.baseline, size.value, size.change, size.better) == ("4.8 MB", "1.2 MB", "x 0.25", True)
    # One point less, but within the interval.
    assert (top1.change, top1.better) == ("-1.00 points", None)
    assert top1.remark == "650 samples, 1 flip (1 lost, 0 gained)"
    assert (speedup.baseline, speedup.change, speedup.interval) == ("-", "-", "1.40x to 1.60x")
    assert speedup.remark == "50 inferences, 2 threads, few"
