from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

import edgeq
from edgeq.benchmarks.accuracy import measure_accuracy
from edgeq.benchmarks.feeding import OUTPUT_BYTES, bounded_batch
from edgeq.benchmarks.measurement import Measurement
from edgeq.benchmarks.metrics import get_metric
from edgeq.benchmarks.options import BenchOptions
from edgeq.benchmarks.protocol import Protocol, with_words
from edgeq.calibration.data import DataOptions, open_data
from edgeq.calibration.types import Array, Arrays, Batch, TensorSpec
from edgeq.progress import SilentProgress
from tests.support.tiny_llama import TEXT, tiny_llama

IDS = [TensorSpec("input_ids", np.dtype(np.int64), ("batch", "sequence"))]
NAMES = ("perplexity", "kl", "kl_p99", "top1_agreement")


class Large:
    """A runner that says it has a large vocabulary, and counts what it is given."""

    def __init__(self, vocabulary: int, said: int | None = None) -> None:
        self.inputs = IDS
        shape = ("batch", "sequence", said or vocabulary)
        self.outputs = [TensorSpec("logits", np.dtype(np.float32), shape)]
        self.vocabulary = vocabulary
        self.batches: list[int] = []

    def run(self, inputs: Arrays) -> dict[str, Array]:
        ids = inputs["input_ids"]
        self.batches.append(len(ids))
        logits = np.sin(ids[:, :, None] * 0.7 + np.arange(self.vocabulary)).astype(np.float32)
        return {"logits": logits}

    def close(self) -> None: ...


def characters(folder: Path) -> Path:
    """A vocabulary of one token per character."""
    path = folder / "characters.json"
    path.write_text(json.dumps({character: i for i, character in enumerate(sorted(set(TEXT)))}))
    return path


