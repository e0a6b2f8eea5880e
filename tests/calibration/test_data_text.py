from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeq.calibration.data import DataOptions, open_data
from edgeq.calibration.preprocess import PRESETS
from edgeq.calibration.types import Batch, DataSource
from edgeq.errors import DataError, UsageError
from tests.support.data_files import spec, text_inputs, write_tokenizer

BERT = text_inputs("input_ids", "attention_mask", "token_type_ids")


def opened(tmp_path: Path, name: str, content: str, inputs: Any = None, **options: Any) -> DataSource:
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    options.setdefault("tokenizer", write_tokenizer(tmp_path))
    return open_data(path, inputs or BERT, options=DataOptions(**options))


def only(source: DataSource) -> Batch:
    (batch,) = source.batches(100)
    return batch


def labels_of(source: DataSource) -> list[int]:
    labels = only(source).labels
    assert labels is not None
    return [int(label) for label in labels]


def message(tmp_path: Path, name: str, content: str, inputs: Any = None, **options: Any) -> str:
    with pytest.raises((DataError, UsageError)) as error:
        list(opened(tmp_path, name, content, inputs, **options).batches(2))
    return str(error.value).replace(str(tmp_path), "ROOT")


SINGLE = {
    "no_header.tsv": 'a b "\t0\nc\t1\n',
    "header.tsv": 'sentence\tlabel\na b "\t0\nc\t1\n',
    "header.csv": 'id,text,label\n7,"a b """,0\n8,c,1\n',
    "no_header.csv": '"a b """,0\nc,1\n',
    "rows.jsonl": '{"text": "a b \\"", "label": 0}\n\n{"label": 1, "text": "c"}\n',
}


