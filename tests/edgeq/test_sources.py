"""Data is opened with the model's tokenizer: where the model is gone, with the one that its artefact has."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from edgeq.calibration.data import DataOptions
from edgeq.calibration.types import DataSource
from edgeq.compiler.load.checkpoint import load_checkpoint
from edgeq.errors import DataError
from edgeq.progress import SilentProgress
from edgeq.proof import find_baseline
from edgeq.sources import DataOpener
from edgeq.targets.language.companions import copy_companions
from tests.support.compared_llama import llama_workspace

pytest.importorskip("transformers")


def test_the_artefacts_tokenizer_when_the_model_is_gone(tmp_path: Path) -> None:
    work = llama_workspace(tmp_path)
    model = load_checkpoint(work / "llama", SilentProgress())
    artefact, bare = work / "artefact", work / "bare"
    for folder in (artefact, bare):
        folder.mkdir()
    copy_companions(work / "llama", artefact)

    def opened(artefact: Path) -> DataSource | None:
        options = DataOptions(window=64)
        opener = DataOpener(model.inputs, model.source, None, options, artefact=artefact)
        return opener.open(work / "evaluation.txt")

    before = opened(artefact)
    assert before is not None
    described = before.describe()
    assert described["tokenizer"] == str(work / "llama" / "tokenizer.json")
    shutil.rmtree(work / "llama")
    after = opened(artefact)
    assert after is not None
    assert after.describe() == {**described, "tokenizer": str(artefact / "tokenizer.json")}
    with pytest.raises(
        DataError, match=r"llama does not exist, which .*evaluation.txt is read with"
    ) as caught:
        opened(bare)
    assert caught.value.fix is not None
    assert "Set the option tokenizer" in caught.value.fix
    assert find_baseline(model.source, None, SilentProgress()) == (
        None,
        f"No FP32 baseline: {work / 'llama'}, which was compiled, is not there any more.",
    )