@pytest.mark.parametrize(
    ("options", "judged", "words"),
    [
        ({}, 160, len(TEXT[:160].split())),
        ({"max_tokens": 50}, 48, len(TEXT[:48].split())),
        ({"stride": 8}, len(TEXT) // 8 * 8, len(TEXT[: len(TEXT) // 8 * 8].split())),
        ({"stride": 40}, 64, None),
    ],
)
def test_tokens_and_words_of_a_text(
    options: dict[str, int], judged: int, words: int | None, tmp_path: Path
) -> None:
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    chosen = DataOptions(tokenizer=characters(tmp_path), window=16, **options)  # type: ignore[arg-type]
    said = open_data(path, IDS, options=chosen).describe()
    assert (said["judged"], said["words"]) == (judged, words)


def test_words_over_several_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeq.calibration.data.running_text.BLOCK", 40)
    lines = "".join(f"{word}\n" for word in TEXT.split())
    (tmp_path / "text.txt").write_text(lines)
    vocabulary = tmp_path / "characters.json"
    vocabulary.write_text(json.dumps({character: i for i, character in enumerate(sorted(set(lines)))}))
    options = DataOptions(tokenizer=vocabulary, window=10)
    said = open_data(tmp_path / "text.txt", IDS, options=options).describe()
    assert said["words"] == len(lines[: said["judged"]].split())
    assert said["judged"] == len(lines) // 10 * 10


def test_words_of_a_trained_tokenizer(tmp_path: Path) -> None:
    folder = tiny_llama(tmp_path / "llama")
    path = tmp_path / "text.txt"
    path.write_text(TEXT * 3)
    source = open_data(path, IDS, options=DataOptions(tokenizer=folder, window=20))
    said = source.describe()
    assert len(said["tokenizer_sha256"]) == 64
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    ids = np.concatenate([batch.inputs["input_ids"][0] for batch in source.batches(1)])
    assert said["judged"] == len(ids)
    assert said["words"] == len(tokenizer.decode(ids.tolist()).split())


def test_word_perplexity_is_that_of_all_tokens_in_words() -> None:
    found = with_words(Measurement("perplexity", 10.0, 9.0), {"judged": 300, "words": 100})
    assert found.detail["word_perplexity"] == {"value": pytest.approx(1000), "baseline": pytest.approx(729)}
    huge = with_words(Measurement("perplexity", math.exp(700)), {"judged": 300, "words": 100})
    assert huge.detail["word_perplexity"]["value"] == pytest.approx(math.exp(700))
    assert with_words(found, {"judged": 300, "words": None}) == found


def test_no_protocol_without_language() -> None:
    assert Protocol.of({"judged": 3, "words": 1}, {"top1": Measurement("top1", 0.5)}) is None
    assert Protocol.of({"kind": "npz"}, {"perplexity": Measurement("perplexity", 5.0)}) is None


def test_batches_are_bounded_by_the_bytes_of_their_logits(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    source = open_data(path, IDS, options=DataOptions(tokenizer=characters(tmp_path), window=16))
    # 16 tokens of a vocabulary so large that four windows fill the bound.
    runner = Large(60, said=OUTPUT_BYTES // (16 * 4 * 4))
    metrics = [get_metric(name) for name in NAMES]
    options = BenchOptions(batch_size=64)
    found = measure_accuracy(runner, runner, source, metrics, options=options, progress=SilentProgress())
    assert set(runner.batches) == {4}
    assert found["perplexity"].detail["batch"] == 4
    assert found.notes == [
        "Accuracy is measured with 4 samples at a time, not 64: their outputs would take more than 500 MB."
    ]
    small = Large(60)
    same = measure_accuracy(small, small, source, metrics, options=options, progress=SilentProgress())
    assert set(small.batches) == {64}
    assert not same.notes
    assert same["perplexity"].value == pytest.approx(found["perplexity"].value)
    assert [found[name].value for name in NAMES[1:]] == [0, 0, 1]


def test_one_sample_is_always_run() -> None:
    sample = Batch({"input_ids": np.zeros((1, 100_000), np.int64)}, None, 1)
    assert bounded_batch([Large(8, said=1_000_000)], 16, sample) == 1


def test_the_protocol_is_in_terminal_report_and_json(tmp_path: Path) -> None:
    from rich.console import Console

    from edgeq.cli.tables import result_view

    folder = tiny_llama(tmp_path / "llama")
    path = tmp_path / "text.txt"
    path.write_text(TEXT * 8)
    budgets = [
        "kl <= 5",
        "kl_p99 <= 50",
        "top1_agreement >= 1%",
        "perplexity <= +0.0001",
        "perplexity <= 900%",
    ]
    result = edgeq.compile(
        folder,
        target="hf-gptq",
        recipe=edgeq.Recipe(scheme="int4-weight", block_size=32),
        evaluation=path,
        data_options=DataOptions(window=32),
        budgets=budgets,
        bench=BenchOptions(parts=("accuracy",)),
        output=tmp_path / "tiny",
        threads=1,
    )
    assert tuple(result.measurements) == NAMES
    kl, agreement = result.measurements["kl"], result.measurements["top1_agreement"]
    assert 0 < kl.value < result.measurements["kl_p99"].value
    assert kl.interval is not None
    assert kl.interval[0] < kl.value < kl.interval[1]
    assert agreement.detail["changed"] == round((1 - agreement.value) * agreement.detail["predictions"])
    assert [verdict.passed for verdict in result.verdicts] == [True, True, True, False, True]
    assert "(95 % interval: " in result.verdicts[0].sentence
    assert "(95 % interval of the difference to FP32: " in result.verdicts[3].sentence

    measured = json.loads((result.folder / "edgeq.json").read_text())["measured"]
    said = measured["evaluation"]
    assert {"tokenizer", "tokenizer_sha256", "window", "stride", "judged", "words", "sha256"} <= set(said)
    windows = said["judged"] // 32
    assert measured["measurements"][0]["detail"]["predictions"] == windows * 31
    assert measured["measurements"][0]["detail"]["word_perplexity"]["value"] > 0
    console = Console(width=2000, record=True, file=None, quiet=True)
    console.print(result_view(result))
    with console.capture() as capture:
        console.quiet = False
        console.print(result_view(result))
    for shown in (capture.get(), (result.folder / "report.html").read_text()):
        for part in (f"{windows * 31:,}", said["sha256"][:12], said["tokenizer_sha256"][:12], "one every 32"):
            assert part in shown
