"""Data whose optional package is not installed: the message names the one command that installs it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from edgeq.calibration.data import DataOptions, open_data
from edgeq.errors import MissingExtraError
from tests.support.data_files import spec, text_inputs, write_image, write_tokenizer


def without(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    """Make ``import package`` fail as it does where the package is not installed."""
    for name in [n for n in sys.modules if n == package or n.startswith(package + ".")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)


def test_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_image(tmp_path / "a.png")
    without(monkeypatch, "PIL")
    with pytest.raises(MissingExtraError) as error:
        open_data(tmp_path, [spec()])
    assert str(error.value) == (
        "Reading images needs an optional dependency that is not installed. "
        "Install it with: pip install 'edgeq[image]'"
    )


def test_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = write_tokenizer(tmp_path)
    (tmp_path / "d.tsv").write_text("a\n", encoding="utf-8")
    without(monkeypatch, "tokenizers")
    with pytest.raises(MissingExtraError, match=r"edgeq\[text\]"):
        open_data(tmp_path / "d.tsv", text_inputs("input_ids"), options=DataOptions(tokenizer=tokenizer))


def test_slow_tokenizer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "vocab.txt").write_text("[UNK]\n", encoding="utf-8")
    (tmp_path / "d.tsv").write_text("a\n", encoding="utf-8")
    without(monkeypatch, "transformers")
    with pytest.raises(MissingExtraError, match=r"edgeq\[hf\]"):
        open_data(tmp_path / "d.tsv", text_inputs("input_ids"), options=DataOptions(tokenizer=tmp_path))


@pytest.mark.parametrize("name", ["d.parquet", "saved/state.json"])
def test_parquet_and_datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text('{"_data_files": [{"filename": "data.arrow"}]}', encoding="utf-8")
    without(monkeypatch, "pyarrow")
    with pytest.raises(MissingExtraError, match=r"edgeq\[parquet\]"):
        open_data(tmp_path / name.split("/")[0], [spec()])
