from __future__ import annotations

import json
import os
import socket
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgeq
from edgeq.benchmarks.budgets import parse_budget, parse_budgets
from edgeq.benchmarks.harness import BenchOptions, Subject, measure
from edgeq.benchmarks.measurement import Measurements
from edgeq.benchmarks.tasks.files import read_task, tasks_sha256
from edgeq.benchmarks.tasks.offline import offline
from edgeq.benchmarks.verdicts import judge
from edgeq.errors import ConfigError, DataError, EdgeqError, MissingExtraError, UsageError
from edgeq.quiet import quiet
from edgeq.targets.language.float_runner import open_float
from tests.support.tiny_llama import tiny_llama

QUESTIONS = [
    {"q": "The quick brown fox jumps over the lazy", "choices": ["dog", "moon", "stone"], "gold": 0},
    {"q": "The band plays on in the", "choices": ["square", "sea", "dark"], "gold": 0},
    {"q": "Numbers such as ", "choices": ["words", "12", "commas"], "gold": 1},
    {"q": "and so are its", "choices": ["dogs", "fox", "commas"], "gold": 2},
]
COMMON = {
    "dataset_path": "json",
    "dataset_kwargs": {"data_files": {"test": "questions.jsonl"}},
    "test_split": "test",
    "doc_to_text": "{{q}}",
    "doc_to_target": "gold",
}
TASKS: dict[str, dict[str, Any]] = {
    "choice": {
        "output_type": "multiple_choice",
        "doc_to_choice": "choices",
        "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
    },
    "rolling": {
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "{{q}} {{q}} {{q}}",
        "metric_list": [{"metric": "word_perplexity"}, {"metric": "bits_per_byte"}],
    },
    "writing": {
        "output_type": "generate_until",
        "doc_to_target": "{{choices[gold]}}",
        "generation_kwargs": {"until": ["e"], "max_gen_toks": 8, "do_sample": False},
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
    },
}
ACCURACY = BenchOptions(parts=("accuracy",))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # A context that the rolled texts do not fit into.
    return tiny_llama(tmp_path_factory.mktemp("tasks") / "llama", max_position_embeddings=24)


def task(folder: Path, name: str = "choice", **changed: Any) -> Path:
    """A task file with its data beside it; a value None leaves the key out."""
    rows = "\n".join(json.dumps(row) for row in QUESTIONS)
    (folder / "questions.jsonl").write_text(rows)
    content = {"task": name, **COMMON, **TASKS.get(name, TASKS["choice"]), **changed}
    path = folder / f"{name}.yaml"
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))
    return path


def measured(
    folder: Path,
    *tasks: Path,
    runner: str = "edgeq.targets.language.float_runner:open_float",
    baseline: bool = False,
) -> Measurements:
    options = BenchOptions(parts=("accuracy",), tasks=tuple(map(str, tasks)))
    ours = Subject(runner, folder, threads=1)
    theirs = Subject("edgeq.targets.language.float_runner:open_float", folder, threads=1)
    return measure(ours, theirs if baseline else None, source=None, options=options)


class Worse:
    """The same model, which is drawn to token 5; it has no cache."""

    def __init__(self, path: Path, *, threads: int | None = None) -> None:
        self._runner = open_float(path, threads=threads)
        self.inputs, self.outputs, self.close = self._runner.inputs, self._runner.outputs, self._runner.close

    def run(self, inputs: Any) -> Any:
        logits = self._runner.run(inputs)["logits"]
        logits[..., 5] += 3
        return {"logits": logits}


def lm_evals_own(folder: Path, path: Path) -> dict[str, Any]:
    """What lm-eval says of the model with its own class ``hf``."""
    import torch
    import transformers

    with quiet(), offline():
        from lm_eval import simple_evaluate
        from lm_eval.models.huggingface import HFLM
        from lm_eval.tasks import TaskManager

        model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        lm = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=1, device="cpu")
        before = Path.cwd()
        os.chdir(path.parent)
        try:
            result = simple_evaluate(
                lm, tasks=[str(path)], task_manager=TaskManager(include_defaults=False), bootstrap_iters=0
            )
        finally:
            os.chdir(before)
    found: dict[str, Any] = result["results"][path.stem]
    return found