@pytest.mark.parametrize("name", sorted(SINGLE))
def test_files_of_one_text(tmp_path: Path, name: str) -> None:
    source = opened(tmp_path, name, SINGLE[name])
    batch = only(source)
    assert batch.inputs["input_ids"].tolist() == [[1, 4, 5, 3, 2], [1, 6, 2, 0, 0]]
    assert batch.inputs["attention_mask"].tolist() == [[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]
    assert batch.inputs["token_type_ids"].tolist() == [[0] * 5] * 2
    assert labels_of(source) == [0, 1]
    assert (source.size, source.task) == (2, "classification")
    json.dumps(source.describe())


PAIRS = {
    "no_header.tsv": "a\tb c\t1\n",
    "header.tsv": "idx\tsentence1\tsentence2\tlabel\n0\ta\tb c\t1\n",
    "rows.jsonl": '{"premise": "a", "hypothesis": "b c", "label": 1}\n',
}


@pytest.mark.parametrize("name", sorted(PAIRS))
def test_pairs(tmp_path: Path, name: str) -> None:
    batch = only(opened(tmp_path, name, PAIRS[name]))
    assert batch.inputs["input_ids"].tolist() == [[1, 4, 2, 5, 6, 2]]
    assert batch.inputs["token_type_ids"].tolist() == [[0, 0, 0, 1, 1, 1]]


def test_texts_without_labels(tmp_path: Path) -> None:
    source = opened(tmp_path, "d.tsv", "a b\nc\n")
    assert (source.size, source.has_labels, source.task) == (2, False, "unknown")
    assert only(source).labels is None


def test_declared_columns_and_names_of_classes(tmp_path: Path) -> None:
    content = "mood,who,words\npos,x,a b\nneg,y,c\npos,z,d\n"
    source = opened(tmp_path, "d.csv", content, text=("words",), labels="mood")
    assert labels_of(source) == [1, 0, 1]
    assert source.describe()["classes"] == ["neg", "pos"]
    declared = opened(tmp_path, "d.csv", content, text=("words",), labels="mood", classes=("pos", "neg"))
    assert labels_of(declared) == [0, 1, 0]


def test_regression_targets(tmp_path: Path) -> None:
    source = opened(tmp_path, "d.tsv", "sentence\tlabel\na\t2.5\nb\t3\n")
    labels = only(source).labels
    assert labels is not None
    assert labels.tolist() == [2.5, 3.0]
    assert source.task == "unknown"


def test_limit_spreads_and_stays_paired_with_labels(tmp_path: Path) -> None:
    content = "".join(f"{word}\t{i}\n" for i, word in enumerate("abcdefghij"))
    source = opened(tmp_path, "d.tsv", content)
    batches = list(source.batches(2, limit=3))
    assert [b.labels.tolist() for b in batches if b.labels is not None] == [[0, 3], [6]]
    assert [b.inputs["input_ids"][:, 1].tolist() for b in batches] == [[4, 7], [10]]


@pytest.mark.parametrize(
    ("inputs", "options", "width"),
    [
        (text_inputs("input_ids"), {}, 6),
        (text_inputs("input_ids"), {"max_length": 4}, 4),
        (text_inputs("input_ids"), {"max_length": 9, "padding": "max_length"}, 9),
        (text_inputs("input_ids", tokens=7), {}, 7),
        (text_inputs("input_ids", tokens=3), {}, 3),
    ],
)
def test_length(tmp_path: Path, inputs: Any, options: Any, width: int) -> None:
    batch = only(opened(tmp_path, "d.tsv", "a b c d\t1\nc\t0\n", inputs, **options))
    assert batch.inputs["input_ids"].shape == (2, width)
    assert batch.inputs["input_ids"][0, 0] == 1


def test_other_inputs_of_text_models(tmp_path: Path) -> None:
    inputs = [
        spec("tokens", ("N", "T"), "i4"),
        spec("position_ids", ("N", "T"), "i8"),
        spec("past_key_values.0.key", ("N", 2, "P", 8), "f4"),
        spec("use_cache_branch", (1,), "?"),
    ]
    batch = only(opened(tmp_path, "d.tsv", "a b\nc\n", inputs, columns={"tokens": "input_ids"}))
    assert batch.inputs["tokens"].dtype == np.int32
    assert batch.inputs["position_ids"].tolist() == [[0, 1, 2, 3]] * 2
    assert batch.inputs["past_key_values.0.key"].shape == (2, 2, 0, 8)
    assert batch.inputs["use_cache_branch"].tolist() == [False]


def test_padding_without_a_mask_is_said(tmp_path: Path) -> None:
    source = opened(tmp_path, "d.tsv", "a b\nc\n", text_inputs("input_ids"))
    only(source)
    assert source.describe()["notes"] == [
        "The model has no attention_mask, so it also reads the padding of shorter texts."
    ]


def test_folder_and_limits_of_the_tokenizer(tmp_path: Path) -> None:
    write_tokenizer(tmp_path / "model")
    config = {"model_max_length": 3, "pad_token": {"content": "j"}}
    (tmp_path / "model" / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    batch = only(opened(tmp_path, "d.tsv", "a b c\n\n\td\n", tokenizer=tmp_path / "model"))
    assert batch.inputs["input_ids"].tolist()[0] == [1, 4, 2]
    assert batch.inputs["input_ids"].shape[1] == 3


def test_missing_tokenizer(tmp_path: Path) -> None:
    assert message(tmp_path, "d.tsv", "a\n", tokenizer=None) == (
        "ROOT/d.tsv is text and needs a tokenizer, and none was given. "
        "Set the option tokenizer to a tokenizer.json or the folder of the Hugging Face model."
    )
    assert message(tmp_path, "d.tsv", "a\n", tokenizer=tmp_path / "no") == (
        "The tokenizer ROOT/no does not exist, which ROOT/d.tsv is read with. "
        "Set the option tokenizer to a tokenizer.json or the folder of the Hugging Face model."
    )


def test_file_that_is_no_tokenizer(tmp_path: Path) -> None:
    for content in ("{", '{"a": {}}', '{"version": "1.0"}'):
        (tmp_path / "bad.json").write_text(content, encoding="utf-8")
        text = message(tmp_path, "d.tsv", "a\n", tokenizer=tmp_path / "bad.json")
        assert text.startswith("ROOT/bad.json is no tokenizer: ")
    (tmp_path / "bad.json").write_text('{"ab": 1}', encoding="utf-8")
    assert message(tmp_path, "d.tsv", "a\n", tokenizer=tmp_path / "bad.json") == (
        "ROOT/bad.json is a vocabulary whose key 'ab' is no single character. "
        "Give a tokenizer.json for tokens of several characters."
    )


def test_folder_without_a_tokenizer(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert message(tmp_path, "d.tsv", "a\n", tokenizer=tmp_path / "empty") == (
        "ROOT/empty holds no tokenizer. Give a tokenizer.json or the folder of the Hugging Face model."
    )
    (tmp_path / "empty" / "vocab.txt").write_text("a", encoding="utf-8")
    text = message(tmp_path, "d.tsv", "a\n", tokenizer=tmp_path / "empty")
    assert text.startswith("ROOT/empty holds no tokenizer that can be read: ")


def test_slow_tokenizer_of_transformers(tmp_path: Path) -> None:
    folder = tmp_path / "slow"
    folder.mkdir()
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b"]
    (folder / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}', encoding="utf-8")
    batch = only(opened(tmp_path, "d.tsv", "a\tb\t1\nb\ta b\t0\n", tokenizer=folder))
    assert batch.inputs["input_ids"].tolist() == [[2, 5, 3, 6, 3, 0], [2, 6, 3, 5, 6, 3]]
    assert batch.inputs["token_type_ids"].tolist() == [[0, 0, 0, 1, 1, 0], [0, 0, 0, 1, 1, 1]]


@pytest.mark.parametrize(
    ("name", "content", "options", "expected"),
    [
        ("d.tsv", "", {}, "ROOT/d.tsv holds no rows. Give at least one row of text."),
        ("d.tsv", "sentence\tlabel\n", {}, "ROOT/d.tsv holds no rows. Give at least one row of text."),
        ("d.tsv", "sentence\tlabel\na\t1\nb\n", {},
         "ROOT/d.tsv, line 3: column 'label' is missing. Complete the row."),
        ("d.csv", "one,two\na,b\n", {"header": True},
         "ROOT/d.csv: cannot tell which column is the text; its columns are: one, two. "
         "Name it with the option text."),
        ("d.csv", "text,label\na,1\n", {"labels": "mood"},
         "ROOT/d.csv has no label column 'mood'; its columns are: text, label. Correct the option labels."),
        ("d.csv", "text,label\na,1\n", {"text": ("words",)},
         "ROOT/d.csv has no text column 'words'; its columns are: text. Correct the option text."),
        ("d.tsv", "a\t-1\n", {}, "ROOT/d.tsv: label -1 is negative. Labels count from 0."),
        ("d.jsonl", "[1]\n", {}, "ROOT/d.jsonl, line 1: no JSON object. Write one object per line."),
        ("d.jsonl", '{"text": "a"}\n', {"header": True},
         "ROOT/d.jsonl is JSONL, which has no header. Leave header out."),
        ("d.tsv", "a\n", {"window": 4},
         "The option window has no effect on data of kind text (ROOT/d.tsv). Leave it out."),
    ],
)  # fmt: skip
def test_bad_tables(tmp_path: Path, name: str, content: str, options: Any, expected: str) -> None:
    assert message(tmp_path, name, content, **options) == expected


def test_broken_json_names_the_line(tmp_path: Path) -> None:
    text = message(tmp_path, "d.jsonl", '{"text": "a"}\n{"text":\n')
    assert text.startswith("ROOT/d.jsonl, line 2: no JSON: ")


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    for name in ("d.tsv", "d.jsonl", "d.txt"):
        (tmp_path / name).write_bytes(b"\xff\xfe\x00\x81 a\n")
        with pytest.raises(DataError, match=rf"{name} cannot be read: "):
            open_data(tmp_path / name, BERT, options=DataOptions(tokenizer=write_tokenizer(tmp_path)))


def test_input_that_text_cannot_fill(tmp_path: Path) -> None:
    inputs = [*BERT, spec("pixel_values", ("N", 3, 8, 8))]
    assert message(tmp_path, "d.tsv", "a\n", inputs) == (
        "Text cannot fill the model's input 'pixel_values' [N, 3, 8, 8] float32. "
        "Text fills input_ids, attention_mask, token_type_ids, position_ids and past_key_values; "
        "map other names with the option columns, or give arrays (.npz)."
    )


def test_cache_of_fixed_length(tmp_path: Path) -> None:
    inputs = [*BERT, spec("past_key_values.0.key", ("N", 2, 16, 8))]
    assert message(tmp_path, "d.tsv", "a\n", inputs) == (
        "The cache input 'past_key_values.0.key' is fixed to [N, 2, 16, 8] and cannot be empty. "
        "Export the model with a dynamic cache length, or without cache."
    )


def test_preprocessing_of_text(tmp_path: Path) -> None:
    (tmp_path / "d.txt").write_text("a", encoding="utf-8")
    with pytest.raises(DataError, match="is text, which takes no preprocessing"):
        open_data(tmp_path / "d.txt", BERT, preprocessing=PRESETS["unit"])


# Running text for language models.

LM = text_inputs("input_ids", "attention_mask", "position_ids")
TEXT = "a b c d\ne f g h\n\ni j\n"


def test_windows_without_overlap(tmp_path: Path) -> None:
    source = opened(tmp_path, "d.txt", TEXT, LM, window=4)
    batch = only(source)
    assert batch.inputs["input_ids"].tolist() == [[4, 5, 6, 7], [8, 9, 10, 11]]
    assert batch.inputs["attention_mask"].tolist() == [[1] * 4] * 2
    assert batch.inputs["position_ids"].tolist() == [[0, 1, 2, 3]] * 2
    assert (source.size, source.has_labels, source.task) == (2, False, "language-model")
    assert source.describe()["tokens"] == 10


@pytest.mark.parametrize(
    ("options", "first_tokens"),
    [
        ({"window": 4, "stride": 2}, [4, 6, 8, 10]),
        ({"window": 4, "max_tokens": 7}, [4]),
        ({"window": 2, "max_tokens": 6, "stride": 3}, [4, 7]),
        ({"window": 10}, [4]),
    ],
)
def test_windows(tmp_path: Path, options: Any, first_tokens: list[int]) -> None:
    source = opened(tmp_path, "d.txt", TEXT, LM, **options)
    batch = only(source)
    assert batch.inputs["input_ids"][:, 0].tolist() == first_tokens
    assert source.size == len(first_tokens)


def test_short_text_is_one_short_window_and_said(tmp_path: Path) -> None:
    source = opened(tmp_path, "d.txt", TEXT, LM)
    assert only(source).inputs["input_ids"].shape == (1, 10)
    assert "holds fewer than 256 tokens: one shorter window." in source.describe()["notes"][0]


def test_window_of_the_model(tmp_path: Path) -> None:
    fixed = text_inputs("input_ids", tokens=5)
    assert only(opened(tmp_path, "d.txt", TEXT, fixed)).inputs["input_ids"].shape == (2, 5)
    assert message(tmp_path, "d.txt", TEXT, fixed, window=4) == (
        "The option window is 4, but the model reads exactly 5 tokens. Leave it out or set it to 5."
    )


@pytest.mark.parametrize(("content", "options"), [("", {}), ("a", {}), (TEXT, {"window": 11})])
def test_too_little_text(tmp_path: Path, content: str, options: Any) -> None:
    text = message(tmp_path, "d.txt", content, LM, **options)
    assert text.endswith("Give more text or a smaller window.")
    assert "tokens, fewer than one window of" in text


def test_long_text_is_encoded_in_blocks_like_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgeq.calibration.data import running_text

    content = "a b c\nd e\n" * 40
    whole = only(opened(tmp_path, "d.txt", content, LM, window=10)).inputs["input_ids"]
    monkeypatch.setattr(running_text, "BLOCK", 32)
    blocks = only(opened(tmp_path, "d.txt", content, LM, window=10)).inputs["input_ids"]
    np.testing.assert_array_equal(whole, blocks)


def test_character_vocabulary(tmp_path: Path) -> None:
    (tmp_path / "v.json").write_text('{"a": 0, "b": 1, "\\n": 2}', encoding="utf-8")
    source = opened(
        tmp_path, "d.txt", "ab\nba", [spec("ids", ("N", "T"), "i8")], tokenizer=tmp_path / "v.json"
    )
    assert only(source).inputs["ids"].tolist() == [[0, 1, 2, 1, 0]]
    text = message(tmp_path, "d.txt", "abc", [spec("ids", ("N", "T"), "i8")], tokenizer=tmp_path / "v.json")
    assert text == (
        "The text holds the character 'c', which is not in ROOT/v.json. "
        "Remove it from the text, or give the model's own vocabulary."
    )
