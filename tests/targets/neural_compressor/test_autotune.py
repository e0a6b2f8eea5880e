"""Neural Compressor's autotune behind a gate: what it returns is measured again, and may be refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeq.benchmarks.metrics import get_metric
from edgeq.errors import ConfigError, DataError, TargetError, UsageError
from edgeq.targets.neural_compressor.autotune import Judge
from tests.support.int4_folders import compiled, source, tokens

pytest.importorskip("neural_compressor")
pytest.importorskip("optimum")


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return source(tmp_path_factory.mktemp("hf") / "bert", "bert")


@pytest.fixture(scope="module")
def labelled(bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Samples whose labels are the float model's logits."""
    import torch
    import transformers

    model = transformers.BertForSequenceClassification.from_pretrained(bert).eval()
    inputs = tokens(32, "bert")
    with torch.no_grad():
        labels = model(**{k: torch.from_numpy(v) for k, v in inputs.items()}).logits.numpy()
    path = tmp_path_factory.mktemp("data") / "labelled.npz"
    np.savez(path, **inputs, labels=labels)
    return path


METRIC = "tests.support.int4_folders:closeness"


def tuned(model: Path, output: Path, tolerance: str, data: Path | None, **options: str) -> Any:
    wanted = {"autotune": tolerance, "autotune_metric": METRIC, **options}
    return compiled(model, output, target_options=wanted, evaluation=data and str(data), block_size=None)


def test_the_first_setting_within_the_tolerance_ships(bert: Path, labelled: Path, tmp_path: Path) -> None:
    found = tuned(bert, tmp_path / "out", "99%", labelled)
    notes = "\n".join(found.manifest.notes)
    assert "It returned rtn in blocks of 64" in notes
    assert "the folder as it ships" in notes
    assert sum(node.actual == "int4" for node in found.manifest.nodes) == 12


def test_what_misses_the_tolerance_is_refused(bert: Path, labelled: Path, tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="autotune keeps no more than") as error:
        tuned(bert, tmp_path / "out", "0%", labelled)
    assert "rtn in blocks of 16" in str(error.value)
    assert not (tmp_path / "out-neural-compressor").exists()


@pytest.mark.parametrize(
    ("value", "loss"), [(1.0, 0.0), (0.98, 0.02), (float("nan"), float("inf"))], ids=["same", "worse", "nan"]
)
def test_loss_of_a_metric_that_should_be_high(value: float, loss: float) -> None:
    judged = Judge(get_metric("accuracy"), None, 0.01)  # type: ignore[arg-type]
    assert judged.loss(value, 1.0) == pytest.approx(loss)


def test_loss_of_a_metric_that_should_be_low() -> None:
    judged = Judge(get_metric("perplexity"), None, 0.01)  # type: ignore[arg-type]
    assert judged.loss(51.0, 50.0) == pytest.approx(0.02)
    assert judged.loss(49.0, 50.0) == pytest.approx(-0.02)


def test_refusals(bert: Path, labelled: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="evaluation data"):
        tuned(bert, tmp_path / "a", "1%", None)
    with pytest.raises(UsageError, match="has no value of it"):
        tuned(bert, tmp_path / "b", "1%", labelled, autotune_metric="sqnr")
    with pytest.raises(ConfigError, match="Write a percentage"):
        tuned(bert, tmp_path / "c", "0.01", labelled)
    with pytest.raises(ConfigError, match="every method"):
        tuned(bert, tmp_path / "d", "1%", labelled, method="awq")
    with pytest.raises(ConfigError, match="without autotune"):
        compiled(bert, tmp_path / "e", target_options={"autotune_metric": "f1"})