def test_the_hash_of_tasks_is_of_their_data_too(tmp_path: Path) -> None:
    path = task(tmp_path)
    before = tasks_sha256([path])
    assert tasks_sha256([path]) == before
    (tmp_path / "questions.jsonl").write_text(json.dumps(QUESTIONS[0]), encoding="utf-8")
    other_data = tasks_sha256([path])
    (tmp_path / "functions.py").write_text("", encoding="utf-8")
    found = {before, other_data, tasks_sha256([path]), tasks_sha256([task(tmp_path, doc_to_text="{{q}}?")])}
    assert len(found) == 4


def test_the_same_numbers_as_lm_evals_own_model(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    paths = [task(tmp_path, name) for name in TASKS]
    found = measured(folder, *paths, baseline=True)
    compared = 0
    for path in paths:
        for key, value in lm_evals_own(folder, path).items():
            metric, comma, _ = key.partition(",")
            if comma and "stderr" not in metric:
                one = found[f"lm_eval/{path.stem}/{metric}"]
                assert (one.value, one.baseline) == (pytest.approx(value, rel=1e-5), one.value)
                compared += 1
    assert compared == 5


def test_a_worse_artefact_beside_its_baseline(folder: Path, tmp_path: Path) -> None:
    found = measured(
        folder, task(tmp_path), task(tmp_path, "rolling"), runner=f"{__name__}:Worse", baseline=True
    )
    accuracy, bits = found["lm_eval/choice/acc"], found["lm_eval/rolling/bits_per_byte"]
    assert (accuracy.unit, accuracy.higher_is_better, accuracy.detail["samples"]) == ("fraction", True, 4)
    assert accuracy.interval is not None
    assert accuracy.interval[0] <= (accuracy.difference or 0) <= accuracy.interval[1]
    assert accuracy.detail["stderr"] > 0
    assert bits.baseline is not None
    assert (bits.unit, bits.higher_is_better) == ("", False)
    assert bits.value > bits.baseline
    verdicts = judge(
        parse_budgets(
            ["lm_eval/choice/acc >= 1%", "lm_eval/rolling/bits_per_byte <= +0.001", "lm_eval/x/acc >= 0.5"]
        ),
        found,
    )
    assert [verdict.status for verdict in verdicts] == ["pass", "fail", "not-measured"]


def test_writing_without_a_cache_is_the_same(folder: Path, tmp_path: Path) -> None:
    from edgeq.benchmarks.tasks.model import RunnerModel

    class NoCache:
        def __init__(self) -> None:
            runner = open_float(folder, threads=1)
            self.inputs, self.outputs, self.run = runner.inputs, runner.outputs, runner.run

        def close(self) -> None: ...

    class Request:
        args = ("The quick brown", {"until": ["."], "max_gen_toks": 9})

    with_cache = RunnerModel(open_float(folder, threads=1), folder, lambda _: None)
    without = RunnerModel(NoCache(), folder, lambda _: None)
    texts = with_cache.generate_until([Request()])
    assert texts == without.generate_until([Request()])
    assert texts[0]


@pytest.mark.parametrize(
    ("text", "status"), [("lm_eval/t/acc >= 99%", "fail"), ("lm_eval/t/acc >= 0.7", "pass")]
)
def test_budgets(text: str, status: str) -> None:
    found = edgeq.benchmarks.measurement.Measurement("lm_eval/t/acc", 0.75, 0.8, "fraction", True)
    assert judge([parse_budget(text)], {"lm_eval/t/acc": found})[0].status == status


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lm_eval/t/acc <= 0.7", "lm_eval/t/acc is better when higher"),
        ("lm_eval/t/acc >= 70", "lm_eval/t/acc is between 0 and 1"),
        ("lm_eval/t/word_perplexity >= 5", "is better when lower"),
        ("lm_eval/acc >= 0.7", "'lm_eval/acc' is no metric of a task. Write lm_eval/TASK/METRIC"),
    ],
)
def test_budgets_that_are_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse_budget(text)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        (
            {"dataset_path": "allenai/arc"},
            ConfigError,
            "takes its data from 'allenai/arc', and tasks never use",
        ),
        ({"dataset_kwargs": None}, ConfigError, "names no data files"),
        (
            {"dataset_kwargs": {"data_files": {"test": "https://example.org/q.jsonl"}}},
            ConfigError,
            "names 'https://example.org/q.jsonl' as data, which is no local file",
        ),
        (
            {"dataset_kwargs": {"data_files": ["missing.jsonl"]}},
            DataError,
            "missing.jsonl, data of the task file",
        ),
        ({"task": None}, ConfigError, "is no task of lm-eval: its key 'task' is None"),
        ({"include": "nowhere.yaml"}, ConfigError, "nowhere.yaml cannot be read"),
        ({"include": "choice.yaml"}, ConfigError, "includes itself"),
    ],
)
def test_task_files_that_are_refused(
    changed: dict[str, Any], error: type[EdgeqError], message: str, tmp_path: Path
) -> None:
    path = task(tmp_path, **({"name": "choice"} | changed))
    with pytest.raises(error) as caught:
        read_task(path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["task: [", "- a", "\t", "just text"])
