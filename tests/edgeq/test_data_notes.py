"""Text that does nothing, and text that is judged on what was fitted to it, are said."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import edgeq
from edgeq.benchmarks.options import BenchOptions
from edgeq.calibration.data import DataOptions
from edgeq.compiler.recipe import Recipe
from edgeq.data_notes import SAME_TEXT, same_text_note, unread_note
from edgeq.manifest import Manifest
from edgeq.result import CompileResult
from edgeq.targets.registry import get_target
from tests.support.compared_llama import llama_workspace

pytest.importorskip("transformers")

UNREAD = "The calibration text has no part in the weights: "
OPTIONS = DataOptions(window=64, max_tokens=1024)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return llama_workspace(tmp_path_factory.mktemp("llama"))


def compiled(work: Path, method: str, evaluation: str | None) -> CompileResult:
    recipe = Recipe(scheme="int4-weight", block_size=32, weight_method=method, calibration_samples=4)  # type: ignore[arg-type]
    if method == "rtn":
        recipe = Recipe(scheme="int4-weight", block_size=32)
    return edgeq.compile(
        str(work / "llama"),
        target="hf-gptq",
        recipe=recipe,
        calibration=work / "calibration.txt",
        evaluation=work / evaluation if evaluation else None,
        data_options=OPTIONS,
        output=work / f"out/{method}",
        metrics=("perplexity",) if evaluation else (),
        bench=BenchOptions(parts=("accuracy",)) if evaluation else None,
    )


def notes(result: CompileResult) -> list[str]:
    return [*result.manifest.notes, *result.measurements.notes]


def test_text_that_is_judged_on_what_was_fitted_to_it(work: Path) -> None:
    (work / "copy.txt").write_bytes((work / "calibration.txt").read_bytes())
    found = compiled(work, "gptq", "copy.txt")
    assert SAME_TEXT in notes(found)
    assert SAME_TEXT in (found.folder / "report.html").read_text(encoding="utf-8")
    assert SAME_TEXT in json.loads((found.folder / "edgeq.json").read_text())["measured"]["notes"]


def test_text_that_does_nothing(work: Path) -> None:
    found = compiled(work, "rtn", None)
    assert [note for note in Manifest.read(found.folder).notes if note.startswith(UNREAD)] == [
        f"{UNREAD}rounding to nearest needs none (of the methods here, gptq and awq learn from text)."
    ]


def test_who_is_judged_on_it() -> None:
    gptq = Recipe(scheme="int4-weight", weight_method="gptq")
    text, other, unknown = {"sha256": "a"}, {"sha256": "b"}, {"sha256": None}
    capabilities = get_target("hf-gptq").capabilities()
    assert same_text_note(gptq, capabilities, text, text) == SAME_TEXT
    assert same_text_note(gptq, capabilities, text, other) is None
    assert same_text_note(gptq, capabilities, unknown, unknown) is None
    assert same_text_note(gptq, capabilities, None, text) is None
    assert same_text_note(Recipe(scheme="int4-weight"), capabilities, text, text) is None


@pytest.mark.parametrize(
    ("target", "scheme", "options", "unread"),
    [
        ("bnb-nf4", "nf4-weight", {}, True),
        ("gguf", "int4-weight", {}, True),
        ("gguf", "fp16", {}, True),
        ("gguf", "int4-weight", {"type": "q4_k_m"}, False),
        ("onnxruntime", "int8-static", {}, False),
    ],
)
def test_who_reads_it(target: str, scheme: str, options: dict[str, str], unread: bool) -> None:
    chosen, recipe = get_target(target), Recipe(scheme=scheme)  # type: ignore[arg-type]
    capabilities = chosen.capabilities(chosen.options(options, recipe))
    assert (unread_note(recipe, capabilities, {"sha256": "a"}) is not None) == unread
    assert unread_note(recipe, capabilities, None) is None
