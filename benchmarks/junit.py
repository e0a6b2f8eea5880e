"""The gate's result as JUnit XML: one suite per artefact, one test case per budget."""

from __future__ import annotations

import re
from xml.etree import ElementTree as ET

from edgeq.benchmarks.gate import Gate, Outcome
from edgeq.benchmarks.verdicts import Verdict

# XML 1.0 allows no other control characters, not even escaped ones (section 2.2).
_ILLEGAL = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def to_junit(gate: Gate, *, name: str = "edgeq") -> str:
    """The XML text, in the form that Jenkins, GitLab and GitHub's report actions read.

    A suite has the test case ``compile``, which fails when there is no artefact, and one per budget, whose
    failure message is the verdict's sentence.
    """
    root = ET.Element("testsuites", name=_legal(name))
    for outcome in gate.outcomes:
        root.append(_suite(outcome))
    for count in ("tests", "failures", "errors"):
        root.set(count, str(sum(int(suite.get(count, "0")) for suite in root)))
    ET.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _suite(outcome: Outcome) -> ET.Element:
    suite = ET.Element("testsuite", name=_legal(outcome.name))
    suite.append(_compile_case(outcome))
    suite.extend(_budget_case(outcome, verdict) for verdict in outcome.verdicts)
    suite.set("tests", str(len(suite)))
    suite.set("failures", str(len(suite.findall("testcase/failure"))))
    suite.set("errors", str(len(suite.findall("testcase/error"))))
    suite.set("skipped", "0")
    if outcome.seconds is not None:
        suite.set("time", f"{outcome.seconds:.3f}")
    return suite


def _case(outcome: Outcome, name: str) -> ET.Element:
    return ET.Element("testcase", classname=_legal(f"edgeq.{outcome.name}"), name=_legal(name))


def _compile_case(outcome: Outcome) -> ET.Element:
    case = _case(outcome, "compile")
    if outcome.seconds is not None:
        case.set("time", f"{outcome.seconds:.3f}")
    if outcome.error is not None:
        error = ET.SubElement(case, "error", message=_legal(outcome.error), type="error")
        error.text = _legal(outcome.error)
    return case


def _budget_case(outcome: Outcome, verdict: Verdict) -> ET.Element:
    case = _case(outcome, verdict.budget)
    if verdict.passed:
        ET.SubElement(case, "system-out").text = _legal(verdict.sentence)
        return case
    kind = "not measured" if verdict.status == "not-measured" else "budget missed"
    failure = ET.SubElement(case, "failure", message=_legal(verdict.sentence), type=kind)
    failure.text = _legal(verdict.sentence)
    return case


def _legal(text: str) -> str:
    return _ILLEGAL.sub("\ufffd", text)