def test_what_is_no_task(text: str, tmp_path: Path) -> None:
    path = tmp_path / "task.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_task(path)
    assert "\n" not in str(caught.value)


def test_a_task_that_fails_says_so_in_one_sentence(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be run: ") as caught:
        measured(folder, task(tmp_path, test_split="nothing"))
    assert "\n" not in str(caught.value)


def test_sampled_text_is_refused(folder: Path, tmp_path: Path) -> None:
    sampled = {"until": ["."], "max_gen_toks": 4, "do_sample": True, "temperature": 1.0}
    with pytest.raises(UsageError, match="asks for sampled text"):
        measured(folder, task(tmp_path, "writing", generation_kwargs=sampled))


def test_an_included_task_and_a_function(folder: Path, tmp_path: Path) -> None:
    task(tmp_path)
    (tmp_path / "functions.py").write_text("def text(doc):\n    return doc['q']\n")
    path = tmp_path / "own.yaml"
    path.write_text("include: choice.yaml\ntask: own\ndoc_to_text: !function functions.text\n")
    found = measured(folder, path, task(tmp_path))
    assert found["lm_eval/own/acc"].value == found["lm_eval/choice/acc"].value


def test_no_network_and_no_traces(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    state = np.random.get_state()[1][:3].tolist()  # noqa: NPY002
    measured(folder, task(tmp_path))
    assert "HF_HUB_OFFLINE" not in os.environ
    assert np.random.get_state()[1][:3].tolist() == state  # noqa: NPY002


def test_without_lm_eval(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'edgeq\[eval\]'"):
        read_task(task(tmp_path))


def test_compile_with_tasks(folder: Path, tmp_path: Path) -> None:
    path = task(tmp_path)
    result = edgeq.compile(
        folder,
        target="hf-gptq",
        recipe=edgeq.Recipe(scheme="int4-weight", block_size=32),
        budgets=["lm_eval/choice/acc >= 1%"],
        bench=BenchOptions(parts=("accuracy",), tasks=(str(path),)),
        output=tmp_path / "tiny",
        threads=1,
    )
    assert result.measurements["lm_eval/choice/acc"].baseline is not None
    assert result.verdicts[0].metric == "lm_eval/choice/acc"
    assert "lm_eval/choice/acc" in (result.folder / "report.html").read_text()


@pytest.mark.parametrize(
    ("budget", "parts", "message"),
    [
        ("lm_eval/other/acc >= 0.5", ("accuracy",), "is of a task that is not given"),
        ("size <= 1GB", ("size",), "part of measuring accuracy"),
    ],
)
def test_tasks_that_do_not_fit_the_budgets(
    budget: str, parts: Any, message: str, folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=message):
        edgeq.compile(
            folder,
            target="hf-gptq",
            recipe=edgeq.Recipe(scheme="int4-weight", block_size=32),
            budgets=[budget],
            bench=BenchOptions(parts=parts, tasks=(str(task(tmp_path)),)),
            output=tmp_path / "tiny",
        )
