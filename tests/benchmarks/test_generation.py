from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgeq.benchmarks.budgets import parse_budgets
from edgeq.benchmarks.generation import Prompts, prompts_of, time_generation
from edgeq.benchmarks.harness import BenchOptions, Subject, measure, measure_together
from edgeq.benchmarks.tables import metric_rows
from edgeq.benchmarks.verdicts import judge
from edgeq.calibration.data import DataOptions, open_data
from edgeq.calibration.types import Array, DataSource
from edgeq.errors import TargetError
from edgeq.progress import SilentProgress
from edgeq.targets.base import GeneratingRunner
from edgeq.targets.language.float_runner import open_float
from edgeq.targets.language.runner import LanguageRunner
from tests.support.bench_models import linear
from tests.support.tiny_llama import TEXT, tiny_llama, token_ids

NAMES = ["prompt_tokens_per_s", "generation_tokens_per_s", "ttft"]
FAST = BenchOptions(
    parts=("generation",), min_seconds=0, max_seconds=20, latency_samples=2, prompt_tokens=12, new_tokens=4
)
SLOWDOWN = 0.004


class Slow:
    """A model whose every step takes some milliseconds more."""

    def __init__(self, path: Path, *, threads: int | None = None) -> None:
        self._runner = open_float(path, threads=threads)
        self.inputs, self.outputs, self.run = self._runner.inputs, self._runner.outputs, self._runner.run
        self.start, self.close = self._runner.start, self._runner.close

    def step(self, token: int) -> Array:
        time.sleep(SLOWDOWN)
        return self._runner.step(token)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("generation") / "llama")


def subject(folder: Path, runner: str = "edgeq.targets.language.float_runner:open_float") -> Subject:
    return Subject(runner, folder, threads=1)


def text(folder: Path, **options: int) -> DataSource:
    path = folder.parent / "text.txt"
    path.write_text(" ".join(f"{TEXT} {i * i * i}" for i in range(40)))
    runner = open_float(folder, threads=1)
    return open_data(path, runner.inputs, options=DataOptions(tokenizer=folder, **options))  # type: ignore[arg-type]


def greedy(runner: LanguageRunner, prompt: Array, count: int) -> list[int]:
    tokens = [int(runner.start(prompt, count).argmax())]
    while len(tokens) < count:
        tokens.append(int(runner.step(tokens[-1]).argmax()))
    return tokens


def test_the_protocol_writes_what_transformers_writes(folder: Path) -> None:
    import torch

    runner = open_float(folder, threads=1)
    prompt = token_ids(1, 20)
    wanted = runner._model.generate(
        torch.from_numpy(prompt),
        attention_mask=torch.ones(1, 20),
        max_new_tokens=16,
        min_new_tokens=16,
        do_sample=False,
        pad_token_id=0,
    )
    assert greedy(runner, prompt[0], 16) == wanted[0, 20:].tolist()
    # A second text does not see the first.
    assert greedy(runner, prompt[0], 16) == wanted[0, 20:].tolist()


def test_logits_through_the_cache_are_those_of_the_whole_text(folder: Path) -> None:
    runner = open_float(folder, threads=1)
    ids = token_ids(1, 12)
    whole = runner.run({"input_ids": ids})["logits"][0]
    found = [runner.start(ids[0, :8], 4), *(runner.step(int(token)) for token in ids[0, 8:])]
    np.testing.assert_allclose(found, whole[7:], rtol=1e-4, atol=1e-4)
    assert found[0].dtype == np.float32


def test_nothing_was_started(folder: Path) -> None:
    runner = open_float(folder, threads=1)
    with pytest.raises(TargetError, match="nothing to go on with"):
        runner.step(3)
    runner.close()
    with pytest.raises(TargetError, match="closed"):
        runner.start(np.arange(3), 1)


def test_measured_in_turns_with_the_baseline(folder: Path) -> None:
    slow = subject(folder, f"{__name__}:Slow")
    found = measure(slow, subject(folder), source=text(folder), options=FAST)
    assert list(found) == NAMES
    writing = found["generation_tokens_per_s"]
    assert writing.unit == "tokens/s"
    assert writing.baseline is not None
    assert writing.value < min(writing.baseline, 1 / SLOWDOWN)
    assert writing.interval is not None
    assert writing.interval[0] <= writing.value <= writing.interval[1]
    assert writing.detail["rounds"] == 6
    assert found["ttft"].value == pytest.approx(12 / found["prompt_tokens_per_s"].value)
    row = metric_rows(found)[1]
    assert row.remark == "6 texts: 12 tokens of the evaluation text read, 4 written, 1 thread"
    assert row.value.endswith(" tokens/s")


def test_budgets(folder: Path) -> None:
    slow = subject(folder, f"{__name__}:Slow")
    budgets = parse_budgets(
        [
            "generation_tokens_per_s >= 120%",
            "generation_tokens_per_s >= 0.5",
            "ttft <= 20s",
            "ttft <= 100000%",
        ]
    )
    found = measure(slow, subject(folder), source=None, budgets=budgets, options=FAST)
    assert [verdict.passed for verdict in judge(budgets, found)] == [False, True, True, True]
    assert found["ttft"].detail["prompt"] == "at random"


def test_several_artefacts_and_no_baseline(folder: Path) -> None:
    both = measure_together(
        [subject(folder), subject(folder, f"{__name__}:Slow")],
        None,
        source=text(folder),
        options=[FAST, replace(FAST, parts=())],
    )
    assert list(both[0].measurements) == NAMES
    assert both[0].measurements["ttft"].baseline is None
    assert not both[1].measurements


def test_what_writes_no_text_says_so(tmp_path: Path) -> None:
    model = linear(tmp_path / "model.onnx")
    assert not isinstance(Subject("onnxruntime", model).open(), GeneratingRunner)
    budgets = parse_budgets(["ttft <= 1s"])
    found = measure(Subject("onnxruntime", model), None, source=None, budgets=budgets, options=FAST)
    assert found.failures == {"ttft": "target onnxruntime has no runner here that writes text"}


def test_slow_models_end_at_the_limit(folder: Path) -> None:
    runner = open_float(folder, threads=1)
    options = replace(FAST, min_seconds=5, max_seconds=0.001)
    prompts = Prompts([token_ids(1, 5)[0]], "")
    rounds = time_generation([runner], prompts, options, SilentProgress())
    assert rounds[0].prompt.shape == rounds[0].writing.shape == (1,)


def test_prompts_are_no_longer_than_a_window(folder: Path) -> None:
    runner = open_float(folder, threads=1)
    found = prompts_of(runner, text(folder, window=10), replace(FAST, prompt_tokens=100))
    assert [len(tokens) for tokens in found.tokens] == [10, 10]
    assert not np.array_equal(*found.tokens)
