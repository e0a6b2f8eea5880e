"""``edgeq compare`` as a user runs it: two methods in two formats, refused rows, and a run that goes on."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from edgeq.cli.app import app
from edgeq.targets.language.known_states import KnownStates
from tests.support.compared_llama import llama_workspace

pytest.importorskip("transformers")
pytest.importorskip("gguf")

COMMON = (
    "compare", "llama", "--evaluation", "evaluation.txt", "--data-option", "window=64",
    "--measure", "size", "--measure", "accuracy", "-o", "out/m",
)  # fmt: skip
ROWS = ("--methods", "rtn,gptq", "--formats", "hf-gptq,vllm", "--block-size", "32",
        "--calibration", "calibration.txt", "--calibration-samples", "4")  # fmt: skip
BUDGETS = ("-b", "perplexity <= 200%", "-b", "size <= 1MB")


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return llama_workspace(tmp_path_factory.mktemp("llama"))


def edgeq(folder: Path, *arguments: str) -> Any:
    """The command in ``folder``, in this process: PyTorch is imported once for all tests."""
    with contextlib.chdir(folder):
        return CliRunner().invoke(app, list(arguments))


@pytest.fixture(scope="module")
def first(work: Path) -> dict[str, object]:
    """The document of a first run: everything is made."""
    run = edgeq(work, *COMMON, *ROWS, *BUDGETS, "--json", "--quiet")
    assert run.exit_code == 0, run.stderr
    found: dict[str, object] = json.loads(run.stdout)
    return found


def made(work: Path) -> dict[str, int]:
    """When each artefact's files were written."""
    return {p.parent.name: p.stat().st_mtime_ns for p in (work / "out").glob("m-*/model.safetensors")}


def test_the_document_has_a_row_for_each_with_what_was_measured(work: Path, first: dict[str, object]) -> None:
    rows = first["rows"]
    assert isinstance(rows, list)
    assert [(row["target"], row["method"]) for row in rows] == [
        ("hf-gptq", "rtn"), ("hf-gptq", "gptq"), ("vllm", "rtn"), ("vllm", "gptq"),
    ]  # fmt: skip
    for row in rows:
        metrics = {m["metric"]: m for m in row["measured"]["metrics"]}
        assert set(metrics) >= {"size", "perplexity", "kl", "kl_p99", "top1_agreement"}
        assert metrics["perplexity"]["baseline"] > 1
        assert row["run_memory"]["context"] == 256
        assert row["passed"]
        assert row["calibration"] == ("calibration" if row["method"] == "gptq" else None)
    by_name = {row["name"]: row for row in rows}
    values = [m["value"] for row in rows for m in row["measured"]["metrics"] if m["metric"] == "perplexity"]
    # The same weights in both formats.
    assert values[0] == pytest.approx(values[2], rel=1e-3)
    assert values[1] == pytest.approx(values[3], rel=1e-3)
    assert first["recommended"] in by_name
    assert first["front"]
    assert json.loads((work / "out" / "m-comparison.json").read_text()) == first
    assert not list(work.rglob(".edgeq-work/*"))


def test_the_page_shows_the_rows_their_links_and_the_picture(work: Path, first: dict[str, object]) -> None:
    page = (work / "out" / "m-comparison.html").read_text()
    assert page.count("<circle") == 4
    assert 'href="m-gptq-4bit-g32-vllm/report.html"' in page
    sentences = first["recommendation"]
    assert isinstance(sentences, list)
    text = (work / "out" / "m-comparison.md").read_text()
    assert text.startswith("## m\n\n**Ship ")


def test_finished_rows_are_not_made_again_and_missing_ones_are(work: Path, first: dict[str, object]) -> None:
    before = made(work)
    folder = work / "out" / "m-gptq-4bit-g32-vllm"
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    run = edgeq(work, *COMMON, *ROWS, "-b", "perplexity <= 50%", "-b", "size <= 1MB")
    assert run.exit_code == 1, run.stderr
    assert run.stderr.count("Evaluating (") == 1
    # Other budgets judge the same measurements.
    assert "Nothing keeps every budget." in run.stdout
    assert "--bits 8." in run.stdout
    after = made(work)
    assert set(after) == set(before)
    assert {name for name in after if after[name] != before[name]} == {folder.name}
    lines = [line.split() for line in run.stdout.splitlines() if line.startswith("✗")]
    assert [line[2] for line in lines] == ["hf-gptq", "hf-gptq", "vllm", "vllm"]


