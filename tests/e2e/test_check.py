"""``edgeq check``: the gate for CI."""

from __future__ import annotations

import json
from xml.etree import ElementTree as ET

from tests.support.cli import Workspace

FILE = """\
model = "model.onnx"
budgets = ["top1 >= 80%"]
[bench]
parts = ["size", "accuracy"]
[data]
calibration = "calib.npz"
evaluation = "data.npz"
[report]
junit = "out/junit.xml"
json = "out/check.json"
[[targets]]
scheme = "int8-static"
budgets = ["size <= 60%"]
[[targets]]
name = "weights"
scheme = "int8-weight"
budgets = ["size <= {limit}"]
"""


def test_all_targets_pass(work: Workspace) -> None:
    work.write("edgeq.toml", FILE.format(limit="60%"))
    run = work.edgeq("check")
    assert run.returncode == 0, run.stderr + run.stdout
    assert run.stdout.count("✓") == 2
    assert "All 4 budgets kept" in run.stdout
    document = json.loads((work.folder / "out" / "check.json").read_text())
    assert document["passed"] is True
    assert [o["name"] for o in document["outcomes"]] == ["int8-static", "weights"]
    assert (work.folder / "build" / "model-weights-onnxruntime" / "model.onnx").is_file()


def test_a_miss_exits_with_1_and_every_report_says_so(work: Workspace) -> None:
    work.write("edgeq.toml", FILE.format(limit="1KB"))
    summary = work.write("summary.md", "# earlier step\n")
    run = work.edgeq("check", "--json", env={"GITHUB_STEP_SUMMARY": str(summary)})
    assert run.returncode == 1, run.stderr
    document = json.loads(run.stdout)
    assert (document["passed"], document["exit_code"]) == (False, 1)
    assert [o["passed"] for o in document["outcomes"]] == [True, False]
    markdown = summary.read_text()
    assert markdown.startswith("# earlier step\n")
    assert "❌" in markdown
    assert "1 of 4 budgets missed" in markdown
    junit = ET.parse(work.folder / "out" / "junit.xml").getroot()
    _assert_junit(junit, tests=6, failures=1, errors=0)


def test_an_error_in_one_target_does_not_stop_the_others(work: Workspace) -> None:
    broken = FILE.format(limit="60%").replace(
        'name = "weights"', 'name = "weights"\nexclude = ["no-such-node"]'
    )
    work.write("edgeq.toml", broken)
    run = work.edgeq("check")
    assert run.returncode == 2
    assert "weights: The override 'no-such-node' matches no node of the model." in run.stdout
    assert run.stdout.count("✓") == 1
    junit = ET.parse(work.folder / "out" / "junit.xml").getroot()
    _assert_junit(junit, tests=4, failures=0, errors=1)
    assert "no-such-node" in ET.tostring(junit, encoding="unicode")


def test_artefacts_of_an_earlier_check_need_force_or_overwrite(work: Workspace) -> None:
    work.write("edgeq.toml", FILE.format(limit="60%"))
    assert work.edgeq("check", "--only", "weights").returncode == 0
    again = work.edgeq("check", "--only", "weights")
    assert again.returncode == 2
    assert "is there." in " ".join(again.stdout.split())
    assert work.edgeq("check", "--only", "weights", "--force").returncode == 0
    work.write("edgeq.toml", "overwrite = true\n" + FILE.format(limit="60%"))
    assert work.edgeq("check", "--only", "weights").returncode == 0


def test_only_must_name_a_target(work: Workspace) -> None:
    work.write("edgeq.toml", FILE.format(limit="60%"))
    run = work.edgeq("check", "--only", "weight")
    assert run.returncode == 2
    assert run.stderr == (
        "error: edgeq.toml has no target called 'weight'.\nfix:   It has: int8-static, weights.\n"
    )


def _assert_junit(root: ET.Element, *, tests: int, failures: int, errors: int) -> None:
    """The counts agree with the content, as Jenkins and GitLab expect."""
    assert root.tag == "testsuites"
    for element, found in (("testcase", tests), ("failure", failures), ("error", errors)):
        assert len(list(root.iter(element))) == found
    for name, expected in (("tests", tests), ("failures", failures), ("errors", errors)):
        assert int(root.get(name, "-1")) == expected
        assert sum(int(suite.get(name, "-1")) for suite in root) == expected
    for case in root.iter("testcase"):
        assert case.get("classname")
        assert case.get("name")