def test_the_float_model_computes_each_window_once(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    computed: list[int] = []
    watching = KnownStates._watching
    monkeypatch.setattr(KnownStates, "_watching", lambda self: computed.append(1) or watching(self))
    run = edgeq(
        work, *COMMON[:-1], "once/m", "--methods", "rtn", "--formats", "hf-gptq,vllm", "--block-size", "32",
        "--json", *BUDGETS,
    )  # fmt: skip
    assert run.exit_code == 0, run.stderr
    rows = json.loads(run.stdout)["rows"]
    assert len(rows) == 2
    perplexity = next(m for m in rows[0]["measured"]["metrics"] if m["metric"] == "perplexity")
    detail = perplexity["detail"]
    assert len(computed) == -(-detail["samples"] // detail["batch"])
    assert not list(work.rglob(".edgeq-*"))


def test_an_artefact_of_another_order_is_not_replaced(work: Path, first: dict[str, object]) -> None:
    run = edgeq(work, *COMMON, *ROWS[:-1], "3", *BUDGETS)
    assert run.exit_code == 2
    assert "m-gptq-4bit-g32-hf-gptq is there" in run.stderr


def test_what_was_named_in_vain_is_a_row_and_stops_nothing(work: Path) -> None:
    run = edgeq(
        work,
        *COMMON[:-1],
        "vain/m",
        "--methods",
        "rtn,nf4",
        "--formats",
        "hf-gptq",
        "--block-size",
        "32",
        *BUDGETS,
    )
    assert run.exit_code == 0, run.stderr
    assert "hf-gptq (nf4-4bit-g32): hf-gptq stores no NF4 weights." in run.stdout
    assert "Ship hf-gptq (rtn-4bit-g32)" in run.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--methods", "gptq"), "The method 'gptq' needs calibration text"),
        (("--methods", "magic"), "Unknown method 'magic'"),
        (("--bits", "four"), "--bits takes whole numbers, and 'four' is none"),
        (("--ram", "much"), "--ram 'much' is no size"),
        (("--hardware", "toaster"), "Unknown hardware 'toaster'"),
        (("--formats", "openvino"), "'openvino' is no format of language models"),
    ],
)
def test_what_cannot_be_compared_is_refused_before_any_work(
    work: Path, arguments: tuple[str, ...], said: str
) -> None:
    run = edgeq(work, *COMMON[:-1], "none/m", *arguments)
    assert run.exit_code in (2, 3)
    assert said in run.stderr
    assert not (work / "none").exists()


def test_pages_of_somebody_else_are_not_replaced(work: Path) -> None:
    folder = work / "foreign"
    folder.mkdir()
    (folder / "m-comparison.html").write_text("mine")
    run = edgeq(work, *COMMON[:-1], os.fspath(folder / "m"), "--methods", "rtn")
    assert run.exit_code == 2
    assert "is no page of edgeq compare" in run.stderr


def test_tasks_of_lm_eval_are_columns_and_budgets(work: Path) -> None:
    pytest.importorskip("lm_eval")
    question = {"q": "The band plays on in the", "choices": ["square", "sea"], "gold": 0}
    (work / "questions.jsonl").write_text(json.dumps(question), encoding="utf-8")
    task = {
        "task": "band", "dataset_path": "json", "dataset_kwargs": {"data_files": {"test": "questions.jsonl"}},
        "test_split": "test", "doc_to_text": "{{q}}", "doc_to_target": "gold", "doc_to_choice": "choices",
        "output_type": "multiple_choice", "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
    }  # fmt: skip
    (work / "band.yaml").write_text(json.dumps(task), encoding="utf-8")
    run = edgeq(
        work, *COMMON[:-1], "out/tasks", "--methods", "rtn", "--formats", "hf-gptq", "--metric", "perplexity",
        "--lm-eval-tasks", "band.yaml", "-b", "lm_eval/band/acc >= 0", "--json", "--quiet",
    )  # fmt: skip
    assert (run.exit_code, run.stderr) == (0, ""), run.stdout
    (row,) = json.loads(run.stdout)["rows"]
    found = {metric["metric"]: metric["value"] for metric in row["measured"]["metrics"]}
    assert found["lm_eval/band/acc"] in (0, 1)
    assert row["passed"]
    page = (work / "out" / "tasks-comparison.html").read_text(encoding="utf-8")
    table = (work / "out" / "tasks-comparison.md").read_text(encoding="utf-8")
    for title in ("band/acc", "band/acc_norm"):
        assert title in page
        assert title in table

    refused = edgeq(work, *COMMON, "--lm-eval-tasks", "band.yaml", "-b", "lm_eval/other/acc >= 1%")
    assert refused.exit_code == 2
    assert "is of a task that is not given" in refused.stderr
